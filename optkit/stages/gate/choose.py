"""Which row of a measurement is judged, and which one it is compared with: before it is made, and of a finished one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optkit.core.errors import InputError, UsageError, closest
from optkit.stages.gate.measured import Row

if TYPE_CHECKING:
    from optkit.stages.gate.config import Config


def choose(rows: Sequence[Row], models: Mapping[str, str], config: Config) -> tuple[Row, Row | None]:
    """The candidate and its baseline, None where no limit needs one.

    `models` says what each row's name stands for (a path, a step); a model may be named either way. UsageError, which
    lists them, where several rows could be meant.
    """
    usable = [row for row in rows if row.computes]
    if not usable:
        raise InputError("The measurement has no model.", hint="Measure again, with `optkit bench`.")
    candidate, baseline = _judged([row.name for row in usable], models, config)
    own, others = ([row for row in usable if row.name == name] for name in (candidate, baseline))
    if not config.compares:
        runtime = _known(config.runtime, own) or _one_of(_runtimes(own), "runtime")
        return _at_batch(own, runtime, config), None
    runtime, reference = _of_one(own, config) if candidate == baseline else _of_two(own, others, config)
    chosen = _at_batch(own, runtime, config)
    return chosen, next(row for row in others if row.runtime == reference and row.batch == chosen.batch)


def _judged(names: Sequence[str], models: Mapping[str, str], config: Config) -> tuple[str, str]:
    """Names of the candidate and the baseline among those measured; they may be the same one."""
    names = list(dict.fromkeys(names))
    baseline = _named(config.baseline, names, models, "baseline") or names[0]
    candidate = _named(config.candidate, names, models, "candidate")
    if candidate is None:
        candidate = _one_of([name for name in names if name != baseline] or [baseline], "candidate")
    return candidate, baseline


def _named(wanted: str | None, names: Sequence[str], models: Mapping[str, str], what: str) -> str | None:
    """The model as its rows name it; it may be given so, or as it was given to the measurement."""
    if wanted is None:
        return None
    known = {_spelt(models[name]): name for name in names if name in models}
    known |= {_spelt(name): name for name in names}
    if _spelt(wanted) not in known:
        raise UsageError(
            f"The {what} {wanted!r} is not among the models measured.", hint=closest(wanted, known)
        )
    return known[_spelt(wanted)]


def _spelt(name: str) -> str:
    """A folder may be given with or without `./` and its last slash."""
    return str(Path(name))


def _of_two(own: Sequence[Row], others: Sequence[Row], config: Config) -> tuple[str, str]:
    """Runtimes of two models: the same one, where nothing else was said."""
    runtime = _known(config.runtime, own) or _one_of(_runtimes(own), "runtime")
    shared = runtime if runtime in _runtimes(others) else None
    reference = _known(config.baseline_runtime, others) or shared
    return runtime, reference or _one_of(_runtimes(others), "baseline_runtime")


def _of_one(own: Sequence[Row], config: Config) -> tuple[str, str]:
    """Two runtimes of a model that is compared with itself: the first one measured is the baseline's."""
    runtime, reference = _known(config.runtime, own), _known(config.baseline_runtime, own)
    reference = reference or next((one for one in _runtimes(own) if one != runtime), "")
    runtime = runtime or _one_of([one for one in _runtimes(own) if one != reference], "runtime")
    if not runtime or not reference or runtime == reference:
        raise UsageError(
            f"There is nothing to compare {own[0].name!r} with.",
            hint="Measure the baseline before it: `optkit gate BASELINE CANDIDATE`.",
        )
    return runtime, reference


def _at_batch(own: Sequence[Row], runtime: str, config: Config) -> Row:
    """The row whose latency is judged; any batch size will do for what does not depend on it."""
    rows = [row for row in own if row.runtime == runtime]
    if config.batch is None and not config.has("max_latency_ms", "min_speedup"):
        return rows[0]
    sizes = [row.batch for row in rows]
    if config.batch is not None and config.batch not in sizes:
        raise UsageError(
            f"Batch size {config.batch} is not measured.", hint=f"Measure it: --batch-sizes {config.batch}."
        )
    batch = config.batch or int(_one_of([str(size) for size in sizes], "batch"))
    return next(row for row in rows if row.batch == batch)


def _runtimes(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.runtime for row in rows))


def _known(wanted: str | None, rows: Sequence[Row]) -> str | None:
    if wanted is not None and wanted not in _runtimes(rows):
        raise UsageError(
            f"{rows[0].name!r} was not measured in the runtime {wanted!r}.",
            hint=closest(wanted, _runtimes(rows)),
        )
    return wanted


def _one_of(names: Sequence[str], option: str) -> str:
    """The only one ("" of none); UsageError, which lists them, where there are several."""
    if len(names) > 1:
        raise UsageError(
            f"Several could be judged: {', '.join(names)}.",
            hint=f"Say which one, with --{option.replace('_', '-')}.",
        )
    return names[0] if names else ""

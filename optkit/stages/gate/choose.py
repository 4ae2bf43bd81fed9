"""Which row of a measurement is judged, and which one it is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from optkit.core.errors import InputError, UsageError, closest
from optkit.stages.gate.config import Config, nothing_to_compare, one_of
from optkit.stages.gate.measured import Row


def choose(rows: Sequence[Row], config: Config) -> tuple[Row, Row | None]:
    """The candidate and its baseline, None where no limit needs one.

    UsageError, which lists them, where several rows could be meant.
    """
    usable = [row for row in rows if row.computes]
    if not usable:
        raise InputError("The measurement has no model.", hint="Measure again, with `optkit bench`.")
    candidate, baseline = config.judged([row.name for row in usable])
    own, others = ([row for row in usable if row.name == name] for name in (candidate, baseline))
    if not config.compares:
        runtime = _known(config.runtime, own) or one_of(_runtimes(own), "runtime")
        return _at_batch(own, runtime, config), None
    runtime, reference = _of_one(own, config) if candidate == baseline else _of_two(own, others, config)
    chosen = _at_batch(own, runtime, config)
    return chosen, next(row for row in others if row.runtime == reference and row.batch == chosen.batch)


def _of_two(own: Sequence[Row], others: Sequence[Row], config: Config) -> tuple[str, str]:
    """Runtimes of two models: the same one, where nothing else was said."""
    runtime = _known(config.runtime, own) or one_of(_runtimes(own), "runtime")
    shared = runtime if runtime in _runtimes(others) else None
    reference = _known(config.baseline_runtime, others) or shared
    return runtime, reference or one_of(_runtimes(others), "baseline_runtime")


def _of_one(own: Sequence[Row], config: Config) -> tuple[str, str]:
    """Two runtimes of a model that is compared with itself: the first one measured is the baseline's."""
    runtime, reference = _known(config.runtime, own), _known(config.baseline_runtime, own)
    reference = reference or next((one for one in _runtimes(own) if one != runtime), "")
    runtime = runtime or one_of([one for one in _runtimes(own) if one != reference], "runtime")
    if not runtime or not reference or runtime == reference:
        raise nothing_to_compare(own[0].name)
    return runtime, reference


def _at_batch(own: Sequence[Row], runtime: str, config: Config) -> Row:
    """The row whose latency is judged; any batch size will do for what does not depend on it."""
    rows = [row for row in own if row.runtime == runtime]
    if config.batch is None and not config.has("max_latency_ms", "min_speedup"):
        return rows[0]
    batch = config.batch_of([row.batch for row in rows])
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

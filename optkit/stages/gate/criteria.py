"""Each limit against what was measured: estimate, interval, verdict, and what would decide it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from optkit.core.errors import InputError
from optkit.core.score import score_interval
from optkit.measure.statistics import (
    ENOUGH,
    normal,
    paired_difference,
    paired_ratio,
    percentile_interval,
    wilson,
)
from optkit.measure.verdict import Interval, Verdict, images_to_decide, judge, seconds_to_decide
from optkit.stages.gate.case import AGAIN, WITH_IMAGES, Case, missing, paired_medians, rounds
from optkit.stages.gate.config import Config
from optkit.stages.gate.measured import Place

MIN_ROUNDS = 3  # fewer say nothing of chance
Needs = dict[str, float] | None
TOO_NEAR = (
    "the estimate is so near the limit that more than a million images or a day of timing would be needed"
)
OF_ALL = "no number of images shows that all there are agree: a limit below 1 can be shown"


@dataclass(frozen=True)
class Criterion:
    """One limit. Estimate and interval are None where the sample is too small for them; an exact figure has no
    interval. `needs` is {"images": n}, or {"seconds": s} of timing each model; None where nothing is needed or
    nothing would help. `crashed`: it failed because a process died, whatever was measured before."""

    name: str
    limit: float
    unit: str
    estimate: float | None
    interval: Interval | None
    verdict: Verdict
    needs: Needs
    text: str
    crashed: bool = False


@dataclass(frozen=True)
class Kind:
    """What a limit is on, and on which side of it is good."""

    words: str
    unit: str
    at_most: bool


KINDS = {
    "max_drop": Kind("drop of top-1", "points", at_most=True),
    "min_agreement": Kind("agreement with the baseline", "share", at_most=False),
    "max_latency_ms": Kind("latency", "ms", at_most=True),
    "min_speedup": Kind("speedup", "times", at_most=False),
    "max_bytes": Kind("size", "bytes", at_most=True),
}


@dataclass(frozen=True)
class Evidence:
    """What was measured for a limit: an estimate without interval is exact. `more()` is asked when it does not
    decide, and `never` says why nothing would."""

    estimate: float | None
    interval: Interval | None
    note: str = ""
    more: Callable[[], Needs] = lambda: None
    never: str = TOO_NEAR


def judge_all(case: Case, config: Config) -> list[Criterion]:
    """A criterion for each limit that was given; all fail where the process of the model or its baseline died."""
    if crash := case.crash():
        return [_crashed(name, limit, crash) for name, limit in config.limits.items()]
    gather: dict[str, Callable[[Case, float], Evidence]] = {
        "max_drop": _drop,
        "min_agreement": _agreement,
        "max_latency_ms": partial(_latency, label=config.latency_percentile),
        "min_speedup": _speedup,
        "max_bytes": _size,
    }
    return [
        _criterion(name, limit, gather[name](case, limit), case.confidence)
        for name, limit in config.limits.items()
    ]


def _crashed(name: str, limit: float, why: str) -> Criterion:
    kind = KINDS[name]
    return Criterion(
        name, limit, kind.unit, None, None, "fail", None, f"{kind.words} unknown: {why}", crashed=True
    )


def _criterion(name: str, limit: float, evidence: Evidence, confidence: float) -> Criterion:
    kind = KINDS[name]
    estimate, interval = evidence.estimate, evidence.interval
    bounds = (estimate, estimate) if interval is None and estimate is not None else interval
    verdict: Verdict = judge(bounds, limit, kind.at_most) if bounds else "cannot tell"
    needs = evidence.more() if verdict == "cannot tell" else None
    side = "at most" if kind.at_most else "at least"
    words = [f"{kind.words} {_figure(estimate, interval, confidence)}, {side} {_plain(limit)} {kind.unit}"]
    words += [evidence.note] if evidence.note else []
    words += [_advice(needs) if needs else evidence.never] if verdict == "cannot tell" else []
    return Criterion(name, limit, kind.unit, estimate, interval, verdict, needs, "; ".join(words))


def _figure(estimate: float | None, interval: Interval | None, confidence: float) -> str:
    if estimate is None:
        return "unknown"
    if interval is None:
        return _plain(estimate)
    return f"{_plain(estimate)} ({100 * confidence:g} %: {_plain(interval[0])} to {_plain(interval[1])})"


def _plain(value: float) -> str:
    """Four digits, and whole numbers in full."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{round(value, 4) if abs(value) < 1 else value:.4g}"


def _advice(needs: dict[str, float]) -> str:
    ((what, amount),) = needs.items()
    return f"needs about {_plain(amount)} {'images' if what == 'images' else 'seconds of timing each model'} more"


def _round_up(value: float) -> int:
    """To two digits: what the advice is worth."""
    step = int(10 ** max(0, math.floor(math.log10(value)) - 1))
    return math.ceil(value / step) * step


def _drop(case: Case, limit: float) -> Evidence:
    before, after = case.answers(case.reference()), case.answers(case.candidate)
    same = before.conditions.get("indices") == after.conditions.get("indices")
    if not same or len(before.samples) != len(after.samples):
        raise InputError(
            "The two models did not answer the same images.",
            why="The drop is taken image by image.",
            hint=WITH_IMAGES,
        )
    found = paired_difference(*(np.array(one.samples, bool).tolist() for one in (before, after)))
    z = normal(case.confidence)

    def interval(times: float) -> Interval:
        low, high = score_interval(found.lost * times, found.won * times, found.n * times, z)
        return 100 * low, 100 * high

    note = f"{found.n:,} images, {found.lost} lost and {found.won} won"
    return Evidence(
        100 * found.drop, interval(1), note, lambda: _images(interval, limit, "max_drop", found.n)
    )


def _agreement(case: Case, limit: float) -> Evidence:
    share, n = case.candidate.agreement, len(case.answers(case.candidate).samples)
    if share is None:
        raise missing(case.candidate, "agreement", "agreement with the baseline", WITH_IMAGES)
    _check_agreement(case)
    z = normal(case.confidence)

    def interval(times: float) -> Interval:
        return wilson(share * n * times, n * times, z)

    return Evidence(
        share,
        interval(1),
        f"{n:,} images",
        lambda: _images(interval, limit, "min_agreement", n),
        OF_ALL if limit == 1 else TOO_NEAR,
    )


def _check_agreement(case: Case) -> None:
    """InputError unless the candidate's answers were compared with those of this baseline, in its runtime."""
    baseline, measured_with = case.reference(), case.candidate.agreement_with
    wanted = Place(name=baseline.name, runtime=baseline.runtime)
    if measured_with == wanted:
        return
    is_itself = measured_with == Place(name=case.candidate.name, runtime=case.candidate.runtime)
    hint = (
        f"Measure again, with {baseline.name} as the first model and {baseline.runtime} as the first runtime"
    )
    if measured_with and not is_itself:
        hint += f", or judge against {measured_with}: --baseline {shlex.quote(measured_with.name)} "
        hint += f"--baseline-runtime {measured_with.runtime}"
    other = "itself" if is_itself else measured_with or "a model that the measurement does not name"
    raise InputError(
        f"The agreement of {case.candidate} was measured with {other}, not with {wanted}.",
        why="It is measured with the first model whose answers are known.",
        hint=f"{hint}.",
    )


def _images(interval: Callable[[float], Interval], limit: float, name: str, n: int) -> Needs:
    more = images_to_decide(interval, limit, KINDS[name].at_most, n)
    return {"images": _round_up(more)} if more else None


def _latency(case: Case, limit: float, label: str) -> Evidence:
    latency = case.latency(case.candidate)
    calls, seconds = latency.samples, case.seconds()
    percent = float(label[1:])
    interval = percentile_interval(calls, rounds(latency), percent, case.confidence)
    if interval is None or len(calls) < ENOUGH[label]:
        times = max(ENOUGH[label] / len(calls), 2.0 if interval is None else 1.0)
        note = f"{label} needs {ENOUGH[label]:,} calls, has {len(calls):,}"
        if len(calls) >= ENOUGH[label]:
            note = f"{label}: {len(calls):,} calls do not reach, as those of one round are alike"
        return Evidence(None, None, note, lambda: {"seconds": _round_up(max(1.0, seconds * (times - 1)))})
    estimate = float(np.percentile(calls, percent, method="inverted_cdf"))
    return Evidence(
        estimate,
        interval,
        f"{label} of {len(calls):,} calls",
        lambda: _seconds(estimate, interval, limit, seconds),
    )


def _speedup(case: Case, limit: float) -> Evidence:
    candidate, baseline = paired_medians(*(case.latency(row) for row in (case.candidate, case.reference())))
    if not len(candidate):
        raise InputError(
            f"{case.candidate} and {case.reference()} were not timed in the same rounds.",
            why="Latencies are compared round by round.",
            hint=AGAIN,
        )
    if len(candidate) < MIN_ROUNDS:
        seconds = max(1.0, case.seconds() * (2 * MIN_ROUNDS / len(candidate) - 1))
        return Evidence(
            None, None, f"{len(candidate)} rounds say nothing", lambda: {"seconds": _round_up(seconds)}
        )
    ratio = paired_ratio(baseline, candidate, case.confidence)
    note = f"over {case.reference()}, {len(candidate)} rounds side by side"
    logs = math.log(ratio.value), (math.log(ratio.low), math.log(ratio.high)), math.log(limit)
    return Evidence(ratio.value, (ratio.low, ratio.high), note, lambda: _seconds(*logs, case.seconds()))


def _seconds(estimate: float, interval: Interval, limit: float, seconds: float) -> Needs:
    more = seconds_to_decide(estimate, interval, limit, seconds)
    return None if more is None else {"seconds": _round_up(max(1.0, more))}


def _size(case: Case, limit: float) -> Evidence:
    if case.candidate.size_bytes is None:
        raise missing(case.candidate, "size_bytes", "size", AGAIN)
    return Evidence(float(case.candidate.size_bytes), None)

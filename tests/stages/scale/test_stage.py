from __future__ import annotations

import math

import pytest

from optkit.core.errors import UsageError
from optkit.core.progress import SilentReporter
from optkit.core.types import Context
from optkit.models.scaling import Coefficients
from optkit.stages.scale import budget as budget_module
from optkit.stages.scale.budget import largest_phi
from optkit.stages.scale.candidates import grid
from optkit.stages.scale.config import Config
from optkit.stages.scale.stage import check, run

SMALL = {"base": "lite0", "size": 32, "num_classes": 4}


def chosen(context: Context, **options: object) -> dict[str, object]:
    return run(Config(**(SMALL | options)), {}, context).details["chosen"]


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the defaults choose."""
    return chosen(Context(tmp_path_factory.mktemp("work"), SilentReporter()))


def test_the_papers_coefficients(context) -> None:
    output = run(Config(phi=1), {}, context)
    found = output.details["chosen"]
    assert found["arch"] == "b0-d1.20-w1.10-r256"
    assert found["predicted_ratio"] == 2
    assert found["macs_ratio"] == found["macs"] / output.details["base"]["macs"]
    assert output.details["base"]["macs"] / 1e9 == pytest.approx(0.386, abs=1e-3)
    assert output.metrics["macs"] == found["macs"]


@pytest.mark.parametrize(
    ("option", "value", "changed"),
    [
        ("phi", 3.0, "depth"),
        ("alpha", 1.5, "depth"),
        ("beta", 1.3, "width"),
        ("gamma", 1.4, "size"),
        ("size", 64, "size"),
        ("base", "b0", "arch"),
        ("num_classes", 9, "params"),
    ],
)
def test_every_option_changes_the_network(
    context, default: dict[str, object], option: str, value: object, changed: str
) -> None:
    assert chosen(context, **{option: value})[changed] != default[changed]


def test_the_search_ranks_by_how_near_the_macs_are_to_twice_the_bases(context) -> None:
    output = run(Config(**SMALL, search=True, step=0.4, tolerance=0.1), {}, context)
    rows = output.details["candidates"]
    distances = [abs(row["macs_ratio"] - 2) for row in rows]
    assert distances == sorted(distances)
    assert len(rows) == 3
    assert output.details["chosen"]["arch"] == rows[0]["arch"]
    assert any("cannot tell" in warning for warning in context.reporter.warnings)


def test_the_grid() -> None:
    given = Coefficients(1.2, 1.1, 1.15)
    found = grid(given, 0.1, 0.1)
    assert found[0] == given
    assert all(abs(point.growth - 2) <= 0.1 and min(vars(point).values()) >= 1 for point in found)
    assert len(grid(given, 0.1, 0.05)) < len(found) < len(grid(given, 0.05, 0.1))
    assert len(found) == len(set(found))


def test_candidates_are_ranked_by_a_short_training(context) -> None:
    options = {"data": "synthetic", "train": {"epochs": 1, "batch_size": 64}, "step": 0.4, "candidates": 2}
    output = run(Config(**SMALL, search=True, rank_by="training", **options), {}, context)
    rows = output.details["candidates"]
    assert ["top1" in row for row in rows] == [True, True, False]
    assert rows[0]["top1"] >= rows[1]["top1"]
    low, high = rows[0]["top1_interval"]
    assert low <= rows[0]["top1"] <= high
    assert rows[0]["n"] > 0
    assert output.details["chosen"]["arch"] == rows[0]["arch"]
    assert list(context.workdir.iterdir()) == []


def test_the_largest_phi_within_macs(context) -> None:
    output = run(Config(**SMALL, max_macs=0.012), {}, context)
    best, trials = output.details["chosen"], output.details["trials"]
    assert best["macs"] <= 0.012e9
    above = [row for row in trials if row["macs"] > 0.012e9]
    assert min(row["phi"] for row in above) == pytest.approx(best["phi"] + 0.05)


def test_the_largest_phi_within_a_latency(context) -> None:
    config = Config(**SMALL, max_latency_ms=10_000, max_macs=0.0083, seconds=0.05)
    output = run(config, {}, context)
    assert output.details["chosen"]["latency_ms"] > 0
    assert output.measurements[0].unit == "ms"
    assert output.measurements[0].conditions["model"] == output.details["chosen"]["arch"]
    with pytest.raises(UsageError, match="too small"):
        run(Config(**SMALL, max_latency_ms=1e-6, seconds=0.05), {}, context)


def test_seconds_are_how_long_is_measured(context) -> None:
    config = Config(**SMALL, seconds=0.05)
    few = budget_module.time_arch("lite0-d1-w1-r32", 32, config, context)
    many = budget_module.time_arch("lite0-d1-w1-r32", 32, config.model_copy(update={"seconds": 1.0}), context)
    assert len(many.samples) > len(few.samples)


def test_a_budget_beyond_what_is_built_is_said(context) -> None:
    config = Config(**SMALL, alpha=1, beta=1, gamma=4, max_macs=1e6)
    found = run(config, {}, context).details["chosen"]
    assert found["size"] <= 4096
    assert found["phi"] == 3.5
    assert any("16 to 4096 pixels" in warning for warning in context.reporter.warnings)


def test_a_budget_below_the_base_is_refused(context) -> None:
    with pytest.raises(UsageError, match="too small for 'lite0'") as caught:
        run(Config(**SMALL, max_macs=1e-4), {}, context)
    assert "at 32 px" in caught.value.why


@pytest.mark.parametrize("limit", [0.0, 0.05, 0.95, 1.0, 2.35, 9.95, 10.0, 99.0])
def test_largest_phi(limit: float) -> None:
    assert largest_phi(lambda phi: phi <= limit + 1e-9) == pytest.approx(min(limit, 10))


def test_no_phi_fits() -> None:
    assert largest_phi(lambda phi: False) is None
    assert math.isclose(largest_phi(lambda phi: phi <= 0) or 0.0, 0.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"phi": 1, "max_macs": 2}, "budget"),
        ({"rank_by": "training", "data": "synthetic"}, "nothing to rank"),
        ({"rank_by": "training", "search": True}, "needs images"),
        ({"data": "synthetic"}, "Nothing is trained"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Config(**options).check()


def test_only_efficientnets_are_scaled() -> None:
    with pytest.raises(UsageError, match="resnet18"):
        check(Config(base="resnet18"))


def test_a_latency_belongs_to_its_machine() -> None:
    assert Config().environment() == {}
    assert Config(max_latency_ms=5).environment()["cpu"]

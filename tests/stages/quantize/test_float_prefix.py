"""Where INT8 begins: which places are tried, what the files hold, and which one is taken."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from optkit.core.errors import FailedError, InputError
from optkit.core.types import Context, ModelSpec, Preprocess
from optkit.graph.lint.base import examine
from optkit.graph.qdq_prepare import prepare
from optkit.graph.qdq_view import GraphView
from optkit.measure.parity import compare_logits
from optkit.stages.quantize import float_prefix
from optkit.stages.quantize.candidate import Candidate
from optkit.stages.quantize.execute import run_model
from optkit.stages.quantize.float_prefix import choose_float_prefix, cuts, with_float_prefix
from optkit.stages.quantize.placement import onnxruntime as for_onnxruntime
from optkit.stages.quantize.placement import openvino as for_openvino
from tests.small_networks import Builder, bottleneck_network, gated_network, textured_images
from tests.stages.quantize.support import calibrated, workbench
from tests.stages.quantize.test_stage import optimized_ops

SPEC = ModelSpec(arch="small", num_classes=4, class_names=tuple("abcd"), preprocess=Preprocess(size=16))
PLACEMENTS = pytest.mark.parametrize("placement", [for_onnxruntime, for_openvino])


def gated_stages() -> onnx.ModelProto:
    """Two blocks of depthwise Conv–SiLU and a squeeze-and-excitation gate, between narrow tensors."""
    b = Builder()
    x = b.silu(b.conv("input", 3, 8))
    for _ in range(2):
        x = b.silu(b.conv(x, 8, 8, groups=8))
        gate = b.silu(b.conv(b.pool(x, 1, 20), 8, 4, kernel=1))
        x = b.op("Mul", x, b.op("Sigmoid", b.conv(gate, 4, 8, kernel=1)))
        x = b.conv(x, 8, 8, kernel=1)
    weight = b.rng.standard_normal((8, 4)).astype(np.float32)
    return b.model(b.op("MatMul", b.pool(x, 0, 20), b.constant(weight)), 4, None, 20)


def candidate_of(network: onnx.ModelProto, placement: ModuleType = for_onnxruntime) -> Candidate:
    model = prepare(network)
    return calibrated(model, workbench(model, 16), placement)


def starts(candidate: Candidate, times: np.ndarray | None = None) -> list[str]:
    nodes = candidate.model.graph.node
    times = np.ones(len(nodes)) if times is None else times
    return [nodes[index].name for index in cuts(candidate, times)]


@pytest.fixture
def all_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float_prefix, "CUTS", 8)
    monkeypatch.setattr(float_prefix, "_times", lambda model, *_: np.ones(len(model.graph.node)))


@PLACEMENTS
@pytest.mark.usefixtures("all_cuts")
def test_int8_begins_at_convolutions_that_read_the_only_tensor(placement: ModuleType) -> None:
    """Not within the residual branch or the gate, and nothing is left to be gained at the first node of the plan."""
    assert starts(candidate_of(bottleneck_network(), placement)) == ["conv2", "conv3", "conv7"]
    assert starts(candidate_of(gated_network(), placement)) == []
    assert starts(candidate_of(gated_stages(), placement)) == ["conv13", "conv14", "conv24"]


def test_few_cuts_part_the_time_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float_prefix, "CUTS", 1)
    candidate = candidate_of(bottleneck_network())
    assert starts(candidate) == ["conv7"], "the nearest to the middle of equal times"
    first, third, last = np.eye(12)[[0, 2, 11]]
    assert starts(candidate, 60 * first + 50 * third) == ["conv2"]
    assert starts(candidate, 9 * third + 10 * last) == ["conv3"]


@pytest.mark.usefixtures("all_cuts")
def test_files_that_are_large_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = candidate_of(bottleneck_network())
    size = candidate.model.ByteSize()
    for room, count in ((20 * size, 3), (size, 1), (size - 1, 0)):
        monkeypatch.setattr(float_prefix, "MAX_BYTES", room)
        assert len(starts(candidate)) == count


@PLACEMENTS
@pytest.mark.usefixtures("all_cuts")
@pytest.mark.parametrize("network", [bottleneck_network, gated_stages])
def test_nothing_before_the_cut_is_rounded_and_everything_behind_it_as_before(
    placement: ModuleType, network, tmp_path: Path
) -> None:
    candidate = candidate_of(network(), placement)
    view = GraphView(candidate.model)
    target = placement.__name__.rsplit(".")[-1]
    pixels = [textured_images(8)]
    for name in starts(candidate):
        start = [node.name for node in view.nodes].index(name)
        found = with_float_prefix(candidate, view, start, "slow")
        before = {node.name for node in view.nodes[:start]}
        assert found.plan.nodes == candidate.plan.nodes - before
        new = {node for node, why in found.plan.left.items() if why == "slow"}
        assert new == candidate.plan.nodes & before
        assert found.plan.left.items() >= candidate.plan.left.items(), "what was left before keeps its reason"
        assert found.ranges.keys() == found.observed.keys() == set(found.plan.observed())

        file = found.build()
        ops = [node.op_type for node in file.graph.node]
        first_pair = ops.index("QuantizeLinear")
        assert {node.name for node in file.graph.node[:first_pair]} >= before
        assert {one.rule for one in examine(file, target).findings} <= {
            one.rule for one in examine(candidate.build(), target).findings
        }
        logits = [run_model(one, workbench(candidate.model, 8).io, pixels) for one in (candidate.model, file)]
        assert compare_logits(*logits).sqnr_db > 12
        if placement is for_onnxruntime:
            onnx.save(file, tmp_path / "m.onnx")
            convs = [node for node in view.nodes if node.op_type == "Conv"]
            integer = sum(node.name in found.plan.nodes for node in convs)
            assert (
                optimized_ops(tmp_path / "m.onnx")["QLinearConv"]
                == integer
                == len(convs) - sum(node.name in before or node.name in candidate.plan.left for node in convs)
            )


def timings(monkeypatch: pytest.MonkeyPatch, first: list[float], *final: list[float]) -> list[int]:
    """Every file takes what is written, FP32 first: in the first rounds, and in each of the final ones."""
    asked: list[int] = []

    def time_rounds(sessions, spec, rounds, reporter):
        asked.append(len(sessions))
        return np.array([first, first] if len(asked) == 1 else final)

    monkeypatch.setattr(float_prefix, "cpu_runtimes", lambda: ["onnxruntime"])
    monkeypatch.setattr(float_prefix, "time_rounds", time_rounds)
    return asked


def choose(candidate: Candidate, context: Context, target: str = "onnxruntime"):
    io = workbench(candidate.model, 8).io
    return choose_float_prefix(candidate, io, SPEC, target, context)


@pytest.mark.usefixtures("all_cuts")
def test_the_fastest_is_taken_when_it_is_surely_faster(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = candidate_of(bottleneck_network())
    asked = timings(
        monkeypatch, [10.0, 9.0, 8.8, 8.0, 9.9], [10.0, 9.0, 8.1], [10.2, 9.1, 8.1], [9.9, 9, 8.2]
    )
    found, told = choose(candidate, context)
    assert asked == [5, 3], "FP32, as planned and three cuts; then the best of them beside the first two"
    assert [entry["chosen"] for entry in told] == [False, False, True, False]
    assert [entry["until"] for entry in told] == ["conv0", "conv2", "conv3", "conv7"]
    assert [entry["layers"] for entry in told] == [0, 1, 2, 4]
    assert [entry["ms"] for entry in told] == [9.0, 8.8, 8.1, 9.9], "the finalists' are those of the final"
    assert [entry["ratio"] for entry in told] == pytest.approx([0.9, 0.88, 0.81, 0.99], abs=0.01)
    assert all(entry["interval"][0] <= entry["ratio"] <= entry["interval"][1] for entry in told)
    reasons = {why for node, why in found.plan.left.items() if node not in candidate.plan.left}
    assert reasons == {
        "with the first layers in float the network is faster here (measured): 8.1 ms instead of 9 ms"
    }
    assert "conv3" in found.plan.nodes
    assert {"conv0", "conv2"}.isdisjoint(found.plan.nodes)


@pytest.mark.usefixtures("all_cuts")
def test_what_may_be_faster_by_chance_is_not_taken(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = candidate_of(bottleneck_network())
    timings(monkeypatch, [10.0, 9.0, 8.8, 8.0, 9.9], [10.0, 9.0, 8.1], [10.0, 9.0, 9.1], [10.0, 9.0, 8.2])
    found, told = choose(candidate, context)
    assert found is candidate
    assert [entry["chosen"] for entry in told] == [True, False, False, False]
    assert (told[0]["ms"], told[0]["ratio"]) == (9.0, 0.9)


@pytest.mark.usefixtures("all_cuts")
def test_the_plain_file_may_be_the_fastest(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = candidate_of(bottleneck_network())
    asked = timings(monkeypatch, [10.0, 7.0, 8.8, 8.0, 9.9], [10.0, 7.0], [10.0, 7.1])
    found, told = choose(candidate, context)
    assert found is candidate
    assert asked == [5, 2]
    assert told[0]["chosen"]


@pytest.mark.usefixtures("all_cuts")
def test_what_is_surely_slower_than_fp32_is_refused_with_its_figures(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fastest of the files that were tried: 8 ms, and FP32 takes 5."""
    candidate = candidate_of(bottleneck_network())
    final = [[5.0, 9.0, 8.0], [5.1, 9.1, 8.1], [4.9, 8.9, 7.9]]
    timings(monkeypatch, [5.0, 9.0, 8.8, 8.0, 9.9], *final)
    with pytest.raises(FailedError) as caught:
        choose(candidate, context)
    assert caught.value.exit_code == 1
    assert "SLOWER THAN FP32 HERE: 1.60 times" in str(caught.value)
    assert "INT8 takes 8 ms in onnxruntime, FP32 5 ms, at batch 1 with" in str(caught.value)
    assert "the fastest of 4 files" in caught.value.why
    assert "--allow-slower" in caught.value.hint
    assert "--target" in caught.value.hint


@pytest.mark.usefixtures("all_cuts")
def test_where_the_plain_file_is_surely_slower_the_best_is_judged(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best cut may be as fast as FP32, though it is not surely faster than the plain file."""
    candidate = candidate_of(bottleneck_network())
    final = [[10.0, 10.3, 10.0], [10.0, 10.4, 10.6], [10.0, 10.5, 9.8]]
    timings(monkeypatch, [10.0, 10.4, 10.9, 10.1, 10.8], *final)
    found, told = choose(candidate, context)
    assert [entry["chosen"] for entry in told] == [False, False, True, False]
    assert found is not candidate


@pytest.mark.usefixtures("all_cuts")
def test_a_killed_run_chooses_once(context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    candidate = candidate_of(bottleneck_network())
    asked = timings(
        monkeypatch, [10.0, 9.0, 8.8, 8.0, 9.9], [10.0, 9.0, 8.1], [10.2, 9.1, 8.1], [9.9, 9, 8.2]
    )
    kept = replace(context, scratch=tmp_path)
    first, told = choose(candidate, kept)
    count = len(asked)
    second, same = choose(candidate, kept)
    assert len(asked) == count, "nothing is timed again"
    assert same == told
    assert second.plan == first.plan
    assert first.plan.left != candidate.plan.left


def test_only_what_runs_here_is_timed(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = candidate_of(bottleneck_network())
    timings(monkeypatch, [])
    assert choose(candidate, context, target="openvino") == (candidate, None)
    assert choose(candidate, context, target="tensorrt") == (candidate, None)

    def refused(*_: object) -> None:
        raise InputError("refused")

    monkeypatch.setattr(float_prefix, "time_rounds", refused)
    assert choose(candidate, context) == (candidate, None)


@pytest.mark.usefixtures("all_cuts")
@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_a_real_measurement_is_told_in_full(
    context: Context, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(float_prefix, "why_slower", lambda _: "")  # as it may be, so small a network
    pytest.importorskip(target, reason=f"{target} is not installed")
    placement = for_onnxruntime if target == "onnxruntime" else for_openvino
    candidate = candidate_of(bottleneck_network(), placement)
    found, told = choose(candidate, context, target=target)
    assert Counter(entry["chosen"] for entry in told) == {True: 1, False: 3}
    chosen = next(entry for entry in told if entry["chosen"])
    assert (
        next(node.name for node in found.model.graph.node if node.name in found.plan.nodes) == chosen["until"]
    )
    assert all(entry["ms"] > 0 for entry in told)

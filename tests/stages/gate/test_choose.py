from __future__ import annotations

import re
from typing import Any

import pytest

from optkit.core.errors import UsageError
from optkit.stages.gate.choose import choose
from optkit.stages.gate.config import Config
from optkit.stages.gate.measured import Row

A, B, C = "a/", "b/", "c/"


def row(name: str, runtime: str = "onnxruntime", batch: int = 1) -> Row:
    return Row(name=name, key=name, runtime=runtime, batch=batch)


def chosen(rows: list[Row], **options: Any) -> tuple[str, str | None]:
    candidate, baseline = choose(rows, {}, Config(**options))
    return str(candidate), baseline and str(baseline)


def test_the_first_is_the_baseline_and_the_other_is_judged() -> None:
    assert chosen([row(A), row(B)], max_drop=1) == ("b/ (onnxruntime, batch 1)", "a/ (onnxruntime, batch 1)")


def test_a_limit_without_baseline_needs_none() -> None:
    assert chosen([row(A)], max_bytes=1) == ("a/ (onnxruntime, batch 1)", None)


def test_models_can_be_named() -> None:
    rows = [row(A), row(B), row(C)]
    found = chosen(rows, min_speedup=1, candidate="a", baseline="c/")
    assert found == ("a/ (onnxruntime, batch 1)", "c/ (onnxruntime, batch 1)")
    assert chosen(rows, min_speedup=1, candidate="c")[0].startswith(C)


@pytest.mark.parametrize("name", ["int8", "int8/", "runs/int8", "./runs/int8/"])
def test_a_model_can_be_named_as_it_was_given_or_as_it_is_shown(name: str) -> None:
    models = {"onnx": "runs/onnx", "int8": "./runs/int8", "other": "runs/other/"}
    rows = [row(short) for short in models]
    candidate, _ = choose(rows, models, Config(max_bytes=1, candidate=name))
    assert candidate.name == "int8"
    _, baseline = choose(rows, models, Config(max_drop=1, candidate="onnx", baseline=name))
    assert baseline is not None
    assert baseline.name == "int8"


def test_runtimes_can_be_named() -> None:
    rows = [row(name, runtime) for name in (A, B) for runtime in ("onnxruntime", "openvino")]
    found = chosen(rows, min_speedup=1, runtime="openvino")
    assert found == ("b/ (openvino, batch 1)", "a/ (openvino, batch 1)")
    found = chosen(rows, min_speedup=1, runtime="openvino", baseline_runtime="onnxruntime")
    assert found == ("b/ (openvino, batch 1)", "a/ (onnxruntime, batch 1)")


def test_a_model_is_compared_with_itself_in_another_runtime() -> None:
    rows = [row(A), row(A, "openvino")]
    assert chosen(rows, min_speedup=1) == ("a/ (openvino, batch 1)", "a/ (onnxruntime, batch 1)")
    found = chosen(rows, min_speedup=1, runtime="onnxruntime")
    assert found == ("a/ (onnxruntime, batch 1)", "a/ (openvino, batch 1)")


def test_the_baseline_may_have_a_runtime_of_its_own() -> None:
    assert chosen([row(A, "pytorch"), row(B)], min_speedup=1)[1] == "a/ (pytorch, batch 1)"


def test_batch_sizes_matter_to_latencies_only() -> None:
    rows = [row(name, batch=batch) for name in (A, B) for batch in (1, 8)]
    assert chosen(rows, max_drop=1)[0] == "b/ (onnxruntime, batch 1)"
    assert chosen(rows, min_speedup=1, batch=8) == ("b/ (onnxruntime, batch 8)", "a/ (onnxruntime, batch 8)")


def test_what_computes_nothing_is_not_judged() -> None:
    null = row(C, "null").model_copy(update={"computes": False})
    assert chosen([row(A), row(B), null], min_speedup=1)[0].startswith(B)


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ([row(A), row(B), row(C)], {}, r"b/, c/.*--candidate"),
        ([row(A), row(B), row(B, "openvino")], {}, r"onnxruntime, openvino.*--runtime"),
        ([row(A), row(A, "pytorch"), row(B, "openvino")], {}, r"onnxruntime, pytorch.*--baseline-runtime"),
        ([row(A), row(B), row(A, batch=8), row(B, batch=8)], {}, r"1, 8.*--batch"),
        ([row(A), row(B)], {"batch": 3}, "Batch size 3 is not measured.*--batch-sizes 3"),
        ([row(A), row(B)], {"candidate": "d"}, "candidate 'd'.*Known: a, b"),
        ([row(A), row(B)], {"baseline": "d"}, "baseline 'd'"),
        ([row(A), row(B)], {"runtime": "openvino"}, "not measured in the runtime 'openvino'"),
        ([row(A), row(B)], {"baseline_runtime": "onnxruntimes"}, "Did you mean 'onnxruntime'"),
        ([row(A)], {}, "nothing to compare 'a/' with"),
        ([row(A), row(B)], {"candidate": "a"}, "nothing to compare 'a/' with"),
    ],
)
def test_what_is_not_clear_is_asked_for(rows: list[Row], options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as raised:
        choose(rows, {}, Config(min_speedup=1, **options))
    assert re.search(words, f"{raised.value.message} {raised.value.hint}")

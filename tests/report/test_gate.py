"""What a gate decided, in the headline and as a table."""

from __future__ import annotations

import pytest

from optkit.core.errors import InputError
from optkit.report.collect import collect
from optkit.report.gate import gate_sentence, gate_table
from optkit.report.headline import headline, headline_row
from optkit.report.render import to_html, to_markdown

from .bench_folder import full_bench, gate
from .run_folder import RunFolder
from .test_render import Page


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("pass", "within budget"),
        ("fail", "over budget (drop of top-1, size)"),
        ("cannot tell", "cannot tell whether it is within budget (drop of top-1, latency)"),
    ],
)
def test_the_headline_ends_with_the_verdict(empty_run: RunFolder, verdict: str, words: str) -> None:
    full_bench(empty_run)
    gate(empty_run, verdict)
    (sentence,) = headline(collect(empty_run.path))
    assert sentence == (
        "int8 (INT8 ONNX): 3.1× faster than fp32 (FP32 ONNX) in onnxruntime, 73 % smaller, "
        f"accuracy −0.3 ± 1.8 points: {words}."
    )


def test_the_headline_is_about_the_model_that_was_judged(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    gate(empty_run, "pass", candidate="pruned", key=f"{'pruned':0<16}")
    (sentence,) = headline(collect(empty_run.path))
    assert sentence.startswith("pruned (FP32 ONNX): 1.5× faster")
    assert sentence.endswith("within budget.")


def test_of_several_gates_the_worst_verdict_counts(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    gate(empty_run, "pass")
    for verdict, words in (("cannot tell", "cannot tell whether"), ("fail", "over budget")):
        gate(empty_run, verdict, step=f"gate-{verdict[0]}")
        (sentence,) = headline(collect(empty_run.path))
        assert words in sentence
    gate(empty_run, "pass", step="of-pruned", candidate="pruned", key=f"{'pruned':0<16}")
    report = collect(empty_run.path)
    best = headline_row(report)
    assert best is not None
    assert best.name == "pruned"  # int8 passed one of its gates, not all


def test_a_gate_on_another_model_of_that_name_says_nothing(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    gate(empty_run, "fail", key="another")
    (sentence,) = headline(collect(empty_run.path))
    assert "budget" not in sentence


def test_a_gate_on_another_batch_says_nothing_of_this_row(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    gate(empty_run, "fail", batch=8)
    (sentence,) = headline(collect(empty_run.path))
    assert "budget" not in sentence


def test_every_criterion_has_a_row(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    gate(empty_run)
    (found,) = collect(empty_run.path).gates
    assert gate_sentence(found) == "int8 in onnxruntime, batch 1, against fp32; intervals of 95 %"
    rows = [[cell.text for cell in row[:-1]] for row in gate_table(found).rows]
    assert rows == [
        [
            "Drop of top-1",
            "cannot tell",
            "≤ 1.5 points",
            "0.278 points",
            "−1.2 … 1.9 points",
            "about 900 images more",
        ],
        ["Speedup", "pass", "≥ 2×", "3.09×", "3× … 3.19×", ""],
        [
            "Latency",
            "cannot tell",
            "≤ 5 ms",
            "too few samples",
            "",
            "about 12 seconds of timing each model more",
        ],
        ["Size", "fail", "≤ 4.00 MB", "4.30 MB", "exact", ""],
        ["Agreement with the baseline", "pass", "≥ 97.0 %", "98.1 %", "97.2 % … 99.0 %", ""],
    ]
    words = " ".join(Page(to_html(collect(empty_run.path))).text.split())
    assert "max_drop of 360 images, 4 lost <i>and</i> 3 won" in words
    assert "Cannot tell. int8 in onnxruntime, batch 1, against fp32; intervals of 95 %." in words
    markdown = to_markdown(collect(empty_run.path))
    assert "**Gate: cannot tell**: int8 in onnxruntime" in markdown
    assert "| **Speedup** | pass | ≥ 2× | 3.09× | 3× … 3.19× | – | min\\_speedup of 360 images" in markdown


def test_a_gate_of_another_version_is_an_input_error(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    gate(empty_run, "perhaps")
    with pytest.raises(InputError, match="gate"):
        collect(empty_run.path)


def test_a_gate_alone_is_the_headline(empty_run: RunFolder) -> None:
    gate(empty_run, "fail")
    (sentence,) = headline(collect(empty_run.path))
    assert sentence == "Gate: fail: int8 in onnxruntime, batch 1, against fp32; intervals of 95 %."


def test_large_figures_have_no_exponent(empty_run: RunFolder) -> None:
    speedup = {"name": "min_speedup", "limit": 1.5, "unit": "times", "estimate": 1014.3, "verdict": "pass"}
    gate(empty_run, "pass", criteria=[{**speedup, "interval": [5.63, 182749.0]}])
    ((_, _, _, measured, interval, *_),) = gate_table(collect(empty_run.path).gates[0]).rows
    assert (measured.text, interval.text) == ("1\u202f014×", "5.63× … 182\u202f749×")

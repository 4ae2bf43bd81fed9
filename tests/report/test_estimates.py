"""Estimates carry their word and their error."""

from __future__ import annotations

import pytest

from optkit.core.errors import InputError
from optkit.core.types import Format
from optkit.report.collect import collect
from optkit.report.estimates import estimates_table
from optkit.report.render import to_html, to_markdown

from .bench_folder import estimates
from .run_folder import RunFolder
from .test_render import Page


def test_every_figure_has_its_word_and_error(empty_run: RunFolder) -> None:
    key = empty_run.add("int8", "export", Format.ONNX, size=1)
    estimates(empty_run, key)
    report = collect(empty_run.path)
    table = estimates_table(report.estimates)
    rate, error = table.rows[0][-2:]
    assert (rate.text, rate.note) == ("4\u202f312", "estimate, 90 %: 3\u202f600 – 5\u202f200")
    assert (error.text, error.note) == ("median 7.8 %", "mean 11.0 %, 214 models")
    assert table.rows[2][-2].note == "estimate"
    words = " ".join(Page(to_html(report)).text.split())
    assert "Estimates for other GPUs" in words
    assert words.count("estimate, 90 %") == 2
    assert "PyTorch, channels last, <AMP>" in words
    assert r"PyTorch, channels last, \<AMP\>" in to_markdown(report)


def test_an_estimate_without_a_figure_is_an_input_error(empty_run: RunFolder) -> None:
    details = {"estimates": [{"name": "m", "gpu": "x"}]}
    empty_run.add("estimate", "estimate", Format.RESULT, details=details)
    with pytest.raises(InputError, match="estimate"):
        collect(empty_run.path)

"""Estimates carry their word and their error."""

from __future__ import annotations

import json

import pytest

from optkit.core.errors import InputError
from optkit.core.types import Format
from optkit.measure.estimate import estimate, stored
from optkit.measure.estimate_setups import SETUPS
from optkit.report.collect import collect
from optkit.report.estimates import estimates_notes, estimates_table
from optkit.report.render import to_html, to_markdown

from .bench_folder import estimates
from .run_folder import RunFolder
from .test_render import Page


def test_every_figure_has_its_word_and_error(empty_run: RunFolder) -> None:
    key = empty_run.add("int8", "export", Format.ONNX, size=1)
    estimates(empty_run, key)
    report = collect(empty_run.path)
    table = estimates_table(report.estimates)
    precision, _, rate, error = table.rows[0][-4:]
    assert (precision.text, precision.note) == ("FP16", "automatic mixed precision")
    assert (rate.text, rate.note) == ("4\u202f312", "estimate, 90 %: 3\u202f600 – 5\u202f200")
    assert (error.text, error.note) == ("median 7.8 %", "mean 11.0 %, 1\u202f214 models of 87 families")
    assert table.columns[-1].words == "Error of images/s on held-out models"
    assert table.rows[2][-2].note == "estimate"
    words = " ".join(Page(to_html(report)).text.split())
    assert "Estimates for other GPUs" in words
    assert words.count("estimate, 90 %") == 2
    assert "rtx4090, channels last, <AMP>" in words
    assert r"rtx4090, channels last, \<AMP\>" in to_markdown(report)


def test_extrapolations_are_marked_and_the_basis_is_told(empty_run: RunFolder) -> None:
    key = empty_run.add("int8", "export", Format.ONNX, size=1)
    estimates(empty_run, key)
    report = collect(empty_run.path)
    assert [row[-2].marks for row in estimates_table(report.estimates).rows] == [(), ("extrapolated",), ()]
    basis = "Basis: fitted to <published> throughputs in PyTorch, FP16."
    why = "61% of the time goes into 'pool', at most <20%> in calibration"
    beyond = f"Extrapolated, with twice the range: int8 on rtx4090, channels last, <AMP>: {why}."
    assert estimates_notes(report.estimates) == [basis, beyond]
    words = " ".join(Page(to_html(report)).text.split())
    assert words.count(basis) == words.count(beyond) == 1
    markdown = to_markdown(report)
    assert r"Basis: fitted to \<published\> throughputs" in markdown
    assert "(extrapolated)" in markdown


def test_rows_have_the_form_that_the_estimate_stage_writes(empty_run: RunFolder) -> None:
    setup = next(iter(SETUPS))
    counted = dict.fromkeys(stored()[setup]["ms"], 1e9)  # far beyond any network
    empty_run.add(
        "estimate",
        "estimate",
        Format.RESULT,
        details={"name": "x", "estimates": [estimate(counted, setup).to_json("x")], "basis": "timm"},
    )
    (found,) = collect(empty_run.path).estimates
    assert found.beyond
    assert (found.basis, found.n_families) == ("timm", stored()[setup]["families"])
    assert estimates_table([found]).rows[0][-2].marks == ("extrapolated",)
    estimates(empty_run, "x", step="made-up")
    written = json.loads((empty_run.path / "estimate" / "manifest.json").read_text())
    made_up = json.loads((empty_run.path / "made-up" / "manifest.json").read_text())
    rows = [one["details"]["estimates"][0] for one in (written, made_up)]
    assert rows[0].keys() == rows[1].keys()


def test_an_estimate_without_a_figure_is_an_input_error(empty_run: RunFolder) -> None:
    details = {"estimates": [{"name": "m", "gpu": "x"}]}
    empty_run.add("estimate", "estimate", Format.RESULT, details=details)
    with pytest.raises(InputError, match="estimate"):
        collect(empty_run.path)

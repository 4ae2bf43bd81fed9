"""`optkit gate`, and `budget:` in a recipe: verdicts become exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from optkit import pipeline
from optkit.core.store import Store, copy_artifact
from optkit.recipe import recipe_from_value
from optkit.report.collect import collect
from optkit.stages.bench.rounds import Rounds
from optkit.stages.gate.config import Config as GateConfig
from tests.cli.support import optkit
from tests.conftest import small_classifier
from tests.stages.gate.benches import Bench, pair, timed

CLASSES = ("--class-names", "a,b,c,d,e", "--size", "32")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a measurement of two models."""
    monkeypatch.chdir(tmp_path)
    copy_artifact(pair(tmp_path).commit(), tmp_path / "bench")
    return tmp_path


@pytest.mark.parametrize(
    ("limits", "code", "words"),
    [
        (("--max-drop", "1"), 0, "PASS: int8 in onnxruntime against fp32 in onnxruntime"),
        (("--max-drop", "1", "--max-bytes", "9"), 1, "size 250, at most 9 bytes"),
        (("--max-drop", "0.3"), 5, "images more"),
        (("--min-speedup", "2"), 5, "seconds of timing each model more"),
        (("--max-latency-ms", "10.2", "--latency-percentile", "p90"), 1, "p90 of 800 calls"),
        (("--max-drop", "0.5", "--confidence", "0.999"), 5, "99.9 %"),
        (("--min-agreement", "0.9", "--candidate", "int8", "--baseline", "fp32"), 0, "agreement"),
        (("--min-speedup", "1", "--runtime", "onnxruntime", "--baseline-runtime", "onnxruntime"), 0, "times"),
        (("--min-speedup", "1", "--batch", "1"), 0, "40 rounds"),
    ],
)
def test_a_measurement_is_judged(here: Path, limits: tuple[str, ...], code: int, words: str) -> None:
    done = optkit("gate", "bench", *limits)
    assert done.code == code, done.err
    assert words in done.out
    assert "next: optkit " in done.err


def test_the_next_command_measures_for_as_long_as_is_needed(here: Path) -> None:
    done = optkit("gate", "bench", "--min-speedup", "1.99")
    assert "next: optkit bench fp32 int8 --seconds " in done.err
    assert "next: optkit report bench" in optkit("gate", "bench", "--max-drop", "1").err


def test_the_next_command_measures_what_was_judged(here: Path) -> None:
    """In the same runtimes, at the same batch size, on as many threads: else it could not decide."""
    bench = Bench(here)
    for name, runtime, ms in (("fp32", "onnxruntime", 20.0), ("int8", "openvino:latency", 10.0)):
        for batch in (1, 8):
            bench.row(name, runtime, batch)
            bench.times(name, timed(ms, seed=round(ms)), runtime, batch)
    bench.config = {"runtimes": ["onnxruntime", "openvino:latency"], "batch_sizes": [1, 8], "threads": 1}
    copy_artifact(bench.commit(), here / "other")
    done = optkit("gate", "other", "--min-speedup", "2", "--batch", "8")
    assert done.code == 5, done.err
    assert (
        "next: optkit bench fp32 int8 --runtimes onnxruntime,openvino:latency --batch-sizes 8 --threads 1"
        in (" ".join(done.err.split()))
    )
    done = optkit("gate", "other", "--max-latency-ms", "10", "--batch", "1", "--candidate", "int8")
    assert "next: optkit bench int8 --runtimes openvino:latency --threads 1 --seconds " in done.err
    plain = optkit("gate", "bench", "--min-speedup", "1.99").err
    assert not any(option in plain for option in ("--runtimes", "--batch-sizes", "--threads"))


def test_json_holds_every_criterion(here: Path) -> None:
    found = optkit("gate", "bench", "--max-drop", "0.3", "--json")
    assert found.code == 5
    assert found.json["verdict"] == "cannot tell"
    assert found.json["criteria"][0]["needs"]["images"] > 100
    json.dumps(found.json, allow_nan=False)


def test_the_result_can_be_kept_and_reported(here: Path) -> None:
    assert optkit("gate", "bench", "--max-drop", "1", "--out", "verdict").code == 0
    assert collect(here / "verdict").gates[0].verdict == "pass"


def test_junit_is_written_where_it_is_asked_for(here: Path) -> None:
    assert (
        optkit("gate", "bench", "--max-drop", "0.3", "--max-bytes", "9", "--junit", "ci/gate.xml").code == 1
    )
    suite = ElementTree.parse(here / "ci" / "gate.xml").getroot()[0]
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["2", "1", "1"]
    assert optkit("gate", "bench", "--max-drop", "1", "--junit", "bench").code == 2


def test_a_crash_fails_with_an_error_in_junit(here: Path) -> None:
    bench = pair(here)
    bench.row("other")
    bench.details["failed"] = [{"name": "int8", "runtime": "onnxruntime", "why": "signal 11"}]
    copy_artifact(bench.commit(), here / "crashed")
    done = optkit("gate", "crashed", "--max-drop", "1", "--candidate", "int8", "--junit", "gate.xml")
    assert done.code == 1, done.err
    assert "failed while it was measured: signal 11" in done.out
    suite = ElementTree.parse("gate.xml").getroot()[0]
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["1", "0", "1"]
    assert "signal 11" in (suite.find("testcase/error").get("message") or "")
    assert optkit("gate", "crashed", "--max-bytes", "5000", "--candidate", "other").code == 0
    assert (
        optkit("gate", "crashed", "--max-bytes", "5000", "--candidate", "int8", "--out", "verdict").code == 1
    )
    (criterion,) = collect(here / "verdict").gates[0].criteria
    assert criterion.crashed


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("bench",), 2, "No limit was given"),
        (("bench", "--max-drop", "1", "--seconds", "3"), 2, "seconds: 'bench' is measured already"),
        (("bench", "bench", "--max-drop", "1"), 2, "One measurement is judged at a time"),
        (("bench", "--max-drop", "1", "--candidate", "int9"), 2, "Did you mean 'int8'"),
        (("bench", "--max-drop", "1", "--batch", "4"), 2, "Batch size 4 is not measured"),
        (("bench", "--min-speedup", "1", "--batch", "4"), 2, "Batch size 4 is not measured"),
        (("nothing", "--max-drop", "1"), 4, "no such step, folder or file"),
        (("bench", "--max-drop", "-1"), 2, "greater than or equal to 0"),
    ],
)
def test_what_is_wrong_is_said(here: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = optkit("gate", *arguments)
    assert done.code == code
    assert words in done.err


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two models that are the same."""
    monkeypatch.chdir(tmp_path)
    small_classifier(tmp_path / "a.onnx")
    shutil.copy(tmp_path / "a.onnx", tmp_path / "b.onnx")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a.onnx", "b.onnx", "--max-drop", "1"), "needs images, and the measurement has none"),
        (("a.onnx", "--min-speedup", "1"), "nothing to compare 'a.onnx' with"),
        (("a.onnx", "b.onnx", "c.onnx", "--min-speedup", "1"), "b.onnx, c.onnx"),
        (("a.onnx", "b.onnx", "--min-speedup", "1", "--batch-sizes", "1,2"), "1, 2"),
        (
            ("a.onnx", "b.onnx", "--min-speedup", "1", "--runtimes", "onnxruntime,openvino"),
            "onnxruntime, openvino",
        ),
        (("a.onnx", "b.onnx", "--max-bytes", "1", "--candidate", "d"), "candidate 'd' is not among"),
        (("a.onnx", "--min-speedup", "1", "--runtimes", "openvino,null"), "nothing to compare 'a.onnx' with"),
        (
            ("a.onnx", "b.onnx", "--min-agreement", "1", "--baseline", "b.onnx", "--candidate", "a.onnx"),
            "Give 'b.onnx' as the first model",
        ),
    ],
)
def test_what_is_not_clear_is_asked_for_before_it_is_measured(
    models: Path, arguments: tuple[str, ...], words: str
) -> None:
    shutil.copy("a.onnx", "c.onnx")
    done = optkit("gate", *arguments, *CLASSES)
    assert done.code == 2, done.err
    assert words in done.err
    assert not (models / "runs").exists()


def planned(**options: object) -> None:
    """Whether one row is meant, which is told before the measurement."""
    recipe = {"name": "r", "load": {"class_names": ["a", "b", "c", "d", "e"], "size": 32}}
    gate = {name: options.pop(name) for name in list(options) if name in GateConfig.model_fields}
    bench = {"stage": "bench", **options}
    trained = {"stage": "finetune", "data": "digits"}
    steps = {"trained": trained, "bench": bench, "gate": {"stage": "gate", "bench": "bench", **gate}}
    pipeline.plan(recipe_from_value({**recipe, "steps": steps}, "a test"), Store(Path("store")))


def test_what_the_measurement_will_make_clear_is_not_asked_for(models: Path) -> None:
    """One model in two runtimes; models that share none; names and paths."""
    planned(models=["a.onnx"], runtimes=["onnxruntime", "openvino"], min_speedup=1)
    planned(models=["trained", "a.onnx"], runtimes=["pytorch", "onnxruntime"], min_speedup=1)
    (models / "runs").mkdir()
    shutil.copy("b.onnx", "runs/int8.onnx")
    for name in ("int8.onnx", "runs/int8.onnx", "./runs/int8.onnx"):
        planned(models=["a.onnx", "b.onnx", "runs/int8.onnx"], candidate=name, max_bytes=9)
        planned(models=["a.onnx", "runs/int8.onnx"], baseline=name, min_speedup=1)


def test_models_are_measured_and_judged_in_one_go(models: Path) -> None:
    arguments = ("gate", "a.onnx", "b.onnx", *CLASSES, "--seconds", "0.2", "--max-bytes", "9999999")
    done = optkit(*arguments, "--min-speedup", "0.001", "--json")
    assert done.code == 0, done.err
    assert [one["verdict"] for one in done.json["criteria"]] == ["pass", "pass"]
    assert (done.json["candidate"], done.json["baseline"]) == ("b.onnx", "a.onnx")
    assert done.json["seconds_timed"] == 0.2
    again = optkit(*arguments, "--min-speedup", "10")
    assert again.code == 1
    assert "done before" not in again.err.replace("a.onnx: done before", "").replace(
        "b.onnx: done before", ""
    )
    assert "next: optkit bench a.onnx b.onnx" in again.err


RECIPE = """
name: gated
load: {class_names: [a, b, c, d, e], size: 32}
steps:
  bench: {models: [a.onnx, b.onnx], seconds: 0.2}
budget: {max_bytes: 10, confidence: 0.9}
"""


def test_a_recipe_keeps_its_budget(models: Path) -> None:
    Path("recipe.yaml").write_text(RECIPE)
    plan = optkit("run", "recipe.yaml", "--dry-run", "--json").json["steps"]
    assert (plan[-1]["step"], plan[-1]["stage"], plan[-1]["inputs"]) == ("gate", "gate", ["bench"])
    first = optkit("run", "recipe.yaml", "--junit", "gate.xml")
    assert first.code == 1, first.err
    assert "FAIL: b.onnx" in first.out
    assert collect(models / "runs" / "gated").gates[0].verdict == "fail"
    assert ElementTree.parse("gate.xml").getroot()[0].get("failures") == "1"
    again = optkit("run", "recipe.yaml", "--json")
    assert again.code == 1
    assert "gate: done before" in again.err
    assert again.json["gates"]["gate"]["confidence"] == 0.9
    kept = optkit("run", "recipe.yaml", "--set", "budget.max_bytes=9999999")
    assert kept.code == 0
    assert "bench: done before" in kept.err


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes after the latencies were timed."""

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Rounds, "measure_offline", press)


def test_ctrl_c_keeps_what_the_gate_has_measured(models: Path, interrupted: None) -> None:
    options = ("--seconds", "0.2", "--loads", "offline", "--min-speedup", "0.01", "--junit", "gate.xml")
    done = optkit("gate", "a.onnx", "b.onnx", *CLASSES, *options)
    assert done.code == 130
    assert "partial results are in runs/bench; the command given again measures anew" in done.err
    assert "finished steps are kept" not in done.err
    assert not Path("gate.xml").exists()
    judged = optkit("gate", "runs/bench", "--min-speedup", "0.01")
    assert judged.code == 0, judged.err
    assert "bench was interrupted" in judged.err


def test_ctrl_c_in_a_bench_is_told_once(models: Path, interrupted: None) -> None:
    done = optkit("bench", "a.onnx", *CLASSES, "--seconds", "0.2", "--loads", "offline", "--out", "kept")
    assert done.code == 130
    assert done.err.count("partial results are in kept;") == 1
    assert "finished steps are kept" not in done.err
    assert collect(models / "kept").benches[0].interrupted


def test_ctrl_c_in_a_recipe_leaves_a_report(models: Path, interrupted: None) -> None:
    Path("recipe.yaml").write_text(RECIPE.replace("seconds: 0.2", "seconds: 0.2, loads: [offline]"))
    done = optkit("run", "recipe.yaml")
    assert done.code == 130
    assert "partial results are in runs/gated/bench" in done.err
    assert "Partial" in Path("runs/gated/report.md").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("budget.max_dorp=1", "Unknown key 'max_dorp' in the budget of recipe 'gated'"),
        ("budget.max_drop=1", "needs images"),
        ("budget={confidence: 0.9}", "No limit was given"),
        ("budget=3", "budget"),
        ("budget={max_bytes: 3, bench: cost}", "judges a bench step, not a step of 'cost'"),
        ("steps={cost: {model: a.onnx}}", "the budget of recipe 'gated' has nothing to judge"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused_before_any_work(
    models: Path, change: str, words: str
) -> None:
    Path("recipe.yaml").write_text(RECIPE.replace("steps:\n", "steps:\n  cost: {model: a.onnx}\n"))
    done = optkit("run", "recipe.yaml", "--set", change)
    assert done.code == 2, done.err
    assert words in done.err.replace("The budget", "the budget")
    assert not (models / "runs").exists()


def test_junit_of_a_recipe_needs_a_budget(models: Path) -> None:
    Path("recipe.yaml").write_text(RECIPE.partition("budget")[0])
    done = optkit("run", "recipe.yaml", "--junit", "gate.xml")
    assert done.code == 2
    assert "the recipe has none" in done.err

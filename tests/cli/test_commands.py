"""What scripts and people rely on: options, JSON, next commands, help, the README."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from optkit.cli import _app, _reference
from optkit.core.store import read_artifact
from tests.cli.support import optkit
from tests.conftest import small_classifier

README = Path(__file__).resolve().parents[2] / "README.md"
MODEL_OPTIONS = ("--size", "32", "--class-names", "a,b,c,d,e")
TINY = (
    "--arch",
    "test_efficientnet",
    "--weights",
    "scratch",
    "--size",
    "32",
    "--data",
    "synthetic",
    "--epochs",
    "1",
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    small_classifier(tmp_path / "m.onnx")
    for name in "abcde":
        for index in range(3):
            path = tmp_path / "photos" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((40, 40), 60 + 20 * index).convert("RGB").save(path)
    return tmp_path


def test_the_promised_commands_exist() -> None:
    assert set(_app.commands()) >= {
        "finetune", "distill", "prune", "quantize", "export", "bench", "evaluate", "predict", "cost", "run",
        "report", "list", "doctor",
    }  # fmt: skip


@pytest.mark.parametrize("name", _app.commands())
def test_every_command_has_help_with_examples(name: str) -> None:
    done = optkit(name, "--help")
    assert done.code == 0
    text = done.out
    assert "Examples" in text
    assert f"optkit {name}" in text
    assert "--json" in text


def test_the_readme_is_up_to_date() -> None:
    text = README.read_text(encoding="utf-8")
    assert _reference.updated(text) == text, "run `make readme`"


def test_a_stale_readme_is_found(tmp_path: Path) -> None:
    stale = tmp_path / "README.md"
    stale.write_text(README.read_text(encoding="utf-8").replace("--max-images", "--maximum-images"))
    assert _reference.main(["--check", str(stale)]) == 1
    assert _reference.main([str(stale)]) == 0
    assert _reference.main(["--check", str(stale)]) == 0


def test_bench_json(here: Path) -> None:
    done = optkit("bench", "m.onnx", *MODEL_OPTIONS, "--data", "photos", "--batch-sizes", "1,2", "--seconds", "0.2",
                  "--json")  # fmt: skip
    assert done.code == 0, done.err
    rows = done.json["rows"]
    assert [row["batch"] for row in rows] == [1, 2]
    for row in rows:
        assert set(row) >= {
            "name",
            "runtime",
            "batch",
            "latency_ms",
            "throughput",
            "top1",
            "macs",
            "params",
            "size_bytes",
        }
        assert row["latency_ms"]["p50"] > 0
        assert {*row["latency_ms"], *row["refused"]} == {"p50", "p90", "p95", "p99", "p99.9"}
        assert list(row["latency_ms"].values()) == sorted(row["latency_ms"].values())
        assert 0 <= row["top1"] <= 1
        assert row["n"] == 15
    loaded = list(Path("runs/.store").glob("*/model.onnx"))
    assert [row["size_bytes"] for row in rows] == [loaded[0].stat().st_size] * 2


def test_evaluate_json(here: Path) -> None:
    done = optkit("evaluate", "m.onnx", *MODEL_OPTIONS, "--data", "photos", "--json")
    assert done.code == 0, done.err
    assert done.json["n"] == 15
    assert 0 <= done.json["top1_interval"][0] <= done.json["top1"] <= done.json["top1_interval"][1] <= 1


def test_the_null_runtime_gives_no_answers(here: Path) -> None:
    refused = optkit("evaluate", "m.onnx", *MODEL_OPTIONS, "--data", "photos", "--runtime", "null")
    assert refused.code == 2
    assert "computes nothing" in refused.err


def test_evaluate_of_a_csv(here: Path) -> None:
    (here / "list.csv").write_text("path,label\n" + "\n".join(f"photos/{c}/0.png,{c}" for c in "abcde"))
    done = optkit("evaluate", "m.onnx", *MODEL_OPTIONS, "--data", "list.csv", "--json")
    assert done.json["n"] == 5


def test_predict_json(here: Path) -> None:
    done = optkit("predict", "m.onnx", "photos/a", *MODEL_OPTIONS, "--top-k", "2", "--json")
    assert done.code == 0, done.err
    answers = done.json["predictions"]
    assert [Path(answer["file"]).name for answer in answers] == ["0.png", "1.png", "2.png"]
    assert all(len(answer["top"]) == 2 for answer in answers)


def test_cost_of_an_architecture_and_of_a_file(here: Path) -> None:
    b0 = optkit("cost", "b0", "--json").json
    assert b0["macs"] == pytest.approx(0.386e9, rel=0.005)
    assert "unit" in b0
    assert optkit("cost", "m.onnx", "--json").json["macs"] == 32 * 32 * 16 * 27 + 16 * 5


def test_preprocessing_may_be_written_with_commas_or_spaces(here: Path) -> None:
    spaces = optkit("cost", "m.onnx", "--mean", ".5", ".4", ".3", "--json")
    commas = optkit("cost", "m.onnx", "--mean", ".5,.4,.3", "--json")
    assert spaces.code == commas.code == 0
    stores = [read_artifact(path.parent) for path in Path("runs/.store").glob("*/manifest.json")]
    means = [artifact.spec.preprocess.mean for artifact in stores if artifact.manifest.stage == "load"]
    assert means == [(0.5, 0.4, 0.3)]


@pytest.fixture(scope="module")
def tour_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tour")


@pytest.fixture
def tour(tour_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder where what one test has made is done for the next."""
    monkeypatch.chdir(tour_folder)


@pytest.mark.usefixtures("tour")
def test_from_fine_tuning_to_int8() -> None:
    """The tour: every command takes what the one before it made, and names the next."""
    tuned = optkit("finetune", *TINY, "--out", "ft", "--json")
    assert tuned.code == 0, tuned.err
    assert tuned.json["path"] == "ft"
    assert "next: optkit export ft" in tuned.err
    exported = optkit("export", "ft", "--out", "onnx")
    assert exported.code == 0, exported.err
    assert "next: optkit quantize onnx" in exported.err
    quantized = optkit(
        "quantize", "onnx", "--data", "synthetic", "--calibration-images", "32", "--out", "int8"
    )
    assert quantized.code == 0, quantized.err
    assert "next: optkit bench onnx int8" in quantized.err
    benched = optkit(
        "bench", "ft", "onnx", "int8/model.onnx", "--data", "synthetic", "--seconds", "0.2", "--json"
    )
    assert benched.code == 0, benched.err
    rows = benched.json["rows"]
    assert [row["precision"] for row in rows] == ["fp32", "fp32", "int8"]
    assert [row["n"] for row in rows] == [80, 80, 80], "held-out images only: it was trained on the others"
    assert rows[1]["agreement"] == 1.0
    shown = optkit("bench", "onnx", "--seconds", "0.2")
    assert "onnxruntime" in shown.out
    again = optkit("finetune", *TINY, "--out", "elsewhere")
    assert "done before" in again.err


def test_distill_fine_tunes_a_named_teacher_once(here: Path) -> None:
    options = ("--weights", "scratch", "--size", "32", "--data", "photos", "--epochs", "1")
    first = optkit("distill", "--teacher", "test_efficientnet", "--student", "test_efficientnet", *options)
    assert first.code == 0, first.err
    assert "teacher: finetune" in first.err
    second = optkit(
        "distill", "--teacher", "test_efficientnet", "--student", "runs/distill", "--out", "more", *options
    )
    assert second.code == 0, second.err
    assert "teacher: done before" in second.err


@pytest.mark.usefixtures("tour")
def test_the_next_command_works() -> None:
    """What is printed can be typed."""
    exported = optkit("finetune", *TINY, "--out", "ft")
    assert "next: optkit export ft" in exported.err
    exported = optkit("export", "ft")
    assert "next: optkit quantize runs/export --data synthetic" in exported.err
    quantized = optkit("quantize", "runs/export", "--data", "synthetic", "--calibration-images", "16")
    assert "next: optkit bench runs/export runs/quantize --data synthetic" in quantized.err
    benched = optkit("bench", "runs/export", "runs/quantize", "--data", "synthetic", "--seconds", "0.2")
    assert benched.code == 0, benched.err
    assert "next: optkit report runs/bench" in benched.err
    assert optkit("report", "runs/bench").code == 0


def test_the_help_examples_of_run_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(README.parent)
    lines = [
        line.split() for line in optkit("run", "--help").out.splitlines() if " optkit run recipes/" in line
    ]
    assert len(lines) == 2
    for line in lines:
        arguments = [word for word in line if word not in ("optkit", "│")]
        assert optkit(*arguments, *([] if "--dry-run" in arguments else ["--dry-run"])).code == 0


def test_options_for_bare_files_are_refused_for_artifacts(here: Path) -> None:
    assert optkit("cost", "m.onnx", *MODEL_OPTIONS, "--out", "counted").code == 0
    assert optkit("quantize", "m.onnx", "--data", "photos", *MODEL_OPTIONS, "--out", "onnx").code == 0
    done = optkit("bench", "onnx", "--crop-pct", "0.9")
    assert done.code == 2
    assert "crop_pct" in done.err


def test_cost_at_another_size(here: Path) -> None:
    small_classifier(here / "open.onnx", size=None)
    small, large = (optkit("cost", "open.onnx", "--size", size, "--json") for size in ("32", "64"))
    assert small.code == large.code == 0, small.err
    assert large.json["macs"] > 3 * small.json["macs"]


def test_predict_takes_what_a_shell_expands(here: Path) -> None:
    done = optkit("predict", "m.onnx", "photos/a/0.png", "photos/b/1.png", *MODEL_OPTIONS, "--json")
    assert done.code == 0, done.err
    assert len(done.json["predictions"]) == 2


def test_files_of_the_same_name_are_told_apart(here: Path) -> None:
    for name, classes in (("x", 5), ("y", 5)):
        (here / name).mkdir()
        small_classifier(here / name / "m.onnx", classes=classes)
    (here / "r.yaml").write_text("steps: {bench: {models: [x/m.onnx, y/m.onnx], seconds: 0.1}}")
    assert optkit("run", "r.yaml").code == 0
    assert {path.parent.name for path in (here / "runs" / "r").glob("*/manifest.json")} == {
        "m",
        "m-2",
        "bench",
    }
    shown = optkit("bench", "x/m.onnx", "y/m.onnx", "--seconds", "0.1")
    assert "x/m.onnx (fp32)" in shown.out
    assert "y/m.onnx (fp32)" in shown.out


def test_a_folder_named_like_the_command(here: Path) -> None:
    assert optkit("cost", "m.onnx", "--out", "cost").code == 0
    assert optkit("quantize", "m.onnx", "--data", "photos", *MODEL_OPTIONS, "--out", "bench").code == 0
    assert optkit("bench", "bench", "--seconds", "0.1").code == 0


def test_a_run_keeps_to_its_own_folders(here: Path) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "recipe.yaml").write_text("load: {size: 32}\nsteps: {cost: {model: m.onnx}}")
    refused = optkit("run", "mine/recipe.yaml", "--out", "mine")
    assert refused.code == 2
    assert "not a run" in refused.err
    assert optkit("run", "mine/recipe.yaml", "--out", "there").code == 0
    (here / "there" / "notes").mkdir()
    (here / "there" / "notes" / "manifest.json").write_text("{}")
    (here / "mine" / "recipe.yaml").write_text(
        "load: {size: 32}\nsteps: {again: {stage: cost, model: m.onnx}}"
    )
    optkit("run", "mine/recipe.yaml", "--out", "there")
    assert not (here / "there" / "cost").exists()
    assert (here / "there" / "again").exists()
    assert (here / "there" / "notes" / "manifest.json").exists()


def test_list_and_doctor() -> None:
    listed = optkit("list", "--json").json
    assert listed["calibrators"] == ["entropy", "minmax", "mse", "percentile"]
    assert listed["runtimes"]["null"] is None
    doctor = optkit("doctor", "--json").json
    assert doctor["machine"]["cores"] >= 1
    assert doctor["packages"]["torch"]
    assert "pytorch" in optkit("list").out
    assert "advice" in doctor


def test_report_is_made_again_from_manifests(here: Path) -> None:
    (here / "r.yaml").write_text(
        "load: {class_names: [a, b, c, d, e]}\ndata: photos\nsteps: {bench: {models: [m.onnx], seconds: 0.2}}"
    )
    done = optkit("run", "r.yaml")
    assert done.code == 0, done.err
    page = here / "runs" / "r" / "report.html"
    page.unlink()
    assert optkit("report", "runs/r").code == 0
    assert page.exists()
    assert optkit("report", "runs/r", "--json").json["rows"][0]["n"] == 15
    assert optkit("report", "nowhere").code == 4


def test_the_installed_command_starts() -> None:
    command = Path(sys.executable).with_name("optkit")
    if not command.exists():
        pytest.skip("optkit is not installed as a command in this environment")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("optkit ")


def test_paragraphs_of_help_have_no_line_breaks_of_their_own() -> None:
    assert any("Exit codes: 0 done; " in line and "130 interrupted." in line for line in _lines("--help"))
    assert any(
        "Nothing is executed" in line and "finds an error." in line for line in _lines("lint", "--help")
    )
    examples = [
        line.strip() for line in _lines("quantize", "--help") if line.strip().startswith("optkit quan")
    ]
    assert len(examples) == 5, "each on a line of its own"


def _lines(*arguments: str) -> list[str]:
    """What a terminal wider than every paragraph shows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "2000")
        return optkit(*arguments).out.splitlines()


def test_no_arguments_show_the_help() -> None:
    done = optkit()
    assert done.code == 2
    assert "Commands" in done.out + done.err

from __future__ import annotations

from optkit.cli.evaluate import show
from optkit.core.types import Artifact, Format, Manifest
from optkit.report.findings import FIGURES
from tests.cli.support import optkit
from tests.conftest import small_classifier


def test_figures_with_intervals_confusions_and_mistakes(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_classifier(tmp_path / "m.onnx", classes=4)
    names = "horizontal,vertical,rising,falling"
    done = optkit(
        "evaluate", "m.onnx", "--size", "32", "--class-names", names, "--data", "synthetic", "--out", "ev"
    )
    assert done.code == 0, done.err
    for text in ("95 % interval", "macro F1", "calibration error", "most frequent confusions"):
        assert text in done.out
    assert " taken for " in done.out
    assert "top-5" not in done.out  # of four classes it says nothing
    assert len(list((tmp_path / "ev" / "mistakes").glob("*.jpg"))) == 12


def test_a_perfect_model_has_no_table_of_confusions(capsys) -> None:
    metrics = {"n": 2} | dict.fromkeys(FIGURES, 1.0) | {f"{name}_interval": [0.5, 1.0] for name in FIGURES}
    rows = [{"class": "[red]", "n": 2, "recall": 1.0, "precision": 1.0, "f1": 1.0, "confused_with": None}]
    details = {"per_class": rows, "confusions": [], "mistakes": []}
    manifest = Manifest(stage="evaluate", key="k", format=Format.RESULT, metrics=metrics, details=details)
    show(Artifact("k", "k", manifest))
    text = capsys.readouterr().out
    assert "[red]" in text
    assert "top-5" in text
    assert "confusions" not in text

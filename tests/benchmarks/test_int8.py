"""The benchmark makes and compares the files that it names, and judges a demand by what it measured."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from optkit.cli import main as command_line
from optkit.stages.quantize import speed
from tests.data.pictures import jpeg, photo
from tests.small_networks import Builder, residual_network

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
MODULES = ("int8", "stress", "int8_parts")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import int8

    yield int8
    for name in [name for name in sys.modules if name.split(".")[0] in MODULES]:
        sys.modules.pop(name)


def part(script: ModuleType, name: str) -> ModuleType:
    return sys.modules[f"{script.files.__package__}.{name}"]


def class_folders(folder: Path, count: int) -> Path:
    for seed in range(4 * count):
        file = folder / "abcd"[seed % 4] / f"{seed}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg(photo(24, 24, seed)))
    return folder


def bottleneck_network() -> onnx.ModelProto:
    """Its middle is a linear bottleneck."""
    b = Builder()
    x = b.clip(b.conv(b.conv(b.clip(b.conv("input", 3, 8)), 8, 16, kernel=1), 16, 8))
    weight = b.constant(b.rng.standard_normal((8, 4)).astype(np.float32))
    return b.model(b.op("MatMul", b.pool(x, 0, 20), weight), 4, None, 20)


def in_this_process(script: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """Neither another Python for every command of optkit, nor the installation of peers, nor four engines."""
    processes, peers = part(script, "processes"), part(script, "peers")

    def optkit(arguments: list[str], folder: Path, accepted: tuple[int, ...] = (0,)) -> object:
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["optkit", *arguments])
        capfd.readouterr()
        code = 0
        try:
            command_line()
        except SystemExit as ended:
            code = ended.code or 0
        said = capfd.readouterr()
        if code not in accepted:
            raise processes.Failed(f"{arguments} ended with {code}: {said.err}")
        return processes.Run(1.5, 1.0, 2_000_000, said.out)

    monkeypatch.setattr(script.files, "optkit", optkit)
    monkeypatch.setattr(part(script, "engines"), "optkit", optkit)
    monkeypatch.setattr(peers, "environment", lambda tool, folder: Path(sys.executable))
    monkeypatch.setattr(script, "environment", lambda tool, folder: Path(sys.executable))
    monkeypatch.setattr(peers, "NNCF_DEFAULT", peers.Peer("onnxruntime", "default"))
    monkeypatch.setattr(part(script, "engines"), "COMPUTE_CAPABILITIES", ("SM89",))
    monkeypatch.setattr(speed, "ROUNDS", 2)
    monkeypatch.setattr(speed, "SECONDS", 0.01)


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["int8.py", *words])
    monkeypatch.setattr(script, "use_cores", lambda count: None)
    with pytest.raises(SystemExit) as ended:
        script.main()
    return int(ended.value.code)


def test_a_file_from_outside_is_quantised_for_every_target_and_compared(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    in_this_process(script, monkeypatch, capfd)
    data, file = class_folders(tmp_path / "photos", 8), tmp_path / "b0.onnx"
    onnx.save(bottleneck_network(), file)
    parts = part(script, "parts")
    monkeypatch.setattr(parts, "B0_BUDGET", ["--rungs", "rounding"])
    few = ["--rounds", "2", "--seconds", "0.01", "--threads", "1"]
    words = ["--b0", str(file), "--b0-data", str(data), "--only", "b0", *few]
    work, out = tmp_path / "work", tmp_path / "out"
    code = run(script, monkeypatch, *words, "--work", str(work), "--out", str(out))
    found = json.loads((out / "int8-b0.json").read_text())
    assert [row["error"] for row in found["rows"]] == [""] * len(found["rows"])
    assert code == (0 if all(one["met"] for one in found["demands"]) else script.NOT_MET)
    printed = capfd.readouterr().out
    assert found["verdict"] in printed
    assert "Ladder of optkit tensorrt" in printed

    own = json.loads((work / "b0/optkit_onnxruntime/int8/calibration.json").read_text())
    train = script.files.Images(data).load(tuple("abcd")).train
    chosen = train.subset(np.array([train.ids.index(image["name"]) for image in own["images"]]))
    preprocess = script.files.Preprocess(size=16, crop_mode="squash")
    np.testing.assert_array_equal(
        np.load(work / "b0" / "calibration.npy"), script.files.decode(chosen, preprocess)[0]
    )

    rows = {(row["name"], row["runtime"]): row for row in found["rows"]}
    fp32, peer = rows["FP32", "onnxruntime"], rows["onnxruntime u8s8", "onnxruntime"]
    assert (fp32["answers"]["sqnr_db"]["value"], fp32["to_fp32"]["value"]) == (200, 1)
    assert 5 < peer["answers"]["sqnr_db"]["value"] < 60
    assert peer["to_u8s8"]["value"] == 1
    assert rows["FP32", "openvino"]["executed"] == "fp32"
    assert rows["FP32", "openvino"]["to_fp32_there"]["value"] == 1
    for target, runtime in (("onnxruntime", "onnxruntime"), ("openvino", "openvino")):
        own = rows[f"optkit {target}", runtime]
        assert own["to_fp32"]["interval"][0] <= own["to_fp32"]["value"] <= own["to_fp32"]["interval"][1]
        assert [rung["rung"] for rung in own["found"]["ladder"]] == ["calibration", "rounding"]
        assert own["found"]["speed"]["runtime"] == runtime
    assert rows["optkit tensorrt", "onnxruntime"]["latency_ms"] is None
    names = [one["what"] for one in found["demands"]]
    assert names[:2] == ["b0, onnxruntime: SQNR", "b0, onnxruntime: drop"]
    assert names[-3:-1] == ["b0, tensorrt: findings of the linter", "b0, tensorrt: engines built"]
    assert all(one["measured"] is not None for one in found["demands"] if "engines" not in one["what"])


def test_the_stress_variant_is_the_same_function(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    in_this_process(script, monkeypatch, capfd)
    monkeypatch.setattr(part(script, "parts"), "TARGETS", ("onnxruntime",))
    data, file = class_folders(tmp_path / "photos", 8), tmp_path / "b0.onnx"
    onnx.save(bottleneck_network(), file)
    words = ["--b0", str(file), "--b0-data", str(data), "--only", "stress", "--threads", "1"]
    run(script, monkeypatch, *words, "--work", str(tmp_path / "work"), "--out", str(tmp_path))
    same, drop = json.loads((tmp_path / "int8-stress.json").read_text())["demands"]
    assert same["met"]
    assert drop["what"] == "stress, onnxruntime: drop"
    assert drop["measured"] is not None
    assert drop["note"].startswith("drop by rung: calibration ")


@pytest.fixture
def calibrated(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Any], dict[str, Any], list[str]]:
    """The calibration part on made-up figures, with a calibrator that fails: demands, facts and what ran."""
    measure, Run, ran = part(script, "calibration"), part(script, "processes").Run, []

    def quantise(model: Path, images: Any, words: list[str], folder: Path) -> Any:
        ran.append(folder.name)
        if "mse" in words:
            raise part(script, "processes").Failed("no such calibrator")
        many = "--calibration-images" in words
        return SimpleNamespace(run=Run(50 if many else 5, 1, 800e6 if many else 700e6, ""), stage_seconds=3)

    monkeypatch.setattr(script.files, "quantise", quantise)
    monkeypatch.setattr(script.files, "repeated", lambda table, folder, times: table)
    monkeypatch.setattr(
        measure.peers, "quantise", lambda peer, *_: (ran.append(peer.name), (Run(20, 1, 9e8, ""), 16))[1]
    )
    monkeypatch.setattr(measure, "_loaded_mb", lambda case: 500.0)
    options = SimpleNamespace(calibration_rounds=2, report=lambda text: None, environments=tmp_path)
    case = SimpleNamespace(
        options=options,
        folder=tmp_path,
        images=script.files.Images(tmp_path),
        fp32=SimpleNamespace(file=tmp_path),
    )
    case.calibration = tmp_path
    return *measure.measure_calibration(case), ran


def test_calibration_is_repeated_in_turns_and_with_many_photos(calibrated: Any) -> None:
    demands, facts, ran = calibrated
    turn = ["entropy", "minmax", "mse", "percentile", "nncf default"]
    back = [name for name in reversed(turn) if name != "mse"]
    assert ran == [*turn, *back, "many-entropy", "many-minmax", "many-percentile"]
    names = [one.what.split(":")[0] for one in demands]
    assert names == [name for name in turn[:4] for _ in range(4)]
    assert [one.measured for one in demands[:4]] == pytest.approx([5, 200, 4, 8 / 7])
    assert [one.met for one in demands[:4]] == [True, True, True, False]
    assert facts["nncf default"]["seconds"] == [20, 20]


def test_a_calibrator_that_fails_has_no_figures_and_the_others_have(calibrated: Any) -> None:
    demands, facts, _ = calibrated
    failed = [one for one in demands if one.what.startswith("mse:")]
    assert [(one.measured, one.met) for one in failed] == [(None, False)] * 4
    assert "no such calibrator" in failed[0].note
    assert json.loads(json.dumps(facts, allow_nan=False))["mse"]["error"] == "no such calibrator"


def test_time_and_memory_are_those_of_the_command_alone(script: ModuleType) -> None:
    held = np.ones(40_000_000)  # 320 MB that the command does not have
    code = "import time; data = b'x' * 100_000_000; time.sleep(0.2); print(len(data))"
    measured, Failed = part(script, "processes").measured, part(script, "processes").Failed
    done = measured([sys.executable, "-S", "-c", code])
    assert 0.2 < done.seconds < 20
    assert 100_000_000 <= done.peak_bytes < held.nbytes
    assert done.stdout == "100000000\n"
    fails = [sys.executable, "-S", "-c", "raise SystemExit('no such thing')"]
    with pytest.raises(Failed, match="exit code 1: no such thing"):
        measured(fails)
    assert measured(fails, accepted=(0, 1)).stdout == ""


def test_a_peer_quantises_what_it_is_given(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = part(script, "peers")
    monkeypatch.setattr(peers, "environment", lambda tool, folder: Path(sys.executable))
    onnx.save(residual_network(), tmp_path / "model.onnx")
    np.save(tmp_path / "photos.npy", np.random.default_rng(0).random((4, 3, 16, 16), np.float32))
    kinds = {}
    for settings in ("u8s8", "default"):
        out = tmp_path / settings / "model.onnx"
        peer = peers.Peer("onnxruntime", settings)
        run, seconds = peers.quantise(peer, tmp_path, tmp_path / "model.onnx", tmp_path / "photos.npy", out)
        assert 0 < seconds < run.seconds
        scales = [tensor for tensor in onnx.load(out).graph.initializer if tensor.name.endswith("_scale")]
        kinds[settings] = max(numpy_helper.to_array(tensor).size for tensor in scales)
    assert kinds == {"u8s8": 16, "default": 1}  # a scale for every channel, or one for all


def test_an_environment_is_made_once_and_again_for_other_versions(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers, commands = part(script, "peers"), []

    def record(command: list[str], **options: object) -> None:
        commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True)

    monkeypatch.setattr(peers.subprocess, "run", record)
    python, _ = (peers.environment("nncf", tmp_path) for _ in range(2))
    assert str(python).startswith(str(tmp_path / "nncf"))
    assert [command[2] for command in commands] == ["venv", "pip"]
    assert "nncf==3.4.0" in commands[1]
    monkeypatch.setitem(peers.REQUIREMENTS, "nncf", ("nncf==9",))
    peers.environment("nncf", tmp_path)
    assert commands[-1][-1] == "nncf==9"


def test_a_demand_is_judged_by_its_figure(script: ModuleType) -> None:
    demand, Figure = part(script, "demands").demand, part(script, "evaluate").Figure
    wanted = ("≥", 24.0, "dB")
    cases = [
        (Figure(25, (24.5, 25.5)), True, True),
        (Figure(24.1, (23.9, 24.3)), True, False),
        (Figure(23.9, (23.7, 24.1)), False, False),
        (None, False, False),
        (24.0, True, True),
    ]
    for figure, met, certain in cases:
        one = demand(1, "SQNR", wanted, figure)
        assert (one.met, one.certain) == (met, certain)
    assert not demand(1, "drop", ("≤", 0.3, "points"), 0.4).met


def own_row(script: ModuleType, name: str, to_fp32: float, there: float, told: dict[str, Any] | None) -> Any:
    case, Figure = part(script, "case"), part(script, "evaluate").Figure
    row = case.Row(name, name, None, target=name, executed="int8", found={"speed": told})
    row.to_fp32 = Figure(to_fp32, (to_fp32 - 0.01, to_fp32 + 0.01))
    row.to_fp32_there = Figure(there, (there - 0.01, there + 0.01))
    return row


@pytest.mark.parametrize(("ratio", "met"), [(0.7, True), (0.9, False)])
def test_a_file_has_to_be_fast_and_what_optkit_says_stands_beside_it(
    script: ModuleType, ratio: float, met: bool
) -> None:
    told = {"verdict": "faster", "fp32_runtime": "onnxruntime", "ratio": 0.61}
    rows = [own_row(script, "onnxruntime", ratio, ratio, told), own_row(script, "openvino", 2, 1, None)]
    found = part(script, "parts").speed_demand(rows)
    assert (found.measured, found.met) == (ratio, met)
    said = "onnxruntime: faster, 0.61 of FP32 in onnxruntime; openvino: nothing"
    assert found.note == f"onnxruntime in onnxruntime; optkit says of {said}"


def test_the_verdict_names_the_fastest_file_and_whether_it_is_fast_enough(script: ModuleType) -> None:
    verdict, case = part(script, "parts").speed_verdict, part(script, "case")
    outside = own_row(script, "openvino", 0.5, 1, None)
    outside.name, outside.target = "FP32", None
    for ratio, words in (
        (0.7, "Runtime by 20 %"),
        (0.795, "perhaps by 20 %"),
        (0.9, "but NOT by 20 %"),
        (1.1, "No INT8 file of optkit beats FP32"),
    ):
        text = verdict([outside, own_row(script, "onnxruntime", ratio, ratio, None)])
        assert text.startswith("Fastest of all: FP32 in openvino (int8), 0.50 × (0.49 to 0.51). ")
        assert f"{ratio:.2f} ×" in text
        assert words in text
    assert verdict([case.Row("optkit", "onnxruntime", None, target="onnxruntime")]) == "Not measured."


def test_the_table_says_asked_measured_and_met(script: ModuleType, tmp_path: Path) -> None:
    demand, Figure = part(script, "demands").demand, part(script, "evaluate").Figure
    wanted = ("≥", 24.0, "dB")
    demands = [
        demand(4, "late", wanted, 24.0),
        demand(1, "sure", wanted, Figure(25, (24.5, 25.5))),
        demand(1, "unsure", wanted, Figure(24.1, (23.9, 24.3))),
        demand(1, "missed", wanted, Figure(23.9, (23.7, 24.1)), "a | b"),
        demand(1, "absent", wanted, None),
    ]
    args = script.argparse.Namespace(rounds=2, calibration_rounds=1, seconds=1.0, threads=2, work=tmp_path)
    result = json.loads(json.dumps(script.result_of(script.Part(demands), args, 0.1), allow_nan=False))
    text = script.markdown({"lite0": result, "b0": {**result, "demands": [], "error": "it ended with -11"}})
    lines = text[text.index("## Demands") :].splitlines()[4:9]
    assert lines == [
        "| 1 | sure ≥ 24 dB | 25 (24.5 to 25.5) | yes |  |",
        "| 1 | unsure ≥ 24 dB | 24.1 (23.9 to 24.3) | yes, though not for all of the interval |  |",
        "| 1 | missed ≥ 24 dB | 23.9 (23.7 to 24.1) | NO | a \\| b |",
        "| 1 | absent ≥ 24 dB | – | not measured |  |",
        "| 4 | late ≥ 24 dB | 24 | yes |  |",
    ]
    assert "FAILED: it ended with -11" in text
    assert text.endswith("3 of 5 demands are met.")


def test_answers_are_compared_image_by_image(script: ModuleType) -> None:
    evaluate, rng = part(script, "evaluate"), np.random.default_rng(0)
    reference = rng.standard_normal((400, 5)).astype(np.float32)
    labels = reference.argmax(1)
    noisy = reference + 0.1 * rng.standard_normal((400, 5)).astype(np.float32)
    found = evaluate.compare(reference, noisy, labels)
    low, high = found.sqnr_db.interval
    assert low < found.sqnr_db.value < high
    assert 18 < found.sqnr_db.value < 22
    assert found.drop_points.value == pytest.approx(100 * (1 - found.agreement.value))
    assert found.drop_points.value > 1
    assert found.p_value < 0.05
    equal = evaluate.compare(reference, reference, labels)
    assert (equal.agreement.value, equal.drop_points.value, equal.p_value) == (1, 0, 1)


def test_a_ratio_has_an_interval_over_the_rounds(script: ModuleType) -> None:
    evaluate, base = part(script, "evaluate"), np.array([10.0, 12, 11, 30])
    exact = evaluate.ratio(base / 2, base)
    assert (exact.value, *exact.interval) == pytest.approx((0.5, 0.5, 0.5))
    logs = np.array([-0.1, 0.1, 0.0])
    loose = evaluate.ratio(0.5 * np.exp(logs), np.ones(3))
    spread = 4.303 * 0.1 / np.sqrt(3)  # Student's t with two degrees of freedom
    expected = (0.5, 0.5 * np.exp(-spread), 0.5 * np.exp(spread))
    assert (loose.value, *loose.interval) == pytest.approx(expected, rel=0.01)


def test_copies_of_a_table_have_names_of_their_own(script: ModuleType, tmp_path: Path) -> None:
    table = tmp_path / "calib.csv"
    table.write_text("path,label\na.jpg,3\nb.jpg,7\n")
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(name.encode())
    copies = script.files.repeated(table, tmp_path / "many", 3)
    with copies.open() as stream:
        rows = [(Path(row["path"]), row["label"]) for row in csv.DictReader(stream)]
    assert len({path for path, _ in rows}) == 6
    assert [((copies.parent / path).read_text(), label) for path, label in rows] == [
        ("a", "3"),
        ("b", "7"),
    ] * 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --data, or --b0 and --b0-data"),
        (["--b0", "b0.onnx"], "--b0 needs --b0-data"),
        (["--data", "photos", "--only", "stress"], "stress needs --b0 and --b0-data"),
        (["--b0", "b0.onnx", "--b0-data", "x", "--only", "b0", "lite0"], "lite0 needs --data"),
        (["--data", "photos", "--rounds", "1"], "an interval needs 2 rounds at least"),
    ],
)
def test_what_is_missing_is_said(
    script: ModuleType, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        script.options_of(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_part_that_ends_its_process_leaves_the_figures_of_the_others(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--data", str(tmp_path), "--out", str(tmp_path), "--work", str(tmp_path), "--rounds", "3"]
    args, commands = script.options_of([*words, "--only", "lite0", "calibration"]), []
    demand = part(script, "demands").demand(3, "time", ("≤", 8, "s"), 9.0)

    def process(command: list[str], **options: object) -> SimpleNamespace:
        own = script.options_of(command[2:])
        commands.append(own)
        if own.only == ["lite0"]:
            return SimpleNamespace(returncode=-11)
        result = script.result_of(script.Part([demand]), own, None)
        script.result_path(own.out, "calibration").write_text(json.dumps(result))
        return SimpleNamespace(returncode=script.NOT_MET)

    script.result_path(tmp_path, "lite0").write_text("{}")  # of an earlier run
    monkeypatch.setattr(script.subprocess, "run", process)
    found = script.run_parts(args)
    assert found["lite0"]["error"] == "its process ended with -11"
    assert [one["measured"] for one in found["calibration"]["demands"]] == [9.0]
    assert [(own.only, own.rounds) for own in commands] == [(["lite0"], 3), (["calibration"], 3)]


def test_stored_results_are_shown_without_measuring(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demand = part(script, "demands").demand(2, "SQNR", ("≥", 22.5, "dB"), 23.0)
    args = script.argparse.Namespace(rounds=2, calibration_rounds=1, seconds=1.0, threads=2, work=tmp_path)
    result = script.result_of(script.Part([demand]), args, None)
    script.result_path(tmp_path, "tensorrt").write_text(json.dumps(result))
    assert run(script, monkeypatch, "--show", "--out", str(tmp_path)) == 0
    assert "| 2 | SQNR ≥ 22.5 dB | 23 | yes |  |" in capsys.readouterr().out
    assert run(script, monkeypatch, "--show", "--out", str(tmp_path / "empty")) == 1


def test_stored_results_name_no_folder_of_the_machine(script: ModuleType, tmp_path: Path) -> None:
    args = script.argparse.Namespace(rounds=2, calibration_rounds=1, seconds=1.0, threads=2, work=tmp_path)
    told = f"exit code 1: {tmp_path}/b0/model.onnx, {Path.home()}/x, {script.__file__}"
    demand = part(script, "demands").demand(2, "SQNR", ("≥", 22.5, "dB"), None, told)
    (found,) = script.result_of(script.Part([demand]), args, None)["demands"]
    assert found["note"] == "exit code 1: …/b0/model.onnx, …/x, …/benchmarks/int8.py"


def test_the_baseline_loads_the_network(script: ModuleType, tmp_path: Path) -> None:
    onnx.save(residual_network(), tmp_path / "model.onnx")
    command = [sys.executable, str(FOLDER / "int8_parts" / "baseline.py"), str(tmp_path / "model.onnx")]
    assert part(script, "processes").measured(command).peak_bytes > 50_000_000

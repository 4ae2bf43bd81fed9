"""The benchmark makes and compares the files that it names, and judges a demand by what it measured."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from optkit.cli import main as command_line
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


def in_this_process(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither another Python for every command of optkit, nor the installation of peers."""
    processes = part(script, "processes")

    def optkit(arguments: list[str], folder: Path) -> object:
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["optkit", *arguments])
        try:
            command_line()
        except SystemExit as ended:
            if ended.code:
                raise processes.Failed(f"{arguments} ended with {ended.code}") from None
        return processes.Run(1.5, 1.0, 2_000_000, "")

    monkeypatch.setattr(script.files, "optkit", optkit)
    monkeypatch.setattr(part(script, "peers"), "environment", lambda tool, folder: Path(sys.executable))
    only = (part(script, "peers").ORT_U8S8,)
    monkeypatch.setattr(part(script, "peers"), "PEERS", only)
    monkeypatch.setattr(part(script, "engines"), "COMPUTE_CAPABILITIES", ("SM89",))


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["int8.py", *words])
    monkeypatch.setattr(script, "use_cores", lambda count: None)
    with pytest.raises(SystemExit) as ended:
        script.main()
    return int(ended.value.code)


@pytest.mark.slow
def test_a_file_from_outside_and_its_stress_variant(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(script, monkeypatch)
    data, file, out = class_folders(tmp_path / "photos", 8), tmp_path / "b0.onnx", tmp_path / "result.json"
    onnx.save(bottleneck_network(), file)
    words = [
        "--b0",
        str(file),
        "--b0-data",
        str(data),
        "--rounds",
        "2",
        "--seconds",
        "0.01",
        "--threads",
        "1",
    ]
    run(script, monkeypatch, *words, "--work", str(tmp_path / "work"), "--out", str(out))
    own = json.loads((tmp_path / "work/b0/optkit_onnxruntime_plain/int8/calibration.json").read_text())
    train = script.files.Images(data).load(tuple("abcd")).train
    chosen = train.subset(np.array([train.ids.index(image["name"]) for image in own["images"]]))
    preprocess = script.files.Preprocess(size=16, crop_mode="squash")
    expected = script.files.decode(chosen, preprocess)[0]
    np.testing.assert_array_equal(np.load(tmp_path / "work" / "b0" / "calibration.npy"), expected)
    found = json.loads(out.read_text())["parts"]
    assert list(found) == ["b0", "stress"]
    rows = {(row["name"], row["runtime"]): row for row in found["b0"]["rows"]}
    fp32, peer = rows["FP32", "onnxruntime"], rows["onnxruntime u8s8", "onnxruntime"]
    assert (fp32["answers"]["sqnr_db"]["value"], fp32["to_fp32"]["value"]) == (200, 1)
    assert 5 < peer["answers"]["sqnr_db"]["value"] < 60
    assert peer["to_u8s8"]["value"] == 1
    for target, runtime in (("onnxruntime", "onnxruntime"), ("openvino", "openvino")):
        own = rows[f"optkit {target} ladder", runtime]
        assert own["error"] == ""
        assert own["to_fp32"]["interval"][0] <= own["to_fp32"]["value"] <= own["to_fp32"]["interval"][1]
        assert [rung["rung"] for rung in own["found"]["ladder"]]
    names = [one["what"] for one in found["b0"]["demands"]]
    assert names[:2] == ["b0, onnxruntime: SQNR", "b0, onnxruntime: drop"]
    assert "tensorrt ladder: findings of the linter" in names
    same, *drops = found["stress"]["demands"]
    assert same["met"]
    assert [one["what"] for one in drops] == [
        f"stress, {target}: drop" for target in ("onnxruntime", "openvino", "tensorrt")
    ]
    assert all(one["note"].startswith("plain: drop") for one in drops)


def test_calibration_is_repeated_in_turns_and_with_many_photos(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(script, monkeypatch)
    parts, peers = part(script, "parts"), part(script, "peers")
    monkeypatch.setattr(parts, "_loaded_mb", lambda fp32: 1.25)
    monkeypatch.setattr(parts, "MANY", 2)
    monkeypatch.setattr(peers, "NNCF_DEFAULT", peers.ORT_U8S8)
    spec = script.files.ModelSpec(
        arch="onnx",
        num_classes=4,
        class_names=tuple("0123"),
        preprocess=script.files.Preprocess(size=16),
    )
    network = script.files.write(residual_network(), spec, tmp_path / "fp32")
    monkeypatch.setattr(script.files, "make_lite0", lambda folder: network)
    for name, labels in (("calib", "0123" * 4), ("val", "021")):
        lines = ["path,label"]
        for index, label in enumerate(labels):
            file = tmp_path / f"{name}-{index}.jpg"
            file.write_bytes(jpeg(photo(24, 24, ord(name[0]) + index)))
            lines.append(f"{file.name},{label}")
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    out, work = tmp_path / "result.json", tmp_path / "work"
    words = ["--data", str(tmp_path), "--only", "calibration", "--rounds", "2", "--work", str(work)]
    assert (
        run(script, monkeypatch, *words, "--out", str(out)) == 1
    )  # 1.5 s are more than half of the peer's time
    found = json.loads(out.read_text())["parts"]["calibration"]
    calibrators = ("entropy", "minmax", "mse", "percentile")
    assert [one["what"].split(":")[0] for one in found["demands"]] == [
        name for name in calibrators for _ in range(4)
    ]
    assert {name: len(values) for name, values in found["facts"]["seconds"].items()} == dict.fromkeys(
        (*calibrators, "onnxruntime u8s8"), 2
    )
    time, memory, faster, growth = found["demands"][:4]
    assert (time["measured"], memory["measured"], growth["measured"]) == (1.5, 0.75, 1)
    peer = np.mean(found["facts"]["seconds"]["onnxruntime u8s8"])
    assert faster["measured"] == pytest.approx(peer / 1.5)
    for calibrator in calibrators:
        counts = [
            len(json.loads((work / "calibration" / name / "int8/calibration.json").read_text())["images"])
            for name in (calibrator, f"many-{calibrator}")
        ]
        assert counts == [16, 32]


def test_time_and_memory_are_those_of_the_command_alone(script: ModuleType) -> None:
    held = np.ones(40_000_000)  # 320 MB that the command does not have
    code = "import time; data = b'x' * 100_000_000; time.sleep(0.2); print(len(data))"
    done = part(script, "processes").measured([sys.executable, "-S", "-c", code])
    assert 0.2 < done.seconds < 20
    assert 100_000_000 <= done.peak_bytes < held.nbytes
    assert done.stdout == "100000000\n"
    with pytest.raises(part(script, "processes").Failed, match="no such thing"):
        part(script, "processes").measured([sys.executable, "-c", "raise SystemExit('no such thing')"])


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
    demands, Figure = part(script, "demands"), script.Figure
    wanted = ("≥", 24.0, "dB")
    cases = [
        (Figure(25, (24.5, 25.5)), True, True, "PASS  1. SQNR ≥ 24 dB: 25 (24.5 to 25.5)"),
        (Figure(24.1, (23.9, 24.3)), True, False, "but its interval reaches beyond"),
        (Figure(23.9, (23.7, 24.1)), False, False, "FAIL  1. SQNR ≥ 24 dB: 23.9 (23.7 to 24.1)"),
        (None, False, False, "FAIL  1. SQNR ≥ 24 dB: not measured"),
        (24.0, True, True, "PASS  1. SQNR ≥ 24 dB: 24"),
    ]
    for figure, met, certain, text in cases:
        one = demands.demand(1, "SQNR", wanted, figure)
        assert (one.met, one.certain) == (met, certain)
        assert text in one.line()
    assert not demands.demand(1, "drop", ("≤", 0.3, "points"), 0.4).met


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
    loose = evaluate.ratio(base * [0.4, 0.6, 0.5, 0.5], base)
    assert loose.interval[0] < loose.value < loose.interval[1]


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
    ],
)
def test_what_is_missing_is_said(
    script: ModuleType,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(script, monkeypatch, *words) == 2
    assert message in capsys.readouterr().err


def test_parts_of_earlier_runs_stay_in_the_result(script: ModuleType, tmp_path: Path) -> None:
    args = script.argparse.Namespace(rounds=1, seconds=1.0, threads=2, out=tmp_path / "int8.json")
    demand = part(script, "demands").demand(3, "time", ("≤", 8, "s"), 9.0)
    for name in ("lite0", "calibration"):
        result = script.result_of(args, {name: script.Part([demand])})
        args.out.write_text(json.dumps(result))
    assert list(result["parts"]) == ["lite0", "calibration"]
    assert result["parts"]["calibration"]["demands"][0]["met"] is False


def test_the_baseline_loads_the_network(script: ModuleType, tmp_path: Path) -> None:
    onnx.save(residual_network(), tmp_path / "model.onnx")
    command = [sys.executable, str(FOLDER / "int8_parts" / "baseline.py"), str(tmp_path / "model.onnx")]
    assert subprocess.run(command, check=False).returncode == 0

"""Models in processes of their own: turns, crashes, Ctrl-C, loads from many requests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from optkit.core.errors import EXIT_FAILED, InputError, UsageError
from optkit.core.types import Artifact, Manifest, ModelSpec, Preprocess
from optkit.measure import latency
from optkit.stages.bench import roofline, rounds
from optkit.stages.bench.candidate import Candidate
from optkit.stages.bench.comparisons import comparisons
from optkit.stages.bench.config import Config
from optkit.stages.bench.process import CrashedError, Process
from optkit.stages.bench.stage import run
from optkit.stages.bench.worker import Worker

QUICK = {"seconds": 0.3, "threads": 1, "repeats": 1}


@pytest.fixture
def model(colour_model):
    return colour_model()


def bench(context, models, **options):
    config = Config(**{**QUICK, **options})
    config.check()
    return run(config, {"models": models}, context).details


def test_a_process_answers_and_raises_what_the_command_raised(model):
    process = Process()
    try:
        facts, seconds = process.call("open", model, "onnxruntime", 1)
        assert 0 < seconds < 30
        assert facts["provider"] == "CPUExecutionProvider"
        assert len(facts["cpus"]) == 1, "one thread is pinned to one core"
        logits = process.call("run", np.zeros((3, 3, 16, 16), np.float32))
        assert logits.shape == (3, 3)
        with pytest.raises(UsageError, match="has no variant"):
            process.call("open", model, "onnxruntime:fast", 1)
        assert process.call("memory")["peak_rss_bytes"] > 10_000_000
    finally:
        process.close()


def test_a_crash_says_how_it_ended_and_what_was_written_last():
    process = Process()
    process.post("no such command")
    with pytest.raises(CrashedError) as caught:
        process.wait()
    assert caught.value.exit_code == EXIT_FAILED
    assert "exit code 1" in caught.value.why
    assert "no such command" in caught.value.why


def test_a_killed_process_is_named_by_its_signal():
    process = Process()
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(CrashedError, match="crashed") as caught:
        process.call("memory")
    assert "SIGKILL" in caught.value.why


@pytest.fixture
def killed_while_timed(monkeypatch):
    """The process of the model called "victim" is killed in its third turn."""
    turns = []
    real = rounds.Rounds._turn

    def turn(self, candidate, *arguments):
        turns.append(candidate.name)
        if candidate.name == "victim" and turns.count("victim") == 3:
            os.kill(candidate.process.pid, signal.SIGSEGV)
        real(self, candidate, *arguments)

    monkeypatch.setattr(rounds.Rounds, "_turn", turn)


def test_others_are_measured_when_one_crashes(context, model, killed_while_timed, colour_photos):
    models = {"good": model, "victim": model, "third": model}
    details = bench(context, models, data=str(colour_photos))
    good, victim, third = details["rows"]
    assert good["latency_ms"]
    assert third["top1"] == 1.0
    assert victim["top1"] is None
    assert "SIGSEGV" in victim["not_measured"]["top1"]
    assert [found["name"] for found in details["failed"]] == ["victim"]
    assert any("victim" in text and "CRASHED" in text for text in context.reporter.warnings)
    assert details["interrupted"] is False


@pytest.mark.parametrize("phase", ["run", "offline", "server", "layers"])
def test_a_death_in_a_later_phase_keeps_the_timings(context, model, colour_photos, monkeypatch, phase):
    real = Candidate.call

    def call(self, command, *arguments):
        if command == phase and self.name == "victim":
            os.kill(self.process.pid, signal.SIGKILL)
        return real(self, command, *arguments)

    monkeypatch.setattr(Candidate, "call", call)
    monkeypatch.setattr(roofline, "CEILING_S", 0.05)
    asked = {
        "run": {},
        "offline": {"loads": ["offline"]},
        "server": {"loads": ["server"], "latency_bound_ms": 2000.0},
        "layers": {"layers": True},
    }[phase]
    details = bench(context, {"good": model, "victim": model}, data=str(colour_photos), **asked)
    good, victim = details["rows"]
    assert good["top1"] == 1.0
    assert victim["latency_ms"]
    assert victim["top1"] is None
    assert "SIGKILL" in victim["not_measured"]["top1"]
    assert [found["name"] for found in details["failed"]] == ["victim"]


def test_a_model_that_cannot_be_opened_again_is_told(context, model, monkeypatch):
    monkeypatch.setattr(rounds, "REOPENING", 100.0)
    opened, real = [], Candidate.start

    def start(self):
        opened.append(1)
        if len(opened) == 2:
            self.artifact.file.write_bytes(b"broken")
        real(self)

    monkeypatch.setattr(Candidate, "start", start)
    details = bench(context, {"m": model}, repeats=3)
    assert details["rows"][0]["samples"] > 0
    assert details["failed"][0]["name"] == "m"
    assert any("could not go on" in text for text in context.reporter.warnings)


def test_a_model_that_dies_keeps_what_was_timed(context, model, killed_while_timed):
    details = bench(context, {"victim": model})
    assert details["failed"][0]["name"] == "victim"
    assert details["rows"][0]["samples"] > 0, "what was timed before is kept"


def test_ctrl_c_keeps_what_was_timed(context, model, monkeypatch):
    real, turns = rounds.Rounds._turn, []

    def turn(self, candidate, *arguments):
        turns.append(candidate.name)
        if len(turns) == 9:
            raise KeyboardInterrupt
        real(self, candidate, *arguments)

    monkeypatch.setattr(rounds.Rounds, "_turn", turn)
    details = bench(context, {"a": model, "b": model}, seconds=5.0)
    assert details["interrupted"] is True
    assert all(row["samples"] > 0 for row in details["rows"])
    assert details["comparisons"][0]["rounds"] == 4
    assert not Config(**QUICK).accepts(Manifest(stage="bench", key="k", format="result", details=details))


def test_ctrl_c_before_anything_was_timed_is_just_that(context, model, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds.Rounds, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench(context, {"a": model})


def test_every_model_has_its_turn_in_every_round(context, model, monkeypatch):
    turns = []
    real = rounds.Rounds._turn
    monkeypatch.setattr(
        rounds.Rounds, "_turn", lambda self, one, *rest: (turns.append(one.name), real(self, one, *rest))
    )
    details = bench(context, {"a": model, "b": model, "c": model}, seconds=1.0)
    by_round = [turns[start : start + 3] for start in range(0, len(turns), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in by_round)
    assert len({tuple(one) for one in by_round}) > 1, "in another order each time"
    assert details["comparisons"][0]["rounds"] == len(by_round)


def test_models_are_opened_again_when_that_is_cheap(context, model, monkeypatch):
    opened = []
    real = rounds.start_all
    monkeypatch.setattr(
        rounds, "start_all", lambda candidates, threads: (opened.append(1), real(candidates, threads))[1]
    )
    monkeypatch.setattr(rounds, "REOPENING", 100.0)
    bench(context, {"a": model}, repeats=3)
    assert len(opened) == 2, "opened once by the stage, and two more times"
    monkeypatch.setattr(rounds, "REOPENING", 1e-6)
    bench(context, {"a": model}, repeats=3)
    assert len(opened) == 2


def timed(name: str, rounds_ms: list[list[float]]) -> Candidate:
    spec = ModelSpec(arch="a", num_classes=2, class_names=("a", "b"), preprocess=Preprocess(size=8))
    artifact = Artifact(name, None, Manifest(stage="load", key=name, format="onnx", spec=spec))
    candidate = Candidate(name, artifact, "onnxruntime")
    candidate.timings[1] = rounds.Timing(rounds=dict(enumerate(rounds_ms)))
    return candidate


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "cannot tell"), (1.1, "slower"), (0.9, "faster")])
def test_verdicts_come_from_rounds(factor, verdict):
    rng = np.random.default_rng(0)
    machine = np.exp(rng.normal(0, 0.2, 40))  # the same for both in a round, and larger than the difference
    first = [[speed * noise for noise in rng.normal(1, 0.02, 9)] for speed in machine]
    second = [[factor * speed * noise for noise in rng.normal(1, 0.02, 9)] for speed in machine]
    (found,) = comparisons([timed("a", first), timed("b", second)], 1, 0.99)
    assert found["verdict"] == verdict
    assert found["interval"][0] <= factor <= found["interval"][1]
    assert (found["rounds"], found["confidence"], found["reference"]["name"]) == (40, 0.99, "a")


def test_rounds_that_one_lacks_are_not_compared():
    (found,) = comparisons([timed("a", [[1.0]] * 8), timed("b", [[1.0]] * 5)], 1, 0.99)
    assert found["rounds"] == 5
    assert comparisons([timed("a", [[1.0]] * 8), timed("b", [[1.0]] * 2)], 1, 0.99) == []


def test_loads_of_many_requests(context, model):
    details = bench(context, {"m": model}, loads=["offline", "server"], latency_bound_ms=2000.0, seconds=0.5)
    (row,) = details["rows"]
    assert row["offline"]["interval"][0] < row["offline"]["images_per_s"] < row["offline"]["interval"][1]
    assert row["offline"]["streams"] == 1
    assert row["server"]["p99_ms"] <= 2000.0
    assert 0 < row["server"]["queries_per_s"] <= 1000 / row["latency_ms"]["p50"] * 1.5
    assert row["not_measured"].keys().isdisjoint({"offline", "server"})


def test_layers_stand_beside_the_ceilings_of_the_machine(context, model, monkeypatch):
    monkeypatch.setattr(roofline, "CEILING_S", 0.1)
    details = bench(context, {"m": model}, layers=True)
    (found,) = details["layers"]
    assert found["runtime"] == "onnxruntime"
    assert any(layer["macs"] == 16 * 16 * 9 for layer in found["layers"])
    assert details["roofline"]["bytes_per_s"] > 1e8
    assert bench(context, {"m": model})["layers"] == []


def test_the_confidence_is_that_of_the_intervals(context, model):
    wide, narrow = (
        bench(context, {"a": model, "b": model}, confidence=confidence)["comparisons"][0]
        for confidence in (0.9999, 0.6)
    )
    assert (wide["confidence"], narrow["confidence"]) == (0.9999, 0.6)
    widths = [one["interval"][1] / one["interval"][0] for one in (wide, narrow)]
    assert widths[0] > widths[1]


def test_timing_like_trtexec_needs_a_gpu(context, model):
    bench(context, {"m": model}, like="trtexec-11")
    assert any("trtexec-11 times GPUs" in text for text in context.reporter.warnings)


def test_the_machine_was_watched(context, model):
    details = bench(context, {"m": model}, loads=["offline"])
    assert details["trace"]["columns"][0] == "seconds"
    assert len(details["trace"]["rows"]) >= 2
    assert 0 < details["time"]["latency_runs_s"] < details["time"]["total_s"]
    memory = details["rows"][0]["memory"]
    assert 0 < memory["rss_before_bytes"] < memory["peak_rss_bytes"]


def test_a_turn_is_as_long_as_it_should_be_when_the_speed_has_changed(monkeypatch):
    worker = Worker()
    worker._session, worker._pixels, worker._typical_ms = object(), {1: np.zeros(1)}, {1: 1.0}
    monkeypatch.setattr(latency, "burst", lambda call, count: [10.0] * count)
    assert [len(worker.burst(1, 100.0, 1000)) for _ in range(2)] == [100, 10]


def test_a_bound_and_the_server_load_belong_together():
    with pytest.raises(UsageError, match="belong together"):
        Config(loads=["server"]).check()
    with pytest.raises(UsageError, match="belong together"):
        Config(latency_bound_ms=5.0).check()


def test_flips_are_counted_by_class_and_shown(context, colour_model, colour_photos):
    good, bad = colour_model(), colour_model(("red", "blue", "green"))
    liar = bad.__class__(bad.key, bad.path, bad.manifest.model_copy(update={"spec": good.spec}))
    details = bench(context, {"good": good, "liar": liar}, data=str(colour_photos))
    (found,) = details["flips"]
    assert (found["name"], found["reference"], found["n"]) == ("liar", "good", 30)
    assert (found["lost"], found["won"]) == (20, 0)
    assert {row["class"]: (row["n"], row["lost"], row["won"]) for row in found["by_class"]} == {
        "blue": (10, 10, 0),
        "green": (10, 10, 0),
    }
    first = found["images"][0]
    assert first["label"] == first["before"] != first["after"]
    assert (context.workdir / first["image"]).is_file()
    assert len(found["images"]) == 20


def test_data_whose_classes_no_model_knows_is_told_before_timing(context, model, colour_photos, monkeypatch):
    for part in ("train", "val"):
        (colour_photos / part / "green").rename(colour_photos / part / "grue")
    monkeypatch.setattr(rounds.Rounds, "measure", None)  # would be a TypeError
    with pytest.raises(InputError, match="classes"):
        bench(context, {"m": model}, data=str(colour_photos))


def test_ctrl_c_in_the_terminal_ends_the_command_with_130(tmp_path, model):
    optkit = [sys.executable, "-c", "from optkit.cli import main; main()"]
    options = ["--seconds", "60", "--loads", "offline", "--json"]
    command = [*optkit, "bench", str(model.file), *options]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said = ""
    while "Timing" not in said:  # a line comes when that is done
        said += process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert '"interrupted": true' in out
    assert "Traceback" not in err
    assert (tmp_path / "runs" / "bench" / "manifest.json").is_file()

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from optkit.core.errors import InputError, MissingError, UsageError
from optkit.core.types import Artifact, Format, Manifest, ModelSpec, Preprocess
from optkit.models.build import build
from optkit.models.checkpoint import save_checkpoint
from optkit.runtimes import onnxruntime, tensorrt
from optkit.stages.bench import counted
from optkit.stages.bench.config import Config
from optkit.stages.bench.stage import run

ROW_KEYS = {
    "name",
    "runtime",
    "batch",
    "latency_ms",
    "throughput",
    "top1",
    "macs",
    "params",
    "size_bytes",
    "agreement",
    "not_measured",
}


def bench(context, models, **options):
    config = Config(**{"seconds": 0.05, "threads": 1, "repeats": 1, **options})
    config.check()
    output = run(config, {"models": models}, context)
    assert output.format == Format.RESULT
    json.dumps(output.details, allow_nan=False)
    return output


def engine(tmp_path, spec) -> Artifact:
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / Format.ENGINE.filename).write_bytes(b"ftrt" + bytes(100))
    (folder / Format.ONNX.filename).write_bytes(b"its source")
    facts = {"flavour": "tensorrt", "version": "10.13.0.1", "compute_capability": None, "size_bytes": 104}
    manifest = Manifest(stage="export", key="e", format=Format.ENGINE, spec=spec, details={"engine": facts})
    return Artifact("e", folder, manifest)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(tensorrt, "unavailable", lambda _="": "there is no CUDA device here")


def test_everything_is_measured_on_the_artifact(context, colour_model, colour_photos):
    model = colour_model()
    output = bench(context, {"m": model}, data=str(colour_photos))
    (row,) = output.details["rows"]
    assert set(row) >= ROW_KEYS
    assert (row["name"], row["runtime"], row["batch"], row["precision"]) == ("m", "onnxruntime", 1, "fp32")
    assert list(row["latency_ms"].values()) == sorted(row["latency_ms"].values())
    assert row["latency_ms"]["p50"] > 0
    assert row["throughput"] > 0
    assert (row["top1"], row["n"], row["agreement"]) == (1.0, 30, 1.0)
    assert row["macs"] == 16 * 16 * 9
    assert row["params"] == 9
    assert row["size_bytes"] == model.file.stat().st_size
    assert set(row["not_measured"]) <= {"energy"}, "few machines let energy counters be read"
    assert row["facts"]["provider"] == "CPUExecutionProvider"


def test_raw_samples_are_kept(context, colour_model, colour_photos):
    output = bench(context, {"m": colour_model()}, data=str(colour_photos), batch_sizes=[1, 4])
    latencies = [found for found in output.measurements if found.name == "latency_ms"]
    assert [found.conditions["batch"] for found in latencies] == [1, 4]
    assert all(found.samples and found.conditions["model"] == "m" for found in latencies)
    (top1,) = [found for found in output.measurements if found.name == "top1"]
    assert top1.samples == (1.0,) * 30


def test_without_data_accuracy_is_null_with_the_reason(context, colour_model):
    (row,) = bench(context, {"m": colour_model()}).details["rows"]
    assert row["top1"] is None
    assert row["agreement"] is None
    assert "no data" in row["not_measured"]["top1"]
    assert row["latency_ms"]


def test_models_are_compared_image_by_image(context, colour_model, colour_photos):
    good, bad = colour_model(), colour_model(("red", "blue", "green"))
    # Its spec claims another order of the same outputs: it takes green for blue.
    liar = replace(bad, manifest=bad.manifest.model_copy(update={"spec": good.spec}))
    rows = bench(context, {"good": good, "reordered": bad, "liar": liar}, data=str(colour_photos)).details[
        "rows"
    ]
    assert [row["top1"] for row in rows] == [1.0, 1.0, pytest.approx(1 / 3)]
    assert [row["agreement"] for row in rows] == [1.0, 1.0, pytest.approx(1 / 3)]
    assert rows[2]["top1_drop"]["drop"] == pytest.approx(2 / 3)
    assert rows[2]["top1_drop"]["p_value"] < 0.001


def test_answers_are_compared_as_classes_of_the_data(context, colour_model, colour_photos):
    named = colour_model()
    numbers = named.spec.model_copy(update={"class_names": ("0", "1", "2")})
    in_order = colour_model(sorted(named.spec.class_names))
    unnamed = replace(in_order, manifest=in_order.manifest.model_copy(update={"spec": numbers}))
    rows = bench(context, {"named": named, "unnamed": unnamed}, data=str(colour_photos)).details["rows"]
    assert [row["top1"] for row in rows] == [1.0, 1.0]
    assert rows[1]["agreement"] == 1.0
    assert rows[1]["agreement_with"] == {"name": "named", "runtime": "onnxruntime"}
    assert rows[0]["top1_drop"] is None, "the baseline is not compared with itself"


def test_several_runtimes_and_batches(context, colour_model):
    rows = bench(
        context, {"m": colour_model()}, runtimes=["onnxruntime", "null"], batch_sizes=[1, 3]
    ).details["rows"]
    assert [(row["runtime"], row["batch"]) for row in rows] == [
        ("onnxruntime", 1),
        ("onnxruntime", 3),
        ("null", 1),
        ("null", 3),
    ]


def test_an_engine_beside_other_models_is_a_row_that_says_why(context, colour_model, tmp_path, no_gpu):
    model = colour_model()
    rows = bench(context, {"onnx": model, "engine": engine(tmp_path, model.spec)}).details["rows"]
    assert rows[0]["latency_ms"]
    assert rows[1]["latency_ms"] is None
    assert rows[1]["throughput"] is None
    assert "no CUDA device" in rows[1]["not_measured"]["latency_ms"]
    assert len(rows[1]["not_measured"]["latency_ms"]) < 100  # it stands in a cell of a table
    assert rows[1]["size_bytes"] == 104


def test_an_engine_alone_is_a_missing_error_that_names_its_onnx_file(context, colour_model, tmp_path, no_gpu):
    artifact = engine(tmp_path, colour_model().spec)
    with pytest.raises(MissingError) as caught:
        bench(context, {"engine": artifact})
    assert caught.value.exit_code == 3
    assert "TensorRT 10.13.0.1" in caught.value.message
    assert f"optkit bench {artifact.path / 'model.onnx'}" in caught.value.hint


def test_a_missing_package_is_named_with_its_remedy(context, colour_model, monkeypatch):
    reason = "onnxruntime is not installed: pip install 'optkit[cpu]'"
    monkeypatch.setattr(onnxruntime, "unavailable", lambda _="": reason)
    with pytest.raises(MissingError) as caught:
        bench(context, {"m": colour_model()})
    assert "pip install" in caught.value.why


def test_a_broken_file_among_good_ones_is_a_row_and_a_warning(context, colour_model):
    good, broken = colour_model(), colour_model(("blue", "green", "red"))
    broken.file.write_bytes(broken.file.read_bytes()[:100])
    rows = bench(context, {"good": good, "broken": broken}).details["rows"]
    assert rows[0]["latency_ms"]
    assert "refuses" in rows[1]["not_measured"]["latency_ms"]
    assert rows[1]["macs"] is None
    assert any("broken" in warning for warning in context.reporter.warnings)


def test_a_broken_file_alone_is_an_input_error(context, colour_model):
    broken = colour_model()
    broken.file.write_bytes(broken.file.read_bytes()[:100])
    with pytest.raises(InputError, match="refuses"):
        bench(context, {"m": broken})


def test_a_fixed_batch_is_not_timed_at_another(context, colour_model, colour_photos):
    rows = bench(context, {"m": colour_model(batch=2)}, batch_sizes=[1, 2], data=str(colour_photos)).details[
        "rows"
    ]
    assert "fixes its batch at 2" in rows[0]["not_measured"]["latency_ms"]
    assert rows[1]["latency_ms"]
    assert rows[0]["top1"] == 1.0


def test_classes_that_the_model_does_not_know(context, colour_model, colour_photos):
    (colour_photos / "val" / "green").rename(colour_photos / "val" / "grue")
    (colour_photos / "train" / "green").rename(colour_photos / "train" / "grue")
    with pytest.raises(InputError, match="classes"):
        bench(context, {"m": colour_model()}, data=str(colour_photos))


def test_limit_of_images(context, colour_model, colour_photos):
    (row,) = bench(context, {"m": colour_model()}, data=str(colour_photos), max_images=6).details["rows"]
    assert row["n"] == 6


def test_costs_of_the_manifest_are_taken(context, colour_model):
    model = colour_model()
    known = replace(model, manifest=model.manifest.model_copy(update={"metrics": {"macs": 7, "params": 8}}))
    (row,) = bench(context, {"m": known}).details["rows"]
    assert (row["macs"], row["params"]) == (7, 8)


def test_unknown_runtime():
    with pytest.raises(UsageError, match="onnxruntme") as caught:
        Config(runtimes=["onnxruntme"]).check()
    assert "onnxruntime" in caught.value.hint


def test_a_checkpoint_runs_in_pytorch_and_is_counted_there(context, tmp_path, monkeypatch):
    torch.manual_seed(0)
    spec = ModelSpec(
        arch="test_efficientnet",
        num_classes=2,
        class_names=("a", "b"),
        preprocess=Preprocess(size=32),
    )
    save_checkpoint(build(spec.arch, 2), spec, tmp_path / Format.TORCH.filename)
    artifact = Artifact("t", tmp_path, Manifest(stage="finetune", key="t", format=Format.TORCH, spec=spec))
    monkeypatch.setattr(counted, "cost_of", None)  # in this process: a TypeError
    (row,) = bench(context, {"m": artifact}).details["rows"]
    assert (row["runtime"], row["format"]) == ("pytorch", "torch")
    assert row["latency_ms"]
    assert row["macs"] > 0
    assert row["params"] > 0


def test_a_runtime_that_computes_nothing_says_nothing_of_the_model(context, colour_model, colour_photos):
    output = bench(context, {"m": colour_model()}, data=str(colour_photos), runtimes=["null", "onnxruntime"])
    null, real = output.details["rows"]
    assert (null["computes"], real["computes"]) == (False, True)
    assert null["top1"] is null["agreement"] is null["n"] is None
    assert "computes nothing" in null["not_measured"]["top1"]
    assert (real["top1"], real["agreement"]) == (1.0, 1.0), "the baseline is a row that computes"
    top1 = [found for found in output.measurements if found.name == "top1"]
    assert [bool(found.samples) for found in top1] == [False, True]
    assert "computes nothing" in top1[0].not_measured


def test_the_null_runtime_alone_leaves_accuracy_out(context, colour_model, colour_photos):
    (row,) = bench(context, {"m": colour_model()}, data=str(colour_photos), runtimes=["null"]).details["rows"]
    assert row["top1"] is None
    assert row["latency_ms"]["p50"] > 0, "what measuring itself costs"
    assert "computes nothing" in row["not_measured"]["top1"]

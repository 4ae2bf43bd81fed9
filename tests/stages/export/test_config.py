from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from optkit.core import machine
from optkit.core.errors import MissingError, UsageError
from optkit.core.types import Format
from optkit.stages.export.config import Config

RTX = ("tensorrt_rtx", "1.7.1")
FULL = ("tensorrt", "11.4.1")


@pytest.mark.parametrize("text", ["sm89", "SM89", "8.9", "89", "sm_89"])
def test_targets_are_read_as_people_write_them(text: str) -> None:
    assert Config(target=text).target == "SM89"


def test_target_that_is_none() -> None:
    with pytest.raises(ValidationError, match="SM89"):
        Config(target="ada")
    assert Config(target="Portable").target == "portable"


def test_produces_by_format() -> None:
    assert Config().produces() == Format.ONNX
    assert Config(format="tensorrt").produces() == Format.ENGINE


def test_onnx_needs_nothing_and_an_engine_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "tensorrt", lambda: None)
    Config().check()
    with pytest.raises(MissingError) as caught:
        Config(format="tensorrt").check()
    assert "optkit[rtx]" in caught.value.hint


def test_rtx_builds_for_its_own_targets_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "tensorrt", lambda: RTX)
    Config(format="tensorrt", target="SM120").check()
    with pytest.raises(UsageError, match="SM90"):
        Config(format="tensorrt", target="SM90").check()


def test_without_a_gpu_rtx_builds_portable_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "tensorrt", lambda: RTX)
    monkeypatch.setattr(machine, "gpus", list)
    config = Config(format="tensorrt")
    config.check()
    assert config.environment() == {"tensorrt": "tensorrt_rtx 1.7.1", "target": "portable"}
    assert Config().environment() == {}


def test_tensorrt_needs_the_gpu_it_builds_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "tensorrt", lambda: FULL)
    monkeypatch.setattr(machine, "gpus", list)
    with pytest.raises(MissingError, match="NVIDIA GPU"):
        Config(format="tensorrt").check()
    monkeypatch.setattr(machine, "gpus", lambda: [{"name": "H100", "compute_cap": "9.0"}])
    config = Config(format="tensorrt")
    config.check()
    assert config.environment() == {"tensorrt": "tensorrt 11.4.1", "target": "SM90", "gpu": "H100"}
    with pytest.raises(UsageError, match="SM89"):
        Config(format="tensorrt", target="SM89").check()


def test_the_config_imports_nothing_heavy() -> None:
    code = (
        "import sys; from optkit.stages.export.config import Config; c = Config(format='tensorrt'); "
        "c.environment(); bad = {'torch', 'onnx', 'numpy', 'tensorrt_rtx', 'tensorrt'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""The folder's listing is the registry."""

from __future__ import annotations

import pytest

from optkit.core import discover
from optkit.core.errors import MissingError, UsageError


def test_names_leave_out_what_is_no_plugin() -> None:
    assert discover.names("optkit.runtimes") == ["null", "onnxruntime", "openvino", "pytorch", "tensorrt"]
    assert "prune" in discover.names("optkit.stages")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        discover.load("optkit.runtimes", "pytroch", "runtime")
    assert "pytorch" in caught.value.hint


def test_require_names_the_extra() -> None:
    assert discover.installed("json")
    with pytest.raises(MissingError) as caught:
        discover.require("no_such_package_xyz", "cpu")
    assert "optkit[cpu]" in caught.value.hint

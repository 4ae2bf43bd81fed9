"""`optkit scale`, and `optkit cost` of what it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.support import optkit

SMALL = ("--base", "lite0", "--size", "32", "--num-classes", "4")
NARROW = "lite0-d0.50-w0.25-r32"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_phi_gives_a_name_that_cost_accepts() -> None:
    scaled = optkit("scale", *SMALL, "--phi", "2", "--json")
    assert scaled.code == 0, scaled.err
    chosen = scaled.json["chosen"]
    assert f"optkit finetune --arch {chosen['arch']}" in scaled.err
    cost = optkit("cost", chosen["arch"], "--num-classes", "4", "--json")
    assert cost.json["macs"] == chosen["macs"]
    assert cost.json["size"] == chosen["size"]


def test_the_chosen_network_stands_beside_the_base() -> None:
    done = optkit("scale", *SMALL)
    assert done.code == 0, done.err
    for text in ("lite0-d1.20-w1.10-r36", "GMACs", "predicted ×2.000 (2^φ)", "counted"):
        assert text in done.out


def test_the_search_and_the_budget_are_shown() -> None:
    done = optkit("scale", *SMALL, "--search", "--step", "0.5", "--max-macs", "0.012")
    assert done.code == 0, done.err
    for text in ("step 1: candidates by how near", "step 2: the largest φ", "←"):
        assert text in done.out
    assert "ranked by cost" in done.err


def test_a_trained_ranking_is_shown_with_intervals() -> None:
    options = ("--search", "--rank-by", "training", "--data", "synthetic", "--epochs", "1")
    done = optkit("scale", *SMALL, *options, "--step", "0.4", "--candidates", "2")
    assert done.code == 0, done.err
    assert "top-1" in done.out
    assert "not trained" in done.out
    assert "--data synthetic" in done.err


def test_a_malformed_name_is_a_clear_error() -> None:
    done = optkit("cost", "b0-d1.2-w1.1")
    assert done.code == 2
    assert "not the name of a scaled network" in done.err
    assert "b0-d1.20-w1.10-r256" in done.err


def test_a_scaled_network_is_trained_and_counted_again() -> None:
    done = optkit("finetune", "--arch", NARROW, "--data", "synthetic", "--epochs", "1", "--out", "ft")
    assert done.code == 0, done.err
    assert "nobody has trained" in done.err
    assert NARROW in done.out
    assert optkit("cost", "ft", "--json").json["name"] == NARROW


def test_package_weights_cannot_fit() -> None:
    done = optkit("finetune", "--arch", NARROW, "--data", "synthetic", "--weights", "package")
    assert done.code == 3
    assert "scaled network" in done.err


def test_layers_shows_every_layer_with_its_formula() -> None:
    short, long = optkit("cost", "lite0", "--size", "32"), optkit("cost", "lite0", "--size", "32", "--layers")
    assert "dearest of" in short.out
    assert "blocks.3.1.conv_dw" not in short.out
    assert "blocks.3.1.conv_dw" in long.out
    assert "why they differ" in long.out
    for text in ("2·H·W·C_in·C_out·K²", "depthwise", "exact count", "not counted"):
        assert text in short.out
    assert "optkit finetune --arch lite0" in short.err

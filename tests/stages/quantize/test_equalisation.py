from __future__ import annotations

import numpy as np
import pytest

from optkit.graph.qdq_prepare import prepare
from optkit.stages.quantize.execute import run_model
from optkit.stages.quantize.placement import onnxruntime as for_onnxruntime
from optkit.stages.quantize.placement import openvino as for_openvino
from optkit.stages.quantize.placement import tensorrt as for_tensorrt
from optkit.stages.quantize.recovery import equalisation
from tests.small_networks import bottleneck_network, gated_network
from tests.stages.quantize.support import calibrated, spread, sqnr_db, workbench


@pytest.mark.parametrize("placement", [for_onnxruntime, for_openvino, for_tensorrt])
def test_channels_of_very_unequal_range_are_saved(placement) -> None:
    model = spread(prepare(bottleneck_network()))
    bench = workbench(model)
    before = calibrated(model, bench, placement)
    after, note = equalisation.improve(before, bench)
    assert sqnr_db(before, bench) < 10
    assert sqnr_db(after, bench) > 38
    assert note.startswith("alpha")
    answers = run_model(after.model, bench.io, bench.held.batches)
    np.testing.assert_allclose(answers, bench.held.reference, rtol=1e-3, atol=1e-3)


def test_the_strength_is_chosen_by_the_images_to_choose_by(monkeypatch: pytest.MonkeyPatch) -> None:
    model = spread(prepare(bottleneck_network()))
    bench = workbench(model)
    before = calibrated(model, bench, for_onnxruntime)
    scores = {}
    for alpha in equalisation.ALPHAS:
        with monkeypatch.context() as patch:
            patch.setattr(equalisation, "ALPHAS", (alpha,))
            found, _ = equalisation.improve(before, bench)
        scores[alpha] = bench.choosing.parity(found.build(), bench.io)[0].sqnr_db
    _, note = equalisation.improve(before, bench)
    assert note == f"alpha {max(scores, key=scores.get):g}"
    assert len(set(scores.values())) == len(scores)


def test_a_network_without_such_channels_is_left() -> None:
    """What is gated or not linear cannot be rescaled."""
    model = prepare(gated_network())
    bench = workbench(model, 8)
    assert equalisation.improve(calibrated(model, bench, for_onnxruntime), bench) is None

from __future__ import annotations

import pytest
import torch

from optkit.stages.quantize.least_squares import SHRINKS, Damped, Moments, MomentSums, fit_layer

GROUPS, ROWS, K = 2, 5, 12


def correlated(samples: int, seed: int, rank: int = 3) -> torch.Tensor:
    """Inputs (groups, k, samples) that lie near a few directions, with a mean."""
    torch.manual_seed(0)
    directions = torch.randn(GROUPS, K, rank)
    torch.manual_seed(seed)
    return directions @ torch.randn(GROUPS, rank, samples) + 0.1 * torch.randn(GROUPS, K, samples) + 1.0


def sums(x: torch.Tensor, y: torch.Tensor) -> MomentSums:
    found = MomentSums()
    half = x.shape[-1] // 2
    found.add(x[..., :half], y[..., :half])
    found.add(x[..., half:], y[..., half:])
    return found


def weights() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(GROUPS, ROWS, K, dtype=torch.float64)


def coarse(weight: torch.Tensor) -> torch.Tensor:
    """Scales for which rounding shows."""
    return weight.abs().amax(-1) / 4


def output_error(found: torch.Tensor, weight: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> float:
    """Of the outputs, when a bias takes up their mean."""
    difference = found.double() @ x.double() - weight @ y.double()
    return float((difference - difference.mean(-1, keepdim=True)).square().mean())


def test_moments_are_those_of_all_batches_together() -> None:
    x, y = correlated(400, 1), correlated(400, 2)
    found = sums(x, y).moments()
    for group in range(GROUPS):
        both = torch.cov(torch.cat([x[group], y[group]]).double(), correction=0)
        torch.testing.assert_close(found.xx[group], both[:K, :K], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.yx[group], both[K:, :K], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.mean_y, y.double().mean(-1), atol=1e-5, rtol=1e-5)


def test_refitting_undoes_what_was_done_to_the_inputs() -> None:
    y = correlated(500, 1)
    found = Damped(sums(2 * y, y).moments(), damping=1e-6).refit(weights())
    torch.testing.assert_close(found @ (2 * y).double(), weights() @ y.double(), atol=1e-2, rtol=1e-2)


def test_a_strong_damping_keeps_the_weights() -> None:
    y = correlated(500, 1)
    found = Damped(sums(y + torch.randn_like(y), y).moments(), damping=1e6).refit(weights())
    torch.testing.assert_close(found, weights(), atol=1e-4, rtol=1e-4)


def test_compensated_rounding_keeps_the_outputs_better_than_rounding_to_nearest() -> None:
    x, unseen = correlated(2000, 1), correlated(2000, 2)
    weight, scales = weights(), coarse(weights())
    found = Damped(sums(x, x).moments(), damping=0.01).round(weight, scales)
    codes = found.double() / scales[..., None]
    torch.testing.assert_close(codes, codes.round(), atol=1e-4, rtol=0)
    assert codes.abs().max() <= 127
    nearest = (weight / scales[..., None]).round() * scales[..., None]
    assert output_error(found, weight, unseen, unseen) < 0.2 * output_error(nearest, weight, unseen, unseen)


def test_independent_inputs_are_rounded_to_nearest() -> None:
    weight, scales = weights(), coarse(weights())
    identity = torch.eye(K, dtype=torch.float64).expand(GROUPS, K, K)
    mean = torch.zeros(GROUPS, K, dtype=torch.float64)
    found = Damped(Moments(identity, identity, mean, mean), damping=0.0).round(weight, scales)
    nearest = (weight / scales[..., None]).round() * scales[..., None]
    torch.testing.assert_close(found.double(), nearest, atol=1e-5, rtol=1e-5)


def test_more_columns_than_a_block_are_rounded_as_in_one() -> None:
    """Against the plain algorithm, column by column on the whole matrix."""
    torch.manual_seed(3)
    k = 150
    x = torch.randn(1, k, 5) @ torch.randn(1, 5, 900) + 0.3 * torch.randn(1, k, 900)
    moments = sums(x, x).moments()
    xx = moments.xx
    weight = torch.randn(1, 4, k, dtype=torch.float64)
    scales = weight.abs().amax(-1) / 6
    found = Damped(moments, damping=0.01).round(weight, scales)
    expected = weight.clone()
    hessian = xx[0] + 0.01 * xx[0].diagonal().mean() * torch.eye(k)
    order = xx[0].diagonal().argsort(descending=True).tolist()
    for position, column in enumerate(order):
        rest = order[position + 1 :]
        code = (expected[0, :, column] / scales[0]).round() * scales[0]
        error = expected[0, :, column] - code
        expected[0, :, column] = code
        if rest:  # the best answer of the columns that are free: a least-squares problem of their own
            free = hessian[rest][:, rest]
            expected[0, :, rest] += torch.outer(error, torch.linalg.solve(free, hessian[rest, column]))
    assert (found.double() - expected).abs().lt(1e-3).double().mean() > 0.98


def test_what_few_images_say_is_not_trusted() -> None:
    """Fifteen samples fix a fit exactly along 12 inputs; what they say of the noise is chance."""
    torch.manual_seed(5)
    clean = torch.randn(GROUPS, K, 2000)
    noisy = clean + 0.5 * torch.randn_like(clean)
    weight, smallest = weights(), torch.full((GROUPS, ROWS), 1e-9, dtype=torch.float64)
    few = sums(noisy[..., :16], clean[..., :16])
    guarded, _, _ = fit_layer(weight, few, sums(noisy[..., 16:64], clean[..., 16:64]), smallest)
    trusting, _, _ = fit_layer(weight, few, few, smallest)
    unseen = (noisy[..., 1000:], clean[..., 1000:])
    assert output_error(guarded, weight, *unseen) < output_error(trusting, weight, *unseen)


@pytest.mark.parametrize("dead", [True, False])
def test_scales_are_those_of_the_rounded_weights(dead: bool) -> None:
    x = correlated(500, 1)
    weight = weights()
    if dead:
        weight[0, 0] = 0
        x[1, 3] = 0
    smallest = torch.full((GROUPS, ROWS), 1e-6, dtype=torch.float64)
    found, scales, _ = fit_layer(weight, sums(x, x), sums(x, x), smallest)
    assert torch.isfinite(found).all()
    assert (scales > 0).all()
    codes = found / scales[..., None]
    torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("samples", [1, 300])
def test_inputs_that_do_not_vary_are_no_obstacle(samples: int) -> None:
    """A single image of a pooled map, or constant images: what is left of the moments is rounding."""
    torch.manual_seed(7)
    x = torch.randn(GROUPS, K, 1).expand(GROUPS, K, samples).contiguous() + 3
    constant = MomentSums()
    constant.add(x, x)
    weight, smallest = weights(), torch.full((GROUPS, ROWS), 1e-9, dtype=torch.float64)
    found, scales, moments = fit_layer(weight, constant, constant, smallest)
    clipped = (1 - min(SHRINKS)) * weight.abs().amax(-1) + scales  # no sample says what clipping would cost
    assert ((found - weight).abs() <= clipped[..., None]).all()
    torch.testing.assert_close(moments.mean_x, x.double().mean(-1), atol=1e-5, rtol=1e-5)

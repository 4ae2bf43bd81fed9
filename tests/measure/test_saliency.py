from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

from optkit.core.errors import UsageError
from optkit.measure.saliency import feature_layer, grad_cam, occlusion

SIZE = 32


def corner_net() -> nn.Module:
    """Class 0 is the mean of red, class 1 that of green; the activation after the convolution is in place."""
    module = nn.Sequential(
        nn.Conv2d(3, 2, 4, stride=4, bias=False),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2, 2, bias=False),
    )
    with torch.no_grad():
        module[0].weight.zero_()
        module[0].weight[0, 0] = module[0].weight[1, 1] = 1 / 16
        module[4].weight.copy_(20 * torch.eye(2))
    return module.eval()


@pytest.fixture
def pixels() -> np.ndarray:
    """One image, twice: red in the upper left corner, green in the lower right one."""
    image = np.zeros((3, SIZE, SIZE), np.float32)
    image[0, :8, :8] = image[1, -8:, -8:] = 1
    return np.stack([image, image])


def brightest(found: np.ndarray) -> tuple[int, int]:
    return tuple(int(place) for place in np.unravel_index(found.argmax(), found.shape))


def is_in_the_corners(maps: np.ndarray) -> bool:
    (top, left), (bottom, right) = brightest(maps[0]), brightest(maps[1])
    return top < 8 and left < 8 and bottom >= SIZE - 8 and right >= SIZE - 8


def test_grad_cam_is_brightest_where_the_evidence_lies(pixels):
    maps = grad_cam(corner_net(), "0", pixels, np.array([0, 1]))
    assert maps.shape == (2, SIZE, SIZE)
    assert is_in_the_corners(maps)
    assert maps.min() >= 0
    assert maps[0, -8:, -8:].max() < 0.01 * maps[0].max()


def test_grad_cam_of_many_images_is_that_of_each(pixels):
    many = np.concatenate([pixels] * 9)
    targets = np.array([0, 1] * 9)
    assert np.array_equal(
        grad_cam(corner_net(), "0", many, targets)[-2:], grad_cam(corner_net(), "0", pixels, targets[:2])
    )


def test_occlusion_is_brightest_where_the_evidence_lies(pixels):
    module, done = corner_net(), []

    def run(batch):
        with torch.inference_mode():
            return module(torch.from_numpy(batch)).numpy()

    maps = occlusion(run, 2, pixels, np.array([0, 1]), 8, done.append)
    assert maps.shape == (2, SIZE, SIZE)
    assert is_in_the_corners(maps)
    assert done == [1, 1]
    coarse = occlusion(run, 2, pixels, np.array([0, 1]), 4, done.append)
    assert (coarse[0] > coarse[0].max() / 2).sum() > 1.5 * (maps[0] > maps[0].max() / 2).sum()


@pytest.mark.parametrize(
    ("arch", "layer"),
    [
        ("test_efficientnet", "bn2"),
        ("resnet18", "layer4"),
        ("mobilenetv3_small_050", "blocks"),
    ],
)
def test_the_last_feature_map_is_found(arch, layer):
    module = timm.create_model(arch, num_classes=3).eval()
    image = np.random.default_rng(0).random((1, 3, 64, 64)).astype(np.float32)
    assert feature_layer(module, image) == layer
    assert grad_cam(module, layer, image, np.array([2])).shape == (1, 64, 64)


def test_a_map_of_one_position_is_not_the_last_one():
    module = timm.create_model("test_efficientnet", num_classes=3).eval()
    small = feature_layer(module, np.zeros((1, 3, 16, 16), np.float32))
    assert small != "bn2"


@pytest.mark.parametrize(
    "module", [nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), timm.create_model("test_vit")]
)
def test_no_feature_map_is_an_error_that_names_occlusion(module):
    size = 2 if isinstance(module, nn.Sequential) else module.default_cfg["input_size"][-1]
    with pytest.raises(UsageError) as caught:
        feature_layer(module.eval(), np.zeros((1, 3, size, size), np.float32))
    assert "occlusion" in caught.value.hint


def test_an_unknown_layer_names_its_neighbours(pixels):
    module = timm.create_model("test_efficientnet").eval()
    with pytest.raises(UsageError, match=r"blocks\.9") as caught:
        grad_cam(module, "blocks.9", pixels, np.array([0, 1]))
    assert "'blocks' has: 0, 1, 2" in caught.value.hint


def test_a_layer_without_a_map_is_an_error(pixels):
    with pytest.raises(UsageError, match="no feature map"):
        grad_cam(corner_net(), "4", pixels, np.array([0, 1]))

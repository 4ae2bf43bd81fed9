"""Where in an image a classifier finds its evidence for a class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from captum.attr import LayerGradCam, Occlusion
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import interpolate

from optkit.core.errors import UsageError
from optkit.measure.accuracy import Logits, Run

BATCH = 16
Maps = NDArray[np.float32]  # (n, size, size), ≥ 0: the more, the more evidence for the class


def feature_layer(module: nn.Module, pixels: NDArray[np.float32]) -> str:
    """Name of the module that makes the last convolutional feature map; UsageError when there is none.

    It is the last one to finish that has a convolution or a batch normalisation in it and answers with more
    than one position: an activation fused with its normalisation belongs to it, the pooling does not.
    """
    found: list[str] = []

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
                found.append(name)

        return hook

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    handles = [
        layer.register_forward_hook(note(name))
        for name, layer in module.named_modules()
        if name and any(isinstance(part, kinds) for part in layer.modules())
    ]
    try:
        with torch.inference_mode():
            module(_tensor(module, pixels[:1]))
    finally:
        for handle in handles:
            handle.remove()
    if not found or _is_patch_network(module):
        raise UsageError(
            "The model has no convolutional feature map of more than one position that Grad-CAM could weigh.",
            why="Its only convolution cuts the image into patches."
            if found
            else "Its last map is one pixel.",
            hint="Use --method occlusion, or a larger input size.",
        )
    return found[-1]


def _is_patch_network(module: nn.Module) -> bool:
    """Whether linear layers do the work, as in ViT, Swin and Mixer: more of them than any head has."""
    kinds = [type(layer) for layer in module.modules()]
    return kinds.count(nn.Conv2d) == 1 and kinds.count(nn.Linear) > 4


def named_layer(module: nn.Module, name: str) -> nn.Module:
    """The module called `name`; UsageError naming what is there otherwise."""
    layers = dict(module.named_modules())
    if name and name in layers:
        return layers[name]
    parent = name.rpartition(".")[0]
    known = [child for child, _ in layers.get(parent, module).named_children()]
    where = f"{parent!r}" if parent in layers and parent else "The model"
    raise UsageError(f"The model has no layer {name!r}.", hint=f"{where} has: {', '.join(known)}.")


def grad_cam(module: nn.Module, layer: str, pixels: NDArray[np.float32], targets: NDArray[np.int64]) -> Maps:
    """Grad-CAM of each image for its class in `targets` (Selvaraju et al., arXiv 1610.02391, eq. 1 and 2).

    UsageError when `layer` does not answer with a feature map.
    """
    cam = LayerGradCam(module, named_layer(module, layer))
    maps = []
    for start in range(0, len(pixels), BATCH):
        part = slice(start, start + BATCH)
        images = _tensor(module, pixels[part])
        classes = torch.from_numpy(targets[part]).to(images.device)
        found = cam.attribute(images, classes, relu_attributions=True)
        if found.ndim != 4:
            raise UsageError(
                f"The layer {layer!r} makes no feature map.",
                why=f"Grad-CAM needs (channels, height, width), and not {tuple(found.shape[1:])}.",
                hint="Name a convolution or a block of them.",
            )
        large = interpolate(found.detach().float(), pixels.shape[2:], mode="bilinear")
        maps.append(large[:, 0].cpu().numpy())
    return np.concatenate(maps)


def occlusion(
    run: Run,
    classes: int,
    pixels: NDArray[np.float32],
    targets: NDArray[np.int64],
    patches: int,
    progress: Callable[[int], None],
) -> Maps:
    """How much the probability of each image's class in `targets` falls when a grey patch hides a place.

    The patch is the mean colour (Zeiler and Fergus, arXiv 1311.2901, section 4.2) and moves by half its width,
    size / `patches`. As the patch itself may speak for or against the class, the fall is counted from where
    it is least. Needs answers alone, so it works on any file; `progress` gets every finished image.
    """
    step = max(1, pixels.shape[2] // patches)
    window = min(2 * step, pixels.shape[2])
    logits = Logits(classes)

    def ask(batch: torch.Tensor) -> torch.Tensor:
        return logits.of(run(batch.numpy())).softmax(dim=1)

    maps = []
    for image, target in zip(pixels, targets, strict=True):
        found = Occlusion(ask).attribute(
            torch.from_numpy(image[None]),
            sliding_window_shapes=(3, window, window),
            strides=(3, step, step),
            target=int(target),
            perturbations_per_eval=BATCH,
        )
        cells = interpolate(found[:, :1].float(), (patches, patches), mode="area")
        maps.append(interpolate(cells - cells.min(), pixels.shape[2:], mode="bilinear")[0, 0].numpy())
        progress(1)
    return np.stack(maps)


def _tensor(module: nn.Module, pixels: NDArray[np.float32]) -> torch.Tensor:
    """The images on the module's device."""
    return torch.from_numpy(pixels).to(next(module.parameters()).device)

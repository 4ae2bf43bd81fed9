"""What the published throughputs were measured with, and which networks are kin. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

# As the processors are; see benchmarks/results/estimate.json.
TOO_FAR_OFF = ("rtx4090-nchw-compiled-2.4", "rtx3090-nhwc-eager-2.1", "rtx3090-nhwc-eager-1.13")


@dataclass(frozen=True)
class Setup:
    """What a file of throughputs was measured with."""

    gpu: str
    layout: str  # nchw or nhwc (channels_last)
    compiled: bool
    torch: str

    @property
    def name(self) -> str:
        """`rtx4090-nhwc-eager-2.4`."""
        return f"{self.gpu}-{self.layout}-{'compiled' if self.compiled else 'eager'}-{self.torch}"

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU, not a processor."""
        return self.gpu.startswith("rtx")

    @property
    def is_offered(self) -> bool:
        """Whether its errors of the images per second on held-out families keep the promise: median 10 %, mean 13 %."""
        return self.is_gpu and self.name not in TOO_FAR_OFF

    @property
    def precision(self) -> str:
        """What the networks computed in."""
        return "fp16 (automatic mixed precision)" if self.is_gpu else "fp32"


# By the name of timm's file, the newest first; processors are there to show how far the same sum goes.
SETUPS = {
    "infer-amp-nchw-pt291-cu130-5090": Setup("rtx5090", "nchw", False, "2.9"),
    "infer-amp-nchw-pt291-cu130-5090-dynamo": Setup("rtx5090", "nchw", True, "2.9"),
    "infer-amp-nchw-pt291-cu128-4090": Setup("rtx4090", "nchw", False, "2.9"),
    "infer-amp-nchw-pt291-cu128-4090-dynamo": Setup("rtx4090", "nchw", True, "2.9"),
    "infer-amp-nchw-pt240-cu124-rtx4090": Setup("rtx4090", "nchw", False, "2.4"),
    "infer-amp-nchw-pt240-cu124-rtx4090-dynamo": Setup("rtx4090", "nchw", True, "2.4"),
    "infer-amp-nhwc-pt240-cu124-rtx4090": Setup("rtx4090", "nhwc", False, "2.4"),
    "infer-amp-nchw-pt240-cu124-rtx3090": Setup("rtx3090", "nchw", False, "2.4"),
    "infer-amp-nhwc-pt240-cu124-rtx3090": Setup("rtx3090", "nhwc", False, "2.4"),
    "infer-amp-nchw-pt210-cu121-rtx3090": Setup("rtx3090", "nchw", False, "2.1"),
    "infer-amp-nhwc-pt210-cu121-rtx3090": Setup("rtx3090", "nhwc", False, "2.1"),
    "infer-amp-nchw-pt113-cu117-rtx3090": Setup("rtx3090", "nchw", False, "1.13"),
    "infer-amp-nhwc-pt113-cu117-rtx3090": Setup("rtx3090", "nhwc", False, "1.13"),
    "infer-fp32-nchw-pt240-cpu-i7_12700h-dynamo": Setup("i7-12700h", "nchw", True, "2.4"),
    "infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo": Setup("i9-10940x", "nchw", True, "2.4"),
    "infer-fp32-nchw-pt221-cpu-i9_10940x-dynamo": Setup("i9-10940x", "nchw", True, "2.2"),
}

# Modules of timm whose networks are built of the same blocks, so that one of them would be a near-twin of another
# that is held out. Every other module is a family of its own. `test_no_row_has_a_twin_in_another_family` counts.
KINDRED = {
    "vision_transformer": "vision_transformer deit beit eva vision_transformer_hybrid vision_transformer_relpos "
    "vision_transformer_sam naflexvit hiera hieradet_sam2 cait",
    "resnet": "resnet resnetv2 senet res2net resnest sknet byobnet byoanet tresnet selecsls",
    "efficientnet": "efficientnet mobilenetv3 hardcorenas ghostnet repghost mobilenetv5 rexnet",
    "swin_transformer": "swin_transformer swin_transformer_v2 swin_transformer_v2_cr",
    "inception": "inception_v3 inception_v4 inception_resnet_v2",
    "xception": "xception xception_aligned",
    "nasnet": "nasnet pnasnet",
    "convnext": "convnext inception_next",
    "efficientformer": "efficientformer efficientformer_v2",
}


def family_of(module: str) -> str:
    """The family of the networks that a module of timm defines."""
    return next((family for family, modules in KINDRED.items() if module in modules.split()), module)


def gpus() -> list[str]:
    """The GPUs that can be estimated: processors are calibrated too, but with errors beyond what is promised."""
    return list(dict.fromkeys(setup.gpu for setup in SETUPS.values() if setup.is_gpu))


def choose(wanted: tuple[str, ...], compiled: bool | None, names: tuple[str, ...]) -> list[str]:
    """Keys of SETUPS: those named, or of each GPU the newest eager and compiled ones with channels first."""
    if names:
        return [key for key, setup in SETUPS.items() if setup.name in names]
    newest: dict[tuple[str, bool], str] = {}
    for key, setup in SETUPS.items():
        is_wanted = setup.gpu in (wanted or gpus()) and compiled in (None, setup.compiled)
        if is_wanted and setup.layout == "nchw":
            newest.setdefault((setup.gpu, setup.compiled), key)
    return list(newest.values())

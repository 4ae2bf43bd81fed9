"""Short names of the EfficientNet family; every other name is timm's own. Light: imports no timm."""

from __future__ import annotations

# Plain B models pad symmetrically, which exports to cleaner and faster graphs than TensorFlow's SAME padding;
# timm has pretrained B6 and B7 only as `tf_`.
ALIASES = {
    **{f"b{i}": f"efficientnet_b{i}" for i in range(6)},
    **{f"b{i}": f"tf_efficientnet_b{i}" for i in (6, 7)},
    **{f"lite{i}": f"tf_efficientnet_lite{i}" for i in range(5)},
}


def timm_name(arch: str) -> str:
    """`b0` → `efficientnet_b0`, `lite2` → `tf_efficientnet_lite2`, anything else unchanged."""
    return ALIASES.get(arch, arch)

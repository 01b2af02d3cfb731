"""timm's config.json: the architecture, and how images must be prepared for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def timm_config(
    net: nn.Module,
    architecture: str,
    model_args: dict[str, Any],
    px: int,
    mean: Sequence[float],
    std: Sequence[float],
    crop_pct: float,
    crop_mode: str,
    interpolation: str = "bilinear",
) -> dict[str, Any]:
    """The file's content for a network that timm built; ``px`` is the side of its square input."""
    known: dict[str, Any] = getattr(net, "pretrained_cfg", None) or {}
    classes = int(getattr(net, "num_classes", 0))
    return {
        "architecture": architecture,
        "num_classes": classes,
        "num_features": int(net.num_features),  # type: ignore[arg-type]
        "model_args": model_args,
        "pretrained_cfg": {
            "input_size": [3, px, px],
            "fixed_input_size": bool(known.get("fixed_input_size", False)),
            "interpolation": interpolation,
            "crop_pct": crop_pct,
            "crop_mode": crop_mode,
            "mean": list(mean),
            "std": list(std),
            "num_classes": classes,
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
            "license": "other",
        },
    }

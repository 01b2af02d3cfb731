"""Readouts with settings as others use them, each by name, with where it is written down.

A preset takes over what is read off the network and the grid. What our protocols do otherwise
stands in its ``rule``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.common.errors import NotFound, did_you_mean
from eval.settings.readout import Readout

# The rates of dinov2/eval/linear.py, each times batch size / 256 as `scale_lr` there has it for one
# process of 128 images.
_DINOV2_RATES = tuple(
    rate * 128 / 256
    for rate in (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
)


def _segmentation(weight_decay: float) -> dict[str, Any]:
    """40,000 batches of 16 are 32 epochs of the 20,210 images that ADE20K trains on."""
    return {"lrs": (1e-3,), "weight_decays": (weight_decay,), "batch_size": 16, "epochs": 32}


@dataclass(frozen=True)
class Preset:
    """A readout, and the protocols that go with it, each with what is not its default."""

    name: str
    readout: Readout
    protocols: Mapping[str, Mapping[str, Any]]
    rule: str
    source: str


PRESETS = {
    p.name: p
    for p in (
        Preset(
            "dinov2-linear",
            Readout("cls+last-mean", "last-4"),
            {
                "linear-sgd": {
                    "lrs": _DINOV2_RATES,
                    "batch_sizes": (128,),
                    "weight_decays": (0.0,),
                    "tune_epochs": 10,
                    "epochs": 10,
                }
            },
            "class tokens of the last 4 blocks and the mean of the last one's patches, 13 rates, "
            "batch 128, no decay, 10 epochs; ours: BatchNorm before the layer, rates that fall "
            "twice instead of by a cosine, epochs of the task's length, chosen on part of train",
            "facebookresearch/dinov2, dinov2/eval/linear.py (create_linear_input, use_n_blocks=4, "
            "use_avgpool=True); Oquab et al. 2024",
        ),
        Preset(
            "dinov2-knn",
            Readout("cls"),
            {"knn": {"ks": (10, 20, 100, 200), "temperature": 0.07}},
            "class token after the last norm, cosine neighbours, k of 10, 20, 100 and 200, votes "
            "by exp(similarity / 0.07); ours: k and weighting chosen on part of train",
            "facebookresearch/dinov2, dinov2/eval/knn.py; Oquab et al. 2024",
        ),
        Preset(
            "dinov2-segmentation",
            Readout(),
            {"segment": _segmentation(1e-4)},
            "BatchNorm and a linear layer on the last layer's patch tokens, logits enlarged, AdamW "
            "at 0.001 with decay 0.0001, batches of 16 for 32 epochs (40,000 batches of ADE20K); "
            "ours: the whole image at the model's size, no augmentation, maps standardised by "
            "train's, rates that fall by a cosine instead of a line; a network whose places are "
            "wider than 16 pixels also gives earlier layers",
            "facebookresearch/dinov2, dinov2/eval/segmentation/models/decode_heads/linear_head.py "
            "(BNHead); rate, decay and batches as copies of dinov2_vitb14_ade20k_linear_config.py "
            "have them, which is not in the repository; Oquab et al. 2024",
        ),
        Preset(
            "dinov3-segmentation",
            Readout(),
            {"segment": _segmentation(1e-2)},
            "BatchNorm and a linear layer on the last layer's patch tokens, AdamW at 0.001 with "
            "decay 0.01, 8 processes of 2 images for 40,000 batches (32 epochs of ADE20K); ours: "
            "as of dinov2-segmentation, and no dropout (theirs 0.1) nor clipped gradients",
            "facebookresearch/dinov3, the defaults of dinov3/eval/segmentation/config.py with the "
            "linear decoder; Simeoni et al. 2025",
        ),
    )
}


def preset_named(name: str) -> Preset:
    """Raises UserError with near names for an unknown preset."""
    if name not in PRESETS:
        known = "presets are " + ", ".join(PRESETS)
        raise NotFound(f"unknown preset {name!r}" + did_you_mean(name, PRESETS, known))
    return PRESETS[name]

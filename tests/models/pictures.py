"""Pictures of odd sizes, and how they go into a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eval.models.backbone import Backbone

PICTURES = [
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (h, w, 3), np.uint8))
    for seed, (h, w) in enumerate([(40, 40), (57, 43), (31, 64)])  # odd rests of crops among them
]


def pixels(backbone: Backbone, pictures: Sequence[Image.Image] = PICTURES) -> Tensor:
    """[N, 3, H, W], as encoding normalises them."""
    mean, std = (torch.tensor(backbone.input_config[k]).view(-1, 1, 1) for k in ("mean", "std"))
    made = [torch.as_tensor(backbone.transform(p)).float() / 255 for p in pictures]
    return torch.stack([(one - mean) / std for one in made])

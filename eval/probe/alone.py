"""One process by itself, in the midst of a training that may have many."""

from __future__ import annotations

import torch

from eval.common.distributed import Workers


class Alone(Workers):
    """Workers of one process. Nothing of accelerate is set up: a training may have its own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank, self.count = 0, 1

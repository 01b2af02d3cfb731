"""How alike two pictures are: PSNR and SSIM. Tensors in, numbers out; imports nothing of ours."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

MOST = 100.0  # dB: equal pictures have no noise at all, and plain data no infinity
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """[B] peak signal-to-noise ratio in dB of [B, C, H, W] pictures in 0..1; ``MOST`` at most."""
    error = (a - b).square().flatten(1).mean(1)
    return (-10 * torch.log10(error)).clamp(max=MOST)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """[B] mean structural similarity of [B, C, H, W] pictures in 0..1 (Wang et al. 2004).

    A Gaussian window of 11 x 11 pixels with a sigma of 1.5, C1 = 0.01^2, C2 = 0.03^2; the mean is
    over the channels and over the windows that lie wholly in the picture (no padding). Raises
    ValueError for pictures that are smaller than the window.
    """
    if min(a.shape[2:]) < WINDOW:
        raise ValueError(f"pictures of {tuple(a.shape[2:])} pixels are smaller than the window")
    batch = len(a)
    mean_a, mean_b, square_a, square_b, both = _smoothed(
        torch.cat([a, b, a * a, b * b, a * b])
    ).split(batch)
    variance_a, variance_b = square_a - mean_a**2, square_b - mean_b**2
    covariance = both - mean_a * mean_b
    c1, c2 = K1**2, K2**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return (luminance * structure).flatten(1).mean(1)


def _smoothed(pictures: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, H - 10, W - 10]: weighted means, by columns and then by rows."""
    at = torch.arange(WINDOW, dtype=pictures.dtype, device=pictures.device) - WINDOW // 2
    weights = torch.exp(-(at**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    batch, channels, height, width = pictures.shape
    planes = pictures.reshape(batch * channels, 1, height, width)
    planes = functional.conv2d(planes, weights.view(1, 1, -1, 1))
    planes = functional.conv2d(planes, weights.view(1, 1, 1, -1))
    return planes.view(batch, channels, *planes.shape[2:])

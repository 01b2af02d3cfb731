"""In which number format and memory layout a network runs: by a rule, never by a stopwatch.

Features in bf16 and in fp32 give unlike scores, so what is chosen must not depend on how busy the
machine was. A CPU computes in fp32, as does any accelerator that does not declare bf16; a CUDA
device that multiplies bf16 in hardware uses it where the features agree with those in fp32. The
layout follows from the architecture. It changes features by rounding alone (1 - cosine was below
1e-11 in fp32 for eight networks of timm on two data sets), so it makes no column of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

Format = Literal["fp32", "bf16"]

# Of an image's features in bf16 with those in fp32, less the mean over the images: an error of
# 4.5 % of what tells the image apart. Measured on 16 images of DTD and of EuroSAT: 0.99990 and
# above for ResNets, a ViT and a ConvNeXt, 0.9992 for MobileNetV3.
MIN_COSINE = 0.999


@dataclass(frozen=True)
class Precision:
    """How a forward pass is computed; part of a feature bank's key."""

    dtype: Format = "fp32"
    channels_last: bool = False

    def __str__(self) -> str:
        return self.dtype + ("-channels_last" if self.channels_last else "")

    @property
    def other_layout(self) -> Precision:
        """The same numbers up to rounding."""
        return replace(self, channels_last=not self.channels_last)

    @classmethod
    def parse(cls, text: str) -> Precision:
        dtype, _, layout = text.partition("-")
        if dtype not in ("fp32", "bf16") or layout not in ("", "channels_last"):
            raise ValueError(f"unknown precision {text!r}")
        return cls(dtype, layout == "channels_last")  # type: ignore[arg-type]  # checked above


@contextlib.contextmanager
def prepared(net: nn.Module, device: torch.device, precision: Precision) -> Iterator[nn.Module]:
    """The network on the device in the memory format, under autocast, without gradients."""
    layout = torch.channels_last if precision.channels_last else torch.contiguous_format
    # Parameters keep their values: only the order in memory changes.
    net.to(device=device).to(memory_format=layout)
    half = precision.dtype == "bf16"
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        yield net


def forward(net: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    """Features [B, D] float32 of normalised images [B, 3, H, W], inside ``prepared``."""
    if precision.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    return net(images).float()


def device_format(device: torch.device) -> Format:
    """What the device is for: bf16 where CUDA hardware (or ROCm) declares it, else fp32.

    CPUs with bf16 instructions use fp32 too, so that one board holds the scores of all of them.
    """
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def preferred(net: nn.Module, device: torch.device) -> Precision:
    """The device's format, in channels_last for a network of several convolutions: others have no
    use for the layout. bf16 is to be taken only where it ``agrees``."""
    convolutions = sum(isinstance(m, nn.Conv2d) for m in net.modules())
    return Precision(device_format(device), convolutions > 1)


def agrees(net: nn.Module, images: Tensor, device: torch.device, precision: Precision) -> bool:
    """Whether the features of images [B, 3, H, W] match those in fp32: see `MIN_COSINE`.

    Each image's is compared without the mean over the images: features with a large common part
    have a cosine of 1 whatever the rest is, and the rest is what tells images apart. One image, or
    images that fp32 cannot tell apart, agree with nothing. False too where an operator has no bf16.
    """
    if precision.dtype == "fp32":
        return True
    features = []
    for p in (precision, replace(precision, dtype="fp32")):
        with prepared(net, device, p):
            try:
                features.append(forward(net, images.to(device), p).double())
            except RuntimeError as error:
                if p.dtype == "fp32" or isinstance(error, torch.OutOfMemoryError):
                    raise
                return False
    found, exact = features
    mean = exact.mean(0)
    return bool((_cosines(found - mean, exact - mean) >= MIN_COSINE).all())


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """[B] cosines of the rows of two [B, D], however short; NaN for a row of zeros."""
    a, b = (x / x.abs().amax(1, keepdim=True) for x in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))

"""Which number format and memory layout encode fastest here without changing the features."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock
from torch import Tensor, nn

from eval.common.files import write_json

MIN_COSINE = 0.9999
# Contiguous layout must be this much faster than channels_last to be taken: near ties would
# otherwise fall out differently from run to run, and with them the cache key.
LAYOUT_MARGIN = 1.15
PROBE_SECONDS = 1.0


@dataclass(frozen=True)
class Precision:
    """How a forward pass is computed; part of a feature bank's key."""

    dtype: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = False

    def __str__(self) -> str:
        return self.dtype + ("-channels_last" if self.channels_last else "")

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


def candidates(net: nn.Module) -> list[Precision]:
    """Fastest first as a rule. Layout only matters to networks with several convolutions."""
    if sum(isinstance(m, nn.Conv2d) for m in net.modules()) > 1:
        return [Precision("bf16", True), Precision("fp32", True), Precision("fp32", False)]
    return [Precision("bf16"), Precision("fp32")]


def choose(
    net: nn.Module, images: Tensor, device: torch.device, weights_sha256: str, cache: Path
) -> Precision:
    """The fastest candidate on ``images`` [B, 3, H, W], remembered in the cache.

    The choice is kept per weights, image size, device and torch version, so that a noisy moment
    does not change the key of features that are already there. Agreement with fp32 is checked
    separately, on each task's own images (``agrees``).
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    facts = json.dumps([1, weights_sha256, list(images.shape[1:]), name, torch.__version__])
    memo = cache / "probes" / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.json"
    if held := _remembered(memo):
        return held
    memo.parent.mkdir(parents=True, exist_ok=True)
    # Two runs that start together would disturb each other's probe and could choose differently.
    with FileLock(memo.with_suffix(".lock")):
        if held := _remembered(memo):
            return held
        seconds = _measure(net, images, device)
        choice = min(
            seconds, key=lambda p: seconds[p] * (1.0 if p.channels_last else LAYOUT_MARGIN)
        )
        speed = {str(p): round(len(images) / s, 1) for p, s in seconds.items()}
        write_json(memo, {"choice": str(choice), "device": name, "images_per_second": speed})
    return choice


def _remembered(memo: Path) -> Precision | None:
    """An earlier choice; None when there is none or its file is damaged."""
    try:
        return Precision.parse(str(json.loads(memo.read_text())["choice"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _measure(net: nn.Module, images: Tensor, device: torch.device) -> dict[Precision, float]:
    """Best seconds of each candidate. Candidates take turns, so that a busy moment of the machine
    does not fall on one of them alone."""
    best: dict[Precision, float] = {}
    failed: set[Precision] = set()
    start = time.perf_counter()
    rounds = 0
    while rounds < 4 or (time.perf_counter() - start < PROBE_SECONDS and rounds < 20):
        for precision in candidates(net):
            if precision in failed:
                continue
            with prepared(net, device, precision):
                try:
                    taken = _timed(net, images if rounds else images[:2], precision, device)
                except RuntimeError:  # an operator without bf16 on this device
                    failed.add(precision)
                    continue
            if rounds:  # the first round only warms up
                best[precision] = min(taken, best.get(precision, taken))
        rounds += 1
    return best


def _timed(net: nn.Module, images: Tensor, precision: Precision, device: torch.device) -> float:
    start = time.perf_counter()
    out = forward(net, images.to(device), precision)
    out.cpu()  # waits for the device
    return time.perf_counter() - start


def agrees(net: nn.Module, images: Tensor, device: torch.device, precision: Precision) -> bool:
    """Whether every image's features match fp32 at cosine >= ``MIN_COSINE``."""
    if precision.dtype == "fp32":
        return True
    features = []
    for p in (precision, Precision("fp32", precision.channels_last)):
        with prepared(net, device, p):
            features.append(forward(net, images.to(device), p).double())
    cosine = torch.cosine_similarity(features[0], features[1], dim=1)
    return bool((cosine >= MIN_COSINE).all())

"""Features of visitors' pictures: each encoded once, for as long as its row is kept."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from eval.common.errors import BadInput
from eval.features.encode import default_batch_size, normalised
from eval.features.precision import Precision, forward, prepared
from eval.models.backbone import Backbone

CPU = torch.device("cpu")
Run = Callable[[Callable[[], list[str]]], list[str]]  # does work on some thread, and waits for it


class Encoder:
    """Encodes in fp32 on the CPU; safe to use from many threads."""

    def __init__(self, feature_bytes: int) -> None:
        """At most ``feature_bytes`` of rows are kept."""
        self.kept = _Features(feature_bytes)

    def features(self, backbone: Backbone, images: Sequence[Image.Image], run: Run) -> Tensor:
        """Features [N, D] float32 of RGB images; equal pixels give equal rows.

        Each batch is one ``run``, so that others get their turn between. Raises UserError for
        features that are not finite.
        """
        model = f"{backbone.resolved.id} {backbone.resolved.revision} {backbone.resolved.img_size}"
        _, height, width = backbone.input_config["input_size"]
        size = default_batch_size(CPU, height * width)
        rows: list[str] = []
        found: dict[str, Tensor] = {}
        for begin in range(0, len(images), size):
            batch = images[begin : begin + size]
            rows += run(partial(self._batch, backbone, model, batch, found))
        if not rows:
            return torch.empty(0, backbone.dim)
        return torch.stack([found[key] for key in rows])

    def _batch(
        self,
        backbone: Backbone,
        model: str,
        images: Sequence[Image.Image],
        found: dict[str, Tensor],
    ) -> list[str]:
        """Keys of the images' rows, all of which are in ``found`` afterwards."""
        rows: list[str] = []
        pixels: dict[str, np.ndarray[Any, Any]] = {}
        for image in images:
            ready = np.ascontiguousarray(backbone.transform(image))
            key = f"{model} {hashlib.sha256(ready.tobytes()).hexdigest()}"
            rows.append(key)
            if key in found or key in pixels:
                continue
            if (held := self.kept.get(key)) is not None:
                found[key] = held
            else:
                pixels[key] = ready
        if pixels:
            out = _forward(backbone, np.stack(list(pixels.values())))
            for key, row in zip(pixels, out, strict=True):
                found[key] = row.clone()  # not a view that keeps the batch alive
                self.kept.put(key, found[key])
        return rows


class _Features:
    """Feature rows by key, least recently used ones dropped beyond a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self._lock = threading.Lock()
        self._rows: OrderedDict[str, Tensor] = OrderedDict()

    def get(self, key: str) -> Tensor | None:
        with self._lock:
            row = self._rows.get(key)
            if row is not None:
                self._rows.move_to_end(key)
            return row

    def put(self, key: str, row: Tensor) -> None:
        with self._lock:
            self._take(key)
            self._rows[key] = row
            self.bytes += _held(key, row)
            while self.bytes > self.max_bytes and self._rows:
                self._take(next(iter(self._rows)))

    def _take(self, key: str) -> None:
        row = self._rows.pop(key, None)
        if row is not None:
            self.bytes -= _held(key, row)


def _held(key: str, row: Tensor) -> int:
    return row.numel() * row.element_size() + len(key) + 512  # and Python's objects about them


def settle(net: nn.Module) -> None:
    """Lay the weights out as encoding wants them: while encoding, threads would race to do it."""
    with prepared(net, CPU, _precision(net)):
        pass


def _precision(net: nn.Module) -> Precision:
    """fp32, for the same prediction on every machine; convolutions in the faster layout."""
    return Precision("fp32", sum(isinstance(m, nn.Conv2d) for m in net.modules()) > 1)


def _forward(backbone: Backbone, pixels: np.ndarray[Any, Any]) -> Tensor:
    """Features [B, D] float32 of pixels [B, 3, H, W] uint8. Raises UserError if not finite."""
    with torch.inference_mode():
        out = forward(backbone.net, normalised(pixels, backbone), _precision(backbone.net))
    out = out.clone()  # an ordinary tensor again
    if not torch.isfinite(out).all():
        raise BadInput(
            f"{backbone.resolved.id} gives features that are not finite (NaN or infinite)"
        )
    return out

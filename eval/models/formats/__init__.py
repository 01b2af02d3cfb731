"""Kinds of model folders: what is told from config.json, and the module that loads each.

A model's string says where its files lie (`eval.models.resolve`); a format says what they are. Each
has a module, imported when it is needed, with three functions::

    def check(config: dict[str, Any], where: str) -> None  # without torch
    def examine(config: dict[str, Any], held: int, where: str) -> Examined  # without memory
    def load(files: ModelFiles) -> Loaded

All raise UserError for what they refuse. So a kind of model is added by a row in ``FORMATS`` and
its module. Importing this package imports no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from eval.common.errors import BadInput

if TYPE_CHECKING:
    import torch

FROM_PYTHON = (
    "a network of your own code is scored from Python: "
    "eval.evaluate(eval.backbone(net, transform, name=...), tasks=..., protocols=...)"
)


@dataclass(frozen=True)
class ModelFiles:
    """A model's checked files on this machine. ``who`` names it in sentences."""

    folder: Path
    config: dict[str, Any]
    weights: tuple[str, ...]  # names of the safetensors files
    who: str
    img_size: int | None = None


@dataclass(frozen=True)
class Loaded:
    """A headless network, in no particular mode, from images [B, channels, H, W] to its features,
    of any shape that `eval.models.pooling` knows."""

    net: torch.nn.Module
    input_config: dict[str, Any]  # timm's data config; mean and std of each channel of the image
    channels: int = 3  # 1: the network takes grey images
    notes: tuple[str, ...] = ()  # what was converted or dropped


@dataclass(frozen=True)
class Examined:
    """What a model would be, found without its weights."""

    architecture: str
    numbers: int  # in parameters and buffers, the classifier's among them
    sides: tuple[int, int]  # height and width of its images, in pixels


class Loader(Protocol):
    """A format's module."""

    def check(self, config: dict[str, Any], where: str) -> None: ...

    def examine(self, config: dict[str, Any], held: int, where: str) -> Examined: ...

    def load(self, files: ModelFiles) -> Loaded: ...


@dataclass(frozen=True)
class Format:
    """A row of the registry."""

    name: str
    mark: Callable[[Mapping[str, Any]], bool]  # whether a config.json is of this kind
    module: str

    def loader(self) -> Loader:
        return cast(Loader, importlib.import_module(self.module))


FORMATS = (
    Format(
        "timm",
        lambda config: isinstance(config.get("architecture"), str),
        "eval.models.formats.timm",
    ),
)


def format_of(config: Mapping[str, Any], where: str) -> Format:
    """The format of a config.json. Raises UserError for one that none reads."""
    for known in FORMATS:
        if known.mark(config):
            return known
    kind = config.get("model_type")
    if isinstance(kind, str):
        raise BadInput(
            f"config.json of {where} is not timm's (it is of model_type {kind[:40]!r}): "
            "it has no 'architecture' name"
        )
    raise BadInput(
        f"config.json of {where} is not timm's: it has no 'architecture' name; {FROM_PYTHON}"
    )

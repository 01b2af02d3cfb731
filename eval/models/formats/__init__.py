"""Kinds of model folders: what is told from config.json, and the module that loads each.

A model's string says where its files lie (`eval.models.resolve`); a format says what they are. Each
has a module, imported when it is needed, with three functions::

    def check(config: dict[str, Any], where: str) -> None  # without torch
    def examine(files: ModelFiles, held: int) -> Examined  # without memory, or the weights
    def load(files: ModelFiles) -> Loaded

All raise UserError for what they refuse. So a kind of model is added by a row in ``FORMATS`` and
its module. Importing this package imports no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from eval.common.errors import BadInput, NotFound

if TYPE_CHECKING:
    import torch
    from PIL import Image

FROM_PYTHON = (
    "a network of your own code is scored from Python: "
    "eval.evaluate(eval.backbone(net, transform, name=...), tasks=..., protocols=...)"
)


@dataclass(frozen=True)
class ModelFiles:
    """A model's checked files on this machine, for ``examine`` all but the weights. ``who`` names
    it in sentences."""

    folder: Path
    config: dict[str, Any]
    weights: tuple[str, ...]  # names of the safetensors files
    who: str
    img_size: int | None = None
    beside: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # `Format.beside`, as read
    notes: tuple[str, ...] = ()  # what is to be said of how the files are read


@dataclass(frozen=True)
class Loaded:
    """A headless network, in no particular mode, from images [B, channels, H, W] to its features,
    of any shape that `eval.models.pooling` knows."""

    net: torch.nn.Module
    input_config: dict[str, Any]  # timm's data config; mean and std of each channel of the image
    channels: int = 3  # 1: the network takes grey images
    notes: tuple[str, ...] = ()  # what was converted or dropped
    transform: Callable[[Image.Image], Any] | None = None  # where timm's differs by a pixel


@dataclass(frozen=True)
class Examined:
    """What a model would be, found without its weights."""

    architecture: str
    numbers: int  # in parameters and buffers, the classifier's among them
    sides: tuple[int, int]  # height and width of its images, in pixels


class Loader(Protocol):
    """A format's module."""

    def check(self, config: dict[str, Any], where: str) -> None: ...

    def examine(self, files: ModelFiles, held: int) -> Examined: ...

    def load(self, files: ModelFiles) -> Loaded: ...


@dataclass(frozen=True)
class Format:
    """A row of the registry."""

    name: str
    mark: Callable[[Mapping[str, Any]], bool]  # whether a config.json is of this kind
    module: str
    # Further JSON files that say what the model is: read where they are there, part of its hash.
    beside: tuple[str, ...] = ()
    # Packages beside timm that build and compute the network: receipts name their versions.
    packages: tuple[str, ...] = ()

    def loader(self) -> Loader:
        return cast(Loader, importlib.import_module(self.module))


FORMATS = (
    Format(  # before transformers: its wrapper of timm's networks has both marks
        "timm",
        lambda config: isinstance(config.get("architecture"), str),
        "eval.models.formats.timm",
    ),
    Format(
        "transformers",
        lambda config: isinstance(config.get("model_type"), str),
        "eval.models.formats.transformers",
        beside=("preprocessor_config.json", "processor_config.json"),
        packages=("transformers", "tokenizers"),
    ),
    Format(
        "open_clip",
        lambda config: isinstance(config.get("model_cfg"), dict),
        "eval.models.formats.open_clip",
        packages=("open-clip-torch",),
    ),
)


def format_of(config: Mapping[str, Any], where: str) -> Format:
    """The format of a config.json. Raises UserError for one that none reads."""
    for known in FORMATS:
        if known.mark(config):
            return known
    raise BadInput(
        f"config.json of {where} is not timm's (it has no 'architecture' name), nor of "
        f"transformers (no 'model_type'); {FROM_PYTHON}"
    )


def packages_of(name: str) -> tuple[str, ...]:
    """What computes a network of that format beside timm; nothing for a source's own format."""
    return next((known.packages for known in FORMATS if known.name == name), ())


def needs(package: str, extra: str, what: str) -> None:
    """Raises UserError, naming the extra to install, where a library is missing that ``what``
    needs. Imports nothing."""
    if importlib.util.find_spec(package) is None:
        raise NotFound(f"{what} needs {package}; pip install 'transferzoo[{extra}]'")

"""timm's config.json, read and checked: only what is known and within bounds is handed on.

Imports no torch. What a file says beside it (an address, a path, a loader) never has an effect, and
what had to be converted is said in ``notes``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from eval.common.errors import BadInput
from eval.models.arguments import (
    MOST_CLASSES,
    MOST_PX,
    check_arguments,
    check_tokens,
    shorten,
)

MOST_BYTES = 10_000_000  # 21,843 classes with their descriptions have two million
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class TimmConfig:
    """A config.json that timm may read. ``pretrained`` and ``args`` hold checked values alone."""

    architecture: str
    args: dict[str, Any]
    pretrained: dict[str, Any]  # mean, std, input_size, ... as timm's pretrained_cfg has them
    notes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """1 for grey images, else 3."""
        size = self.pretrained.get("input_size", (3,))
        return int(self.args.get("in_chans", size[0]))

    def as_json(self) -> dict[str, Any]:
        """The content of a config.json from which timm builds this network."""
        return {
            "architecture": self.architecture,
            "model_args": dict(self.args),
            "pretrained_cfg": dict(self.pretrained),
        }


def read_json(raw: bytes, where: str) -> dict[str, Any]:
    """The object in a config.json, with or without a byte order mark. Raises UserError."""
    if len(raw) > MOST_BYTES:
        raise BadInput(f"config.json of {where} has {len(raw):,} bytes, at most {MOST_BYTES:,}")
    try:
        config = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise BadInput(f"config.json of {where} is not valid JSON") from None
    if not isinstance(config, dict):
        raise BadInput(f"config.json of {where} is not timm's: it has no 'architecture' name")
    return config


def timm_config(config: Mapping[str, Any], where: str) -> TimmConfig:
    """What a config.json with an ``architecture`` says, checked.

    An older, flat file (no ``pretrained_cfg``) has the same keys at the top. Raises UserError, one
    sentence that names the key, for values that no network can have.
    """
    inner = config.get("pretrained_cfg")
    if inner is not None and not isinstance(inner, dict):
        raise BadInput(f"config.json of {where} is not timm's: 'pretrained_cfg' is not an object")
    given = dict(config) if inner is None else dict(inner)
    if config.get("num_classes") is not None:
        given["num_classes"] = config["num_classes"]
    args = check_arguments(config.get("model_args"), where)
    if given.get("global_pool") is not None and "global_pool" not in args:  # as older files have it
        args |= check_arguments({"global_pool": given["global_pool"]}, where)

    found: dict[str, Any] = {}
    for name, check in _KNOWN.items():
        if given.get(name) is not None:
            found[name] = check(given[name], name, where)
    channels = args.get("in_chans", found.get("input_size", (3,))[0])
    if channels not in (1, 3):
        raise BadInput(
            f"{where} takes {channels} channels; networks for RGB (3) or grey images (1) are scored"
        )
    if channels == 1:
        found.setdefault("mean", list(IMAGENET_MEAN))
        found.setdefault("std", list(IMAGENET_STD))
    notes = _normalise(found, channels, where)
    if channels == 1:
        notes.append("the network takes one channel: images are turned grey (0.299, 0.587, 0.114)")
    size = args.get("img_size") or found.get("input_size", (3, 224, 224))[1:]
    sides = [size, size] if isinstance(size, int) else list(size)
    if len(sides) != 2:
        raise BadInput(f"config.json of {where} has img_size {shorten(size)}; use [height, width]")
    check_tokens(args, (sides[0], sides[1]), where)
    return TimmConfig(str(config["architecture"]), args, found, tuple(notes))


def _fault(value: object, name: str, where: str, wanted: str) -> BadInput:
    return BadInput(f"config.json of {where} has {name} {shorten(value)}; it must be {wanted}")


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _size(value: object, name: str, where: str) -> list[int]:
    if not isinstance(value, list) or len(value) != 3 or not all(map(_whole, value)):
        raise _fault(value, name, where, "[channels, height, width], three whole numbers")
    if not all(1 <= side <= MOST_PX for side in value[1:]) or not 1 <= value[0] <= 16:
        shown = "x".join(str(side)[:12] for side in value[1:])
        raise BadInput(
            f"config.json of {where} asks for images of {shown} px and {str(value[0])[:12]} "
            f"channels ({name}), at most {MOST_PX} px a side are encoded"
        )
    return value


def _classes(value: object, name: str, where: str) -> int:
    if not _whole(value) or not -1 <= value <= MOST_CLASSES:
        raise _fault(value, name, where, f"a whole number of at most {MOST_CLASSES:,}")
    return value


def _flag(value: object, name: str, where: str) -> bool:
    if not isinstance(value, bool):
        raise _fault(value, name, where, "true or false")
    return value


def _crop(value: object, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.05 <= value <= 2:
        raise _fault(value, name, where, "a number of 0.05 to 2")
    return value


def _one_of(*choices: str) -> Callable[[object, str, str], str]:
    def check(value: object, name: str, where: str) -> str:
        if value not in choices:
            raise _fault(value, name, where, f"one of {', '.join(choices)}")
        return str(value)

    return check


def _names(value: object, name: str, where: str) -> Any:
    """One layer's name, or several: timm changes input layers by them."""
    many = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) and len(one) <= 200 for one in many) or len(many) > 64:
        raise _fault(value, name, where, "the name of a layer, or a list of names")
    return value


def _numbers(value: object, name: str, where: str) -> Any:
    many = value if isinstance(value, list) else [value]
    if len(many) not in (1, 3) or not all(
        isinstance(n, int | float) and not isinstance(n, bool) and -1e6 < n < 1e6 for n in many
    ):
        raise _fault(value, name, where, "three numbers, one for each channel, or one for all")
    return value


_KNOWN: dict[str, Callable[[object, str, str], Any]] = {
    "input_size": _size,
    "fixed_input_size": _flag,
    "interpolation": _one_of(*INTERPOLATIONS),
    "crop_pct": _crop,
    "crop_mode": _one_of(*CROP_MODES),
    "mean": _numbers,
    "std": _numbers,
    "num_classes": _classes,
    "first_conv": _names,
    "classifier": _names,
}


def _normalise(found: dict[str, Any], channels: int, where: str) -> list[str]:
    """Make ``mean`` and ``std`` one number a channel, of pixels in 0 to 1; what was changed."""
    notes = []
    for name in ("mean", "std"):
        value = found.get(name)
        if value is None:
            continue
        many = value if isinstance(value, list) else [value]
        if len(many) != channels:
            if channels == 1:
                found[name] = [sum(many) / len(many)]
                notes.append(f"{name} {shorten(value)} is averaged for the grey channel")
            else:
                found[name] = many * channels
                notes.append(f"{name} {shorten(value)} is taken for each of the three channels")
        else:
            found[name] = many
    mean, std = found.get("mean", IMAGENET_MEAN), found.get("std", IMAGENET_STD)
    shown = f"mean {shorten(list(mean))} and std {shorten(list(std))}"
    if min(std) <= 0 or min(mean) < 0:
        raise BadInput(
            f"config.json of {where} has {shown}; std must be above 0 and mean not below it"
        )
    if max(mean) <= 1 and max(std) <= 1:
        return notes
    # Of pixels in 0 to 255, where a standard deviation below 1 would mean pictures of one colour.
    largest = max(*mean, *std)
    if not 16 <= largest <= 255 or min(std) < 1 or 0 < max(mean) <= 1:
        raise BadInput(
            f"config.json of {where} has {shown}, which fit neither pixels in 0 to 1 nor "
            "in 0 to 255"
        )
    found["mean"], found["std"] = [m / 255 for m in mean], [s / 255 for s in std]
    notes.append(f"{shown} are of pixels in 0 to 255: both were divided by 255")
    return notes

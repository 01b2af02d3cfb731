"""A model string -> what it names: kind, name, revision; the checkpoints that ship.

What is neither a folder nor a repository is a source of its own, with a prefix in
``eval.models.plugs``.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eval.common.errors import BadInput, NotFound, did_you_mean
from eval.models.objectives import OBJECTIVES
from eval.models.plugs import prefixes

Kind = Literal["hub", "local", "zoo", "timm", "random", "python", "source"]

ZOO_ORG = "transferzoo"
# Beside the packages in a checkout; an installed package is told where its checkpoints lie.
ZOO_FOLDER = Path(
    os.environ.get("TRANSFERZOO_ZOO") or Path(__file__).resolve().parents[2] / "model_cards"
)
_PREFIXES: dict[str, Kind] = {
    "hf-hub": "hub",
    "hf_hub": "hub",  # timm's older spelling
    "local-dir": "local",
    "zoo": "zoo",
    "random": "random",
}
_FORMS = (
    "hf-hub:org/name[@rev], local-dir:PATH, zoo:NAME, random:ARCH, file:PATH?arch=NAME, "
    "torchvision:NAME, python:package.module:function or a timm name"
)


@dataclass(frozen=True)
class ModelName:
    """A parsed model string. ``revision`` is what stood behind ``@``, not yet resolved, and
    ``architecture`` what stood behind ``?arch=``."""

    kind: Kind
    name: str
    revision: str | None = None
    architecture: str | None = None


def parse_model(text: str) -> ModelName:
    """Split a model string into kind, name and revision.

    Raises UserError when the string is empty, its prefix is unknown, or it looks like a path or a
    repository without a prefix: guessing there would silently score other weights.
    """
    if not text or text != text.strip():
        raise BadInput(f"model {text!r} is empty or has spaces round it; use {_FORMS}")
    prefix, colon, rest = text.partition(":")
    if not colon or len(prefix) == 1:  # one letter is a Windows drive
        if any(c in text for c in "/\\:"):
            raise BadInput(
                f"model {text!r} has no prefix; use 'hf-hub:{text}' for the Hub "
                f"or 'local-dir:{text}' for a folder"
            )
        if "@" in text:
            raise BadInput(
                f"model {text!r} is a timm name, which takes no @revision; use 'hf-hub:timm/{text}'"
            )
        return ModelName("timm", text)
    kind = _PREFIXES.get(prefix.lower())
    if kind is None and prefix.lower() in prefixes():
        return ModelName("source", text)  # of a form that its module knows
    if kind is None:
        raise NotFound(
            f"model {text!r} has an unknown prefix {prefix!r}"
            + did_you_mean(prefix.lower(), [*_PREFIXES, *prefixes()], f"use {_FORMS}")
        )
    if not rest:
        raise BadInput(f"model {text!r} has nothing behind the prefix; use {_FORMS}")
    if kind == "local":
        return ModelName(kind, rest)  # a path may hold '@'
    architecture = None
    if kind == "hub":
        rest, architecture = split_architecture(rest)
        if architecture is not None and not re.fullmatch(r"\w+", architecture, re.ASCII):
            raise BadInput(
                f"model {text!r} names no architecture behind '?arch='; use one of timm's without "
                "a tag, as ?arch=resnet50"
            )
    name, at, revision = rest.partition("@")
    if at and not revision:
        raise BadInput(f"model {text!r} ends in '@' without a revision")
    if not name:
        raise BadInput(f"model {text!r} has no name before '@'; use {_FORMS}")
    if ".." in revision or revision.startswith("/"):  # it becomes part of a path in the cache
        raise BadInput(f"model {text!r}: no revision has '..' in its name or begins with '/'")
    if kind == "hub" and (not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or ".." in name):
        raise BadInput(f"model {text!r} names no Hub repository; use hf-hub:org/name[@rev]")
    if kind == "zoo" and not re.fullmatch(r"[\w.+-]+", name):
        raise BadInput(f"model {text!r} names no zoo model; use zoo:NAME, see list models")
    if kind == "random" and revision and not re.fullmatch(r"\d{1,18}", revision):
        raise BadInput(
            f"model {text!r}: the seed behind '@' must be a number of at most 18 digits, "
            f"got {revision!r}"
        )
    return ModelName(kind, name, revision or None, architecture)


def split_architecture(text: str) -> tuple[str, str | None]:
    """What stands before ``?arch=`` and what behind it; None where there is none."""
    before, asked, architecture = text.partition("?arch=")
    return before, architecture if asked else None


def under_architecture(commit: str, architecture: str | None) -> str:
    """The revision of the network that ``architecture`` makes of a commit's weights: equal weights
    in two networks are two models. The commit itself where its files name the network."""
    if architecture is None:
        return commit
    return hashlib.sha256(f"{commit} {architecture}".encode()).hexdigest()[:40]


def zoo_names() -> list[str]:
    """Checkpoints that ship with this repository, in the order of the study's objectives."""
    return sorted((p.parent.name for p in ZOO_FOLDER.glob("*/config.json")), key=study_order)


def zoo_folder(name: str) -> Path:
    """Where a checkpoint that ships lies."""
    return ZOO_FOLDER / name


def study_order(name: str) -> tuple[str, int, str]:
    """Sorts checkpoint names: by backbone, then as the study's tables order the objectives."""
    backbone, _, tag = name.partition(".")
    slugs = [text.replace("+", "_") for text in OBJECTIVES]
    fits = [i for i, slug in enumerate(slugs) if tag.startswith(f"{slug}_")]
    return backbone, max(fits, key=lambda i: len(slugs[i]), default=len(slugs)), tag


def expand(text: str) -> list[str]:
    """``zoo:all`` as the strings of all shipped checkpoints, ``local-dir:'runs/x/step-*'`` as those
    of the folders that fit, numbers in their order; anything else as it is.

    Raises UserError for a pattern that no folder fits.
    """
    if text == "zoo:all":
        return [f"zoo:{name}" for name in zoo_names()]
    prefix, _, rest = text.partition(":")
    if _PREFIXES.get(prefix.lower()) != "local" or not any(c in rest for c in "*?["):
        return [text]
    place = Path(rest).expanduser()
    if place.is_dir():  # its name has such a character
        return [text]
    found = list(Path(place.anchor).glob(str(place.relative_to(place.anchor))))
    found = [path for path in found if path.is_dir()]
    if not found:
        raise NotFound(f"model {text!r}: no folder fits this pattern")
    return [f"{prefix}:{path}" for path in sorted(found, key=_natural)]


def _natural(path: Path) -> list[tuple[int, str]]:
    """step-9 before step-10."""
    return [(int(p or 0), "") if p.isdigit() else (0, p) for p in re.split(r"(\d+)", str(path))]


def step_of(folder: Path) -> int | None:
    """The step of a training whose checkpoint a folder's name says it is, as ``step-1000``."""
    match = re.fullmatch(r"(?:step|checkpoint|iter|iteration)[-_]?(\d{1,15})", folder.name)
    return int(match[1]) if match else None

"""What is asked of a model of the Hub before it is queued: by its metadata, without its weights."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.common.errors import BadInput, NotFound, UserError, one_line
from eval.hub import client
from eval.hub.commits import check_repo_id, refusal
from eval.models.resolve import resolve

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

_LONGEST = 200  # characters of what a user may paste
_FORMS = "org/name, org/name@REVISION or its address https://huggingface.co/org/name"
_REVISION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_./-]*[A-Za-z0-9_])?")
_CONFIG_BYTES = 1_000_000  # a config.json has a few thousand
_MOST_PX = 1024  # no model of timm takes more; a made-up size would fill the worker's memory
# A hostile config.json may ask for a network that takes hours to build, even without weights.
_ARGS, _WIDEST, _DEEPEST = 200, 100_000, 512
_DEPTH = re.compile(r"depth|layer|block|stage|repeat", re.IGNORECASE)


@dataclass(frozen=True)
class Candidate:
    """A model that may be queued: it exists, is open, timm can build it, its weights are safe.

    The strings are short and without control characters, but not escaped for a page.
    """

    spec: str  # hf-hub:org/name@sha
    repo: str
    sha: str
    architecture: str
    params: int | None  # as the Hub counts them in model.safetensors
    bytes: int  # of model.safetensors
    licence: str  # "" where the repository names none
    px: int | None  # side of its input images
    gated: bool


def clean(text: object, limit: int) -> str:
    """Somebody else's text on one line of at most ``limit`` characters, without those that steer a
    terminal or turn the direction of what follows."""
    kept = (" " if unicodedata.category(c) in _UNSEEN else c for c in str(text)[: 10 * limit])
    line = " ".join("".join(kept).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def check(text: str, cache: Path, *, max_bytes: int = 2_000_000_000) -> Candidate:
    """What ``text`` names on the Hub, pinned to its commit of now. Downloads config.json alone.

    Raises UserError, one sentence fit to be shown, for another form, and for a model that is
    missing, private, gated to us, too large, no RGB model of timm's, or without safetensors.
    """
    repo, revision = _parse(text)
    try:
        return _check(repo, revision, cache, max_bytes)
    except UserError as error:  # it may quote the repository's config.json
        raise BadInput(clean(one_line(error), 400)) from None
    except RecursionError:
        raise BadInput(f"config.json of model {repo!r} is nested too deeply") from None


def _parse(text: str) -> tuple[str, str | None]:
    """(org/name, revision or None)."""
    text = text.strip()
    if len(text) > _LONGEST:
        raise BadInput(
            f"a model's name has at most {_LONGEST} characters, this has {len(text)}; use {_FORMS}"
        )
    refused = UserError(f"{text!r} names no model of the Hub; use {_FORMS}")
    if address := re.fullmatch(r"https?://(?:www\.)?huggingface\.co/(.*)", text):
        match = re.fullmatch(r"([^/?#]+/[^/?#]+)(?:/tree/([^?#]+?))?/?", address[1])
        if match is None:
            raise refused
        name, revision = match[1], match[2]
        if revision is not None:
            revision = re.sub("%2f", "/", revision, flags=re.IGNORECASE)  # refs/pr/1
    else:
        name, at, behind = text.removeprefix("hf-hub:").partition("@")
        revision = behind if at else None
    if ":" in name or name.count("/") != 1 or name.split("/")[0] in ("datasets", "spaces"):
        raise refused
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise NotFound(f"{text!r} has no revision of letters, digits, '.', '_', '/' and '-'")
    return check_repo_id(name, "model"), revision


def _check(repo: str, revision: str | None, cache: Path, max_bytes: int) -> Candidate:
    subject = f"model {repo!r}"
    # Without the names of files, so that the Hub is asked and not this machine's cache.
    pinned = client.pin(repo, revision, "model", subject)
    repo, subject = pinned.repo, f"model {pinned.repo!r}"
    info = _ask(repo, pinned.sha, subject)
    # A private model may be open to our token: its results would tell of it.
    if info.private or getattr(info, "disabled", False):
        raise NotFound(
            f"{subject}: the Hub has no such model, or it is private; only public models are scored"
        )
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    if (sizes.get("config.json") or 0) > _CONFIG_BYTES:
        raise BadInput(f"config.json of {subject} is larger than {_CONFIG_BYTES:,} bytes")
    spec = resolve(f"hf-hub:{repo}@{pinned.sha}", cache).spec
    size = sizes.get("model.safetensors")
    if not isinstance(size, int):
        raise BadInput(f"{subject}: the Hub does not say how large model.safetensors is")
    if size > max_bytes:
        raise BadInput(
            f"{subject} is too large: model.safetensors has {size / 1e9:,.2f} GB, "
            f"the limit is {max_bytes / 1e9:,.2f} GB"
        )
    folder = client.fetch(repo, pinned.sha, ("config.json",), subject)
    config = json.loads((folder / "config.json").read_bytes())
    return Candidate(
        spec=spec,
        repo=repo,
        sha=pinned.sha,
        architecture=clean(config["architecture"], 80),
        params=_params(info),
        bytes=size,
        licence=_licence(info),
        px=_build(folder, config, size, subject),
        gated=bool(info.gated),
    )


def _ask(repo: str, sha: str, subject: str) -> ModelInfo:
    from huggingface_hub import HfApi

    try:
        return client.with_retries(
            lambda: HfApi().model_info(repo, revision=sha, files_metadata=True, timeout=30)
        )
    except Exception as error:
        raise refusal(error, subject, "") from None


def _params(info: ModelInfo) -> int | None:
    total = getattr(info.safetensors, "total", None)
    return total if isinstance(total, int) and 0 < total < 10**13 else None


def _licence(info: ModelInfo) -> str:
    card: Any = info.card_data
    found = getattr(card, "license", None)
    if found == "other":
        found = getattr(card, "license_name", None) or found
    if isinstance(found, list):
        found = ", ".join(str(f) for f in found[:5])
    return clean(found, 80) if isinstance(found, str) else ""


def _build(folder: Path, config: dict[str, Any], weights_bytes: int, subject: str) -> int:
    """The side of the input; the architecture was built without memory for its weights."""
    import timm
    import torch
    from timm.data import resolve_data_config

    architecture = config["architecture"]
    if not timm.is_model(architecture):
        raise BadInput(f"{subject}: timm {timm.__version__} knows no architecture {architecture!r}")
    _check_args(config.get("model_args"), subject)
    try:
        with torch.device("meta"):
            net = timm.create_model(f"local-dir:{folder}", pretrained=False)
        size = resolve_data_config({}, model=net)["input_size"]
        channels, *sides = (int(n) for n in size)
    except Exception as error:
        raise BadInput(
            f"{subject}: timm cannot build {architecture!r} ({one_line(error)})"
        ) from None
    if not callable(getattr(net, "reset_classifier", None)):
        raise BadInput(f"{subject}: {architecture!r} is not a timm classifier")
    if channels != 3:
        raise BadInput(f"{subject} takes {channels} channels, not RGB")
    if len(sides) != 2 or min(sides) < 1 or max(sides) > _MOST_PX:
        shown = "x".join(map(str, sides))
        raise BadInput(f"{subject} takes images of {shown} px, at most {_MOST_PX} are scored")
    # Weights are loaded strictly, and no format has less than a byte a number. The worker draws the
    # network before it reads the file: one of a billion classes must not get as far.
    count = sum(p.numel() for p in net.parameters())
    if count > weights_bytes:
        raise BadInput(
            f"{subject}: config.json describes {count:,} parameters, which model.safetensors with "
            f"its {weights_bytes:,} bytes cannot hold"
        )
    return max(sides)


def _check_args(args: object, subject: str) -> None:
    """Refuses arguments that no trained network has; building would take for ever."""
    refused = UserError(
        f"config.json of {subject} asks for a network of no sane size ('model_args')"
    )
    for count, (path, value) in enumerate(_leaves(args)):
        if count >= _ARGS or len(path) > 200:
            raise refused
        if isinstance(value, int | float) and not -_WIDEST <= value <= _WIDEST:
            raise refused
        if isinstance(value, int) and value > _DEEPEST and _DEPTH.search(path):
            raise refused


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, path)
    else:
        yield path, value

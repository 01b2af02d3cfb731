"""What is asked of a model of the Hub before it is queued: by its metadata, without its weights."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.common.errors import BadInput, NotFound, UserError, one_line
from eval.hub import client
from eval.hub.commits import check_repo_id, refusal
from eval.models.formats import format_of
from eval.models.resolve import model_config, resolve

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

_LONGEST = 200  # characters of what a user may paste
_FORMS = "org/name, org/name@REVISION or its address https://huggingface.co/org/name"
_REVISION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_./-]*[A-Za-z0-9_])?")
_CONFIG_BYTES = 1_000_000  # a config.json has a few thousand


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
    model = resolve(f"hf-hub:{repo}@{pinned.sha}", cache)
    size = 0
    for name in model.weights:
        part = sizes.get(name)
        if not isinstance(part, int):
            raise BadInput(f"{subject}: the Hub does not say how large {name} is")
        size += part
    what = model.weights[0] if len(model.weights) == 1 else "its weights"
    if size > max_bytes:
        raise BadInput(
            f"{subject} is too large: {what} has {size / 1e9:,.2f} GB, "
            f"the limit is {max_bytes / 1e9:,.2f} GB"
        )
    files = replace(model_config(model), who=subject)
    # No format has less than a byte a number. The worker draws the network before it reads the
    # file: one of a billion classes must not get as far.
    found = format_of(files.config, subject).loader().examine(files, size)
    return Candidate(
        spec=model.spec,
        repo=repo,
        sha=pinned.sha,
        architecture=clean(found.architecture, 80),
        params=_params(info),
        bytes=size,
        licence=_licence(info),
        px=max(found.sides),
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

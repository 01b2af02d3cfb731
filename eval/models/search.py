"""Models of the Hub that are named together: an author's, a collection's, those of a tag."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.common.errors import BadInput, NotFound, UserError
from eval.hub.client import with_retries
from eval.hub.commits import refusal
from eval.models.resolve import resolve

MOST = 200  # models a search may name; more is hardly meant


@dataclass(frozen=True)
class ModelMatches:
    """Model strings, pinned, and the repositories that cannot be scored, each with the reason."""

    models: tuple[str, ...]
    skipped: tuple[str, ...]


def find_models(
    cache: Path,
    *,
    author: str | None = None,
    collection: str | None = None,
    tags: Sequence[str] = (),
) -> ModelMatches:
    """Every model that fits all that is given, as ``hf-hub:org/name@sha``, sorted by name.

    What timm cannot load safely is skipped, not failed: an author may have other models too.
    Raises UserError when nothing fits, too much does, or the Hub refuses.
    """
    if collection and (author or tags):
        raise BadInput("--collection names its models itself; leave --author and --filter out")
    what = f"--collection {collection!r}" if collection else "--author/--filter"
    repos = _collected(collection) if collection else _listed(author, tags)
    if len(repos) > MOST:
        raise BadInput(f"{what} fits more than {MOST} models; narrow it down")
    models, skipped = [], []
    for repo in repos:
        try:
            models.append(resolve(f"hf-hub:{repo}", cache).spec)
        except UserError as why:
            skipped.append(str(why))
    if not models:
        reason = f" ({skipped[0]})" if skipped else ""
        raise NotFound(f"{what} fits no model that timm can load{reason}")
    return ModelMatches(tuple(models), tuple(skipped))


def _listed(author: str | None, tags: Sequence[str]) -> list[str]:
    from huggingface_hub import HfApi

    def ask() -> list[Any]:
        # One more than may be, so that too many is noticed without listing the whole Hub.
        return list(HfApi().list_models(author=author, filter=list(tags) or None, limit=MOST + 1))

    try:
        return sorted(model.id for model in with_retries(ask))
    except Exception as error:
        raise refusal(error, "models of", author or "the Hub") from None


def _collected(text: str) -> list[str]:
    from huggingface_hub import HfApi

    slug = re.sub(r"^https?://[^/]+/collections/", "", text).strip("/")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", slug):
        raise BadInput(
            f"--collection {text!r} is not a collection; give its address or ORG/TITLE-ID as in it"
        )
    try:
        found = with_retries(lambda: HfApi().get_collection(slug))
    except Exception as error:
        if getattr(getattr(error, "response", None), "status_code", None) == 404:
            raise NotFound(f"the Hub has no collection {slug!r}, or it is private") from None
        raise refusal(error, "collection", slug) from None
    return sorted(item.item_id for item in found.items if item.item_type == "model")

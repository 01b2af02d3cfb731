"""What several commands are asked for: models, and results of a folder or the Hub."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from eval.common.errors import BadInput
from eval.common.files import default_cache

if TYPE_CHECKING:
    from eval.results.signoff import SignOffs
    from eval.results.store import Shelf


def results_from(text: str) -> Shelf:
    """The sound results of a directory or a data set repository; other files are told, and how
    many they are."""
    return place_from(text)[1]


def place_from(text: str) -> tuple[Path, Shelf, SignOffs | None]:
    """(the folder that they lie in, the same, who computed them again or None where nobody
    asks)."""
    from eval.sharing.read import marks_at, shelf_at

    folder, found = shelf_at(text)
    for path, why in found.foreign:
        print(f"skipped {path}: {why}", file=sys.stderr)
    if len(found.foreign) > 1:
        print(f"{len(found.foreign)} files skipped in all", file=sys.stderr)
    return folder, found, marks_at(text, folder)


def models_from(args: argparse.Namespace) -> list[str]:
    """The models that are named, one by one or by a search."""
    from eval.models.names import expand

    models = [name for text in args.models for name in expand(text)]
    if args.author or args.collection or args.filter:
        from eval.models.search import find_models

        found = find_models(
            args.cache or default_cache(),
            author=args.author, collection=args.collection, tags=args.filter or (),
        )  # fmt: skip
        for why in found.skipped:
            print(f"skipped: {why}", file=sys.stderr)
        models += found.models
    if not models:
        raise BadInput("no MODEL given; name one, or use --author, --collection or --filter")
    return models

"""What a prepared data set says of itself: ``manifest.json`` beside its Parquet files.

It freezes who is in train and who in test, so that data which have changed since are refused
instead of scored under the old name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from eval.common.errors import BadInput, one_line
from eval.common.files import MOST_JSON, read_plain, write_json

MANIFEST = "manifest.json"


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PartFacts(_Facts):
    """One part of a split."""

    images: int
    per_class: list[int]  # by label


class SplitFacts(_Facts):
    """One split of the images: parts by name ('train', 'test')."""

    parts: dict[str, PartFacts]
    members: str  # eval.data.split_rules.members of (part, official name)
    split_hash: str  # TaskData.split_hash: every image's bytes and label


class FileFacts(_Facts):
    rows: int
    sha256: str


class Manifest(_Facts):
    """The file's content."""

    manifest_version: Literal[1]
    task: str
    classes: list[str]
    default: str  # the split that the files stand for: train-*.parquet and test-*.parquet
    splits: dict[str, SplitFacts]
    files: dict[str, FileFacts]
    partial: bool = False  # images are missing: a subset, not comparable to published numbers
    missing: list[str] = []  # official names
    unreadable: dict[str, str] = {}  # official name: why
    strangers: int = 0  # images of the download that are on no official list, left out
    duplicates: dict[str, list[list[str]]] = {}  # 'within train', 'across': groups of equal images
    notes: list[str] = []
    source: dict[str, int] = {}  # files of the download: bytes
    made_with: str = ""
    created: str = ""


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write it atomically."""
    path = folder / MANIFEST
    write_json(path, manifest.model_dump(mode="json"))
    return path


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest; None where there is none. Raises UserError for a broken one."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        return Manifest.model_validate(json.loads(read_plain(path, MOST_JSON)))
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(str(p) for p in first['loc'])}: {first['msg']}"
    except (OSError, ValueError, RecursionError) as error:
        why = one_line(error)
    raise BadInput(
        f"{path} is not a manifest of a prepared data set ({why}); prepare the set again"
    )

"""What the Hub derives from a repository's files: card, tags, parameter counts, eval results."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import yaml

from .store import Blob, Commit, Repo, iso

# Card fields whose values become tags, as "name:value".
DATASET_TAGS = (
    "license language language_creators multilinguality size_categories task_categories task_ids"
)
TAG_NAMES: dict[str, dict[str, str]] = {
    "model": {"license": "license", "datasets": "dataset", "base_model": "base_model"},
    "dataset": {key: key for key in [*DATASET_TAGS.split(), "benchmark"]},
    "space": {"license": "license"},
}

LIST_FIELDS = {
    "model": "id modelId private gated downloads likes tags pipeline_tag library_name createdAt",
    "dataset": "id author sha lastModified private gated disabled downloads likes tags createdAt",
    "space": "id likes private sdk tags createdAt",
}
FULL_FIELDS = "author sha lastModified gated disabled siblings"


def card_of(files: Mapping[str, Blob]) -> dict[str, Any]:
    """The YAML block at the head of README.md; empty where there is none or it is not valid."""
    if "README.md" not in files:
        return {}
    return parse_card(files["README.md"].read().decode("utf-8", "replace"))[0]


def parse_card(text: str) -> tuple[dict[str, Any], str | None]:
    """A README's metadata, and what is wrong with it."""
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[0].strip() != "---" or "---" not in (line.strip() for line in lines[1:]):
        return {}, None
    end = next(i for i, line in enumerate(lines[1:], 1) if line.strip() == "---")
    try:
        card = yaml.safe_load("\n".join(lines[1:end]))
    except yaml.YAMLError as error:
        return {}, f"Invalid YAML in the metadata block: {error}"
    if card is None:
        return {}, None
    if not isinstance(card, dict):
        return {}, "The metadata block must be a mapping"
    return card, None


def tags_of(repo: Repo, card: Mapping[str, Any], files: Mapping[str, Blob]) -> list[str]:
    """Tags as the Hub shows them: library, file format, the card's own, and "key:value" ones."""
    tags = [card["library_name"]] if "library_name" in card else []
    if repo.kind == "model" and any(name.endswith(".safetensors") for name in files):
        tags.append("safetensors")
    tags += as_list(card.get("tags"))
    if "pipeline_tag" in card:
        tags.append(card["pipeline_tag"])
    for key, name in TAG_NAMES[repo.kind].items():
        tags += [f"{name}:{value}" for value in as_list(card.get(key))]
    return list(dict.fromkeys([*map(str, tags), "region:us"]))


def as_list(value: Any) -> list[Any]:
    """A card field that may be one value or a list of them."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def safetensors_of(files: Mapping[str, Blob]) -> dict[str, Any] | None:
    """Parameter counts by dtype, from the header of model.safetensors."""
    blob = files.get("model.safetensors")
    if blob is None or blob.size < 8:
        return None
    length = int.from_bytes(blob.read(0, 8), "little")
    try:
        header = json.loads(blob.read(8, 8 + length))
        counts: Counter[str] = Counter()
        for name, tensor in header.items():
            if name != "__metadata__":
                counts[tensor["dtype"]] += math.prod(tensor["shape"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # not a safetensors file: the Hub shows nothing
    return {"parameters": dict(counts), "total": counts.total()}


def config_of(files: Mapping[str, Blob]) -> dict[str, Any]:
    """The part of config.json that the Hub shows."""
    try:
        config = json.loads(files["config.json"].read()) if "config.json" in files else {}
    except (ValueError, RecursionError):
        return {}
    return {key: config[key] for key in ("architectures", "model_type") if key in config}


def eval_results_of(files: Mapping[str, Blob]) -> list[dict[str, Any]]:
    """The entries of `.eval_results/*.yaml`, each with its file name."""
    entries = []
    for name, blob in sorted(files.items()):
        if name.startswith(".eval_results/") and name.endswith((".yaml", ".yml")):
            try:
                items = as_list(yaml.safe_load(blob.read()))
            except yaml.YAMLError as error:
                entries.append({"filename": name, "error": str(error)})
                continue
            entries += [{"filename": name, "data": item} for item in items]
    return entries


def repo_json(repo: Repo, commit: Commit, blobs: bool = False) -> dict[str, Any]:
    """Every field the hub knows of a repository at a commit."""
    files = commit.files
    card = card_of(files)
    data: dict[str, Any] = {
        "_id": commit.sha[:24],
        "id": repo.id,
        "author": repo.id.split("/")[0] if "/" in repo.id else None,
        "sha": commit.sha,
        "lastModified": commit.when,
        "createdAt": iso(repo.created),
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": tags_of(repo, card, files),
        "cardData": card,
        "siblings": [sibling(name, files[name], blobs) for name in sorted(files)],
        "usedStorage": sum(blob.size for blob in files.values() if blob.lfs),
    }
    if repo.kind == "model":
        data["modelId"] = repo.id
        data["config"] = config_of(files)
        data |= {key: card[key] for key in ("library_name", "pipeline_tag") if key in card}
        if "model-index" in card:
            data["model-index"] = card["model-index"]
        if (tensors := safetensors_of(files)) is not None:
            data["safetensors"] = tensors
        if results := eval_results_of(files):
            data["evalResults"] = results
    if repo.kind == "space":
        data["sdk"] = card.get("sdk", repo.sdk)
        hardware = {"current": "cpu-basic", "requested": "cpu-basic"}
        data["runtime"] = {"stage": "RUNNING", "hardware": hardware}
    return data


def sibling(name: str, blob: Blob, blobs: bool) -> dict[str, Any]:
    """A file as `siblings` lists it."""
    if not blobs:
        return {"rfilename": name}
    entry: dict[str, Any] = {"rfilename": name, "size": blob.size, "blobId": blob.oid}
    if blob.lfs:
        lfs = blob.lfs_json
        entry["lfs"] = {
            "sha256": blob.sha256,
            "size": blob.size,
            "pointerSize": lfs["pointerSize"],
        }
    return entry

"""Which files of a folder or repository are a model's weights, and what they hash to. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Set
from pathlib import Path

from eval.common.errors import BadInput, NotFound, Refused
from eval.common.files import sha256_file

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
OPEN_CLIP = ("open_clip_config.json", "open_clip_model.safetensors")  # config and weights
_PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl")
_SHARD = re.compile(r"[\w.-]{1,200}\.safetensors")
_MOST_SHARDS = 1000


def check_files(files: Set[str], where: str, advice: str = "") -> None:
    """Raises UserError unless ``files`` (paths within ``where``) hold config.json and weights as
    safetensors under the name that every library gives them. ``advice`` ends the sentence for
    weights that stand alone."""
    if WEIGHTS not in files and INDEX not in files:
        pickles = sorted(f for f in files if f.endswith(_PICKLES) and "/" not in f)
        others = sorted(f for f in files if f.endswith(".safetensors"))
        if others:
            raise NotFound(
                f"{where} has no {WEIGHTS}; it holds {_shown(others)}: put the file beside "
                f"{CONFIG} under that name"
            )
        if pickles:
            raise Refused(
                f"{where} offers only pickled weights ({', '.join(pickles[:3])}), which can run "
                f"code when loaded; {WEIGHTS} is needed"
            )
        raise NotFound(f"{where} has no {WEIGHTS}")
    if CONFIG not in files:
        seen = f"; it holds {_shown(found)}" if (found := _below(files, CONFIG)) else ""
        raise NotFound(f"{where} has no {CONFIG}, so its architecture is unknown{seen or advice}")


def is_open_clip(files: Set[str]) -> bool:
    """Whether the files are a model of open_clip's alone: many repositories hold it beside one in
    the common form, which then is what their name means."""
    common = CONFIG in files and (WEIGHTS in files or INDEX in files)
    return not common and set(OPEN_CLIP) <= files


def weight_names(files: Set[str], where: str, index: Callable[[], Path]) -> tuple[str, ...]:
    """The weights' files in the order of their names; ``index`` gives the path of the index where
    there are several. Raises UserError for an index that names what is not there."""
    if WEIGHTS in files:
        return (WEIGHTS,)
    try:
        found = json.loads(index().read_text(encoding="utf-8-sig"))["weight_map"]
        names = sorted(set(found.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadInput(f"{INDEX} of {where} is no index: it has no 'weight_map'") from None
    if (
        not names
        or len(names) > _MOST_SHARDS
        or not all(isinstance(name, str) and _SHARD.fullmatch(name) for name in names)
    ):
        raise BadInput(f"{INDEX} of {where} does not name safetensors files beside it")
    if missing := [name for name in names if name not in files]:
        raise NotFound(f"{where} lacks {_shown(missing)}, which its {INDEX} names")
    return tuple(names)


def folder_files(folder: Path) -> frozenset[str]:
    """Paths of a folder's files and of those in its sub-folders, as `check_files` takes them."""
    inside = [p for p in folder.iterdir() if p.is_dir()][:100]
    below = [f"{d.name}/{p.name}" for d in inside for p in _listed(d)]
    return frozenset([*(p.name for p in _listed(folder)), *below])


def weights_sha256(folder: Path, names: Iterable[str]) -> str:
    """SHA-256 of the one file, or that of what ``sha256sum`` prints of several, sorted by name."""
    return combined({name: sha256_file(folder / name) for name in names})


def combined(hashes: dict[str, str]) -> str:
    """One hash for all files of a model: by name their SHA-256, as computed or as the Hub says."""
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def local_names(folder: Path) -> tuple[str, ...]:
    """The weights' files of a folder."""
    return weight_names(folder_files(folder), f"folder {str(folder)!r}", lambda: folder / INDEX)


def _listed(folder: Path) -> list[Path]:
    try:
        return [p for p in folder.iterdir() if p.is_file()]  # a pipe would never end
    except OSError:  # one that may not be read holds nothing of ours
        return []


def _below(files: Set[str], name: str) -> list[str]:
    return sorted(f for f in files if f.endswith(f"/{name}"))


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(repr(name[:80]) for name in names[:3]) + more

"""What a visitor asks the few-shot demo over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradio_client import handle_file

from tests.factories import blobs
from tests.space.served import MODELS


def question(supports: list[Any], queries: Any, models: Any = (MODELS[0],)) -> list[Any]:
    """The arguments of /classify in their order."""
    names = list(models) if isinstance(models, tuple) else models
    return [{f"kind {i}": pictures for i, pictures in enumerate(supports)}, queries, names]


def photos(folder: Path, label: int, count: int) -> list[Any]:
    """Pictures made here, as gradio_client uploads them."""
    folder.mkdir(exist_ok=True)
    found = []
    for i, data in enumerate(blobs(label, count, seed=label)):
        path = folder / f"{label}-{i}.png"
        path.write_bytes(data)
        found.append(handle_file(path))
    return found

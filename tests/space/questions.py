"""What a visitor asks the few-shot demo over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradio_client import handle_file

from tests.factories import blobs
from tests.space.served import MODELS


def question(supports: list[Any], queries: Any, **changes: Any) -> list[Any]:
    """The arguments of /classify in their order."""
    padded = [*supports, *[[]] * (10 - len(supports))]
    names = [f"kind {i}" for i in range(10)]
    return [changes.get("models", [MODELS[0]]), changes.get("ways", len(supports)), *names,
            *padded, queries]  # fmt: skip


def photos(folder: Path, label: int, count: int) -> list[dict[str, Any]]:
    """A gallery of pictures made here, as gradio_client uploads them."""
    folder.mkdir(exist_ok=True)
    gallery = []
    for i, data in enumerate(blobs(label, count, seed=label)):
        path = folder / f"{label}-{i}.png"
        path.write_bytes(data)
        gallery.append({"image": handle_file(path), "caption": None})
    return gallery

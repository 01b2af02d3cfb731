"""The learning curve of a training log, as a PNG that says which log it was drawn from."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from eval.common.extras import require
from eval.common.files import sha256_file
from eval.models.objectives import TERMS
from zoo.checkpoint import Checkpoint

_KEY = "Description"


def drawn_from(picture: Path, log: Path) -> bool:
    """Whether the picture is of this very log."""
    try:
        with Image.open(picture) as image:
            return image.info.get(_KEY) == _mark(log)
    except OSError:
        return False


def _mark(log: Path) -> str:
    return f"log.jsonl sha256 {sha256_file(log)}"


def draw(checkpoint: Checkpoint, log: Path) -> bytes:
    """PNG: each loss term and, where it was probed, the validation kNN, over epochs.

    Raises UserError without matplotlib.
    """
    require("plots", f"the learning curve of {checkpoint.name}")
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    rows = [row for row in checkpoint.log if "total" in row]
    terms = [term for term in TERMS if rows and all(term in row for row in rows)]
    figure = Figure(figsize=(7.0, 2.8), dpi=110, layout="constrained")
    panels = list(figure.subplots(1, bool(terms) + bool(checkpoint.knn) or 1, squeeze=False)[0])
    if terms:
        for term in terms:
            panels[0].plot(
                [row["epoch"] for row in rows], [row[term] for row in rows], label=TERMS[term].shown
            )
        panels[0].set(xlabel="epoch", ylabel="loss")
        panels[0].legend(frameon=False)
    if checkpoint.knn:
        epochs, values = zip(*checkpoint.knn, strict=True)
        panels[-1].plot(epochs, values, "o-", color="black")
        panels[-1].set(xlabel="epoch", ylabel="validation kNN top-1, %", ylim=(0, None))
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None, _KEY: _mark(log)})
    return out.getvalue()

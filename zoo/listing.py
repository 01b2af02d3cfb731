"""What ``transfer-zoo list`` prints. Imports no torch."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from eval.models import ZOO_FOLDER, zoo_names
from zoo.names import STUDY, parse_objective
from zoo.recipe import load_recipe, recipe_names

Row = dict[str, Any]


def checkpoints() -> list[Row]:
    """The shipped checkpoints, by their files."""
    rows = []
    for name in zoo_names():
        folder = ZOO_FOLDER / name
        config = json.loads((folder / "config.json").read_text())
        recipe = folder / "recipe.toml"
        run = tomllib.loads(recipe.read_text()).get("run", {}) if recipe.is_file() else {}
        rows.append(
            {
                "checkpoint": f"zoo:{name}",
                "objective": run.get("objective", ""),
                "architecture": config["architecture"],
                "features": config.get("num_features"),
                "px": config["pretrained_cfg"]["input_size"][1],
                "data": run.get("data", ""),
                "images seen": run.get("images_seen"),
                "val kNN %": run.get("validation_knn_top1"),
                "MB": round((folder / "model.safetensors").stat().st_size / 1e6, 2),
            }
        )
    order = {name: i for i, name in enumerate(STUDY)}
    return sorted(rows, key=lambda row: order.get(row["objective"], len(order)))


def objectives() -> list[Row]:
    """The study's objectives; others are sums of their terms."""
    views = {True: "two strong views", False: "one weak view"}
    rows = []
    for text in STUDY:
        name = parse_objective(text)
        rows.append(
            {
                "objective": text,
                "shown": name.shown,
                "sees": "one strong view" if text == "ce-strong" else views[name.contrastive],
                "labels": "needed" if name.needs_labels else "unused",
                "rate family": name.family,
            }
        )
    return rows


def recipes() -> list[Row]:
    rows = []
    for text in recipe_names():
        recipe = load_recipe(text)
        rows.append(
            {
                "recipe": text,
                "backbone": recipe.backbone.name,
                "px": recipe.image.px,
                "epochs": recipe.train.epochs,
                "batch": recipe.train.batch_size,
                "queue": recipe.contrastive.queue,
            }
        )
    return rows


def render(rows: list[Row]) -> str:
    """Rows as a Markdown table, aligned: plain text reads as well as a rendered page."""
    if not rows:
        return "none"
    cells = [list(rows[0])] + [
        [f"{v:,}" if isinstance(v, int) else "" if v is None else str(v) for v in row.values()]
        for row in rows
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)

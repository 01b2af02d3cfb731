"""What ``transfer-zoo list`` prints. Imports no torch."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from eval.common.text import text_table
from eval.models.names import ZOO_FOLDER, zoo_names
from eval.models.objectives import OBJECTIVES, parse_objective
from zoo.train.recipe import load_recipe, recipe_names

Row = dict[str, Any]


def checkpoints() -> list[Row]:
    """The shipped checkpoints, by their files, in the order of the study."""
    rows = []
    for name in zoo_names():
        folder = ZOO_FOLDER / name
        config = json.loads((folder / "config.json").read_bytes())
        recipe = folder / "recipe.toml"
        run = (
            tomllib.loads(recipe.read_text(encoding="utf-8")).get("run", {})
            if recipe.is_file()
            else {}
        )
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
    return rows


def objectives() -> list[Row]:
    """The study's objectives and later ones; others are sums of their terms."""
    views = {"weak": "one weak view", "strong": "one strong view", "two strong": "two strong views"}
    rows = []
    for text in OBJECTIVES:
        name = parse_objective(text)
        rows.append(
            {
                "objective": text,
                "shown": name.shown,
                "sees": views[name.views],
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


def render(rows: list[Row], *, markdown: bool = False) -> str:
    """The rows as a table."""
    if not rows:
        return "none"
    cells = [
        [f"{v:,}" if isinstance(v, int) else "-" if v is None else str(v) for v in row.values()]
        for row in rows
    ]
    return text_table(list(rows[0]), cells, markdown)

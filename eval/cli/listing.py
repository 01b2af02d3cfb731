"""What can be named on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.common.text import text_table
from eval.data.locations import Data, presence
from eval.models.names import zoo_names
from eval.protocols import PROTOCOLS
from eval.settings.presets import PRESETS
from eval.tasks.registry import SUITE_NOTES, SUITES, TASKS


def settings() -> list[dict[str, Any]]:
    """Every setting of every protocol, as --set takes it."""
    return [
        {"setting": f"{p.name}.{name}", "default": _toml(value)}
        for p in PROTOCOLS.values()
        for name, value in vars(p.settings()).items()
    ]


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def rows(what: str, data: Data | None = None) -> list[dict[str, Any]]:
    """The entries of one table: 'tasks' (with ``data``: where they lie), 'suites', 'protocols',
    'presets' or 'models'."""
    if what == "tasks":
        return [
            {
                "task": t.name,
                "here": presence(t, data),
                "domain": t.domain,
                "classes": t.classes,
                "images": t.images,
                "train": t.train or "-",
                "test": t.test or "-",
                "kind": t.kind,
                "split": t.splits[0].name if t.splits else "its own",
                "licence": t.licence,
                "about": t.title,
                "note": t.note,
            }
            for t in TASKS.values()
        ]
    if what == "suites":
        return [
            {"suite": s, "tasks": ", ".join(names), "about": SUITE_NOTES[s]}
            for s, names in SUITES.items()
        ]
    if what == "protocols":
        return [
            {
                "protocol": p.name,
                "settings": ", ".join(f"{k}={v}" for k, v in vars(p.settings()).items()),
                "about": p.summary,
            }
            for p in PROTOCOLS.values()
        ]
    if what == "presets":
        return [
            {
                "preset": p.name,
                "pool": p.readout.pool,
                "layer": p.readout.layer or "-",
                "settings": " ".join(
                    f"{name}.{k}={_toml(v)}"
                    for name, some in p.protocols.items()
                    for k, v in some.items()
                ),
                "source": p.source,
                "about": p.rule,
            }
            for p in PRESETS.values()
        ]
    forms = [
        ("zoo:all", "every checkpoint that ships, each a row of the board"),
        ("random:ARCH[@SEED]", "any timm architecture, untrained: the floor of a board"),
        ("hf-hub:org/name[@rev]", "any timm model on the Hub with safetensors weights"),
        ("hf-hub:org/name[@rev]?arch=NAME", "its weights in another network of timm's"),
        ("local-dir:PATH", "a folder with timm's config.json and model.safetensors"),
        ("TIMM NAME", "a pretrained model of timm, e.g. resnet50.a1_in1k"),
    ]
    shipped = [(f"zoo:{name}", "ships with this repository") for name in zoo_names()]
    return [{"model": m, "about": about} for m, about in shipped + forms]


def render(entries: Sequence[dict[str, Any]], *, markdown: bool = False) -> str:
    """A table; long columns that a terminal cannot hold are in --json only."""
    header = [name for name in entries[0] if name not in ("note", "about")]
    lines = [[_short(str(e[name])) for name in header] for e in entries]
    return text_table(header, lines, markdown)


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."

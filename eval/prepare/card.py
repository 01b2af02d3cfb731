"""A prepared data set -> its card. Every number is the manifest's, every term the task's."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from eval.common.text import escaped, text_table
from eval.data.manifest import Manifest
from eval.tasks.declaration import SplitRule, Task

FOLDED_FROM = 20  # classes, or names of images, above which a list is folded
MOST_SHOWN = 50
_KINDS = {"classification": "image-classification", "detection": "object-detection"}
_RULES = {
    "official": "the authors' own parts",
    "per-class": "drawn with a fixed seed, 70 % of each class train",
    "groups": "drawn with a fixed seed, whole groups to one side, about 70 % of each class train",
}
# The whole text, or the word of the author: a licence of the labels, or of a repository of
# scripts, is none of the images.
_LICENCE = re.compile(
    r"(MIT|Apache-2\.0|CC0|CC BY(?:-NC)?(?:-SA|-ND)? \d\.\d)(?: by the author.*)?"
)
_ARRAYS = ("svhn",)  # given as arrays of pixels, not as image files
_BYTES = "The image files are the authors', byte for byte."
_PNG = "The authors give arrays of pixels: they are PNG files here, with the same pixels."
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_card(task: Task, manifest: Manifest, repo: str) -> str:
    """README.md of a data set repository. The same folder and code give the same card."""
    meta = yaml.safe_dump(_metadata(task, manifest), sort_keys=False, allow_unicode=True, width=100)
    text = _template().render(_facts(task, manifest, repo))
    return f"---\n{meta}---\n" + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def licence_id(task: Task) -> str:
    """The Hub's identifier of the images' licence; '' where it has none."""
    found = _LICENCE.fullmatch(task.licence)
    if not found:
        return ""
    return {"CC0": "cc0-1.0"}.get(found[1], found[1].lower().replace(" ", "-"))


def parts_of(manifest: Manifest) -> dict[str, int]:
    """Part -> images in its files: train, validation where there is one, test."""
    images = {name: p.images for name, p in manifest.splits[manifest.default].parts.items()}
    unused = [f for name, f in manifest.files.items() if name.startswith("validation-")]
    if unused:
        images["validation"] = sum(file.rows for file in unused)
    return {part: images[part] for part in ("train", "validation", "test") if part in images}


def _metadata(task: Task, manifest: Manifest) -> dict[str, Any]:
    parts = parts_of(manifest)
    total = sum(parts.values())
    known = licence_id(task)
    licence = {"license": known} if known else {
        "license": "other",
        "license_name": f"{task.name.replace('_', '-')}-terms",
        "license_link": task.terms or task.home,
    }  # fmt: skip
    files = [{"split": part, "path": f"{part}-*.parquet"} for part in parts]
    return {
        **licence,
        "pretty_name": task.title + (" (incomplete)" if manifest.partial else ""),
        "task_categories": [_KINDS[task.kind]],
        "size_categories": [next((name for most, name in _SIZES if total < most), "1M<n<10M")],
        "tags": ["transferzoo", task.name],
        "configs": [{"config_name": "default", "data_files": files}],
    }


# --------------------------------------------------------------------------- the text


def _facts(task: Task, manifest: Manifest, repo: str) -> dict[str, Any]:
    parts = parts_of(manifest)
    rules = {rule.name: rule for rule in task.splits}
    owner, _, name = repo.partition("/")
    grouped = any(rule.rule == "groups" for rule in rules.values())
    return {
        "title": escaped(task.title),
        "domain": escaped(task.domain),
        "kind": task.kind,
        "total": f"{sum(parts.values()):,}",
        "declared": f"{task.images:,}",
        "partial": manifest.partial,
        "lost": _lost(task, manifest),
        "class_count": len(manifest.classes),
        "classes": _class_table(task, manifest),
        "fold_classes": len(manifest.classes) > FOLDED_FROM,
        "splits": _split_table(manifest, rules),
        "why": [
            (escaped(rule.name), escaped(rule.why))
            for rule in task.splits if rule.why and rule.name in manifest.splits
        ],
        "default": escaped(manifest.default),
        "others": [escaped(s) for s in manifest.splits if s != manifest.default],
        "unused": f"{parts['validation']:,}" if "validation" in parts else "",
        "absences": _absences(manifest),
        "duplicates": _duplicates(manifest),
        "grouped": grouped,
        "source": [(escaped(path), f"{size:,}") for path, size in manifest.source.items()],
        "download": escaped(task.download),
        "home": task.home,
        "terms": task.terms,
        "made_with": _made_with(manifest),
        "bytes_sentence": _PNG if task.name in _ARRAYS else _BYTES,
        "repo": repo,
        "task": task.name,
        "owner": owner,
        "found": name == task.name,
        "licence": escaped(task.licence),
        "share": task.share,
        "share_why": escaped(task.share_why),
        "citation": escaped(task.citation),
        "notes": [escaped(note) for note in (task.note, *manifest.notes) if note],
    }  # fmt: skip


def _lost(task: Task, manifest: Manifest) -> str:
    """How many images are missing, in words."""
    gone = len(manifest.missing) + len(manifest.unreadable)
    have = sum(part.images for part in manifest.splits[manifest.default].parts.values())
    if not gone:
        return f"it has {have:,} of the {task.images:,} images"
    return f"{_images(gone)} of the official list {'is' if gone == 1 else 'are'} not in it"


def _class_table(task: Task, manifest: Manifest) -> str:
    parts = manifest.splits[manifest.default].parts
    counted = "objects" if task.kind == "detection" else "images"
    lines = [
        [str(i), escaped(name), *(_count(part.per_class, i) for part in parts.values())]
        for i, name in enumerate(manifest.classes)
    ]
    header = ["label", "class", *(f"{counted} in {escaped(part)}" for part in parts)]
    return text_table(header, lines, markdown=True)


def _count(counts: list[int], label: int) -> str:
    return f"{counts[label]:,}" if label < len(counts) else "-"


def _split_table(manifest: Manifest, rules: dict[str, SplitRule]) -> str:
    lines = []
    for name, split in manifest.splits.items():
        rule = rules.get(name)
        declared = f"{rule.train:,} + {rule.test:,}" if rule and rule.train else "not known"
        lines.append([
            f"{escaped(name)}{' (these files)' if name == manifest.default else ''}",
            *(f"{split.parts[p].images:,}" if p in split.parts else "-" for p in ("train", "test")),
            declared,
            _RULES[rule.rule] if rule else "-",
            f"`{split.split_hash[:12]}`",
        ])  # fmt: skip
    header = ["split", "train", "test", "declared", "who is where", "split hash"]
    return text_table(header, lines, markdown=True)


def _absences(manifest: Manifest) -> list[tuple[str, str, bool]]:
    """(what, which, whether to fold it) of images that one of list and download alone has."""
    unreadable = [f"{name} ({why})" for name, why in manifest.unreadable.items()]
    return [
        (f"{_images(len(names))} {what}", _listed(names), len(names) > FOLDED_FROM)
        for names, what in (
            (manifest.missing, "of the official list not in the download"),
            (unreadable, "unreadable, so left out"),
        )
        if names
    ]


def _made_with(manifest: Manifest) -> str:
    said = [escaped(part) for part in (manifest.made_with, manifest.created) if part]
    return f" ({', '.join(said)})" if said else ""


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"


def _listed(names: list[str]) -> str:
    more = f", and {len(names) - MOST_SHOWN:,} more: see manifest.json"
    return ", ".join(escaped(n) for n in names[:MOST_SHOWN]) + (
        more if len(names) > MOST_SHOWN else ""
    )


def _duplicates(manifest: Manifest) -> str:
    if not manifest.duplicates:
        return "No image stands in it twice, byte for byte."
    said = [
        f"{len(groups):,} {'' if where.startswith('within') else 'across '}{escaped(where)}"
        for where, groups in manifest.duplicates.items()
    ]
    return (
        f"Images that stand in it more than once, byte for byte: {', '.join(said)} "
        "(`duplicates` in `manifest.json` names them). They are left as the authors have them."
    )


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,  # a fact that is missing is a bug, not an empty place
        autoescape=False,  # Markdown: _facts escapes what is foreign
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("dataset_card.md.jinja")

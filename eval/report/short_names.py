"""Models by their objective, where that tells them apart: CE for zoo:resnet18_narrow.ce_tin100."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from eval.report.blocks import Block, Section, Sheet
from eval.results.model_names import called

Rename = Callable[[str], str]


def short_names(models: Mapping[str, str]) -> dict[str, str]:
    """{id: what it is called}, of ``models``: id -> objective. A model whose objective another one
    has too keeps its id."""
    ids, objectives = list(models), list(models.values())
    return {
        i: name
        for i, name, objective in zip(ids, called(ids, objectives=objectives), objectives,
                                      strict=True)
        if i.startswith("random:") or (objective and objectives.count(objective) == 1)
    }  # fmt: skip


def renaming(names: dict[str, str]) -> Rename:
    """Puts the short name where a whole id stands in a text."""
    if not names:
        return lambda text: text
    longest = sorted(names, key=len, reverse=True)  # one id may begin another
    found = re.compile(rf"(?<![\w.:/-])({'|'.join(map(re.escape, longest))})(?![\w-]|[.@]\w)")
    return lambda text: found.sub(lambda match: names[match[1]], text)


def renamed(section: Section, rename: Rename) -> Section:
    """The section in short names; its pictures name models by themselves."""
    return replace(
        section,
        blocks=tuple(_block(block, rename) for block in section.blocks),
        notes=tuple(map(rename, section.notes)),
        summary=rename(section.summary),
    )


def _block(block: Block, rename: Rename) -> Block:
    return replace(
        block,
        title=rename(block.title),
        sentence=rename(block.sentence),
        notes=tuple(map(rename, block.notes)),
        sheets=tuple(_sheet(sheet, rename) for sheet in block.sheets),
    )


def _sheet(sheet: Sheet, rename: Rename) -> Sheet:
    return replace(
        sheet,
        header=tuple(map(rename, sheet.header)),
        lines=tuple(tuple(map(rename, line)) for line in sheet.lines),
        title=rename(sheet.title),
    )

"""Which columns of a board are a declared task, and which are data of somebody's own.

A second column of one task, or a data set that one person alone has, leaves the others without a
mean over all columns. Such columns stand apart.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable

from eval.tasks.registry import TASKS, known_splits

Column = tuple[str, str]  # task with its split, split hash


def own_columns(
    found: Iterable[tuple[Column, Hashable]], trusted: Collection[str] = ()
) -> frozenset[Column]:
    """Those to be shown apart, of (column, model) that were scored; none where all would be.

    Of a declared task the images count that are known: by their declaration, or ``trusted`` split
    hashes of verified results. Where none is known, those that most models were scored on do.
    """
    models: dict[str, dict[str, set[Hashable]]] = {}
    for (task, split), model in found:
        models.setdefault(task, {}).setdefault(split, set()).add(model)
    apart: set[Column] = set()
    undeclared: set[Column] = set()
    for task, by_split in models.items():
        name = task.partition("@")[0]
        if name not in TASKS:
            undeclared |= {(task, split) for split in by_split}
            continue
        kept = by_split.keys() & (known_splits(name) | set(trusted))
        if not kept:
            most = max(map(len, by_split.values()))
            kept = {split for split, those in by_split.items() if len(those) == most}
        apart |= {(task, split) for split in by_split.keys() - kept}
    if len(undeclared) < sum(map(len, models.values())):
        apart |= undeclared
    return frozenset(apart)

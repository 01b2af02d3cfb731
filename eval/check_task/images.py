"""A task's data looked over before any model is: what the protocols can do with them.

Every image is decoded as a run would decode it, so that what a run cannot read is named before.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.check_task.contact_sheet import contact_sheet as contact_sheet
from eval.check_task.facts import (
    Check,
    ClassCount,
    Copies,
    FewshotCheck,
    Images,
    ProbeCheck,
    Spread,
)
from eval.check_task.wording import SMALL, warnings_of
from eval.check_task.wording import render as render
from eval.common.errors import UserError
from eval.common.text import some
from eval.data.decoding import decoded
from eval.data.inventory.unreadable import NAMED
from eval.data.labels.label_data import LabelSplit, images_by_label
from eval.data.task_data import TaskData
from eval.data.validation import held_out
from eval.protocols import PROTOCOLS
from eval.protocols.episodes import Pool, able, refusals
from eval.settings.protocols import Fewshot

GROUPS = 10  # groups of copies that are shown of each kind
PLACES = 4  # places that are shown of a group


# What each protocol chooses on a held-out part of train.
CHOICES = {
    "knn": "k",
    "linear": "C",
    "linear-sgd": "the point of the grid",
    "finetune": "the point of the grid",
}


def check(data: TaskData, settings: Fewshot | None = None) -> Check:
    """Look a task's data over. Decodes every image once, and keeps none."""
    plain = data.kind == "classification"  # what is said of few-shot and probes is about such
    size = len(data.classes)
    per_class = [images_by_label(part, size) for part in (data.train, data.test)]
    counts = tuple(
        ClassCount(name, int(a), int(b))
        for name, a, b in zip(data.classes, *per_class, strict=True)
    )
    images = _images(data)
    copies = _copies(data)
    return Check(
        task=data.name,
        where=data.where,
        revision=data.revision,
        split=data.split,
        split_hash=data.split_hash,
        subset=data.subset,
        inventory=data.inventory,
        train=len(data.train),
        test=len(data.test),
        classes=counts,
        images=images,
        copies=copies,
        fewshot=_fewshot(data, settings or Fewshot()) if plain else None,
        probes=tuple(_probe(data, name) for name in CHOICES) if plain else (),
        notes=data.notes,
        warnings=tuple(warnings_of(data, counts, images)),
    )


# --------------------------------------------------------------------------- images


def _images(data: TaskData) -> Images:
    from tqdm import tqdm

    sizes: list[tuple[int, int]] = []
    facts: dict[str, list[tuple[object, int]]] = {"train": [], "test": []}
    formats: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    turned = unreadable = 0
    named: list[str] = []
    total = len(data.train) + len(data.test)
    for one in tqdm(decoded(data), "images", total, unit="image", leave=False, disable=None):
        if one.why:
            unreadable += 1
            if len(named) < NAMED:
                named.append(f"{one.place}: {one.why}")
            continue
        sizes.append(one.size)
        facts[one.part.name].append(((one.size, one.format, one.mode), one.label))
        formats[one.format] += 1
        modes[one.mode] += 1
        turned += one.turned
    both = np.asarray(sizes, np.int64).reshape(-1, 2)
    told, guessed = _told(facts["train"], facts["test"])
    return Images(
        told=told,
        guessed=guessed,
        width=_spread(both[:, 0]),
        height=_spread(both[:, 1]),
        formats=dict(formats.most_common()),
        modes=dict(modes.most_common()),
        small=int((both.min(1) < SMALL).sum()) if sizes else 0,
        turned=turned,
        unreadable=unreadable,
        named=tuple(named),
    )


def _told(
    train: Sequence[tuple[object, int]], test: Sequence[tuple[object, int]]
) -> tuple[float, float]:
    """Shares of test answered right by (the fact's most frequent class, the most frequent class).

    Learnt on train alone, so that facts no two images share tell nothing.
    """
    if not train or not test:
        return 0.0, 0.0
    by_fact: dict[object, Counter[int]] = {}
    for fact, label in train:
        by_fact.setdefault(fact, Counter())[label] += 1
    common = Counter(label for _, label in train).most_common(1)[0][0]
    answer = {fact: seen.most_common(1)[0][0] for fact, seen in by_fact.items()}
    told = sum(answer.get(fact, common) == label for fact, label in test)
    return told / len(test), sum(common == label for _, label in test) / len(test)


def _spread(values: NDArray[np.int64]) -> Spread | None:
    if len(values) == 0:
        return None
    return Spread(int(values.min()), float(np.median(values)), int(values.max()))


# --------------------------------------------------------------------------- copies


def _copies(data: TaskData) -> tuple[Copies, ...]:
    keys = np.concatenate([data.train.keys, data.test.keys])
    labels = np.concatenate([data.train.labels, data.test.labels])
    in_test = np.arange(len(keys)) >= len(data.train)
    _, group_of = np.unique(keys, return_inverse=True)
    group_of = group_of.reshape(-1)
    members = np.argsort(group_of, kind="stable")  # train before test within a group
    train = np.bincount(group_of[~in_test], minlength=group_of.max() + 1)
    test = np.bincount(group_of[in_test], minlength=len(train))
    begin = np.concatenate([[0], np.cumsum(train + test)])
    ordered = labels[members]
    two = np.maximum.reduceat(ordered, begin[:-1]) > np.minimum.reduceat(ordered, begin[:-1])

    def place(index: int) -> str:
        test_row = index - len(data.train)
        part, row = (data.test, test_row) if test_row >= 0 else (data.train, index)
        where = part.source.describe(int(part.rows[row]))
        numbers = (
            np.flatnonzero(part.several[row]) if isinstance(part, LabelSplit)
            else part.labels[row : row + 1]
        )  # fmt: skip
        names = ", ".join(repr(data.classes[number]) for number in numbers.tolist())
        return f"{where} ({part.name}, {names or 'no label'})"

    def places(group: int, which: str) -> tuple[str, ...]:
        rows = members[begin[group] : begin[group + 1]]
        rows = rows[~in_test[rows]] if which == "train" else rows
        rows = rows[in_test[rows]] if which == "test" else rows
        if which == "" and len(rows) > PLACES:  # show both sides, and both labels
            _, first = np.unique(np.stack([in_test[rows], labels[rows]]), axis=1, return_index=True)
            rows = np.concatenate([rows[np.sort(first)], np.delete(rows, first)])
        more = len(rows) - PLACES
        shown = [place(i) for i in rows[:PLACES].tolist()]
        return (*shown, f"and {more:,} more") if more > 0 else tuple(shown)

    found = []
    for kind, which, size, mask in (
        ("within train", "train", train, train > 1),
        ("within test", "test", test, test > 1),
        ("across train and test", "", train + test, (train > 0) & (test > 0)),
        ("under two labels", "", train + test, two),
    ):
        groups = np.flatnonzero(mask)
        largest = groups[np.argsort(-size[groups], kind="stable")][:GROUPS]
        shown = tuple(places(g, which) for g in largest.tolist())
        found.append(Copies(kind, len(groups), int(size[groups].sum()), shown))
    return tuple(found)


# --------------------------------------------------------------------------- protocols


def _fewshot(data: TaskData, settings: Fewshot) -> FewshotCheck:
    pool = Pool.of(data)
    sizes = sorted(np.unique(pool.labels, return_counts=True)[1].tolist(), reverse=True)
    room = sizes[settings.n_way - 1] - settings.queries if len(sizes) >= settings.n_way else 0
    most = max(room, 0)
    one = dataclasses.replace(settings, shots=(1,))
    return FewshotCheck(
        n_way=settings.n_way,
        queries=settings.queries,
        different=len(pool.rows),
        most_shots=most,
        why_not="" if most else refusals(pool, one)[1],
        classes={k: able(pool, k + settings.queries) for k in settings.shots},
        refused=refusals(pool, settings),
    )


def _probe(data: TaskData, protocol: str) -> ProbeCheck:
    """What a protocol meets that chooses on a held-out part of train, then uses all of it."""
    settings: Any = PROTOCOLS[protocol].settings()  # each of these holds out a part of train
    choice = CHOICES[protocol]
    train, test = data.train, data.test
    try:
        held = held_out(data, settings.validation, 0)
    except UserError as error:
        return ProbeCheck(protocol, False, (str(error),))
    present = np.unique(train.labels)
    findings = []
    if len(lost := np.setdiff1d(present, train.labels[~held])):
        findings.append(
            f"{_classes(data, lost)} in the validation part alone, for want of a second different "
            f"image: always wrong while {choice} is chosen, known to the final classifier"
        )
    if len(lost := np.setdiff1d(present, train.labels[held])):
        findings.append(
            f"{_classes(data, lost)} not in the validation part, on which {choice} is chosen"
        )
    if len(strange := np.setdiff1d(test.labels, present)):
        images = int(np.isin(test.labels, strange).sum())
        findings.append(
            f"{_classes(data, strange)} without a training image: {images:,} test images can only "
            "be answered wrongly"
        )
    return ProbeCheck(protocol, True, tuple(findings))


def _classes(data: TaskData, labels: NDArray[np.int64]) -> str:
    names = some([data.classes[i] for i in labels.tolist()])
    return f"class {names} is" if len(labels) == 1 else f"{len(labels):,} classes ({names}) are"


def as_json(found: Check) -> dict[str, Any]:
    """The check as plain values; shot counts, as keys, are strings."""
    tree = dataclasses.asdict(found)
    for key in ("classes", "refused") if found.fewshot else ():
        tree["fewshot"][key] = {str(k): v for k, v in tree["fewshot"][key].items()}
    return tree

"""Rules of who trains: shares of each class, whole groups, no matter in which order rows come."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eval.data.split_rules import by_groups, members, per_class
from eval.tasks.catalog_page import PAGE, page

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=80)


def plain(labels: list[int]) -> list[bool]:
    """The study's code (data_loader/helper.py), line by line, on indices by class."""
    by_class: dict[int, list[int]] = {}
    for i, label in enumerate(labels):
        by_class.setdefault(label, []).append(i)
    random_state = np.random.RandomState(0)
    out = [False] * len(labels)
    for indices in by_class.values():
        length = int(0.7 * len(indices))
        random_state.shuffle(indices)
        for i in indices[:length]:
            out[i] = True
    return out


@given(LABELS)
def test_the_rule_of_the_study(labels: list[int]) -> None:
    assert per_class(labels).tolist() == plain(labels)


@given(LABELS)
def test_the_share_of_each_class(labels: list[int]) -> None:
    train = Counter(np.asarray(labels)[per_class(labels)].tolist())
    for label, n in Counter(labels).items():
        assert train[label] == int(0.7 * n)


def test_the_share_is_taken_in_floating_point_as_the_study_does() -> None:
    """0.7 * 700 is 489.99999999999994: RESISC45 trains on 22,005 images, not 22,050."""
    assert per_class([0] * 700).sum() == 489


@st.composite
def grouped(draw: st.DrawFn) -> tuple[list[int], list[str]]:
    groups = draw(st.lists(st.integers(0, 25), min_size=1, max_size=80))
    labels = draw(st.lists(st.integers(0, 4), min_size=len(groups), max_size=len(groups)))
    return labels, [f"patient {g}" for g in groups]


@given(grouped(), st.integers(0, 3), st.randoms())
def test_groups_stay_whole_in_any_order(
    rows: tuple[list[int], list[str]], seed: int, random: np.random.RandomState
) -> None:
    labels, groups = rows
    train = by_groups(labels, groups, seed)
    sides = {g: {bool(t) for t, other in zip(train, groups, strict=True) if other == g}
             for g in groups}  # fmt: skip
    assert all(len(side) == 1 for side in sides.values())
    order = list(range(len(labels)))
    random.shuffle(order)  # type: ignore[arg-type]
    again = by_groups([labels[i] for i in order], [groups[i] for i in order], seed)
    assert again.tolist() == train[order].tolist()


@given(st.lists(st.integers(1, 4), min_size=40, max_size=120), st.integers(0, 5))
def test_groups_give_about_the_share_of_each_class(sizes: list[int], seed: int) -> None:
    """Lesions have one class each: every class is within one group of 70 %."""
    labels = [g % 3 for g, n in enumerate(sizes) for _ in range(n)]
    groups = [f"lesion {g}" for g, n in enumerate(sizes) for _ in range(n)]
    train = by_groups(labels, groups, seed)
    for label in range(3):
        ours = np.asarray(labels) == label
        assert abs(train[ours].sum() - 0.7 * ours.sum()) <= 4


def test_another_seed_is_another_split() -> None:
    labels, groups = [i % 2 for i in range(60)], [f"g{i // 2}" for i in range(60)]
    splits = {by_groups(labels, groups, seed).tobytes() for seed in range(4)}
    assert len(splits) == 4
    assert per_class(labels, 1).tolist() != per_class(labels, 0).tolist()


@given(st.lists(st.tuples(st.sampled_from(["train", "test"]), st.text(min_size=1, max_size=9))))
def test_members_do_not_depend_on_the_order(rows: list[tuple[str, str]]) -> None:
    assert members(rows) == members(reversed(rows))
    if rows:
        part, name = rows[0]
        other = "test" if part == "train" else "train"
        assert members(rows) != members([(other, name), *rows[1:]])


def test_members_are_a_plain_hash() -> None:
    lines = "test\tb\ntrain\ta\n"
    assert members([("train", "a"), ("test", "b")]) == hashlib.sha256(lines.encode()).hexdigest()


def test_the_page_is_that_of_the_declarations() -> None:
    """Else: python -m eval.tasks.catalog_page"""
    assert PAGE.read_text(encoding="utf-8") == page()

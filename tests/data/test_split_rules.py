"""Rules of who trains: shares of each class, whole groups, no matter in which order rows come."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.data.split_rules import by_groups, members, near_share, per_class
from eval.tasks.catalog_page import PAGE, page

Rule = Callable[[list[int], list[str], int], np.ndarray]
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


@pytest.mark.parametrize("rule", [by_groups, near_share])
@given(grouped(), st.integers(0, 3), st.randoms())
def test_groups_stay_whole_in_any_order(
    rule: Rule, rows: tuple[list[int], list[str]], seed: int, random: np.random.RandomState
) -> None:
    labels, groups = rows
    train = rule(labels, groups, seed)
    sides = {g: {bool(t) for t, other in zip(train, groups, strict=True) if other == g}
             for g in groups}  # fmt: skip
    assert all(len(side) == 1 for side in sides.values())
    order = list(range(len(labels)))
    random.shuffle(order)  # type: ignore[arg-type]
    again = rule([labels[i] for i in order], [groups[i] for i in order], seed)
    assert again.tolist() == train[order].tolist()


@pytest.mark.parametrize(
    ("rule", "off"),
    [(by_groups, 4), (near_share, 2)],  # a group, on one side of it; half of one, on either
)
@given(sizes=st.lists(st.integers(1, 4), min_size=40, max_size=120), seed=st.integers(0, 5))
def test_groups_give_about_the_share_of_each_class(
    rule: Rule, off: int, sizes: list[int], seed: int
) -> None:
    """Lesions have one class each: every class is near 70 %."""
    labels = [g % 3 for g, n in enumerate(sizes) for _ in range(n)]
    groups = [f"lesion {g}" for g, n in enumerate(sizes) for _ in range(n)]
    train = rule(labels, groups, seed)
    for label in range(3):
        ours = np.asarray(labels) == label
        assert abs(train[ours].sum() - np.rint(0.7 * ours.sum())) <= off


@given(st.integers(0, 99))
def test_a_group_that_is_most_of_its_class_trains(seed: int) -> None:
    """by_groups gives 8 of the 40 to train; it stays as it is, declared splits are made by it."""
    labels, groups = [0] * 40, ["a"] * 32 + ["b"] * 4 + ["c"] * 4
    assert by_groups(labels, groups, seed).sum() == 8
    assert near_share(labels, groups, seed).sum() in (32, 36)


@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=6), min_size=1, max_size=5),
       st.integers(0, 9))  # fmt: skip
def test_a_class_of_two_groups_is_on_both_sides(sizes: list[list[int]], seed: int) -> None:
    """Whatever their sizes, where a group has one class; a class of one group trains."""
    rows = [(label, f"{label} {g}") for label, many in enumerate(sizes)
            for g, n in enumerate(many) for _ in range(n)]  # fmt: skip
    train = near_share([label for label, _ in rows], [group for _, group in rows], seed)
    for label, many in enumerate(sizes):
        sides = {bool(t) for t, (other, _) in zip(train, rows, strict=True) if other == label}
        assert sides == ({True, False} if len(many) > 1 else {True})


def test_a_class_whose_groups_are_those_of_rarer_ones() -> None:
    """Class 0 is with patients of classes 1 to 3 alone, whose sides those decide."""
    rows = [(label, f"{label} {g}") for label in (1, 2, 3) for g in "aaaaabbcc"]
    rows += [(0, f"{label} {g}") for label in (1, 2, 3) for g in "bbbbbccccc"]
    labels, groups = [label for label, _ in rows], [group for _, group in rows]
    alone = 0
    for seed in range(50):
        plain = by_groups(labels, groups, seed)[-30:]
        alone += bool(plain.all() or not plain.any())
        train = near_share(labels, groups, seed)
        for label in range(4):
            assert {*train[np.asarray(labels) == label].tolist()} == {True, False}
    assert alone  # else this says nothing


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

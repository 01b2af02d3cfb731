"""Few-shot draws: nested, paired, never an image on both sides, and what is left out."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eval.common.errors import UserError
from eval.data.load import load_task
from eval.data.sources import HASH_BYTES, ParquetSource
from eval.data.task_data import Split, TaskData
from eval.protocols.episodes import Draw, Pool, bank_rows, design, refusals, refuse
from eval.settings.protocols import Fewshot
from tests.factories import blobs, write_parquet

Rows = Sequence[tuple[int, int]]  # (picture, label): rows of one picture hold the same bytes


def split(name: str, rows: Rows) -> Split:
    """A split in canonical order, of pictures that exist only as their hashes."""
    hashed = sorted((hashlib.sha256(b"%d" % p).digest()[:HASH_BYTES], label) for p, label in rows)
    hashes = np.frombuffer(b"".join(h for h, _ in hashed), np.uint8).reshape(-1, HASH_BYTES)
    labels = np.array([label for _, label in hashed], np.int64)
    return Split(name, ParquetSource(()), labels, hashes, np.arange(len(rows)))


def task(train: Rows, test: Rows = ((0, 0),)) -> TaskData:
    classes = 1 + max(label for _, label in [*train, *test])
    names = tuple(f"class {i}" for i in range(classes))
    return TaskData("made-up", "", "", names, split("train", train), split("test", test))


def plain(sizes: Sequence[int]) -> TaskData:
    """Class i with sizes[i] different pictures, every third of them in test."""
    rows = [(1000 * label + i, label) for label, size in enumerate(sizes) for i in range(size)]
    return task([r for r in rows if r[0] % 3], [r for r in rows if not r[0] % 3])


def keys_of(data: TaskData) -> NDArray[np.void]:
    return np.concatenate([data.train.keys, data.test.keys])


def labels_of(data: TaskData) -> NDArray[np.int64]:
    return np.concatenate([data.train.labels, data.test.labels])


@dataclass(frozen=True)
class Drawn:
    """Rows of the bank."""

    support: NDArray[np.int64]
    query: NDArray[np.int64]


def eligible(pool: Pool, shot: int, queries: int) -> tuple[int, ...]:
    return Draw(tuple(pool.class_images(8)), shot, 1, queries, 1, "ab", 0).eligible


def draw(
    pool: Pool,
    shot: int,
    *,
    n_way: int = 3,
    queries: int = 2,
    episodes: int = 20,
    split_hash: str = "ab",
    seed: int = 0,
) -> Drawn:
    one = Draw(tuple(pool.class_images(10)), shot, n_way, queries, episodes, split_hash, seed)
    return Drawn(*bank_rows(pool, design(one), one.eligible))


# --------------------------------------------------------------------------- the pool

messy = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 4)), min_size=1, max_size=120)


@given(messy, messy)
def test_the_pool_holds_each_clear_picture_once(train: Rows, test: Rows) -> None:
    data = task(train, test)
    pool = Pool.of(data)
    seen: dict[bytes, list[int]] = defaultdict(list)  # the naive count
    for key, label in zip(keys_of(data), labels_of(data), strict=True):
        seen[key.tobytes()].append(int(label))
    clear = {key: labels[0] for key, labels in seen.items() if len(set(labels)) == 1}
    drawn = [key.tobytes() for key in keys_of(data)[pool.rows]]
    assert dict(zip(drawn, pool.labels.tolist(), strict=True)) == clear
    assert drawn == sorted(clear)  # in the order of the hashes
    assert np.array_equal(pool.labels, labels_of(data)[pool.rows])
    assert pool.copies == sum(len(seen[key]) - 1 for key in clear)
    assert pool.ambiguous == sum(len(labels) for key, labels in seen.items() if key not in clear)
    assert len(pool.rows) + pool.copies + pool.ambiguous == len(train) + len(test)


@given(messy, messy, st.integers(1, 6), st.integers(1, 6))
def test_eligible_classes_have_enough_different_pictures(
    train: Rows, test: Rows, shot: int, queries: int
) -> None:
    pool = Pool.of(task(train, test))
    enough = {c for c in range(5) if (pool.labels == c).sum() >= shot + queries}
    assert set(eligible(pool, shot, queries)) == enough


# --------------------------------------------------------------------------- the draw

sizes = st.lists(st.integers(0, 20) | st.just(20), min_size=4, max_size=7)


@settings(deadline=None, max_examples=40)
@given(
    train=messy,
    more=sizes,
    shot=st.integers(1, 6),
    queries=st.integers(1, 4),
    n_way=st.integers(2, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_draw_is_valid_whatever_the_data(
    train: Rows, more: list[int], shot: int, queries: int, n_way: int, seed: int
) -> None:
    extra = [(100 + 50 * c + i, c) for c, size in enumerate(more) for i in range(size)]
    data = task([*train, *extra[::2]], [*extra[1::2], *extra[:30], (0, 0)])  # copies on both sides
    pool = Pool.of(data)
    able = eligible(pool, shot, queries)
    assume(len(able) >= n_way)
    out = draw(pool, shot, n_way=n_way, queries=queries, episodes=5, seed=seed)
    assert out.support.shape == (5, n_way, shot)
    assert out.query.shape == (5, n_way, queries)
    keys, labels = keys_of(data), labels_of(data)
    both_labels = {k.tobytes() for k in keys} - {k.tobytes() for k in keys[pool.rows]}
    for e in range(5):
        rows = np.concatenate([out.support[e].ravel(), out.query[e].ravel()])
        pictures = [k.tobytes() for k in keys[rows]]
        assert len(set(pictures)) == len(pictures)  # by content, not by row
        assert not both_labels & set(pictures)
        ways = labels[out.support[e]]
        assert (ways == ways[:, :1]).all()
        assert (labels[out.query[e]] == ways[:, :1]).all()
        assert len(set(ways[:, 0].tolist())) == n_way
        assert set(ways[:, 0].tolist()) <= set(able)


def test_fewer_shots_are_the_head_of_more() -> None:
    pool = Pool.of(plain([30] * 6))
    one, five, twenty = (draw(pool, shot) for shot in (1, 5, 20))
    assert np.array_equal(five.support, twenty.support[:, :, :5])
    assert np.array_equal(one.support, twenty.support[:, :, :1])
    assert np.array_equal(one.query, five.query)
    assert np.array_equal(one.query, twenty.query)


def test_a_class_too_small_changes_only_the_episodes_it_would_be_in() -> None:
    small = 2
    data = plain([30, 30, 10, 30, 30, 30])
    pool, labels = Pool.of(data), labels_of(data)
    one, twenty = draw(pool, 1, episodes=60), draw(pool, 20, episodes=60)
    with_small = (labels[one.support[:, :, 0]] == small).any(1)
    assert 10 < with_small.sum() < 50
    assert not (labels[twenty.support] == small).any()
    same = (one.query == twenty.query).all((1, 2)) & (one.support == twenty.support[:, :, :1]).all(
        (1, 2)
    )
    assert np.array_equal(same, ~with_small)


def test_an_episode_depends_on_its_number_the_seed_and_the_split_alone() -> None:
    pool = Pool.of(plain([12] * 5))
    base = draw(pool, 3)
    again, fewer = draw(pool, 3), draw(pool, 3, episodes=7)
    assert np.array_equal(base.support, again.support)
    assert np.array_equal(base.query, again.query)
    assert np.array_equal(base.support[:7], fewer.support)
    for other in (draw(pool, 3, seed=1), draw(pool, 3, split_hash="ac")):
        assert (base.query != other.query).any((1, 2)).mean() > 0.9
    assert len({e.tobytes() for e in base.query}) == len(base.query)


def test_fewer_ways_are_the_head_of_more() -> None:
    pool = Pool.of(plain([12] * 6))
    five, two = draw(pool, 3, n_way=5), draw(pool, 3, n_way=2)
    assert np.array_equal(five.support[:, :2], two.support)
    assert np.array_equal(five.query[:, :2], two.query)


def test_the_draw_is_even_over_classes_places_and_images() -> None:
    data = plain([9] * 10)
    out = draw(Pool.of(data), 1, n_way=5, episodes=1200)
    ways = labels_of(data)[out.support[:, :, 0]]  # [E, way]
    for place in range(5):
        counts = np.bincount(ways[:, place], minlength=10)
        assert np.abs(counts - 120).max() < 6 * np.sqrt(120)
    for rows, expected in ((out.query, 12_000 / 90), (out.support, 6_000 / 90)):
        used = np.bincount(rows.ravel(), minlength=90)
        assert np.abs(used - expected).max() < 6 * np.sqrt(expected)


def test_the_episodes_follow_from_what_a_result_says_of_its_classes() -> None:
    data = plain([12, 0, 9, 30, 11])
    pool = Pool.of(data)
    assert pool.class_images(5) == [12, 0, 9, 30, 11]
    drawn = design(Draw((12, 0, 9, 30, 11), 3, 3, 2, 20, "ab", 0))
    assert drawn.sizes.tolist() == [12, 9, 30, 11]
    rows = np.concatenate([pool.rows[pool.labels == c] for c in (0, 2, 3, 4)])
    again = draw(pool, 3)
    assert np.array_equal(rows[drawn.support_images], again.support)
    assert np.array_equal(rows[drawn.query_images], again.query)
    with pytest.raises(ValueError, match="2 classes are large enough for 3 ways"):
        design(Draw((12, 3, 12), 3, 3, 2, 20, "ab", 0))


def test_each_episode_is_drawn_by_generators_of_its_own() -> None:
    """Written out as the module's docstring says it: nothing of one draw reaches the next."""
    one = Draw((40, 21, 8, 33, 20, 60), shot=5, n_way=3, queries=15, episodes=30, split_hash="cd",
               seed=7)  # fmt: skip
    drawn = design(one)
    assert one.eligible == (0, 1, 3, 4, 5)
    for e in reversed(range(one.episodes)):
        digest = hashlib.sha256(f"cd:7:{e}".encode()).digest()
        words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 32, 4)]
        order = np.random.RandomState(words).permutation(6).tolist()
        chosen = [c for c in order if c in one.eligible][:3]
        assert [one.eligible[i] for i in drawn.classes[e]] == chosen
        for way, c in enumerate(chosen):
            images = np.random.RandomState([*words, c]).permutation(one.class_images[c]).tolist()
            assert drawn.query[e, way].tolist() == images[:15]
            assert drawn.support[e, way].tolist() == images[15:20]


def test_the_order_of_rows_and_files_changes_nothing(tmp_path: Path, cache: Path) -> None:
    images = [(b, c) for c in range(4) for b in blobs(c, 10, 0, size=6)]
    images += images[:3]  # copies
    drawn = []
    for number, order in enumerate((np.arange(43), np.random.RandomState(0).permutation(43))):
        folder = tmp_path / str(number)
        shuffled = [images[i] for i in order]
        cuts = [0, 43] if number == 0 else [0, 5, 17, 43]
        for shard, (start, stop) in enumerate(pairwise(cuts)):
            rows = shuffled[start:stop]
            write_parquet(
                folder / f"train-{shard}.parquet", [b for b, _ in rows], [c for _, c in rows]
            )
        test = [(b, c) for c in range(4) for b in blobs(c, 5, 1, size=6)][:: 1 - 2 * number]
        write_parquet(folder / "test-0.parquet", [b for b, _ in test], [c for _, c in test])
        data = load_task(f"parquet:{folder}", cache)
        pool = Pool.of(data)
        out = draw(pool, 5, split_hash=data.split_hash)
        drawn.append((keys_of(data)[out.support].tobytes(), keys_of(data)[out.query].tobytes()))
        assert (pool.copies, pool.ambiguous) == (3, 0)
    assert drawn[0] == drawn[1]


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("class_sizes", "expected"),
    [
        ([40] * 5, {}),
        ([35] * 5, {}),
        ([34] * 5, {20: "only 0 are that large (the largest holds 34)"}),
        ([20] * 4 + [5], {1: "only 4 ", 5: "only 4 ", 20: "only 0 "}),
        ([3] * 50, {1: "largest holds 3", 5: "largest holds 3", 20: "largest holds 3"}),
    ],
)
def test_shots_the_pool_cannot_serve(class_sizes: list[int], expected: dict[int, str]) -> None:
    out = refusals(Pool.of(plain(class_sizes)), Fewshot())
    assert out.keys() == expected.keys()
    for shot, part in expected.items():
        assert part in out[shot]


def test_a_refusal_in_words() -> None:
    words = "{0}-shot needs 5 classes of {0} + 15 different images; only {1} are that large "
    assert refusals(Pool.of(plain([40] * 3 + [22, 9])), Fewshot(shots=(7, 8))) == {
        7: words.format(7, 4) + "(the largest holds 40)",
        8: words.format(8, 3) + "(the largest holds 40)",
    }


@pytest.mark.parametrize(
    ("class_sizes", "shots", "way"),
    [
        ([30] * 3, (1, 5, 20), "try --n-way 3, or leave few-shot out"),
        ([30] * 3, (40,), "try fewer --shots, or"),
        ([9] * 8, (1,), "try fewer --queries, or"),
    ],
)
def test_a_run_that_is_refused_says_what_would_work(
    class_sizes: list[int], shots: tuple[int, ...], way: str
) -> None:
    with pytest.raises(UserError, match=way):
        refuse(Fewshot(shots=shots), [plain(class_sizes)])


def test_copies_do_not_make_a_class_larger() -> None:
    data = plain([20] * 5)
    twice = TaskData("x", "", "", data.classes, data.train, data.train)
    sizes = np.bincount(data.train.labels)
    out = refusals(Pool.of(twice), Fewshot(shots=(1,)))
    assert f"(the largest holds {sizes.max()})" in out[1]


def test_a_pool_where_every_picture_has_two_labels_serves_nothing() -> None:
    rows = [(p, label) for p in range(30) for label in range(5)]
    pool = Pool.of(task(rows, rows))
    assert (len(pool.rows), pool.ambiguous) == (0, 300)
    assert "only 0 are that large (the largest holds 0)" in refusals(pool, Fewshot())[1]

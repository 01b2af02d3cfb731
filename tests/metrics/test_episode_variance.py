"""The variance of a few-shot score over other images, against plain loops and the truth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from eval.metrics.episode_variance import EpisodeDesign, episode_variance
from eval.metrics.estimates import of_episodes
from tests.metrics.pools import World, drawn, nearest_mean

Floats = NDArray[np.float64]


def naive(a: NDArray[np.bool_], b: NDArray[np.bool_], design: EpisodeDesign) -> float:
    """The covariance over pools of two models, image by image and episode by episode."""
    influence = [_influences(correct, design) for correct in (a, b)]
    told = [c for c in range(len(design.sizes)) if (design.classes == c).any(1).sum() >= 2]
    total = 0.0
    for c in told:
        n = int(design.sizes[c])
        for i in range(n):
            x, y = (np.array([z[i] for z in found[c]]) for found in influence)
            seen = len(x)
            product = sum(x[s] * y[t] for s in range(seen) for t in range(seen) if s != t)
            total += product / (seen * (seen - 1)) / (n * (n - 1))
    return total / (len(design.sizes) * len(told))


def _influences(correct: NDArray[np.bool_], design: EpisodeDesign) -> list[list[Floats]]:
    """[C][episodes with the class] of [n] influences of the class's images in that episode."""
    episodes, way, queries = correct.shape
    shot, classes = design.support.shape[2], len(design.sizes)
    accuracy = correct.mean((1, 2))
    overall = accuracy.mean()
    usual = []
    for c in range(classes):
        own = [correct[e, w].mean() for e, w in zip(*np.nonzero(design.classes == c), strict=True)]
        usual.append((sum(own) + 20 * overall) / (len(own) + 20))
    ease: dict[tuple[int, int], list[float]] = {}
    for e in range(episodes):
        for w, c in enumerate(design.classes[e]):
            for q, i in enumerate(design.query[e, w]):
                ease.setdefault((c, i), []).append(correct[e, w, q] - usual[c])
    residual = np.empty(episodes)
    for e in range(episodes):
        known = []
        for w, c in enumerate(design.classes[e]):
            for q, i in enumerate(design.query[e, w]):
                all_of_it = ease[c, i]
                mine = correct[e, w, q] - usual[c]
                known.append((sum(all_of_it) - mine) / (len(all_of_it) - 1 + 4))
        residual[e] = accuracy[e] - overall - np.mean(known)
    if classes > way:
        member = np.zeros((episodes, classes))
        for e in range(episodes):
            member[e, design.classes[e]] = 1
        gram = member.T @ member + 20 * np.eye(classes)
        residual = residual - member @ np.linalg.solve(gram, member.T @ residual)
    found: list[list[Floats]] = [[] for _ in range(classes)]
    for e in range(episodes):
        for w, c in enumerate(design.classes[e]):
            n = int(design.sizes[c])
            z = np.zeros(n)
            mine = correct[e, w] - usual[c]
            z[design.query[e, w]] += n / queries * mine
            z -= mine.mean()
            inside = np.zeros(n)
            inside[design.support[e, w]] = 1
            pull = way * shot * (n - 1) / (n - shot)
            z += pull * (inside * n / shot - 1) * residual[e]
            found[c].append(z)
    return found


@pytest.mark.parametrize(
    ("sizes", "shot", "episodes"),
    [([6] * 5, 2, 12), ([7, 9, 8, 12, 10, 9, 8], 3, 15), ([8] * 30, 1, 9)],
)
def test_plain_loops_agree(sizes: list[int], shot: int, episodes: int) -> None:
    random = np.random.default_rng(0)
    design = drawn(random, sizes, shot, episodes, queries=4)
    correct = random.random((3, episodes, 5, 4)) < np.array([0.5, 0.7, 0.7])[:, None, None, None]
    correct[2] ^= random.random(correct[2].shape) < 0.1
    found = episode_variance(correct, design)
    for i in range(3):
        for j in range(3):
            assert found.pool[i, j] == pytest.approx(
                naive(correct[i], correct[j], design), rel=1e-4
            )
    spread = np.cov(correct.mean((2, 3)))
    assert found.episodes == pytest.approx(spread / episodes)


def test_a_model_alone_has_the_variance_that_it_has_among_others() -> None:
    random = np.random.default_rng(1)
    design = drawn(random, [20] * 8, 5, 40)
    correct = random.random((3, 40, 5, 15)) < 0.6
    together, alone = of_episodes(correct, design), of_episodes(correct[1:2], design)
    assert alone.variance[0] == pytest.approx(together.variance[1], rel=1e-5)
    assert alone.noise[0] == pytest.approx(together.noise[1], rel=1e-5)


def test_nothing_is_said_where_nothing_is_known() -> None:
    random = np.random.default_rng(2)
    design = drawn(random, [20] * 5, 1, 1)
    with pytest.raises(ValueError, match="no class stands in two episodes"):
        episode_variance(np.ones((1, 1, 5, 15), bool), design)


def _differences(
    pools: int, classes: int, each: int, shot: int, seed: int, **facts: float
) -> tuple[Floats, Floats, Floats]:
    """(z by the images, z by the episodes alone, differences) of two models on new pools."""
    images, episodes, gaps = [], [], []
    for pool in range(pools):
        random = np.random.default_rng([seed, pool])
        world = World.of(random, classes, **facts)
        design = drawn(random, [each] * classes, shot, 600)
        correct = np.stack([nearest_mean(x, design) for x in world.images(random, each)])
        found = of_episodes(correct, design)
        gap = float(found.values[0] - found.values[1])
        spread = (correct[0].mean((1, 2)) - correct[1].mean((1, 2))).std() / 600**0.5
        images.append(gap / found.pair_variance[0, 1] ** 0.5)
        episodes.append(gap / spread)
        gaps.append(gap)
    return np.array(images), np.array(episodes), np.array(gaps)


def test_equal_models_are_seldom_told_apart_by_other_images_but_often_by_other_episodes() -> None:
    images, episodes, _ = _differences(80, 10, 40, 5, seed=3)
    assert (np.abs(images) > 1.96).mean() <= 0.125  # 5 %, and 99.9 % of samples of 80
    assert (np.abs(episodes) > 1.96).mean() > 0.35  # what was printed before
    assert 0.6 < images.std() < 1.15


def test_a_better_model_is_found() -> None:
    images, _, gaps = _differences(25, 10, 330, 5, seed=4, better=0.13)
    assert -0.03 < gaps.mean() < -0.012  # about two points
    assert (images < -1.96).mean() > 0.6

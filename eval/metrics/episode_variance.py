"""How much would a few-shot score change with another sample of images of the same classes?

Episodes drawn from one pool of images share those images, so that the spread of their accuracies
over the square root of their number says only what other episodes of *these* images would give.
A score over all episodes of a pool is a U-statistic of the images; the variance of its first-order
(Hoeffding) part is the sum over images of the square of each image's influence, as a query (is it
recognised?) and as a support (what does it do to the whole episode?). Both are estimated from the
episodes at hand, the noise of finitely many episodes is taken out by leaving the products of an
episode with itself out of the square, and what is left is the infinitesimal jackknife of subsampled
ensembles (Wager, Hastie and Efron, JMLR 2014; for sampling without replacement Wager and Athey,
JASA 2018), with the two roles of an image kept apart. It errs to the safe side for small pools, as
the jackknife does (Efron and Stein, Annals of Statistics 1981). `tests/bench/bench_certainty.py`
has the simulations. Arrays in, arrays out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy import sparse

Floats = NDArray[np.float64]

_PSEUDO_EPISODES = 20.0  # with the mean of all, behind what a class or an image says of itself
_PSEUDO_ANSWERS = 4.0
_BLOCK = 32  # models at a time: 6 MB of 600 episodes with 75 answers


@dataclass(frozen=True)
class EpisodeDesign:
    """Which images stand where in E episodes. Images are numbered within their class."""

    sizes: NDArray[np.int64]  # [C] images of each class that can be drawn
    classes: NDArray[np.int64]  # [E, way] 0..C-1
    support: NDArray[np.int64]  # [E, way, shot]
    query: NDArray[np.int64]  # [E, way, queries]

    def head(self, shot: int) -> EpisodeDesign:
        """The same episodes with the first ``shot`` of each class's support."""
        return EpisodeDesign(self.sizes, self.classes, self.support[:, :, :shot], self.query)

    @property
    def images(self) -> int:
        """Images that can be drawn."""
        return int(self.sizes.sum())

    @cached_property
    def times(self) -> NDArray[np.int64]:
        """[C] episodes in which each class stands."""
        return np.bincount(self.classes.ravel(), minlength=len(self.sizes))

    @cached_property
    def _first(self) -> NDArray[np.int64]:
        return np.cumsum(self.sizes) - self.sizes

    @cached_property
    def query_images(self) -> NDArray[np.int64]:
        """[E, way, queries] numbers over all classes."""
        return self._first[self.classes][..., None] + self.query

    @cached_property
    def of_class(self) -> sparse.csr_matrix:
        """[C, E * way] sums what stands at each class."""
        return _sum_by(self.classes, len(self.sizes))

    @cached_property
    def of_query(self) -> sparse.csr_matrix:
        """[images, queries in all] sums what stands at each query image."""
        return _sum_by(self.query_images, self.images)

    @cached_property
    def of_support(self) -> sparse.csr_matrix:
        """[images, support images in all] sums what stands at each support image."""
        return _sum_by(self.support_images, self.images)

    @cached_property
    def support_images(self) -> NDArray[np.int64]:
        """[E, way, shot] numbers over all classes."""
        return self._first[self.classes][..., None] + self.support


@dataclass(frozen=True)
class EpisodeVariance:
    """Variances and covariances [M, M] of the mean accuracies of M models over the same episodes.

    ``pool``: over other images of the same classes, for all episodes that can be drawn of them; an
    unbiased estimate of a variance, so that it may be below zero. ``episodes``: over other episodes
    of these images. The estimate ``pool`` itself has, between two models, the variance
    ``noise * residual ** 2``, where ``residual`` [M, M] is the covariance over episodes of what
    their classes and queries do not explain.
    """

    pool: Floats
    episodes: Floats
    residual: Floats
    noise: float


def episode_variance(correct: NDArray[np.bool_], design: EpisodeDesign) -> EpisodeVariance:
    """``correct`` [M, E, way, queries]: was the query recognised?

    Raises ValueError where no class stands in two episodes, or a class is all support.
    """
    models, episodes, way, queries = correct.shape
    shot, classes = design.support.shape[2], design.classes
    n = design.sizes.astype(np.float64)
    times = design.times
    told = times >= 2  # classes that say how their images differ
    if not told.any() or (n <= shot).any():
        raise ValueError("no class stands in two episodes, or one has no image beside its support")
    n_of, weight = n[classes], np.zeros(len(n))  # [E, way]
    size, seen = n[told], times[told].astype(np.float64)
    weight[told] = 1 / (len(n) * told.sum() * size * (size - 1) * seen * (seen - 1))

    parts = _Parts.empty(models, design, queries)
    for start in range(0, models, _BLOCK):
        parts.fill(slice(start, start + _BLOCK), correct[start : start + _BLOCK], design)
    square = (parts.influence * np.repeat(weight, design.sizes)) @ parts.influence.T

    # The same episode twice, which would count its noise.
    w = weight[classes]
    ease = parts.ease
    ease *= np.repeat(np.sqrt(w) * n_of / queries, queries).astype(np.float32)
    own = (ease @ ease.T).astype(np.float64)
    on_support = parts.pulled * (n_of / shot)
    both = parts.average + parts.pulled
    for part, times_part in (
        (parts.pulled, n_of),
        (parts.average, -n_of),
        (on_support - both, np.full_like(n_of, shot)),
        (both, np.full_like(n_of, -shot)),
    ):
        rows = part.reshape(models, -1)
        own += (rows * (w * times_part).ravel()) @ rows.T

    accuracy, residual = parts.accuracy, parts.residual
    spread = accuracy - accuracy.mean(1)[:, None]
    terms = (size - 1) / (size - shot) ** 2 / (seen * (seen - 1))
    noise = 2 * way**4 * shot**2 * float(terms.sum()) / (len(n) * int(told.sum())) ** 2
    return EpisodeVariance(
        pool=square - own,
        episodes=spread @ spread.T / (episodes - 1) / episodes,
        residual=residual @ residual.T / episodes,
        noise=noise,
    )


@dataclass(frozen=True)
class _Parts:
    """What M models have in E episodes; filled a block of models at a time, so that what is made
    on the way fits the processor's cache and is not the size of all answers."""

    ease: NDArray[np.float32]  # [M, E * way * queries] what a query is over its class
    average: Floats  # [M, E, way] its mean over the queries
    accuracy: Floats  # [M, E]
    residual: Floats  # [M, E] what the support does to an episode
    pulled: Floats  # [M, E, way] the residual times the pull of a class's support
    influence: Floats  # [M, images] summed over the episodes

    @classmethod
    def empty(cls, models: int, design: EpisodeDesign, queries: int) -> _Parts:
        episodes, way = design.classes.shape
        shapes = ((episodes, way), (episodes,), (episodes,), (episodes, way), (design.images,))
        return cls(
            np.empty((models, episodes * way * queries), np.float32),
            *(np.empty((models, *shape)) for shape in shapes),
        )

    def fill(self, block: slice, correct: NDArray[np.bool_], design: EpisodeDesign) -> None:
        """``correct`` [B, E, way, queries] of the models of the block."""
        models, _, way, queries = correct.shape
        shot, classes = design.support.shape[2], design.classes
        n, times, of_class = design.sizes.astype(np.float64), design.times, design.of_class
        by_class = correct.mean(3)  # [B, E, way]
        accuracy = by_class.mean(2)  # [B, E]
        mean = accuracy.mean(1)

        # What a query is over its class. Answers stand in rows here, models in columns: the sums
        # over images then read memory in order.
        sums = of_class @ _columns(by_class)  # [C, B]
        usual = (sums + _PSEUDO_EPISODES * mean) / (times + _PSEUDO_EPISODES)[:, None]
        of_query = design.of_query
        ease = _columns(correct).astype(np.float32)  # [E * way * queries, B]
        ease -= np.repeat(usual[classes.ravel()].astype(np.float32), queries, axis=0)
        eased = of_query @ ease  # [images, B]

        # What the support does to an episode, over its classes and how easy its queries are.
        places = design.query_images.ravel()
        others = np.asarray(of_query.sum(1)).ravel()[places] - 1 + _PSEUDO_ANSWERS
        known = eased[places]
        known -= ease
        known /= others.astype(np.float32)[:, None]
        by_episode = known.reshape(len(classes), -1, models).mean(1, dtype=np.float64).T
        residual = _without_classes(accuracy - mean[:, None] - by_episode, design)

        # Per image and episode: z = n / queries * ease [query] - the class's mean ease in it
        #                            + pull * (n / shot [support] - 1) * residual
        pull = (way * shot * (n - 1) / (n - shot))[classes]
        average = ease.reshape(-1, queries, models).mean(1, dtype=np.float64)
        average = average.T.reshape(by_class.shape)  # [B, E, way]
        pulled = pull * residual[:, :, None]
        on_support = _columns(pulled * (n[classes] / shot))
        influence = eased * (np.repeat(n, design.sizes) / queries)[:, None]
        influence += design.of_support @ np.repeat(on_support, shot, axis=0)
        influence -= np.repeat(of_class @ _columns(average + pulled), design.sizes, axis=0)

        self.ease[block], self.average[block], self.accuracy[block] = ease.T, average, accuracy
        self.residual[block], self.pulled[block] = residual, pulled
        self.influence[block] = influence.T


def _columns(values: NDArray[np.generic]) -> NDArray[Any]:
    """[B, ...] as [the rest, B], in the order of memory."""
    return np.ascontiguousarray(values.reshape(len(values), -1).T)


def _sum_by(numbers: NDArray[np.int64], count: int) -> sparse.csr_matrix:
    """[count, numbers.size] sums what stands at each number."""
    from scipy import sparse

    flat = numbers.ravel()
    return sparse.csr_matrix(
        (np.ones(flat.size, np.float32), (flat, np.arange(flat.size))), shape=(count, flat.size)
    )


def _without_classes(values: Floats, design: EpisodeDesign) -> Floats:
    """[M, E] values without what each class adds to its episodes, by ridge regression."""
    from scipy import sparse

    episodes, count = len(design.classes), len(design.sizes)
    if count == design.classes.shape[1]:  # every episode has them all
        return values
    member = sparse.csr_matrix(
        (np.ones(design.classes.size),
         (np.repeat(np.arange(episodes), design.classes.shape[1]), design.classes.ravel())),
        shape=(episodes, count),
    )  # fmt: skip
    gram = (member.T @ member).toarray() + _PSEUDO_EPISODES * np.eye(count)
    effect = np.linalg.solve(gram, member.T @ values.T)  # [C, M]
    return values - np.asarray(member @ effect).T

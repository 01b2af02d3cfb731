"""Do the intervals cover, and do the tests err as often as they say? Known truths, drawn anew.

    python -m tests.bench.bench_certainty [--quick] [--part shares|few-shot|ties|...]

Every interval and test that the tool prints is tried on worlds whose truth is known. ``error`` is
how often equal models are told apart, ``coverage`` how often the interval holds the truth,
``power`` how often a planted difference is found. A cell is marked *conservative* where it errs
less than 3 % or covers more than 97 %, and **too bold** where it errs more than 6 % or covers less
than 93 %, by more than two standard errors of the simulation.
``before`` is what was printed until version 0.1: 1.96 standard errors over episodes, percentile
bootstraps, 1.96 population standard deviations over seeds, Holm behind the best. ``jackknife`` is
what the delete-a-group jackknife over ten image groups would say of the same pools.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from eval.metrics import intervals
from eval.metrics.contrasts import Repeated, combined, pooled_spread
from eval.metrics.estimates import Estimates, mean, of_answers, of_episodes, of_items
from eval.metrics.jackknife import delete_group_covariance
from eval.metrics.ranks import holm
from eval.metrics.ties import ties
from eval.study.table import StudyPlan, read
from eval.study.verdict import verdict
from tests.metrics.pools import Features, World, drawn, nearest_mean
from tests.metrics.trainings import Trainings

Floats = NDArray[np.float64]
EPISODES = 600


@dataclass(frozen=True)
class Row:
    """A line of the table: shares in percent, nan where it has none."""

    part: str
    where: str
    trials: int
    error: float = np.nan
    coverage: float = np.nan
    power: float = np.nan
    before: float = np.nan
    jackknife: float = np.nan

    @property
    def verdict(self) -> str:
        slack = 200 * float(np.sqrt(0.05 * 0.95 / self.trials)) if self.trials else 0.0
        wrong = self.error if np.isfinite(self.error) else 100 - self.coverage
        if wrong > (6 if np.isfinite(self.error) else 7) + slack:
            return "**too bold**"
        return "conservative" if wrong < 3 else "holds"


# ------------------------------------------------------------------------ shares and composites


def shares(_: bool) -> Iterator[Row]:
    """Exact: every count that can come, by its probability."""
    for n in (30, 100, 1000, 10_000):
        for p in (0.5, 0.8, 0.95, 0.98, 0.999, 1.0):
            counts = np.arange(n + 1)
            chance = stats.binom.pmf(counts, n, p)
            seen = np.flatnonzero(chance > 1e-9)
            ends = np.array([intervals.jeffreys(k / n, n) for k in seen])
            inside = (ends[:, 0] <= p) & (p <= ends[:, 1])
            half = 1.96 * np.sqrt(seen / n * (1 - seen / n) / n)  # what a bootstrap comes to
            old = np.abs(seen / n - p) <= half
            yield Row(
                "top-1", f"n = {n:,}, p = {p}", 0, coverage=100 * float(chance[seen] @ inside),
                before=100 * float(chance[seen] @ old),
            )  # fmt: skip


def composites(quick: bool) -> Iterator[Row]:
    trials = 200 if quick else 1000
    for n in (60, 300, 3000):
        rounds = trials if n < 3000 else trials // 4
        for miss in (0.0, 0.05):
            ece = nll = old = 0
            for seed in range(rounds):
                random = np.random.default_rng([seed, n, 1])
                confidence = random.uniform(0.3, 0.9, n)
                right = random.random(n) < confidence - miss
                one = intervals.expected_calibration_error(confidence, right, 0)
                ece += one.low <= miss <= one.high
                loss = random.beta(2, 1, n)  # the mean of -log of it is 1/2
                two = intervals.negative_log_likelihood(loss, 0)
                nll += two.low <= 0.5 <= two.high
                plain = percentile(-np.log(loss))
                old += plain.low <= 0.5 <= plain.high
            yield Row("ECE", f"n = {n:,}, truth {miss}", rounds, coverage=100 * ece / rounds)
            if not miss:
                yield Row(
                    "NLL", f"n = {n:,}", rounds, coverage=100 * nll / rounds,
                    before=100 * old / rounds,
                )  # fmt: skip


# images of each class, and the share of them that is answered right
CLASSES: dict[str, tuple[list[int], Floats]] = {
    **{
        f"six of unlike size, n = {n:,}": (
            [n * s // 60 for s in (25, 15, 10, 5, 3, 2)],
            np.array([0.9, 0.8, 0.95, 0.5, 0.7, 0.6]),
        )
        for n in (60, 300, 3000)
    },
    "six, n = 60, all 0.95": ([25, 15, 10, 5, 3, 2], np.full(6, 0.95)),
    "100 and 5, 0.95 and 0.6": ([100, 5], np.array([0.95, 0.6])),
    "50 of 200 / rank, 0.95 to 0.5": ([200 // k for k in range(1, 51)], np.linspace(0.95, 0.5, 50)),
    "100 of 3, 0.4 to 0.99": ([3] * 100, np.linspace(0.4, 0.99, 100)),
    "100 of 30, 0.4 to 0.99": ([30] * 100, np.linspace(0.4, 0.99, 100)),
}


def per_class(quick: bool) -> Iterator[Row]:
    trials = 1000 if quick else 10_000
    for where, (sizes, shares) in CLASSES.items():
        labels = np.repeat(np.arange(len(sizes)), sizes)
        inside = 0
        for seed in range(trials):
            right = np.random.default_rng([seed, len(labels)]).random(len(labels)) < shares[labels]
            found = intervals.mean_per_class(right, labels)
            inside += found.low <= shares.mean() <= found.high
        yield Row("mean per class", where, trials, coverage=100 * inside / trials)


def percentile(values: Floats) -> intervals.Interval:
    return intervals.bootstrap(lambda w: w @ values / w.sum(1), len(values), 0)


def runs(quick: bool) -> Iterator[Row]:
    """Trainings on the same test images, which differ among themselves."""
    trials = 1000 if quick else 5000
    for count in (2, 3, 5, 10):
        inside = before = 0
        for seed in range(trials):
            random = np.random.default_rng([seed, count])
            images = random.normal(0, 0.01)  # these test images are easier or harder
            values = 0.7 + images + random.normal(0, 0.01, count)
            found = intervals.runs_interval(values, 0.01**2, 999)
            inside += found.low <= 0.7 <= found.high
            before += abs(values.mean() - 0.7) <= 1.96 * values.std() / count**0.5
        yield Row(
            "over trainings", f"{count} seeds", trials, coverage=100 * inside / trials,
            before=100 * before / trials,
        )  # fmt: skip


def pairs(quick: bool) -> Iterator[Row]:
    """Two models on the same test images."""
    trials = 1000 if quick else 4000
    for n in (30, 100, 1000, 10_000):
        rounds = trials if n < 10_000 else trials // 4
        for p in (0.5, 0.9, 0.99):
            for shared in (0.0, 0.9):
                error = before = power = 0
                for seed in range(rounds):
                    random = np.random.default_rng([seed, n])
                    common, own = random.normal(size=n), random.normal(size=(2, n))
                    skill = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
                    right = skill < stats.norm.ppf(p)
                    error += of_answers(right).difference()[1] < 0.05
                    wins, losses = (right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum()
                    before += bool(
                        wins + losses
                        and stats.binomtest(int(wins), int(wins + losses)).pvalue < 0.05
                    )
                    worse = skill[1] < stats.norm.ppf(p - 0.02)
                    power += of_answers(np.stack([right[0], worse])).difference()[1] < 0.05
                yield Row(
                    "pair of image scores", f"n = {n:,}, p = {p}, shared {shared}", rounds,
                    error=100 * error / rounds, power=100 * power / rounds,
                    before=100 * before / rounds,
                )  # fmt: skip


# ----------------------------------------------------------------------------- few-shot

GRID = ((5, 20), (10, 40), (10, 120), (10, 330), (10, 2700), (100, 30))


@dataclass(frozen=True)
class Trial:
    """Two models on one pool: their estimates, and the standard error over episodes alone."""

    found: Estimates
    episodes: float
    images: int


def trial(seed: list[int], world: World, each: int, shot: int) -> Trial:
    random = np.random.default_rng(seed)
    design = drawn(random, [each] * len(world.means), shot, EPISODES)
    correct = np.stack([nearest_mean(x, design) for x in world.images(random, each)])
    accuracy = correct.mean((2, 3))
    over_episodes = float((accuracy[0] - accuracy[1]).std()) / EPISODES**0.5
    return Trial(of_episodes(correct, design), over_episodes, design.images)


def few_shot(quick: bool, better: float = 0.0) -> Iterator[Row]:
    """Equal models on new pools of new worlds; ``better`` plants about two points on 10 x 330."""
    for classes, each in GRID:
        trials = (40 if quick else 300) // (3 if each > 1000 else 1)
        for shot in (1, 5, 20):
            if each < shot + 15:
                continue
            for shared in (0.0, 0.5, 0.9):
                told, naive, gaps = 0, 0, []
                for pool in range(trials):
                    world = World.of(
                        np.random.default_rng([pool, classes, each]), classes, shared=shared,
                        better=better,
                    )  # fmt: skip
                    one = trial([pool, classes, each, shot], world, each, shot)
                    gap, p = one.found.difference()
                    told += p < 0.05
                    naive += abs(gap.value) > 1.96 * one.episodes
                    gaps.append(gap.value)
                share, before = 100 * told / trials, 100 * naive / trials
                where = f"{classes} x {each}, {shot}-shot, shared {shared}"
                if better:
                    where += f", {-100 * float(np.mean(gaps)):.1f} points"
                    yield Row("pair of few-shot scores", where, trials, power=share)
                else:
                    yield Row("pair of few-shot scores", where, trials, error=share, before=before)


GROUPS = 10


def jackknife(random: np.random.Generator, images: Sequence[Features], shot: int) -> float:
    """p-value of two models by the delete-a-group jackknife: every tenth image of each class is
    left out in turn, new episodes are drawn of the others, and t has nine degrees of freedom."""
    classes, each, _ = images[0].shape
    group = np.arange(each) % GROUPS
    gaps = np.empty(GROUPS)
    for g in range(GROUPS):
        kept = np.flatnonzero(group != g)
        design = drawn(random, [len(kept)] * classes, shot, EPISODES)
        right = [nearest_mean(x[:, kept], design).mean() for x in images]
        gaps[g] = right[0] - right[1]
    error = float(delete_group_covariance(gaps[None])[0, 0]) ** 0.5
    return float(2 * stats.t.sf(abs(gaps.mean()) / error, GROUPS - 1))


def against_jackknife(quick: bool) -> Iterator[Row]:
    """Ours beside the safe jackknife, which scores ten times as many episodes, on 10 x 330."""
    trials, classes, each, shot = 40 if quick else 300, 10, 330, 5
    for better in (0.0, 0.105):
        for shared in (0.0, 0.5, 0.9):
            ours, theirs, naive, gaps = 0, 0, 0, []
            for pool in range(trials):
                world = World.of(
                    np.random.default_rng([pool, classes, each]), classes, shared=shared,
                    better=better,
                )  # fmt: skip
                random = np.random.default_rng([pool, classes, each, shot, 2])
                design = drawn(random, [each] * classes, shot, EPISODES)
                images = world.images(random, each)
                correct = np.stack([nearest_mean(x, design) for x in images])
                gap, p = of_episodes(correct, design).difference()
                accuracy = correct.mean((2, 3))
                error = float((accuracy[0] - accuracy[1]).std()) / EPISODES**0.5
                ours += p < 0.05
                naive += abs(gap.value) > 1.96 * error
                theirs += jackknife(random, images, shot) < 0.05
                gaps.append(gap.value)
            share, safe, before = (100 * x / trials for x in (ours, theirs, naive))
            where = f"{classes} x {each}, {shot}-shot, shared {shared}"
            if better:
                where += f", {-100 * float(np.mean(gaps)):.1f} points"
                yield Row("beside the jackknife", where, trials, power=share, jackknife=safe)
            else:
                yield Row(
                    "beside the jackknife", where, trials, error=share, before=before,
                    jackknife=safe,
                )  # fmt: skip


def few_shot_coverage(quick: bool) -> Iterator[Row]:
    """A score's own interval, over pools of one world; the truth is the mean over all its pools."""
    for classes, each in GRID:
        trials = (60 if quick else 300) // (3 if each > 1000 else 1)
        for shot in (1, 5, 20):
            if each < shot + 15:
                continue
            world = World.of(np.random.default_rng([classes, each]), classes)
            found = [trial([p, classes, each, shot, 1], world, each, shot) for p in range(trials)]
            truth = float(np.mean([one.found.values[0] for one in found]))
            inside = [one.found.share(0, one.images) for one in found]
            covered = [i.low <= truth <= i.high for i in inside]
            yield Row(
                "few-shot score", f"{classes} x {each}, {shot}-shot", trials,
                coverage=100 * float(np.mean(covered)),
            )  # fmt: skip


# ----------------------------------------------------------------------------- boards


def boards(quick: bool) -> Iterator[Row]:
    """Equal models: how many boards show more than one group?"""
    trials = 200 if quick else 1000
    for count in (2, 5, 10, 20, 50, 100):
        for kind, make in _BOARDS.items():
            rounds = trials if count < 50 else trials // 2
            more = sum(ties(make(seed, count)).group.max() > 1 for seed in range(rounds))
            yield Row("tie groups", f"{count} models, {kind}", rounds, error=100 * more / rounds)


def _images(seed: int, count: int, shared: float = 0.5, sets: int = 6, n: int = 500) -> Estimates:
    parts = []
    for t in range(sets):
        random = np.random.default_rng([seed, t, count])
        common, own = random.normal(size=n), random.normal(size=(count, n))
        skill = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
        parts.append(of_answers(skill < 0.5))
    return mean(parts)


_BOARDS: dict[str, Callable[[int, int], Estimates]] = {
    "6 sets of 500 images": _images,
    "1 set of 100 images, shared 0.9": lambda s, c: _images(s, c, 0.9, 1, 100),
    "3 seeds": lambda s, c: of_items(np.random.default_rng([s, c]).normal(size=(c, 3))),
}


# Rows are arms of the study (CE with weak views, CE, CE-MLP, both with the term, SelfSupCon, SupCon
# and SupCon with the term), columns what they are made of: strong views, CE, projector, the
# self-supervised term, SupCon.
TERMS = np.array([
    [0, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 0],
    [1, 1, 1, 1, 0], [1, 0, 0, 1, 0], [1, 0, 0, 0, 1], [1, 0, 0, 1, 1],
], np.float64)  # fmt: skip


def arms(quick: bool) -> Iterator[Row]:
    """Why a correlation of content with transfer over arms is not tested: how often a permutation
    test of the arms rejects where what each term adds to content is independent of what it adds to
    transfer (``before``: where each arm's are)."""
    trials = 300 if quick else 2000
    random = np.random.default_rng(0)
    orders = [np.arange(len(TERMS)), *(random.permutation(len(TERMS)) for _ in range(1999))]
    told = np.zeros(2)
    for _ in range(trials):
        for i, made in enumerate((TERMS, np.eye(len(TERMS)))):
            content, transfer = (made @ random.normal(size=made.shape[1]) for _ in range(2))
            content -= content.mean()
            reached = np.abs(content[np.array(orders)] @ (transfer - transfer.mean()))
            told[i] += np.mean(reached >= reached[0] - 1e-12) <= 0.05
    shared, separate = 100 * told / trials
    yield Row("correlation", "8 arms of 5 terms", trials, shared, before=separate)


PAIR = (1.0, -1.0)


def trainings(quick: bool) -> Iterator[Row]:
    """Contrasts of ways of training: over other images and other seeds, and (before) over the
    images of these trainings alone. Power at a true difference of about 2.4 points."""
    trials = 300 if quick else 2000
    for count in (2, 3, 5):
        for seeds in (0.0, 0.02, 0.05, 0.15):
            told = _told(Trainings(trainings=count, seeds=seeds), trials, PAIR)
            better = _told(Trainings(trainings=count, seeds=seeds, better=0.12), trials, PAIR)
            where = f"{count} trainings, seeds vary by {seeds}"
            yield Row("contrast", where, trials, told[0], power=better[0], before=told[1])
    told = _told(Trainings(ways=4), trials, (1, -1, -1, 1))
    yield Row("interaction", "3 trainings, seeds vary by 0.05", trials, told[0], before=told[1])
    told = _told(Trainings(sets=1, images=100), trials, PAIR)
    yield Row("contrast", "one set of 100 images, 3, 0.05", trials, told[0], before=told[1])


CONTRASTS = ((-1, 1, 0, 0), (-1, 0, 1, 0), (0, -1, 1, 0), (1, -1, -1, 1))
PLANNED, BUDGETS = 28, 4


def studies(quick: bool) -> Iterator[Row]:
    """A whole study: four contrasts of the first four ways at four budgets, three trainings,
    Holm's correction over the 28 tests of a plan. ``error``: any contrast of equal ways is told
    from 0, by the pooled spread. ``before``: by the spread of each contrast's own trainings.
    ``power``: the second way, 2.4 points better, is told from the first at the first budget."""
    trials = 100 if quick else 1000
    for ways in (4, 8):
        for seeds in (0.02, 0.05, 0.15):
            where = f"{ways} ways, seeds vary by {seeds}"
            world = Trainings(ways, seeds=seeds)
            together, alone = _study(world, trials)
            better, found = _study(replace(world, better=-0.12), trials, only=0)
            yield Row("study", where, trials, together, power=better, before=alone)
            yield Row("study", f"{where}, each its own", trials, alone, power=found)
        for factor in (2, 4):
            unlike = (*(0.05 * factor,) * 2, *(0.05,) * (ways - 2))
            where = f"{ways} ways, two vary by {0.05 * factor}, the others by 0.05"
            together, alone = _study(Trainings(ways, seeds=unlike), trials)
            yield Row("study", where, trials, together, before=alone)


def _study(world: Trainings, trials: int, only: int | None = None) -> tuple[float, float]:
    """In how many studies, in percent, any contrast is told from 0, or the one that is asked for at
    the first budget: by a pooled spread, and by that of each contrast's own trainings."""
    random = np.random.default_rng(0)
    told = np.zeros(2)
    for _ in range(trials):
        tests = [p for _ in range(BUDGETS) for p in _tested(world.drawn(random), world)]
        for i, values in enumerate(zip(*tests, strict=True)):
            corrected = holm([*values, *(1.0,) * (PLANNED - len(values))])
            told[i] += min(corrected if only is None else [corrected[only]]) < 0.05
    together, alone = 100 * told / trials
    return together, alone


SHIPPED = Path(__file__).parents[2] / "model_cards" / "budget-projector.results.parquet"


def shipped(quick: bool) -> Iterator[Row]:
    """The study that ships, budget by budget, as if all its arms were equal: trainings of each vary
    as its own three do, images as they are. ``error`` and ``before`` as of `studies`."""
    trials = 500 if quick else 4000
    found = verdict(read(SHIPPED))
    plan = found.table.plan
    for asked in plan.transfer:
        planned = sum(one.score == asked.title for one in found.tested)
        for budget in plan.budgets:
            arms = {
                one.arm: one.found.spread.variance**0.5
                for one in found.arms
                if (one.score, one.epochs) == (asked.title, budget.epochs)
                and one.found and one.found.spread
            }  # fmt: skip
            tested = [
                (one.found, _factors(plan, one.contrast, [*arms]))
                for one in found.tested
                if (one.score, one.epochs) == (asked.title, budget.epochs)
                and one.found and one.is_tested
            ]  # fmt: skip
            if len(budget.seeds) > 1 and tested:
                told = _again(list(arms.values()), tested, len(budget.seeds), planned, trials)
                where = f"{len(arms)} arms as they vary at {budget.epochs} epochs, {asked.title}"
                yield Row("study that ships", where, trials, told[0], before=told[1])


def _factors(plan: StudyPlan, contrast: str, arms: list[str]) -> Floats:
    (planned,) = (c for c in plan.contrasts if c.name == contrast)
    return np.array([planned.arms.get(arm, 0.0) for arm in arms])


def _again(
    spreads: list[float],
    tested: list[tuple[Repeated, Floats]],
    seeds: int,
    planned: int,
    trials: int,
) -> tuple[float, float]:
    """In how many studies, in percent, any contrast of equal arms is told from 0: by the pooled
    spread, and by that of its own trainings."""
    random = np.random.default_rng(0)
    told = np.zeros(2)
    for _ in range(trials):
        scores = random.normal(0, np.array(spreads)[:, None], (len(spreads), seeds))
        spread = pooled_spread(scores)
        assert spread is not None
        tests = []
        for found, factors in tested:
            # What images do to all trainings alike, too.
            values = factors @ scores + random.normal(0, found.images**0.5)
            again = replace(
                found, by_training=tuple(values), pooled=spread.times(float(factors @ factors))
            )
            tests.append((again.p(), again.alone.p()))
        for i, values in enumerate(zip(*tests, strict=True)):
            told[i] += min(holm([*values, *(1.0,) * (planned - len(tests))])) < 0.05
    together, alone = 100 * told / trials
    return together, alone


def _tested(sets: Sequence[Estimates], world: Trainings) -> Iterator[tuple[float, float]]:
    scores = np.mean([one.values for one in sets], axis=0)
    spread = pooled_spread(scores.reshape(world.trainings, world.ways).T)
    for factors in CONTRASTS:
        padded = np.array((*factors, *(0,) * (world.ways - len(factors))), np.float64)
        found = combined(sets, padded, spread)
        yield found.p(), found.alone.p()


def _told(world: Trainings, trials: int, factors: Sequence[float]) -> tuple[float, float]:
    """How often 0 is excluded, in percent: over both chances, and over images alone."""
    random = np.random.default_rng(0)
    both = images = 0
    for _ in range(trials):
        found = combined(world.drawn(random), np.array(factors))
        wide, narrow = found.over_both(), found.over_images()
        assert wide is not None  # there is more than one training
        both += not wide.low <= 0 <= wide.high
        images += not narrow.low <= 0 <= narrow.high
    return 100 * both / trials, 100 * images / trials


PARTS: dict[str, Callable[[bool], Iterator[Row]]] = {
    "shares": shares,
    "per-class": per_class,
    "composites": composites,
    "runs": runs,
    "pairs": pairs,
    "ties": boards,
    "trainings": trainings,
    "studies": studies,
    "study-that-ships": shipped,
    "arms": arms,
    "few-shot": few_shot,
    "few-shot-power": lambda quick: few_shot(quick, better=0.13),
    "few-shot-jackknife": against_jackknife,
    "few-shot-coverage": few_shot_coverage,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer trials")
    parser.add_argument("--part", choices=list(PARTS), action="append")
    args = parser.parse_args()
    heads = ("statement", "where", "trials", "error %", "coverage %", "power %", "before %",
             "jackknife %", "verdict")  # fmt: skip
    print(f"| {' | '.join(heads)} |\n| --- | --- |{' ---: |' * 6} --- |")
    for part in args.part or PARTS:
        for row in PARTS[part](args.quick):
            numbers = (row.error, row.coverage, row.power, row.before, row.jackknife)
            cells = [f"{n:.1f}" if np.isfinite(n) else "" for n in numbers]
            judged = np.isfinite(row.error) or np.isfinite(row.coverage)
            verdict = row.verdict if judged else ""
            trials = f"{row.trials:,}" if row.trials else "exact"
            print(f"| {row.part} | {row.where} | {trials} | {' | '.join(cells)} | {verdict} |",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

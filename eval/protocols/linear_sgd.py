"""The study's linear evaluation (paper.md 3.1): SGD on features of augmented views.

The backbone is frozen, so each epoch's views are encoded once and feed all points of the grid,
and both trainings at once: tuning on one part of train, and the final one on all of it, in which
all points start and only the best one goes on when tuning has ended. That is what tuning first
and training afterwards give, without encoding the first epochs twice.

Where the study's code is an accident (paper.md 6), this is not it: the validation part is
stratified and read without augmentation, all of it; the last epoch answers the test images.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from eval.common.errors import BadInput, TooFew
from eval.data.task_data import TaskData, take
from eval.data.validation import held_out
from eval.protocols import train_fractions, trained
from eval.settings.protocols import LinearSgd
from eval.solvers.heads import Heads, initial
from eval.training.context import Context
from eval.training.setup import Answer, Point, points, rate
from eval.training.views import Views

if TYPE_CHECKING:
    from eval.protocols.outcome import Outcome
    from eval.training.speed import Speed

T = TypeVar("T")
_ROWS = 8192  # of features that go to the device at once


def score(context: Context[TaskData], settings: LinearSgd) -> Outcome:
    """Top-1, mean per-class accuracy, ECE and NLL on test. Called on every process."""
    views = Views(context, settings.scale, settings.views, settings.crops_from)
    return trained.score(context, settings, functools.partial(fit, views=views))


def cost(context: Context[TaskData], settings: LinearSgd, speed: Speed) -> float:
    """Seconds of encoding the views; next to it training the heads takes no time."""
    views = views_to_encode(settings, len(context.task.train))
    return views / speed.encoding / context.workers.count


def views_to_encode(settings: LinearSgd, train: int) -> float:
    """Images that ``score`` encodes for ``train`` training images."""
    if settings.views:
        return float(settings.views * train)
    passes = max(settings.epochs, settings.tune_epochs)  # tuning shares the first epochs
    return sum(train_fractions.shares(settings, train)) * passes * train


def fit(
    setup: Context[TaskData],
    settings: LinearSgd,
    rows: NDArray[np.int64],
    views: Views | None = None,
) -> Answer:
    """Tune on a part of ``rows`` of train, train on all of them, answer the test images.

    Every process encodes its share of the views; the main one trains, and all get the answer.
    Raises UserError where too few images are there to train on, or every point of the grid
    diverges.
    """
    part = dataclasses.replace(setup.task, train=take(setup.task.train, rows))
    held = held_out(part, settings.validation, setup.seed)
    if (left := int((~held).sum())) < 2:
        raise TooFew(
            f"task {setup.task.name!r}: only {left} training image is left beside those held out "
            "to choose settings on, and BatchNorm needs two; take more, or use fewshot"
        )
    if (smallest := min(settings.batch_sizes)) < 2:
        raise BadInput(f"batch_sizes must be at least 2 for BatchNorm, got {smallest}")
    if views is None:
        views = Views(setup, settings.scale, settings.views, settings.crops_from)
    encoded, seconds = views.encoded, views.seconds
    grid = _Grid(setup, settings, rows, held)
    # With cached views encoding costs nothing, and training eleven heads in vain would.
    early = 0 if settings.views else min(settings.tune_epochs, settings.epochs)
    bar = tqdm(
        total=settings.tune_epochs + settings.epochs - early,
        desc=f"linear-sgd {setup.task.name} with {setup.backbone.resolved.id}",
        unit="epoch",
        disable=None if setup.workers.main else True,  # None: off when stderr is no terminal
        leave=False,
    )
    with bar:
        for epoch in range(settings.tune_epochs):
            both = epoch < early
            asked = rows if both else rows[~held]
            # Named nowhere: the last epoch's features are gone when the next are made.
            grid.on_main(grid.tune, epoch, views.epoch(epoch, asked), both)
            bar.update()
        grid.on_main(grid.choose)
        for epoch in range(early, settings.epochs):
            grid.on_main(grid.train, epoch, views.epoch(epoch, rows))
            bar.update()
    answer = grid.on_main(grid.answer)
    if answer is not None:
        answer.details |= {
            "encoded": views.encoded - encoded,
            "seconds": {
                "views": round(views.seconds - seconds, 3),
                "heads": round(grid.seconds, 3),
            },
        }
    answer = setup.workers.broadcast(answer)
    assert answer is not None
    return answer


class _Grid:
    """All points of the grid, in both trainings, on the main process."""

    def __init__(
        self,
        setup: Context[TaskData],
        settings: LinearSgd,
        rows: NDArray[np.int64],
        held: NDArray[np.bool_],
    ) -> None:
        self.setup, self.settings = setup, settings
        self.rows, self.held = rows, held
        self.points = points(settings)
        self.seconds = 0.0
        self.device = setup.workers.device
        self.labels = torch.from_numpy(setup.task.train.labels[rows]).to(self.device)
        self.fitted = torch.from_numpy(np.flatnonzero(~held)).to(self.device)
        generator = torch.Generator().manual_seed(self._words("start")[0])
        weight, bias = initial(setup.backbone.dim, len(setup.task.classes), generator)

        def heads() -> Heads:
            return Heads(
                weight.to(self.device),
                bias.to(self.device),
                [p.batch_size for p in self.points],
                [p.weight_decay for p in self.points],
                settings.momentum,
            )

        self.tuned, self.final = heads(), heads()
        self.best = 0
        self.accuracy: list[float] = []

    def on_main(self, work: Callable[..., T], *args: Any) -> T | None:
        """Call it on the main process; an error there is raised on all, which else would wait."""
        start = time.perf_counter()
        main = self.setup.workers.main
        done = self.setup.workers.together(lambda: work(*args) if main else None)
        self.seconds += time.perf_counter() - start
        return done

    def tune(self, epoch: int, features: Tensor, both: bool) -> None:
        """An epoch of tuning; with ``both`` the features are of all rows, and train them too."""
        own = self.fitted if both else torch.arange(len(features), device=self.device)
        order = own[self._order(epoch, len(own))]
        labels = self.labels if both else self.labels[self.fitted]
        tune_epochs = self.settings.tune_epochs
        lrs = [rate(p, epoch, tune_epochs) for p in self.points]
        self.tuned.train_epoch(features, labels, order, lrs)
        if all(self.tuned.diverged):
            raise BadInput(self._all_diverged())
        if both:
            self._train(epoch, features, self.points)

    def choose(self) -> None:
        """The best on the validation images, as they are; the first of equals."""
        features, labels = self.setup.features.train
        where = self.rows[self.held]
        counts = [0] * len(self.points)
        for at in range(0, len(where), _ROWS):
            some = torch.from_numpy(where[at : at + _ROWS])
            found = self.tuned.correct(features[some].to(self.device), labels[some].to(self.device))
            counts = [a + b for a, b in zip(counts, found, strict=True)]
        self.accuracy = [round(count / len(where), 6) for count in counts]
        self.best = max(
            (i for i, broken in enumerate(self.tuned.diverged) if not broken),
            key=lambda i: (counts[i], -i),
        )
        self.final = self.final.only(self.best)
        self._check_final()

    def train(self, epoch: int, features: Tensor) -> None:
        """An epoch of the chosen point on all rows."""
        self._train(epoch, features, [self.points[self.best]])
        self._check_final()

    def answer(self) -> Answer:
        features = self.setup.features.test[0]
        parts = [
            self.final.logits(features[at : at + _ROWS].to(self.device), 0).cpu()
            for at in range(0, len(features), _ROWS)
        ]
        logits = torch.cat(parts)
        if not logits.isfinite().all():
            raise BadInput(self._best_diverged())
        return Answer(logits.double().softmax(1).numpy(), self._details(), self._notes())

    def _train(self, epoch: int, features: Tensor, points: Sequence[Point]) -> None:
        order = self._order(epoch, len(self.rows))
        lrs = [rate(p, epoch, self.settings.epochs) for p in points]
        self.final.train_epoch(features, self.labels, order, lrs)

    def _check_final(self) -> None:
        if self.final.diverged[0]:
            raise BadInput(self._best_diverged())

    def _details(self) -> dict[str, Any]:
        broken = self.tuned.diverged
        return {
            "chosen": dataclasses.asdict(self.points[self.best]),
            "points": [
                dataclasses.asdict(p) | {"top1": None if gone else value}
                for p, value, gone in zip(self.points, self.accuracy, broken, strict=True)
            ],
            "diverged": sum(broken),
            "validation": int(self.held.sum()),
            "tune_epochs": self.settings.tune_epochs,
            "epochs": self.settings.epochs,
        }

    def _notes(self) -> list[str]:
        gone = [_words(p) for p, d in zip(self.points, self.tuned.diverged, strict=True) if d]
        return [f"diverged and left out of the grid: {'; '.join(gone)}"] if gone else []

    def _all_diverged(self) -> str:
        s = self.settings
        return (
            f"linear-sgd on task {self.setup.task.name!r}: all {len(self.points)} points of the "
            f"grid diverged (lrs {_list(s.lrs)}; batch_sizes {_list(s.batch_sizes)}; weight_decays "
            f"{_list(s.weight_decays)}); use smaller rates or weight decays"
        )

    def _best_diverged(self) -> str:
        return (
            f"linear-sgd on task {self.setup.task.name!r}: the point chosen on part of train "
            f"({_words(self.points[self.best])}) diverged on all of it; use smaller rates"
        )

    def _order(self, epoch: int, n: int) -> Tensor:
        """[n] the epoch's permutation, on the device; by the task, the seed and the epoch."""
        random = np.random.RandomState(self._words(f"order:{epoch}"))
        return torch.from_numpy(random.permutation(n)).to(self.device)

    def _words(self, what: str) -> list[int]:
        facts = f"{self.setup.task.split_hash}:{self.setup.seed}:{what}"
        return np.frombuffer(hashlib.sha256(facts.encode()).digest(), "<u4").tolist()


def _words(point: Point) -> str:
    return f"lr {point.lr:g}, batch {point.batch_size}, weight decay {point.weight_decay:g}"


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{v:g}" for v in values)

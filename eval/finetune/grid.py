"""The study's full-network transfer: tune a grid on part of train, retrain the best point on all.

Every point starts from the same pretrained weights and head and sees the same images in the same
order. Points run in turn. Where ``eval.finetune.train`` and ``eval.training.checkpoint`` say how a
training runs and resumes, here is what is trained, and which training answers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from eval.common.errors import BadInput, TooFew, UserError
from eval.data.task_data import TaskData, take
from eval.data.validation import held_out
from eval.finetune.saved_model import Keeper
from eval.finetune.stages import free_stages
from eval.finetune.train import Diverged, Training
from eval.settings.protocols import Finetune
from eval.training.checkpoint import Record, State, StoredTraining, key, locked
from eval.training.context import Context
from eval.training.images import EvalImages, TrainImages, batches_of
from eval.training.setup import Answer, Point, points
from eval.training.step import OutOfMemory, own_random


def fit(
    setup: Context[TaskData],
    settings: Finetune,
    rows: NDArray[np.int64],
    keeper: Keeper | None = None,
) -> Answer:
    """Tune on ``rows`` of train (canonical, ascending), retrain, answer every test image.

    A ``keeper`` is given the network that answers. If it is asked for after the answer was found,
    that network alone is trained again. Raises UserError where nothing can be held out, all points
    diverge, memory runs out twice, an image cannot be read, the network has not the stages that
    are to train or it cannot be kept.
    """
    digest = key(setup, settings, rows)
    with locked(setup.cache, digest, setup.workers), own_random(setup.workers.device):
        return _Fit(setup, settings, rows, digest, keeper).answer()


class _Fit:
    """One fine-tuning: what is known of its grid, and the trainings that find out more."""

    def __init__(
        self, setup: Context[TaskData], settings: Finetune, rows: NDArray[np.int64], digest: str,
        keeper: Keeper | None,
    ) -> None:  # fmt: skip
        self.setup, self.settings, self.rows = setup, settings, rows
        self.free = free_stages(setup.backbone, settings.last)
        self.keeper = keeper if keeper is not None and keeper.wants(digest) else None
        self.grid = points(settings)
        self.state = State(setup.cache, digest, len(self.grid), setup.workers)
        self.tuned, self.held = self._halves()
        self.stages = _stages(settings.tune_epochs, settings.halving)

    @property
    def known(self) -> StoredTraining:
        return self.state.known

    def _halves(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows to tune on and rows to choose by. A grid of one point leaves nothing to choose.

        Raises UserError where BatchNorm would be left without two images on a process.
        """
        task, least = self.setup.task, 2 * self.setup.workers.count
        held = np.zeros(len(self.rows), bool)
        if len(self.grid) > 1:
            part = dataclasses.replace(task, train=take(task.train, self.rows))
            held = held_out(part, self.settings.validation, self.setup.seed)
        if (left := int((~held).sum())) < least:
            raise TooFew(
                f"task {task.name!r}: {left} training images are left beside those held out to "
                f"choose settings on, and BatchNorm needs two a process, here {least}; take more, "
                "or use fewshot"
            )
        if (smallest := min(self.settings.batch_sizes)) < least:
            raise BadInput(
                f"batch_sizes must be at least {least} for BatchNorm on "
                f"{self.setup.workers.count} processes, got {smallest}"
            )
        return self.rows[~held], self.rows[held]

    def answer(self) -> Answer:
        workers = self.setup.workers
        # An answer on disk has no network to keep any more.
        known = workers.main and self.keeper is None
        logits = workers.broadcast(self.state.answer() if known else None)
        if logits is None:
            self.images = TrainImages(self.setup, self.settings.scale, self.settings.crops_from)
            self.bar = tqdm(
                total=self._images_to_see(),
                unit="img",
                unit_scale=True,
                leave=False,
                disable=None if workers.main else True,  # None: off when stderr is no terminal
            )
            with self.bar:
                self.tune()
                logits = self.retrain()
            self.state.write_answer(logits)
        probability = torch.from_numpy(logits).double().softmax(1).numpy()
        return Answer(probability, self._details(), self._notes())

    # ---- tuning

    def tune(self) -> None:
        """Train each point on one part of the rows and score it on the other."""
        if len(self.grid) == 1:
            return
        validation = EvalImages(self.setup, "train", self.held)
        for stage in self.stages:
            for index in self._running():
                self._tune_point(index, stage, validation)
            self._stop_worse(stage)
        if all(record.diverged for record in self.known.points):
            raise self._all_diverged("in tuning")

    def _tune_point(self, index: int, stage: int, validation: EvalImages) -> None:
        record, name = self.known.points[index], f"point-{index:03d}"
        last = stage == self.settings.tune_epochs
        if str(stage) in record.top1:  # by an earlier run, whose state is of no use any more
            if last:
                self.state.drop(name)
            return
        try:
            training = self._trained(name, index, self.tuned, self.settings.tune_epochs, stage)
            logits = training.logits(validation)
        except Diverged:
            record.diverged = True
        else:
            labels = self.setup.task.train.labels[self.held]
            record.top1[str(stage)] = float((logits.argmax(1) == labels).mean())
            record.images, record.seconds = training.where.images, training.where.seconds
            if not last:  # another stage may go on from here
                training.save(self.state, name)
        self.state.write()
        if last or record.diverged:
            self.state.drop(name)

    def _running(self) -> list[int]:
        return [i for i, r in enumerate(self.known.points) if not (r.diverged or r.halved)]

    def _stop_worse(self, stage: int) -> None:
        """After each stage but the last: keep the better half, the first of equals."""
        if stage == self.stages[-1]:
            return
        # From the accuracies alone: a resumed run stops the points that the killed one stopped.
        there = [i for i, r in enumerate(self.known.points) if str(stage) in r.top1]
        ranked = sorted(there, key=lambda i: -self.known.points[i].top1[str(stage)])
        for index in ranked[-(-len(ranked) // 2) :]:
            self.known.points[index].halved = True
            self.state.drop(f"point-{index:03d}")
        self.state.write()

    def _ranked(self) -> list[int]:
        """Points that may answer, best first: by how far they came, then accuracy, then order."""
        if len(self.grid) == 1:
            return [0]
        fit = [i for i, r in enumerate(self.known.points) if r.top1 and not r.diverged]
        return sorted(fit, key=lambda i: _rank(self.known.points[i]), reverse=True)

    # ---- the answer

    def retrain(self) -> NDArray[np.float32]:
        """[N_test, C] logits of the best point trained on all rows; of the next if it diverges."""
        test = EvalImages(self.setup, "test", np.arange(len(self.setup.task.test)))
        for index in self._ranked():
            record, name = self.known.points[index], f"final-{index:03d}"
            if record.diverged_finally:
                continue
            try:
                training = self._trained(
                    name, index, self.rows, self.settings.epochs, self.settings.epochs
                )
                logits = training.logits(test)
            except Diverged:
                record.diverged_finally = True
                self.state.write()
                self.state.drop(name)
                continue
            self.known.answered, self.known.loss = index, training.where.last
            self.known.images, self.known.seconds = training.where.images, training.where.seconds
            if self.keeper is not None:
                self.keeper.keep(training.net)
            return logits
        raise self._all_diverged("on all training images")

    def _trained(
        self, name: str, index: int, rows: NDArray[np.int64], epochs: int, until: int
    ) -> Training:
        """A training at epoch ``until``; with a smaller micro-batch if memory runs out once."""
        while True:
            training = Training(
                self.setup, self.images, self.grid[index], rows, epochs, self.settings.momentum,
                self.known.micro_batch, self.settings.last,
            )  # fmt: skip
            what = "last" if rows is self.rows else f"{index + 1}/{len(self.grid)}"
            self.bar.set_description_str(f"finetune {self.setup.task.name}, training {what}")
            try:
                training.resume(self.state, name, self.bar)
                training.run(until, self.state, name, self.bar)
            except OutOfMemory:
                tried = training.micro_batch
                if self.known.micro_batch is not None or tried < 4:
                    raise UserError(
                        f"memory ran out while {self.setup.backbone.resolved.id} was fine-tuned on "
                        f"{tried} images at once; use a smaller --img-size or a smaller backbone"
                    ) from None
                self.known.micro_batch = tried // 2
                self.state.write()
            else:
                return training
            del training  # the network, before the next one is built
            if self.setup.workers.device.type == "cuda":
                torch.cuda.empty_cache()

    # ---- what is told

    def _images_to_see(self) -> int:
        """In all trainings; fewer where points are stopped early."""

        def seen(rows: NDArray[np.int64], point: Point) -> int:
            slices = batches_of(len(rows), point.batch_size, self.setup.workers.count)
            return sum(s.stop - s.start for s in slices)

        tuning = sum(
            seen(self.tuned, self.grid[i]) * self.settings.tune_epochs
            for i in (self._running() if len(self.grid) > 1 else ())
            if str(self.settings.tune_epochs) not in self.known.points[i].top1
        )
        return tuning + seen(self.rows, self.grid[0]) * self.settings.epochs

    def _all_diverged(self, when: str) -> UserError:
        grid = ", ".join(
            f"{name} {' '.join(f'{v:g}' for v in values)}"
            for name, values in (
                ("lr", self.settings.lrs),
                ("batch size", self.settings.batch_sizes),
                ("weight decay", self.settings.weight_decays),
            )
        )
        return UserError(
            f"task {self.setup.task.name!r}: {self.setup.backbone.resolved.id} diverged {when} at "
            f"every point of the grid ({grid}); give smaller learning rates"
        )

    def _notes(self) -> list[str]:
        notes = []
        known = self.known
        if gone := [i for i, r in enumerate(known.points) if r.diverged]:
            notes.append(f"{len(gone)} of {len(self.grid)} points of the grid diverged in tuning")
        for index, record in enumerate(known.points):
            if record.diverged_finally:
                notes.append(
                    f"retrained at {_shown(self.grid[index])} the network diverged; the next best "
                    "point answered"
                )
        if known.micro_batch is not None:
            notes.append(
                f"memory ran out: at most {known.micro_batch} images were taken at once and their "
                "gradients added up, so that BatchNorm saw that many"
            )
        return notes

    def _details(self) -> dict[str, Any]:
        known, settings = self.known, self.settings
        assert known.answered is not None
        best = self.grid[known.answered]
        share = -(-min(best.batch_size, len(self.rows)) // self.setup.workers.count)
        images = known.images + sum(r.images for r in known.points)
        seconds = known.seconds + sum(r.seconds for r in known.points)
        record = known.points[known.answered]
        top1 = record.top1.get(str(settings.tune_epochs))
        return {
            **({"free_stages": list(self.free)} if self.free else {}),
            "chosen": dataclasses.asdict(best),
            "validation_top1": None if top1 is None else round(top1, 6),
            "points": [
                {**dataclasses.asdict(p), **_told(r)}
                for p, r in zip(self.grid, known.points, strict=True)
            ],
            "diverged": sum(r.diverged for r in known.points),
            "halved": sum(r.halved for r in known.points),
            "tune_epochs": settings.tune_epochs if len(self.grid) > 1 else 0,
            "epochs": settings.epochs,
            "tuned_on": len(self.tuned) if len(self.grid) > 1 else 0,
            "validated_on": len(self.held),
            "trained_on": len(self.rows),
            "train_loss": round(known.loss, 6),
            "images_seen": images,
            "images_per_s": round(images / max(seconds, 1e-9), 1),
            "micro_batch": min(share, known.micro_batch or share),
        }


def _stages(epochs: int, halving: bool) -> list[int]:
    """The epochs after which points are compared; a third that is not an epoch is left out."""
    early = {epochs // 3, 2 * epochs // 3} - {0, epochs} if halving else set()
    return [*sorted(early), epochs]


def _rank(record: Record) -> tuple[int, float]:
    epochs = max(map(int, record.top1))
    return epochs, record.top1[str(epochs)]


def _shown(point: Point) -> str:
    return f"lr {point.lr:g}, batch size {point.batch_size}, weight decay {point.weight_decay:g}"


def _told(record: Record) -> dict[str, Any]:
    if not record.top1:
        return {"top1": None, "epochs": None, "end": "diverged" if record.diverged else "not tuned"}
    epochs, top1 = _rank(record)
    end = "diverged" if record.diverged else "halved" if record.halved else "whole"
    return {"top1": round(top1, 6), "epochs": epochs, "end": end}

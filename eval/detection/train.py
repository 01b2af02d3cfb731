"""A detector in training, on one process or many: batches, steps, what is kept on the way.

Each process computes the gradients of its share of a batch, in micro-batches where memory is
short; they are then added up. BatchNorm, where it is trained, sees a micro-batch of one process
(all processes' on CUDA); its running statistics are averaged, and set anew before the test.
"""

from __future__ import annotations

import math
import signal
import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from eval.common.errors import BadInput, UserError
from eval.common.interrupts import noted_signals
from eval.data.boxes.box_data import DetectionData
from eval.detection.batch import Batch, Target
from eval.detection.network import Detector
from eval.detection.pixels import batch_of, draw_view, shown, target_of
from eval.detection.store import EncodedImages
from eval.detection.stream import Pick, batches
from eval.settings.schedules import Schedule
from eval.training.checkpoint import read_training, write_training
from eval.training.context import Context
from eval.training.images import draw_seed, share_of
from eval.training.step import add_up_gradients, agree, average_statistics

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
SAVE_SECONDS = 60.0  # of training between two states on disk
SAVE_SHARE = 20  # and that many times what a save takes
READ_EVERY = 10  # steps between two looks at the loss, where a look waits for an accelerator
AHEAD = 3  # batches that are decoded before they are needed
POINTS = 20  # of the loss curve that is told


@dataclass
class Progress:
    """Where a training stands."""

    iteration: int = 0  # steps done
    images: int = 0
    seconds: float = 0.0
    curve: list[list[float]] = field(default_factory=list)  # [iteration, each loss]
    sums: list[float] = field(default_factory=lambda: [0.0] * len(LOSSES))  # since the last point
    steps: int = 0  # behind those sums


class TrainBatches:
    """The share of one process in each batch of training images."""

    def __init__(self, setup: Context[DetectionData], schedule: Schedule, divisor: int) -> None:
        self.setup, self.schedule, self.divisor = setup, schedule, divisor
        split = setup.task.train
        self.images = setup.workers.together(lambda: EncodedImages.of(split, setup.cache))
        assert split.sizes is not None  # of detection data that were loaded
        self.wide = split.sizes[:, 1] >= split.sizes[:, 0]

    def since(self, iteration: int) -> Generator[list[tuple[Tensor, Target]], None, None]:
        """Pictures and boxes of this process, from the batch of that iteration on."""
        size, workers = self.schedule.batch_size, self.setup.workers
        mine = share_of(slice(0, size), workers.rank, workers.count)
        picks = islice(batches(self.wide, size, self.setup.seed), iteration, None)
        threads = max(1, min(8, torch.get_num_threads()))
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[list[Future[tuple[Tensor, Target]]]] = deque()
            try:
                for batch in picks:
                    waiting.append([pool.submit(self._picture, pick) for pick in batch[mine]])
                    if len(waiting) > AHEAD:
                        yield [future.result() for future in waiting.popleft()]
            finally:
                for futures in waiting:
                    for future in futures:
                        future.cancel()

    def _picture(self, pick: Pick) -> tuple[Tensor, Target]:
        index, epoch = pick
        view = draw_view(self.schedule.sides, self.setup.seed, epoch, index)
        objects = self.setup.task.train.objects[index]
        taught = ~objects.crowd
        pixels, boxes = shown(
            self.images.image(index), objects.boxes[taught], view, self.schedule.max_side
        )
        return pixels, target_of(boxes, objects.labels[taught])

    def collated(self, pictures: list[tuple[Tensor, Target]]) -> Batch:
        """As the network takes them, on the device."""
        device, config = self.setup.workers.device, self.setup.backbone.input_config
        pixels, targets = [p for p, _ in pictures], [t for _, t in pictures]
        return batch_of(pixels, targets, config["mean"], config["std"], self.divisor, device)


class Training:
    """One detector, trained by one schedule."""

    def __init__(
        self,
        setup: Context[DetectionData],
        detector: Detector,
        schedule: Schedule,
        micro_batch: int | None,
    ) -> None:
        """``micro_batch``: the most images that a process takes at once."""
        self.setup, self.schedule = setup, schedule
        self.batches = TrainBatches(setup, schedule, detector.divisor)
        self.share = math.ceil(schedule.batch_size / setup.workers.count)
        self.micro_batch = min(self.share, micro_batch or self.share)
        self._layout = (
            torch.channels_last if setup.precision.channels_last else torch.contiguous_format
        )
        detector.bf16 = setup.precision.dtype == "bf16"
        detector.sample(schedule.rois)
        detector.train()
        # Parameters keep their values: only the order in memory changes.
        self.net: Detector = detector.to(setup.workers.device).to(memory_format=self._layout)
        self.optimiser = torch.optim.SGD(
            [p for p in detector.parameters() if p.requires_grad],
            schedule.lr, momentum=schedule.momentum, weight_decay=schedule.weight_decay,
        )  # fmt: skip
        self.where = Progress()
        self._unread: list[Tensor] = []  # losses that are still on the device
        self._saved_at, self._saving = time.perf_counter(), 0.0
        self._kept = 0  # iteration of the state on disk

    def resume(self, file: Path) -> None:
        """Go on from the saved state, if there is one. Called on every process."""
        found = read_training(file, self.net, self.optimiser)
        if found is not None:
            self.where = Progress(**found)
            self._kept = self.where.iteration

    def run(self, file: Path) -> None:
        """Train to the end, now and then saving the state.

        Ctrl-C and SIGTERM act after the step, with the state saved where one process trains.
        Raises OutOfMemory on all processes; UserError where the loss is not a finite number, with
        the last good state on disk."""
        with noted_signals() as heard:
            self._run(file, heard)

    def _run(self, file: Path, heard: list[int]) -> None:
        where, schedule, workers = self.where, self.schedule, self.setup.workers
        bar = tqdm(
            total=schedule.iterations, initial=where.iteration, unit="it", leave=False,
            desc=f"detection {self.setup.task.name}",
            disable=None if workers.main else True,  # None: off when stderr is no terminal
        )  # fmt: skip
        stream = self.batches.since(where.iteration)
        started, seen = time.perf_counter(), 0
        try:
            with bar:
                while where.iteration < schedule.iterations:
                    begin = time.perf_counter()
                    error, pictures = None, None
                    try:
                        pictures = next(stream)
                    except Exception as raised:  # an image that cannot be read: all are told
                        error = raised
                    due = self.step(pictures or [], error)
                    where.iteration += 1
                    where.images += schedule.batch_size
                    seen += schedule.batch_size
                    where.seconds += time.perf_counter() - begin
                    bar.update()
                    if where.iteration % READ_EVERY == 0:
                        speed = seen / (time.perf_counter() - started)
                        bar.set_postfix_str(f"{self._told()}, {speed:.1f} img/s")
                    stopped = bool(heard) and workers.count == 1
                    if (due or stopped) and where.iteration < schedule.iterations:
                        self.save(file)
                    if heard:
                        signal.raise_signal(heard[0])
                self._read_losses(where.iteration)
        finally:
            stream.close()  # its threads end here
        average_statistics(workers, self.net)

    def step(self, pictures: list[tuple[Tensor, Target]], error: Exception | None = None) -> bool:
        """One step of the optimiser; whether a state should be saved now."""
        passed = time.perf_counter() - self._saved_at
        due = passed >= max(SAVE_SECONDS, SAVE_SHARE * self._saving)
        losses = torch.zeros(len(LOSSES), device=self.setup.workers.device)
        if error is None:
            try:
                self.gradients(pictures, losses)
            except Exception as raised:
                error = raised
        due = agree(self.setup.workers, self.optimiser, error, losses, due)
        self._unread.append(losses)
        if losses.device.type == "cpu" or len(self._unread) >= READ_EVERY:
            self._read_losses(self.where.iteration + 1)
        add_up_gradients(self.setup.workers, self.net)
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate(self.where.iteration)
        self.optimiser.step()
        return due

    def gradients(self, pictures: list[tuple[Tensor, Target]], losses: Tensor) -> None:
        """Leave this process's part of the batch's mean gradient in the parameters and add its
        part of the losses to ``losses``."""
        workers = self.setup.workers
        torch.manual_seed(draw_seed(self.setup.seed, self.where.iteration, workers.rank))
        self.optimiser.zero_grad(set_to_none=True)
        for at in range(0, len(pictures), self.micro_batch):
            part = pictures[at : at + self.micro_batch]
            found = self.net(self._batch(part))
            each = torch.stack([found[name] for name in LOSSES])
            each = each * (len(part) / self.schedule.batch_size)
            each.sum().backward()
            losses += each.detach()

    def _batch(self, pictures: list[tuple[Tensor, Target]]) -> Batch:
        batch = self.batches.collated(pictures)
        batch.images = batch.images.contiguous(memory_format=self._layout)
        return batch

    def _read_losses(self, done: int) -> None:
        """Wait for the losses of the last of ``done`` steps. Raises UserError where one is not
        finite."""
        where = self.where
        for each in torch.stack(self._unread).tolist() if self._unread else []:
            if not all(map(math.isfinite, each)):
                raise BadInput(self._diverged())
            where.sums = [a + b for a, b in zip(where.sums, each, strict=True)]
            where.steps += 1
        self._unread = []
        if where.steps >= max(1, self.schedule.iterations // POINTS):
            where.curve.append([done, *(round(v / where.steps, 5) for v in where.sums)])
            where.sums, where.steps = [0.0] * len(LOSSES), 0

    def _diverged(self) -> str:
        kept = (
            f"the last good state, of iteration {self._kept}, is kept" if self._kept
            else "no state was saved yet"
        )  # fmt: skip
        return (
            f"task {self.setup.task.name!r}: the loss of {self.setup.backbone.resolved.id} is not "
            f"a finite number any more at iteration {self.where.iteration} (lr "
            f"{self.schedule.lr:g}; {kept}); give a smaller rate with --set detection.lr="
            f"{self.schedule.lr / 4:g}"
        )

    def _told(self) -> str:
        where = self.where
        if not where.steps:
            return ""
        names = ("objectness", "rpn box", "class", "box")
        parts = [f"{n} {v / where.steps:.2f}" for n, v in zip(names, where.sums, strict=True)]
        return f"loss {sum(where.sums) / where.steps:.2f} ({', '.join(parts)})"

    def save(self, file: Path) -> None:
        """On all processes; the main one writes. Raises UserError where the disk is full."""
        self._read_losses(self.where.iteration)
        average_statistics(self.setup.workers, self.net)
        start = time.perf_counter()

        def write() -> None:
            try:
                write_training(file, asdict(self.where), self.net, self.optimiser)
            except OSError as error:
                raise UserError(
                    f"the state of the training cannot be kept in {file} ({error.strerror}); make "
                    "room or set TRANSFERZOO_CACHE to a folder with more space, and start again: "
                    "it goes on where it was"
                ) from None

        workers = self.setup.workers
        workers.together(write if workers.main else lambda: None)
        self._saved_at = time.perf_counter()
        self._saving = self._saved_at - start
        self._kept = self.where.iteration

    @torch.no_grad()
    def settle_statistics(self, count: int) -> int:
        """BatchNorm's running statistics as the mean over that many further batches ("precise BN",
        as detectron2 and the MoCo recipe do); how many were seen. Raises OutOfMemory on all
        processes."""
        norms = [
            m for m in self.net.modules()
            if isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.training
            and m.track_running_stats
        ]  # fmt: skip
        if not norms or not count:
            return 0
        momenta = [m.momentum for m in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative mean
        stream = self.batches.since(self.schedule.iterations)
        torch.manual_seed(draw_seed(self.setup.seed, self.schedule.iterations))
        error = None
        try:
            for pictures in islice(stream, count):
                for at in range(0, len(pictures), self.micro_batch):
                    self.net(self._batch(pictures[at : at + self.micro_batch]))
        except Exception as raised:  # as in training, all are told
            error = raised
        finally:
            stream.close()  # its threads end here
        none = torch.zeros(1, device=self.setup.workers.device)
        agree(self.setup.workers, self.optimiser, error, none, False)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        average_statistics(self.setup.workers, self.net)
        return count


def told(curve: list[list[float]]) -> list[dict[str, Any]]:
    """A loss curve in words."""
    return [
        {"iteration": int(point[0]), **dict(zip(LOSSES, point[1:], strict=True))} for point in curve
    ]

"""A whole network in training on one process or many: steps, epochs, answers.

Each process computes the gradients of its share of a batch, in micro-batches where memory is
short; they are then added up, so a step is that of the whole batch on any number of processes.
What does depend on both is BatchNorm: it sees a micro-batch of one process. Its running statistics
are averaged over processes after each epoch. Dropout, where a backbone has any, is drawn for
(seed, epoch, step, process).

Gradients are reduced here and not by DistributedDataParallel: shares may differ in size, and a
process that runs out of memory can say so before the others wait for its gradients.
"""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from eval.common.interrupts import noted_signals
from eval.data.task_data import TaskData
from eval.features.encode import normalised
from eval.finetune.stages import frozen
from eval.models.backbone import Backbone
from eval.training.checkpoint import Progress, State
from eval.training.context import Context
from eval.training.images import EvalImages, TrainImages, batches_of, draw_seed, share_of
from eval.training.setup import Point, rate
from eval.training.step import add_up_gradients, agree, average_statistics
from eval.training.windows import Windows

SAVE_SECONDS = 20.0  # of training between two states on disk
SAVE_SHARE = 20  # and that many times what a save takes
READ_EVERY = 10  # steps between two looks at the loss, where a look waits for an accelerator


class Diverged(Exception):
    """The loss, or an answer, is not a finite number."""


class Classifier(nn.Module):
    """Backbone, BatchNorm with affine, linear layer: images [B, 3, H, W] -> logits [B, C]."""

    def __init__(self, backbone: Backbone, classes: int, seed: int, last: int = 0) -> None:
        """A copy of the backbone, which is shared with other protocols, under a new head. All
        parameters are to train, or those from the ``last`` stages on."""
        super().__init__()
        self.backbone = copy.deepcopy(backbone.net)
        self.norm = nn.BatchNorm1d(backbone.dim)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.linear = nn.Linear(backbone.dim, classes)
        inner = self.backbone.net
        assert isinstance(inner, nn.Module)
        self.frozen = frozen(inner, last)
        self.requires_grad_(True)
        for parameter in self.frozen.parameters:
            parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> Classifier:
        """What is frozen is never in train mode: BatchNorm's statistics stay, nothing drops."""
        super().train(mode)
        for module in self.frozen.modules:
            module.eval()
        return self

    def statistics(self) -> nn.Module:
        """The modules with running statistics that move, while the network is in train mode."""
        return nn.ModuleList(m for m in self.modules() if m.training and hasattr(m, "running_mean"))

    def forward(self, images: Tensor, half: bool = False) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            features = self.backbone(images)
        return self.linear(self.norm(features.float()))


class Training:
    """One network, trained on some rows of train at one point of the grid."""

    def __init__(
        self,
        setup: Context[TaskData],
        images: TrainImages,
        point: Point,
        rows: NDArray[np.int64],
        epochs: int,
        momentum: float,
        micro_batch: int | None = None,
        last: int = 0,
    ) -> None:
        """``epochs`` are those of the schedule; ``micro_batch`` the most images that a process
        takes at once; ``last`` the stages that train, 0 for all."""
        self.setup, self.images, self.point = setup, images, point
        self.rows, self.epochs = rows, epochs
        workers = setup.workers
        self.share = math.ceil(min(point.batch_size, len(rows)) / workers.count)
        self.micro_batch = min(self.share, micro_batch or self.share)
        self._half = setup.precision.dtype == "bf16"
        self._layout = (
            torch.channels_last if setup.precision.channels_last else torch.contiguous_format
        )
        net = Classifier(setup.backbone, len(setup.task.classes), setup.seed, last).train()
        # Parameters keep their values: only the order in memory changes.
        self.net: Classifier = net.to(workers.device).to(memory_format=self._layout)
        free = [p for p in self.net.parameters() if p.requires_grad]
        self.optimiser = torch.optim.SGD(
            free, point.lr, momentum=momentum, weight_decay=point.weight_decay
        )
        self.where = Progress()
        self._unread: list[Tensor] = []  # losses that are still on the device
        self._saved = time.perf_counter()
        self._saving = 0.0  # seconds that the last save took

    # ---- training

    def resume(self, state: State, name: str, bar: tqdm[Any]) -> None:
        """Go on from the saved state of that name, if there is one."""
        self.where = state.load(name, self.net, self.optimiser)
        if not bar.disable:  # done before, so no part of today's images a second
            bar.initial += self.where.images
            bar.n += self.where.images
            bar.last_print_n += self.where.images

    def run(self, until: int, state: State, name: str, bar: tqdm[Any]) -> None:
        """Train up to epoch ``until``, now and then saving the state under that name.

        Ctrl-C and SIGTERM act after the step, with the state saved where one process trains.
        Raises Diverged or OutOfMemory, on all processes.
        """
        with noted_signals() as heard:
            self._run(until, state, name, bar, heard)

    def _run(self, until: int, state: State, name: str, bar: tqdm[Any], heard: list[int]) -> None:
        count = self.setup.workers.count
        slices = batches_of(len(self.rows), self.point.batch_size, count)
        trained = sum(s.stop - s.start for s in slices)
        mine = [share_of(s, self.setup.workers.rank, count) for s in slices]
        self._saved = time.perf_counter()
        while self.where.epoch < until:
            where = self.where
            for group in self.optimiser.param_groups:
                group["lr"] = rate(self.point, where.epoch, self.epochs)
            begin = time.perf_counter()
            order, crops = self.images.order(self.rows, where.epoch), self.images.crops(where.epoch)
            batches = self.images.batches(order, mine[where.step :], crops)
            for whole, (rows, windows) in zip(slices[where.step :], batches, strict=True):
                size = whole.stop - whole.start
                due = self.step(rows, windows, size)
                where.step += 1
                where.images += size
                now = time.perf_counter()
                where.seconds, begin = where.seconds + now - begin, now
                bar.update(size)
                if due or (heard and count == 1):
                    self.save(state, name)
                if heard:
                    signal.raise_signal(heard[0])
            self._read_losses()
            average_statistics(self.setup.workers, self.net.statistics())
            where.epoch, where.step = where.epoch + 1, 0
            where.last, where.loss = where.loss / max(trained, 1), 0.0
            bar.set_postfix_str(f"epoch {where.epoch}/{self.epochs}, loss {where.last:.3f}")

    def step(self, rows: NDArray[np.int64], windows: Windows, size: int) -> bool:
        """One step of the optimiser on a batch of ``size``, of which this process has ``rows``;
        whether a state should be saved now."""
        due = time.perf_counter() - self._saved >= max(SAVE_SECONDS, SAVE_SHARE * self._saving)
        error: Exception | None = None
        loss = torch.zeros((), device=self.setup.workers.device)
        try:
            self.gradients(rows, windows, size, loss)
        except Exception as raised:
            error = raised
        due = agree(self.setup.workers, self.optimiser, error, loss, due)
        add_up_gradients(self.setup.workers, self.net)
        self.optimiser.step()
        self._unread.append(loss)
        if loss.device.type == "cpu" or len(self._unread) >= READ_EVERY:
            self._read_losses()
        return due

    def gradients(self, rows: NDArray[np.int64], windows: Windows, size: int, loss: Tensor) -> None:
        """Leave this process's part of the batch's mean gradient in the parameters and add its
        part of the summed loss to ``loss``."""
        workers, where = self.setup.workers, self.where
        torch.manual_seed(draw_seed(self.setup.seed, where.epoch, where.step, workers.rank))
        self.optimiser.zero_grad(set_to_none=True)
        images, labels = self.images.views(rows, windows)
        for x, y in self.micro_batches(images, labels):
            logits = self.net(x.contiguous(memory_format=self._layout), self._half)
            part = F.cross_entropy(logits, y, reduction="sum")
            (part / size).backward()
            loss += part.detach()

    def micro_batches(self, images: Tensor, labels: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        """Equal parts of at most ``micro_batch`` images; none of a single one, even if that takes
        one more at once."""
        n = len(labels)
        pieces = max(1, min(math.ceil(n / self.micro_batch), n // 2))
        return list(zip(images.tensor_split(pieces), labels.tensor_split(pieces), strict=True))

    def _read_losses(self) -> None:
        """Wait for the losses of the last steps. Raises Diverged."""
        if self._unread:
            self.where.loss += math.fsum(torch.stack(self._unread).tolist())
            self._unread = []
        if not math.isfinite(self.where.loss):
            raise Diverged

    def save(self, state: State, name: str) -> None:
        self._read_losses()
        average_statistics(self.setup.workers, self.net.statistics())
        start = time.perf_counter()
        state.save(name, self.where, self.net, self.optimiser)
        self._saved = time.perf_counter()
        self._saving = self._saved - start

    # ---- answers

    def logits(self, images: EvalImages) -> NDArray[np.float32]:
        """[N, C] for all images, on every process. Raises Diverged where one is not finite."""
        workers = self.setup.workers
        out = workers.together(lambda: self._own_logits(images))
        if workers.count > 1:  # each process has filled in its own rows
            shared = out.to(workers.device)
            torch.distributed.all_reduce(shared)
            out = shared.cpu()
        if not bool(out.isfinite().all()):
            raise Diverged
        return out.numpy()

    @torch.no_grad()
    def _own_logits(self, images: EvalImages) -> Tensor:
        device = self.setup.workers.device
        out = torch.zeros(images.count, len(self.setup.task.classes))
        self.net.eval()
        for places, pixels in images:
            x = normalised(pixels, self.setup.backbone, str(device))
            answer = self.net(x.contiguous(memory_format=self._layout), self._half)
            out[torch.from_numpy(places)] = answer.float().cpu()
        self.net.train()
        return out

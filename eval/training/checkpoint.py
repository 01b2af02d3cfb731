"""What a fine-tuning leaves on disk, so that a killed run loses seconds and no answer changes.

A folder of the cache, named by a hash of everything its numbers depend on, holds ``points.json``
(what is known of each point of the grid; a few hundred bytes, kept), ``answer.npy`` (logits of the
test images, kept until the whole score is there) and, for trainings under way, one safetensors
file each with the weights, the momentum and where it stood.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from eval.common import files
from eval.common.distributed import Workers
from eval.common.errors import UserError, one_line
from eval.common.files import atomic_file, write_json
from eval.data.task_data import TaskData
from eval.training.context import Context

VERSION = 1  # raise it when the training changes


@dataclass
class Record:
    """What is known of one point of the grid."""

    top1: dict[str, float] = field(default_factory=dict)  # by epochs trained, on the held-out part
    diverged: bool = False
    halved: bool = False  # stopped early, as one of the worse half
    diverged_finally: bool = False  # in the training on all rows
    images: int = 0
    seconds: float = 0.0


@dataclass
class StoredTraining:
    """What is known of a whole fine-tuning."""

    points: list[Record]
    micro_batch: int | None = None  # images a process takes at once, after memory ran out
    answered: int | None = None  # the point whose retrained network answered
    loss: float = 0.0  # of its last epoch
    images: int = 0
    seconds: float = 0.0


@dataclass
class Progress:
    """Where a training stands."""

    epoch: int = 0
    step: int = 0  # steps done of that epoch
    loss: float = 0.0  # sum over the images of the epoch so far
    last: float = 0.0  # mean loss of the epoch before
    images: int = 0  # trained on in all
    seconds: float = 0.0


def key(setup: Context[TaskData], settings: Any, rows: NDArray[np.int64]) -> str:
    """A digest of everything that the answer depends on.

    What only says which parts of train are scored is left out: the rows are there themselves.
    """
    asked = dataclasses.asdict(settings)
    for name in ("fractions", "per_class", "subsets"):
        asked.pop(name, None)
    if not asked.get("last"):  # as before there was that setting
        asked.pop("last", None)
    if asked.get("crops_from") == "reduced":  # the same
        asked.pop("crops_from")
    model = setup.backbone.resolved
    facts = {
        "version": VERSION,
        "weights": setup.backbone.weights_sha256,
        "model": [model.kind, model.name, model.revision, model.img_size],
        "input": setup.backbone.input_config,
        "split": setup.task.split_hash,
        "rows": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest(),
        "settings": asked,
        "seed": setup.seed,
        "precision": str(setup.precision),
        "device": setup.workers.device.type,
        "processes": setup.workers.count,
        "torch": torch.__version__,
        "timm": version("timm"),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


@contextlib.contextmanager
def locked(cache: Path, digest: str, workers: Workers) -> Iterator[None]:
    """The main process holds the lock for all: a second run waits, then finds the answer."""
    if not workers.main:
        yield
        return
    path = cache / "locks" / f"finetune-{digest}.lock"
    with files.locked(path):
        yield


class State:
    """The files of one fine-tuning. The main process writes; all read."""

    def __init__(self, cache: Path, digest: str, points: int, workers: Workers) -> None:
        self.folder = cache / "finetune" / digest
        self._workers = workers
        self.known = workers.broadcast(self._read(points) if workers.main else StoredTraining([]))

    def _read(self, points: int) -> StoredTraining:
        """What an earlier run found; nothing where its file is missing or damaged."""
        try:
            held = json.loads((self.folder / "points.json").read_bytes())
            records = [Record(**r) for r in held.pop("points")]
            if len(records) == points:
                return StoredTraining(records, **held)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            pass
        return StoredTraining([Record() for _ in range(points)])

    def write(self) -> None:
        self._main(lambda: write_json(self.folder / "points.json", asdict(self.known)))

    def save(self, name: str, where: Progress, net: nn.Module, optimiser: Any) -> None:
        """Write a training's state. Raises UserError, on all processes, where the disk is full."""
        self._main(lambda: self._save(name, where, net, optimiser))

    def _save(self, name: str, where: Progress, net: nn.Module, optimiser: Any) -> None:
        write_training(self._file(name), asdict(where), net, optimiser)

    def load(self, name: str, net: nn.Module, optimiser: Any) -> Progress:
        """Go on where a saved training stood; from the start if there is none that can be read."""
        where = read_training(self._file(name), net, optimiser)
        return Progress(**where) if where is not None else Progress()

    def drop(self, name: str) -> None:
        self._main(lambda: self._file(name).unlink(missing_ok=True))

    def answer(self) -> NDArray[np.float32] | None:
        """The logits [N, C] that an earlier run came to; None where there are none."""
        if self.known.answered is None:
            return None
        try:
            return np.load(self.folder / "answer.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None

    def write_answer(self, logits: NDArray[np.float32]) -> None:
        """Keep the answer, and of the trainings nothing."""

        def work() -> None:
            with atomic_file(self.folder / "answer.npy") as file:
                np.save(file, logits)
            write_json(self.folder / "points.json", asdict(self.known))
            for left in [*self.folder.glob("*.safetensors"), *self.folder.glob(".*.tmp")]:
                left.unlink(missing_ok=True)

        self._main(work)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _main(self, work: Any) -> None:
        """Run on the main process; all wait, and fail if it does."""

        def guarded() -> None:
            try:
                work()
            except OSError as error:
                raise UserError(
                    f"the state of the training cannot be kept in {self.folder} "
                    f"({error.strerror or one_line(error)}); make room or set TRANSFERZOO_CACHE to "
                    "a folder with more space, and start again: it goes on where it was"
                ) from None

        self._workers.together(lambda: guarded() if self._workers.main else None)


def write_training(
    file: Path, where: dict[str, Any], net: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Weights, momentum and where a training stands (plain data), whole or not at all."""
    tensors = {f"net.{k}": v for k, v in net.state_dict().items()}
    for index, slots in optimiser.state_dict()["state"].items():
        if slots.get("momentum_buffer") is not None:  # there is none before the first step
            tensors[f"momentum.{index}"] = slots["momentum_buffer"]
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with atomic_file(file) as out:
        out.write(save(tensors, {"where": json.dumps(where)}))


def read_training(
    file: Path, net: nn.Module, optimiser: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Put back what ``write_training`` wrote; None where there is nothing that can be read."""
    weights: dict[str, Tensor] = {}
    slots: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(file, "pt") as held:
            where = dict(json.loads(held.metadata()["where"]))
            for label in list(held.keys()):
                owner, _, rest = label.partition(".")
                if owner == "net":
                    weights[rest] = held.get_tensor(label)
                else:
                    slots[int(rest)] = {"momentum_buffer": held.get_tensor(label)}
    except (SafetensorError, OSError, KeyError, ValueError, TypeError):
        return None
    net.load_state_dict(weights)
    optimiser.load_state_dict({**optimiser.state_dict(), "state": slots})
    return where


def forget_answer(cache: Path, digest: str) -> None:
    """Of a finished fine-tuning keep what is known of its points, and no large file."""
    (cache / "finetune" / digest / "answer.npy").unlink(missing_ok=True)

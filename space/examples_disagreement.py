"""Test images that exactly one of two models gets right, with what both say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.common.errors import BadInput, UserError, one_line
from eval.common.images import decode
from eval.data.load import load_task
from eval.data.locations import Data
from eval.data.task_data import TaskData
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.protocols import PROTOCOLS, protocol_named
from eval.tasks.registry import TASKS
from eval.training.context import Context

MOST_PIXELS = 1024  # a side of the input: a name must not fill the memory


@dataclass(frozen=True, eq=False)
class Case:
    """``row`` counts test images in canonical order. Class names are foreign text, not escaped."""

    row: int
    image: Image.Image
    truth: str
    predicted_a: str
    predicted_b: str
    a_right: bool


@dataclass(frozen=True, eq=False)
class Disagreement:
    """All test images of a data set counted by who is right, and some of those of one alone."""

    protocol: str  # whose answers these are
    a_alone: int
    b_alone: int
    both: int
    neither: int
    cases: tuple[Case, ...]

    @property
    def images(self) -> int:
        return self.a_alone + self.b_alone + self.both + self.neither


def disagreements(
    model_a: str,
    model_b: str,
    task: str,
    data: Data | None,
    cache: Path,
    protocol: str = "linear",
    most: int = 12,
    *,
    precision: str | None = None,
    seed: int = 0,
) -> Disagreement:
    """How often each model alone is right, with at most ``most`` such test images, those of a
    first: half of each kind, where there are as many. The same call gives the same images.

    A model is named as for ``transfer-eval run``, or with its input size as on the board
    (``NAME @64px``). Raises UserError where the data are not at hand, a model does not load, or the
    protocol does not answer image by image.
    """
    if protocol_named(protocol).name == "fewshot":
        raise BadInput(
            "protocol 'fewshot' asks about an image in many episodes, so it has no one answer; "
            "choose linear or knn"
        )
    if PROTOCOLS[protocol].trains:
        raise BadInput(
            f"protocol {protocol!r} trains on the images, which takes longer than a visitor waits; "
            "choose linear or knn"
        )
    if data is None and task in TASKS and not TASKS[task].embedded:
        raise BadInput(f"task {task!r} needs --data DIR: a visitor's click downloads nothing")
    found = load_task(task, cache, data, None, seed)
    answers = [
        predictions(name, found, cache, protocol, precision, seed) for name in (model_a, model_b)
    ]
    truth = found.test.labels
    a, b = (answer == truth for answer in answers)
    chosen = choose(a, b, most)
    order = np.sort(found.test.rows[chosen])
    images = dict(found.test.source.images(order))
    cases = [
        Case(
            int(row), _picture(found, int(row), images), found.classes[truth[row]],
            found.classes[answers[0][row]], found.classes[answers[1][row]], bool(a[row]),
        )
        for row in chosen
    ]  # fmt: skip
    alone, other, both, neither = (int(n.sum()) for n in (a & ~b, b & ~a, a & b, ~a & ~b))
    return Disagreement(protocol, alone, other, both, neither, tuple(cases))


def choose(a: NDArray[np.bool_], b: NDArray[np.bool_], most: int) -> NDArray[np.int64]:
    """Rows where exactly one of two [N] is true: a's first, half of ``most`` each, more where the
    other has too few. Canonical order is by hash, so the first rows are as good as drawn."""
    mine, theirs = np.flatnonzero(a & ~b), np.flatnonzero(b & ~a)
    for_a = min(len(mine), max((most + 1) // 2, most - len(theirs)))
    return np.concatenate([mine[:for_a], theirs[: max(most - for_a, 0)]])


def predictions(
    model: str, task: TaskData, cache: Path, protocol: str, precision: str | None, seed: int
) -> NDArray[np.int64]:
    """[N_test] classes the protocol's main score is about; features come from the cache."""
    from eval.common.distributed import Workers
    from eval.features.encode import encode
    from eval.features.precision import Precision

    sized = re.fullmatch(r"(.+) @([1-9]\d{0,8})px", model)
    name, size = (sized[1], int(sized[2])) if sized else (model, None)
    if size and size > MOST_PIXELS:
        raise BadInput(f"model {model!r} asks for {size} px; at most {MOST_PIXELS} are tried here")
    try:
        wanted = Precision.parse(precision) if precision else None
    except ValueError as why:
        raise BadInput(str(why)) from None
    try:
        backbone = load(resolve(name, cache, size))
        workers = Workers()
        bank = encode(backbone, task, cache, workers, wanted).bank
    except UserError:
        raise
    except Exception as error:  # whatever a stranger's weights make of a network
        raise BadInput(f"model {model!r} does not run: {one_line(error)}") from None
    used = Precision.parse(bank.precision)
    context = Context(backbone, task, bank, workers, used, cache, seed)
    outcome = PROTOCOLS[protocol].load()(context, PROTOCOLS[protocol].settings())
    if outcome.predictions is None:
        raise BadInput(f"protocol {protocol!r} gives no answer for each image")
    return outcome.predictions


def _picture(task: TaskData, row: int, images: dict[int, bytes]) -> Image.Image:
    source = int(task.test.rows[row])
    try:
        return decode(images[source])
    except Exception as error:
        raise BadInput(
            f"task {task.name!r}: {task.test.source.describe(source)} cannot be read as an image: "
            f"{one_line(error, 120)}"
        ) from None

"""What a ``locate`` hands to ``load``: where a task's images lie, by which rule they are split, and
what they are held against.

No image has been read when a ``Located`` is made; ``eval.data.load`` alone reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eval.common.images import Range
from eval.data.boxes.assemble import BoxParts
from eval.data.instances.assemble import InstanceParts
from eval.data.inventory.facts import NOTHING, Inventory
from eval.data.labels.assemble import LabelParts
from eval.data.masks.assemble import MaskParts
from eval.data.sources import Source
from eval.data.task_data import Split, TaskData
from eval.tasks.declaration import Task

Check = Callable[[TaskData], None]  # raises UserError where the data are not what was promised


class Rule(Protocol):
    """Who of a whole source is in train; ``eval.data.whole_split`` has those there are."""

    def in_train(self, whole: Split) -> NDArray[np.bool_]:
        """[N] True for train, by the canonical rows of ``whole``. Raises UserError."""


@dataclass(frozen=True)
class Parts:
    """Train and test lie apart, and are taken as they lie."""

    train: Source
    test: Source
    names: tuple[str, ...] = ()  # of numbered classes, where the sources name none
    validation: tuple[Source, ...] = ()  # joins train; settings are chosen on it


@dataclass(frozen=True)
class Whole:
    """One source that is split by a rule."""

    source: Source
    rule: Rule
    names: tuple[str, ...] = ()  # of the classes, by label, where the source names none
    validation: tuple[bool, ...] = ()  # by row of the source: settings are chosen on it


@dataclass(frozen=True)
class Resplit:
    """Another split of parts that were checked as they lie: both together, by a rule."""

    source: Source  # train's rows, then test's
    rule: Rule
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Located:
    """A task whose data have been found. Fields without a comment are those of ``TaskData``."""

    name: str
    where: str
    revision: str
    subject: str  # the task as error messages call it
    images: Parts | Whole | BoxParts | MaskParts | LabelParts | InstanceParts
    checks: tuple[Check, ...] = ()  # in this order, of the images as they lie
    resplit: Resplit | None = None  # after the checks
    kind: str = ""  # of a user's own data, which are named by kind and content: KIND-name-1a2b3c4d
    classes: tuple[str, ...] = ()  # what the classes are called, where it is not as the source says
    declared: Task | None = None
    describe: Callable[[TaskData], Task] | None = None  # or made of what is found
    notes: tuple[str, ...] = ()  # after those about the boxes
    split: str = ""
    partial: bool = False
    cure: str = ""  # what else to do, where the data turn out to be others than was promised
    inventory: Inventory = NOTHING
    range: Range | None = None  # black and white of images of more than 8 bits, as the user says
    unused: tuple[str, ...] = ()  # parts that could be scored instead
    otherwise: Callable[[], Located | None] | None = None  # where they cannot be taken like this

"""The settings of every protocol, as frozen dataclasses: what a result's name is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["classification", "detection"]


@dataclass(frozen=True)
class Settings:
    """What can be set of one protocol; each field has the default of the study or of the board."""


@dataclass(frozen=True)
class Fewshot(Settings):
    """Few-shot recognition on frozen features, as the study (paper.md 3.3)."""

    shots: tuple[int, ...] = (1, 5, 20)
    n_way: int = 5
    queries: int = 15
    episodes: int = 600
    c: float = 1.0  # scikit-learn's C of the logistic regression


@dataclass(frozen=True)
class Knn(Settings):
    """Cosine nearest neighbours; k and weighting chosen on a held-out part of train."""

    ks: tuple[int, ...] = (1, 5, 10, 20, 50, 100, 200)
    temperature: float = 0.07  # of the weighted vote, exp(similarity / temperature)
    validation: float = 0.2


@dataclass(frozen=True)
class Linear(Settings):
    """L2-regularised logistic regression on standardised features; C chosen on held-out train."""

    validation: float = 0.2
    fractions: tuple[float, ...] = ()  # parts of train to be scored beside the whole
    per_class: tuple[int, ...] = ()
    subsets: int = 3  # draws of each part


@dataclass(frozen=True)
class Trained(Settings):
    """What the study's trained protocols share: SGD on random crops, a grid tuned on a stratified
    part of train, the best point trained on all of it."""

    lrs: tuple[float, ...] = (0.01, 0.001)
    batch_sizes: tuple[int, ...] = (128, 32)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 1e-5)
    momentum: float = 0.9
    tune_epochs: int = 20
    epochs: int = 50
    validation: float = 0.3
    scale: tuple[float, float] = (0.2, 1.0)  # of the area, of a random crop
    fractions: tuple[float, ...] = ()
    per_class: tuple[int, ...] = ()
    subsets: int = 3


@dataclass(frozen=True)
class LinearSgd(Trained):
    """The study's linear evaluation (paper.md 3.1): frozen backbone, BatchNorm without affine and a
    linear layer."""

    views: int = 0  # augmented views an image, cached; 0: a new one each epoch


@dataclass(frozen=True)
class Finetune(Trained):
    """The study's full-network transfer (paper.md 3.2): everything trains, BatchNorm in train mode,
    the head is BatchNorm (affine) and a linear layer."""

    halving: bool = False  # stop the worse half of the grid early, twice
    last: int = 0  # stages that train, counted from the end; 0: all


@dataclass(frozen=True)
class Detection(Settings):
    """Faster R-CNN on the backbone (paper.md 3.5: the study's own recipe is not known; the
    MoCo recipe stands in). What is 0 or empty is that of the schedule."""

    schedule: str = ""  # voc-24k, coco-1x, coco-2x, short:N; empty: the task's
    neck: str = "fpn"  # or c4: the last stage as the head of each box, as in the MoCo recipe
    norm: str = "batch"  # the backbone's BatchNorm is trained, synchronised; or frozen
    precise_bn: int = 200  # batches that set BatchNorm's statistics anew before the test
    channels: int = 0  # of the pyramid
    head: int = 0  # width of the pyramid's box head
    iterations: int = 0
    batch_size: int = 0
    lr: float = 0.0
    sides: tuple[int, ...] = ()  # short sides in training, one drawn an image
    test_side: int = 0
    max_side: int = 0

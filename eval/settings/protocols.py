"""The settings of every protocol, as frozen dataclasses: what a result's name is made of.

The bounds of a setting stand at its field (`eval.settings.bounds`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from eval.common.errors import BadInput
from eval.settings.bounds import AnyText, Between, Check, MayBeEmpty, OneOf
from eval.settings.schedules import schedule_named

Kind = Literal["classification", "detection", "segmentation", "multilabel", "instances"]

# Parts of train have flags of their own, which errors name.
SHARES = Between(0, 1, above=True, flag="--train-fraction")
EACH = Between(1, float("inf"), flag="--train-per-class")


def _smaller_first(scale: tuple[float, ...]) -> None:
    if len(scale) != 2 or scale[0] > scale[1]:
        raise BadInput("scale takes two values, the smaller first")


@dataclass(frozen=True)
class Settings:
    """What can be set of one protocol; each field has the default of the study or of the board."""


@dataclass(frozen=True)
class Fewshot(Settings):
    """Few-shot recognition on frozen features, as the study (paper.md 3.3)."""

    shots: Annotated[tuple[int, ...], Between(1, 10_000)] = (1, 5, 20)
    n_way: Annotated[int, Between(2, 10_000)] = 5
    queries: Annotated[int, Between(1, 10_000)] = 15
    episodes: Annotated[int, Between(2, 10_000_000)] = 600
    c: Annotated[float, Between(1e-12, 1e12)] = 1.0  # scikit-learn's C of the logistic regression


@dataclass(frozen=True)
class Knn(Settings):
    """Cosine nearest neighbours; k and weighting chosen on a held-out part of train."""

    ks: Annotated[tuple[int, ...], Between(1, 1_000_000)] = (1, 5, 10, 20, 50, 100, 200)
    # of the weighted vote, exp(similarity / temperature)
    temperature: Annotated[float, Between(1e-6, 1e6)] = 0.07
    validation: Annotated[float, Between(0.01, 0.99)] = 0.2


@dataclass(frozen=True)
class Linear(Settings):
    """L2-regularised logistic regression on standardised features; C chosen on held-out train."""

    validation: Annotated[float, Between(0.01, 0.99)] = 0.2
    # parts of train to be scored beside the whole
    fractions: Annotated[tuple[float, ...], SHARES, MayBeEmpty()] = ()
    per_class: Annotated[tuple[int, ...], EACH, MayBeEmpty()] = ()
    subsets: Annotated[int, Between(1, 1000)] = 3  # draws of each part


@dataclass(frozen=True)
class Attentive(Settings):
    """One query that attends over a layer's tokens, and a linear layer, by AdamW; rate and weight
    decay chosen on held-out train."""

    lrs: Annotated[tuple[float, ...], Between(1e-12, 1e6)] = (1e-4, 3e-4, 1e-3, 3e-3)
    weight_decays: Annotated[tuple[float, ...], Between(0, 1e6)] = (0.01, 0.1)
    batch_size: Annotated[int, Between(1, 1_000_000)] = 64
    epochs: Annotated[int, Between(1, 100_000)] = 20
    heads: Annotated[int, Between(1, 1024)] = 12  # at most: the most that divide the width
    validation: Annotated[float, Between(0.01, 0.99)] = 0.2
    fractions: Annotated[tuple[float, ...], SHARES, MayBeEmpty()] = ()
    per_class: Annotated[tuple[int, ...], EACH, MayBeEmpty()] = ()
    subsets: Annotated[int, Between(1, 1000)] = 3


@dataclass(frozen=True)
class Trained(Settings):
    """What the study's trained protocols share: SGD on random crops, a grid tuned on a stratified
    part of train, the best point trained on all of it."""

    lrs: Annotated[tuple[float, ...], Between(1e-12, 1e6)] = (0.01, 0.001)
    batch_sizes: Annotated[tuple[int, ...], Between(2, 1_000_000)] = (128, 32)
    weight_decays: Annotated[tuple[float, ...], Between(0, 1e6)] = (0.0, 1e-4, 1e-5)
    momentum: Annotated[float, Between(0, 0.9999)] = 0.9
    tune_epochs: Annotated[int, Between(1, 100_000)] = 20
    epochs: Annotated[int, Between(1, 100_000)] = 50
    validation: Annotated[float, Between(0.01, 0.99)] = 0.3
    # of the area, of a random crop
    scale: Annotated[tuple[float, float], Between(1e-3, 1), Check(_smaller_first)] = (0.2, 1.0)
    # reduced: crops of squares of 1.15 times the model's side, which take less disk but blur
    crops_from: Annotated[str, OneOf(("originals", "reduced"))] = "originals"
    fractions: Annotated[tuple[float, ...], SHARES, MayBeEmpty()] = ()
    per_class: Annotated[tuple[int, ...], EACH, MayBeEmpty()] = ()
    subsets: Annotated[int, Between(1, 1000)] = 3


@dataclass(frozen=True)
class LinearSgd(Trained):
    """The study's linear evaluation (paper.md 3.1): frozen backbone, BatchNorm without affine and a
    linear layer."""

    # augmented views an image, cached; 0: a new one each epoch
    views: Annotated[int, Between(0, 100_000)] = 0


@dataclass(frozen=True)
class Finetune(Trained):
    """The study's full-network transfer (paper.md 3.2): everything trains, BatchNorm in train mode,
    the head is BatchNorm (affine) and a linear layer."""

    halving: bool = False  # stop the worse half of the grid early, twice
    last: Annotated[int, Between(0, 1000)] = 0  # stages that train, counted from the end; 0: all


@dataclass(frozen=True)
class Detection(Settings):
    """Faster R-CNN on the backbone (paper.md 3.5: the study's own recipe is not known; the
    MoCo recipe stands in). What is 0 or empty is that of the schedule."""

    # voc-24k, coco-1x, coco-2x, short:N; empty: the task's
    schedule: Annotated[str, Check(schedule_named)] = ""
    # c4: the last stage as the head of each box, as in the MoCo recipe
    neck: Annotated[str, OneOf(("fpn", "c4"))] = "fpn"
    # batch: the backbone's BatchNorm is trained, synchronised
    norm: Annotated[str, OneOf(("batch", "frozen"))] = "batch"
    # batches that set BatchNorm's statistics anew before the test
    precise_bn: Annotated[int, Between(0, 100_000)] = 200
    channels: Annotated[int, Between(0, 4096)] = 0  # of the pyramid
    head: Annotated[int, Between(0, 65_536)] = 0  # width of the pyramid's box head
    iterations: Annotated[int, Between(0, 10_000_000)] = 0
    batch_size: Annotated[int, Between(0, 1_000_000)] = 0
    lr: Annotated[float, Between(0, 1e6)] = 0.0
    # short sides in training, one drawn an image
    sides: Annotated[tuple[int, ...], Between(16, 8192), MayBeEmpty()] = ()
    test_side: Annotated[int, Between(0, 8192)] = 0
    max_side: Annotated[int, Between(0, 16_384)] = 0


@dataclass(frozen=True)
class Segment(Settings):
    """A linear layer on standardised maps of the frozen backbone, its logits enlarged, by AdamW;
    rate and weight decay chosen on held-out train."""

    # whose maps; empty: the last, with earlier ones where its places are wider than 16 pixels
    layers: Annotated[tuple[str, ...], AnyText(), MayBeEmpty()] = ()
    lrs: Annotated[tuple[float, ...], Between(1e-12, 1e6)] = (1e-3, 3e-3, 1e-2, 3e-2)
    weight_decays: Annotated[tuple[float, ...], Between(0, 1e6)] = (0.01, 1.0)
    batch_size: Annotated[int, Between(1, 1_000_000)] = 16
    epochs: Annotated[int, Between(1, 100_000)] = 10
    # of a side, at least, that logits are enlarged to in training; each has four labelled samples
    cells: Annotated[int, Between(1, 1024)] = 56
    validation: Annotated[float, Between(0.01, 0.99)] = 0.2


@dataclass(frozen=True)
class SegmentKnn(Settings):
    """Cosine nearest neighbours among places of the training maps, each with the share of every
    class in it; k and temperature chosen on held-out train."""

    layers: Annotated[tuple[str, ...], AnyText(), MayBeEmpty()] = ()
    ks: Annotated[tuple[int, ...], Between(1, 10_000)] = (1, 10, 30, 100)
    temperatures: Annotated[tuple[float, ...], Between(1e-6, 1e6)] = (0.02, 0.07)
    memory: Annotated[int, Between(1, 100_000_000)] = 10_000  # places of train that are kept
    validation: Annotated[float, Between(0.01, 0.99)] = 0.2


@dataclass(frozen=True)
class Retrieval(Settings):
    """Images of the same class, or of the same instance, found by cosine similarity."""

    ks: Annotated[tuple[int, ...], Between(1, 1_000_000)] = (1, 5, 10)
    # what is ranked: the training images, or the other test images; queries have a gallery
    gallery: Annotated[str, OneOf(("train", "test"))] = "train"


@dataclass(frozen=True)
class Multilabel(Settings):
    """A logistic regression for each label on standardised features, one C for all; C chosen on
    held-out train."""

    cs: Annotated[tuple[float, ...], Between(1e-12, 1e12)] = (
        1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0,
    )  # fmt: skip
    validation: Annotated[float, Between(0.01, 0.99)] = 0.2


@dataclass(frozen=True)
class MultilabelKnn(Settings):
    """Cosine nearest neighbours, each with its labels; k and weighting chosen on held-out train."""

    ks: Annotated[tuple[int, ...], Between(1, 1_000_000)] = (5, 10, 20, 50, 100, 200)
    temperature: Annotated[float, Between(1e-6, 1e6)] = 0.07
    validation: Annotated[float, Between(0.01, 0.99)] = 0.2


@dataclass(frozen=True)
class LowLevel(Settings):
    """Colour, gradient and contrast of each cell of an image by ridge regression on maps; the
    penalty of each target chosen on held-out train."""

    # whose maps; empty: the last
    layers: Annotated[tuple[str, ...], AnyText(), MayBeEmpty()] = ()
    cells: Annotated[int, Between(1, 64)] = 7  # of a side
    penalties: Annotated[tuple[float, ...], Between(1e-12, 1e6)] = (
        1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0,
    )  # fmt: skip
    images: Annotated[int, Between(2, 100_000_000)] = 5000  # of train, at most
    validation: Annotated[float, Between(0.01, 0.99)] = 0.2

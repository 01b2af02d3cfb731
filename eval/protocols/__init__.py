"""The protocols by name: declared facts, importing no torch.

A protocol is a frozen settings class and a function ``score(bank, task, settings, seed)`` that is
imported when it is first needed.
"""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from eval.common.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from eval.protocols.outcome import Outcome


Kind = Literal["classification", "detection"]


@dataclass(frozen=True)
class Fewshot:
    """Few-shot recognition on frozen features, as the study (paper.md 3.3)."""

    shots: tuple[int, ...] = (1, 5, 20)
    n_way: int = 5
    queries: int = 15
    episodes: int = 600
    c: float = 1.0  # scikit-learn's C of the logistic regression


@dataclass(frozen=True)
class Knn:
    """Cosine nearest neighbours; k and weighting chosen on a held-out part of train."""

    ks: tuple[int, ...] = (1, 5, 10, 20, 50, 100, 200)
    temperature: float = 0.07  # of the weighted vote, exp(similarity / temperature)
    validation: float = 0.2


@dataclass(frozen=True)
class Linear:
    """L2-regularised logistic regression on standardised features; C chosen on held-out train."""

    validation: float = 0.2
    fractions: tuple[float, ...] = ()  # parts of train to be scored beside the whole
    per_class: tuple[int, ...] = ()
    subsets: int = 3  # draws of each part


@dataclass(frozen=True)
class Trained:
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
class Detection:
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


Settings = Fewshot | Knn | Linear | LinearSgd | Finetune | Detection


@dataclass(frozen=True)
class Protocol:
    """``main`` are the scores shown on boards, {shot} standing for each shot count."""

    name: str
    settings: type[Any]
    main: tuple[str, ...]
    summary: str
    trains: bool = False  # score(setup, settings), on every process; else score(bank, ...), on one
    default: bool = True  # part of a run that names no protocol
    kind: Kind = "classification"  # of the tasks that it scores
    keeps: bool = False  # setup.keep names the folder for what it trained, where that is asked for

    def load(self) -> Callable[..., Outcome]:
        return importlib.import_module(f"eval.protocols.{self.name.replace('-', '_')}").score


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol(
            "fewshot",
            Fewshot,
            ("top1_{shot}shot",),
            "600 episodes, 5-way, 15 queries, logistic regression on L2-normalised features; "
            "nearest centroid and cosine beside it",
        ),
        Protocol("knn", Knn, ("top1",), "cosine k nearest neighbours, k chosen on part of train"),
        Protocol(
            "linear",
            Linear,
            ("top1",),
            "logistic regression on features, C chosen on part of train",
        ),
        Protocol(
            "linear-sgd",
            LinearSgd,
            ("top1",),
            "the study's linear evaluation: SGD on augmented views, a grid tuned on part of train",
            trains=True,
            default=False,
        ),
        Protocol(
            "finetune",
            Finetune,
            ("top1",),
            "the study's full-network transfer: everything trains, grid tuned on part of train",
            trains=True,
            default=False,
            keeps=True,
        ),
        Protocol(
            "detection",
            Detection,
            ("ap", "ap50", "ap75", "voc07_ap", "voc07_ap50", "voc07_ap75"),
            "Faster R-CNN on the backbone, by the MoCo recipe or a short schedule; AP by COCO's "
            "rules, and by PASCAL VOC's where the set is theirs",
            trains=True,
            kind="detection",
            keeps=True,
        ),
    )
}


def protocol_named(name: str) -> Protocol:
    """Raises UserError with near names for an unknown protocol."""
    if name not in PROTOCOLS:
        known = "protocols are " + ", ".join(PROTOCOLS)
        raise UserError(f"unknown protocol {name!r}" + did_you_mean(name, PROTOCOLS, known))
    return PROTOCOLS[name]


def changed_settings(settings: Settings) -> dict[str, Any]:
    """Settings that differ from the protocol's defaults and so make another board column.

    Shots are left out: each shot count is a score of its own, whatever else was asked for.
    """
    default = type(settings)()
    return {
        f.name: getattr(settings, f.name)
        for f in dataclasses.fields(settings)
        if f.name != "shots" and getattr(settings, f.name) != getattr(default, f.name)
    }

"""The protocols by name: declared facts, importing no torch.

A protocol is a frozen settings class (`eval.settings.protocols`, with the bounds of each setting),
a module of its name here and a row of `PROTOCOLS`; nothing else knows it. The module, imported
when it is first needed, has ``score(context, settings) -> Outcome`` (`eval.training.context`).

What few protocols need are hooks: the row names the function, others go without.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from eval.common.errors import NotFound, did_you_mean
from eval.settings.protocols import (
    Attentive,
    Detection,
    Fewshot,
    Finetune,
    Kind,
    Knn,
    Linear,
    LinearSgd,
    LowLevel,
    Multilabel,
    MultilabelKnn,
    Retrieval,
    Segment,
    SegmentKnn,
    Settings,
)

if TYPE_CHECKING:
    from pathlib import Path

    from eval.data.task_data import TaskData
    from eval.features.maps import MapCost
    from eval.protocols.outcome import Outcome
    from eval.training.context import Context
    from eval.training.speed import Speed


@dataclass(frozen=True)
class Protocol:
    """``main`` are the scores shown on boards, {shot} standing for each shot count.

    ``complete``, ``refuse``, ``merge``, ``cost``, ``stores`` and ``maps`` are hooks, each
    ``module:function`` or empty. The first three are called before a backbone is loaded: their
    modules import no torch.
    """

    name: str
    settings: type[Settings]
    main: tuple[str, ...]
    summary: str
    trains: bool = False  # its score is called on every process, else on the main one alone
    default: bool = True  # part of a run that names no protocol
    kind: Kind = "classification"  # of the tasks that it scores
    also: tuple[Kind, ...] = ()  # further kinds
    keeps: bool = (
        False  # context.keep names the folder for what it trained, where that is asked for
    )
    mixes: bool = False  # images of train and test in one episode: no task of two sets
    features: bool = True  # context.bank holds the features of train and test
    # what --pool and --layer decide: the vector of an image, which layer's tokens, or nothing
    reads: Literal["vector", "tokens", "own"] = "vector"
    # what results from before there was a setting were made with, where it is not the default now
    earlier: Mapping[str, Any] = field(default_factory=dict)
    complete: str = ""
    refuse: str = ""
    merge: str = ""
    cost: str = ""
    stores: str = ""
    maps: str = ""

    def able(self, kind: Kind) -> bool:
        """Whether it scores tasks of that kind."""
        return kind == self.kind or kind in self.also

    def scores(self, task: TaskData) -> bool:
        """Whether it scores that task."""
        return self.able(task.kind) and not (self.mixes and task.shifted)

    def load(self) -> Callable[[Context[Any], Any], Outcome]:
        """``score(context, settings)``."""
        return _imported(f"eval.protocols.{self.name.replace('-', '_')}:score")

    def completed(self, settings: Settings, task: TaskData) -> Settings:
        """The settings with what the task decides: ``complete(settings, task)``."""
        return _imported(self.complete)(settings, task) if self.complete else settings

    def check(self, settings: Settings, tasks: Sequence[TaskData]) -> None:
        """Raises UserError for settings that none of the tasks can serve (one or more of the
        protocol's kind): ``refuse(settings, tasks)``. What some cannot serve is noted there."""
        if self.refuse and tasks:
            _imported(self.refuse)(settings, tasks)

    def merged(self, held: Mapping[str, Any], settings: Settings) -> Settings | None:
        """The settings to score again, where a file holds a result of ``held``, its config, under
        the name of the new one; None where it answers already: ``merge(held, settings)``."""
        return _imported(self.merge)(held, settings) if self.merge else None

    def seconds(self, context: Context[Any], settings: Settings, speed: Speed) -> float:
        """Of the training that a plan foresees, encoding aside: ``cost(context, settings, speed)``.
        ``context.bank`` is None: nothing has been encoded."""
        return _imported(self.cost)(context, settings, speed) if self.cost else 0.0

    def to_store(self, context: Context[Any], settings: Settings) -> tuple[Path, int] | None:
        """The folder of the decoded images that the training keeps, and how many bytes, about, it
        would write there; None where it keeps none: ``stores(context, settings)``."""
        return _imported(self.stores)(context, settings) if self.stores else None

    def to_map(self, context: Context[Any], settings: Settings) -> MapCost | None:
        """What the maps would take that the protocol encodes by itself; None where it needs none:
        ``maps(context, settings)``."""
        return _imported(self.maps)(context, settings) if self.maps else None


def _imported(place: str) -> Callable[..., Any]:
    module, _, function = place.partition(":")
    return getattr(importlib.import_module(module), function)


_FROM_REDUCED = {"crops_from": "reduced"}

PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol(
            "fewshot",
            Fewshot,
            ("top1_{shot}shot",),
            "600 episodes, 5-way, 15 queries, logistic regression on L2-normalised features; "
            "nearest centroid and cosine beside it",
            refuse="eval.protocols.episodes:refuse",
            merge="eval.protocols.episodes:merge",
            mixes=True,
        ),
        Protocol("knn", Knn, ("top1",), "cosine k nearest neighbours, k chosen on part of train"),
        Protocol(
            "linear",
            Linear,
            ("top1",),
            "logistic regression on features, C chosen on part of train",
        ),
        Protocol(
            "attentive",
            Attentive,
            ("top1",),
            "an attentive probe: one query over the patch tokens, grid chosen on part of train",
            default=False,
            reads="tokens",
        ),
        Protocol(
            "retrieval",
            Retrieval,
            ("map", "recall_at_1"),
            "images of one class, or instance, found by cosine similarity: R@1, R@5, R@10, mAP",
            default=False,
            also=("instances",),
            refuse="eval.protocols.galleries:refuse",
        ),
        Protocol(
            "linear-sgd",
            LinearSgd,
            ("top1",),
            "the study's linear evaluation: SGD on augmented views, a grid tuned on part of train",
            trains=True,
            default=False,
            earlier=_FROM_REDUCED,
            cost="eval.protocols.linear_sgd:cost",
            stores="eval.training.crop_images:to_store",
        ),
        Protocol(
            "finetune",
            Finetune,
            ("top1",),
            "the study's full-network transfer: everything trains, grid tuned on part of train",
            trains=True,
            default=False,
            keeps=True,
            reads="own",
            earlier=_FROM_REDUCED,
            cost="eval.protocols.finetune:cost",
            stores="eval.training.crop_images:to_store",
        ),
        Protocol(
            "multilabel",
            Multilabel,
            ("map", "auroc"),
            "several labels an image: a logistic regression each, C chosen on part of train",
            default=False,
            kind="multilabel",
            also=("classification",),
        ),
        Protocol(
            "multilabel-knn",
            MultilabelKnn,
            ("map", "auroc"),
            "several labels an image by cosine nearest neighbours, k chosen on part of train",
            default=False,
            kind="multilabel",
            also=("classification",),
        ),
        Protocol(
            "low-level",
            LowLevel,
            ("r2",),
            "colour, gradient and contrast of each place of an image by ridge regression, R2",
            trains=True,
            default=False,
            also=("segmentation", "multilabel", "detection"),
            reads="own",
            features=False,
            cost="eval.protocols.low_level:cost",
            maps="eval.protocols.low_level:foreseen",
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
            reads="own",
            features=False,
            complete="eval.protocols.task_schedule:complete",
            cost="eval.protocols.detection:cost",
        ),
        Protocol(
            "segment",
            Segment,
            ("miou",),
            "a linear layer on maps of the frozen backbone answers every pixel, grid chosen on "
            "part of train",
            trains=True,
            kind="segmentation",
            reads="own",
            features=False,
            cost="eval.protocols.segment:cost",
            maps="eval.protocols.segment_maps:foreseen",
        ),
        Protocol(
            "segment-knn",
            SegmentKnn,
            ("miou",),
            "every pixel by the nearest of places of training images; nothing is trained",
            trains=True,
            default=False,
            kind="segmentation",
            reads="own",
            features=False,
            cost="eval.protocols.segment_knn:cost",
            maps="eval.protocols.segment_maps:foreseen",
        ),
    )
}


def protocol_named(name: str) -> Protocol:
    """Raises UserError with near names for an unknown protocol."""
    if name not in PROTOCOLS:
        known = "protocols are " + ", ".join(PROTOCOLS)
        raise NotFound(f"unknown protocol {name!r}" + did_you_mean(name, PROTOCOLS, known))
    return PROTOCOLS[name]

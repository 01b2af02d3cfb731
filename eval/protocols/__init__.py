"""The protocols by name: declared facts, importing no torch.

A protocol is a frozen settings class and a function ``score(bank, task, settings, seed)`` that is
imported when it is first needed.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eval.common.errors import UserError, did_you_mean
from eval.settings.protocols import Detection, Fewshot, Finetune, Kind, Knn, Linear, LinearSgd

if TYPE_CHECKING:
    from collections.abc import Callable

    from eval.protocols.outcome import Outcome


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

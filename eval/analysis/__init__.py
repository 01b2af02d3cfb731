"""Why do some representations transfer better? The analyses by name: declared facts, no torch.

An analysis is a frozen settings class, a row of `ANALYSES` and the module of its name, imported
when it is first needed (`eval.analysis.module`). Each such module has the same four functions:
``run(study, settings)`` measures and gives plain data, and ``sentence``, ``table`` and ``figure``
show a stored finding in words, lines and a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from eval.common.errors import NotFound, did_you_mean
from eval.mini.factors import FACTOR_TASKS
from eval.settings.bounds import AnyText, Between, MayBeEmpty, OneOf


@dataclass(frozen=True)
class LayerCka:
    """CKA of each layer of one model with each of another."""

    kernel: Annotated[str, OneOf(("linear", "rbf"))] = "linear"  # or rbf
    images: Annotated[int, Between(0, 100_000_000)] = 0  # at most so many; 0: all
    layers: Annotated[tuple[str, ...], AnyText(), MayBeEmpty()] = ()  # these alone
    spatial: bool = False  # maps are compared place by place, not averaged over space


@dataclass(frozen=True)
class Profile:
    """A linear probe on every layer."""

    layers: Annotated[tuple[str, ...], AnyText(), MayBeEmpty()] = ()
    spatial: bool = False  # probes see where in the image something is


@dataclass(frozen=True)
class Geometry:
    """Class separation, dimension, uniformity and collapse in every layer."""

    layers: Annotated[tuple[str, ...], AnyText(), MayBeEmpty()] = ()
    # of a part that are looked at: the rank needs a full decomposition
    images: Annotated[int, Between(0, 100_000_000)] = 5000


@dataclass(frozen=True)
class Predictors:
    """Cheap predictors of transfer; there is nothing to set."""


@dataclass(frozen=True)
class Robustness:
    """Corrupted test images under a linear head that was fitted on clean ones."""

    corruptions: Annotated[tuple[str, ...], AnyText(), MayBeEmpty()] = ()  # empty: all 15
    severities: Annotated[tuple[int, ...], Between(1, 5)] = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Reconstruction:
    """Pixels from features: a decoder trained for each layer, and single images by a deep image
    prior (Ulyanov et al. 2018)."""

    layers: Annotated[tuple[str, ...], AnyText(), MayBeEmpty()] = ()
    steps: Annotated[int, Between(1, 1_000_000)] = 400  # of a decoder's training
    # at most, the first in canonical order; so for test_images
    train_images: Annotated[int, Between(2, 1_000_000)] = 1000
    test_images: Annotated[int, Between(2, 1_000_000)] = 500
    # test images that are shown, and also inverted one by one
    pictures: Annotated[int, Between(0, 64)] = 3
    prior_steps: Annotated[int, Between(1, 100_000)] = 300  # of such an inversion
    # shown and inverted; empty: a middle and the last two
    prior_layers: Annotated[tuple[str, ...], AnyText(), MayBeEmpty()] = ()


@dataclass(frozen=True)
class Analysis:
    """``most_tasks`` None is any number; ``default_tasks`` stand where none is named."""

    name: str
    settings: type[Any]
    summary: str
    most_tasks: int | None = None
    default_tasks: tuple[str, ...] = ()
    most_models: int | None = None
    reads_results: bool = False  # what was measured of the models, to hold its numbers against


ANALYSES: dict[str, Analysis] = {
    a.name: a
    for a in (
        Analysis(
            "cka", LayerCka, "how alike the layers of two models are",
            most_tasks=1, most_models=2,
        ),
        Analysis(
            "profile", Profile,
            "linear probes on every layer, of tasks whose semantic level is known",
            default_tasks=tuple(FACTOR_TASKS),
        ),
        Analysis("geometry", Geometry, "class separation, dimension and collapse"),
        Analysis(
            "robustness", Robustness,
            "15 common corruptions at 5 severities under a linear head; calibration under shift",
        ),
        Analysis(
            "reconstruction", Reconstruction,
            "how much of an image each layer still holds: PSNR and SSIM of what is rebuilt",
            most_tasks=1,
        ),
        Analysis(
            "predictors", Predictors,
            "LogME, H-score, TransRate and centroids: which model to try first",
            reads_results=True,
        ),
    )
}  # fmt: skip


def analysis_named(name: str) -> Analysis:
    """Raises UserError with near names for an unknown analysis."""
    if name not in ANALYSES:
        known = "analyses are " + ", ".join(ANALYSES)
        raise NotFound(f"unknown analysis {name!r}" + did_you_mean(name, ANALYSES, known))
    return ANALYSES[name]

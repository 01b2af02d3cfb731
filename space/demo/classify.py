"""What the few-shot page asks: pictures and models in, predictions and their worth out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from eval.analysis.measures.predictors import log_me
from eval.common.errors import BadInput
from eval.models.backbone import Backbone
from space.demo.backbones import Shelf
from space.demo.bounds import MODELS, NAMED, QUERIES, SHOTS, WAYS
from space.demo.classifier import Head, fit_head, nearest, predict
from space.demo.head_file import clean_classes
from space.demo.uploads import Picture

NEIGHBOURS = 3


@dataclass(frozen=True)
class Neighbour:
    """A support picture near a query: its class, its place within the class, their cosine."""

    label: str
    index: int
    similarity: float


@dataclass(frozen=True)
class QueryAnswer:
    """One query: (class, probability) with the most probable first, and the nearest pictures."""

    name: str
    classes: tuple[tuple[str, float], ...]
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True)
class ModelAnswer:
    """One model's answer; ``head`` and ``backbone`` are what ``head_file.save_head`` takes.

    ``seconds`` is what encoding and fitting took, without loading the model. ``head.loo_top1``
    is the leave-one-out accuracy of the support set, with its interval; ``log_me`` is LogME of the
    support set, which needs no refits.
    """

    model: str
    head: Head
    backbone: Backbone
    queries: tuple[QueryAnswer, ...]
    log_me: float
    seconds: float


@dataclass(frozen=True)
class Answer:
    """All models' answers, in the order asked, and sentences on what looks odd in the pictures."""

    classes: tuple[str, ...]
    models: tuple[ModelAnswer, ...]
    notes: tuple[str, ...]


def classify(
    shelf: Shelf,
    models: Sequence[str],
    supports: Sequence[tuple[str, Sequence[Picture]]],
    queries: Sequence[Picture],
) -> Answer:
    """Fit each model's head on the support pictures and predict the queries.

    ``supports`` are (class name, its pictures). Raises UserError in one sentence for numbers of
    models, classes or pictures out of bounds, two classes of one name, and what ``Shelf.get``
    refuses; nothing is loaded before all of that is checked.
    """
    classes = _checked(models, supports, queries)
    backbones = [shelf.get(model) for model in models]  # a refusal comes before the work
    return Answer(
        classes,
        tuple(
            _ask(backbone, model, shelf, classes, supports, queries)
            for backbone, model in zip(backbones, models, strict=True)
        ),
        _notes(classes, supports, queries),
    )


def _checked(
    models: Sequence[str],
    supports: Sequence[tuple[str, Sequence[Picture]]],
    queries: Sequence[Picture],
) -> tuple[str, ...]:
    """The clean class names. Raises UserError."""
    _within(len(models), MODELS, "model", "are chosen")
    own = sum(not str(model).startswith("zoo:") for model in models)
    _within(own, NAMED, "model", "that do not ship here are chosen")
    if len(set(models)) < len(models):
        raise BadInput("a model is chosen twice; choose different ones")
    _within(len(supports), WAYS, "class", "have pictures")
    classes = clean_classes([name for name, _ in supports])
    for name, (_, pictures) in zip(classes, supports, strict=True):
        _within(len(pictures), SHOTS, "picture", f"are given for class {name!r}")
    _within(len(queries), QUERIES, "query picture", "are given")
    return classes


def _within(number: int, bounds: tuple[int, int], subject: str, are: str) -> None:
    low, high = bounds
    if not low <= number <= high:
        plural = subject + ("es" if subject.endswith("s") else "s")
        have = f"{number or 'no'} {subject if number == 1 else plural}"
        if number == 1:
            are = are.replace("are ", "is ", 1).replace("have ", "has ", 1)
        raise BadInput(f"{have} {are}; {low} to {high} are needed")


def _ask(
    backbone: Backbone,
    model: str,
    shelf: Shelf,
    classes: tuple[str, ...],
    supports: Sequence[tuple[str, Sequence[Picture]]],
    queries: Sequence[Picture],
) -> ModelAnswer:
    start = time.perf_counter()
    images = [p.image for _, pictures in supports for p in pictures]
    places = [(way, i) for way, (_, shots) in enumerate(supports) for i in range(len(shots))]
    features = shelf.features(backbone, images + [p.image for p in queries])
    support, query = features[: len(images)], features[len(images) :]
    labels = torch.tensor([way for way, _ in places])
    # Equal pixels have equal features (Shelf.encode), so copies are rows that are the same.
    groups = torch.unique(support, dim=0, return_inverse=True)[1]
    head = shelf.run(lambda: fit_head(support, labels, classes, groups=groups))
    probabilities = predict(head, query).tolist()
    similarity, index = (t.tolist() for t in nearest(support, query, NEIGHBOURS))
    evidence = shelf.run(lambda: log_me(support.numpy(), labels.numpy()))
    answers = tuple(
        QueryAnswer(
            picture.name,
            tuple(sorted(zip(classes, row, strict=True), key=lambda pair: -pair[1])),
            tuple(
                Neighbour(classes[places[i][0]], places[i][1], s)
                for s, i in zip(near, rows, strict=True)
            ),
        )
        for picture, row, near, rows in zip(queries, probabilities, similarity, index, strict=True)
    )
    return ModelAnswer(model, head, backbone, answers, evidence, time.perf_counter() - start)


def _notes(
    classes: tuple[str, ...],
    supports: Sequence[tuple[str, Sequence[Picture]]],
    queries: Sequence[Picture],
) -> tuple[str, ...]:
    """Sentences about copies, which make an answer look better or worse than it is."""
    notes: list[str] = []
    seen: dict[str, str] = {}  # digest -> class of the first such picture
    for name, (_, pictures) in zip(classes, supports, strict=True):
        for picture in pictures:
            first = seen.setdefault(picture.digest, name)
            if first != name:
                notes.append(f"{picture.name!r} is in class {first!r} as well as in {name!r}.")
        copies = len(pictures) - len({p.digest for p in pictures})
        if copies:
            notes.append(f"Class {name!r} holds {copies} copies of its own pictures.")
    for picture in queries:
        if picture.digest in seen:
            notes.append(
                f"Query {picture.name!r} is also a support picture of class "
                f"{seen[picture.digest]!r}: its answer tests nothing."
            )
    return tuple(dict.fromkeys(notes))

"""Few-shot recognition: the same episodes for every model, all solved at once."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import torch

from eval.common.errors import BadInput
from eval.data.task_data import TaskData
from eval.metrics import estimates, intervals
from eval.metrics.episode_variance import EpisodeDesign
from eval.metrics.scores import Samples
from eval.protocols.episodes import Draw, Pool, bank_rows, design, refusals
from eval.protocols.outcome import Outcome
from eval.settings.protocols import Fewshot
from eval.solvers.episodes import Classifier, episode_predictions
from eval.training.context import Context

CLASSIFIERS: dict[Classifier, str] = {"logreg": "", "centroid": "_centroid", "cosine": "_cosine"}


def score(context: Context[TaskData], settings: Fewshot) -> Outcome:
    """Mean accuracy over episodes, per shot count and classifier, with its interval over another
    sample of the data set's images and that over other episodes of these (1.96 standard errors).

    Raises UserError when no shot count can be served.
    """
    task = context.task
    pool = Pool.of(task)
    refused = refusals(pool, settings)
    shots = [k for k in settings.shots if k not in refused]
    if not shots:
        raise BadInput(f"task {task.name!r}: " + "; ".join(refused.values()))
    out = Outcome(notes=[f"not scored: {why}" for why in refused.values()])
    if refused:
        out.details["refused_shots"] = {str(k): why for k, why in refused.items()}
    if pool.copies or pool.ambiguous:
        out.notes.append(
            f"left out of the draw: {pool.copies} further copies of an image, "
            f"{pool.ambiguous} images that stand under two labels"
        )
    class_images = pool.class_images(len(task.classes))
    out.details["class_images"] = class_images  # with the settings, all that the episodes follow
    draws = {
        k: Draw(tuple(class_images), k, settings.n_way, settings.queries, settings.episodes,
                task.split_hash, context.seed)
        for k in shots
    }  # fmt: skip
    groups: dict[tuple[int, ...], list[int]] = {}
    for k in shots:
        groups.setdefault(draws[k].eligible, []).append(k)
    answers: dict[tuple[int, Classifier], torch.Tensor] = {}
    designs: dict[int, EpisodeDesign] = {}
    start = time.perf_counter()
    for classes, ks in groups.items():
        _note_left_out(out, task, pool, classes, ks)
        drawn = design(draws[max(ks)])
        designs |= {k: drawn.head(k) for k in ks}
        support, query = bank_rows(pool, drawn, classes)
        answers |= episode_predictions(
            context.features.features,
            torch.from_numpy(support),
            torch.from_numpy(query),
            shots=ks,
            classifiers=tuple(CLASSIFIERS),
            c=settings.c,
        )
    out.fit_seconds = time.perf_counter() - start
    truth = torch.arange(settings.n_way).repeat_interleave(settings.queries)  # [way * queries]
    shape = (settings.episodes, settings.n_way, settings.queries)
    correct = {
        k: np.stack([(answers[k, one].cpu() == truth).numpy() for one in CLASSIFIERS])
        for k in shots
    }  # [classifiers, E, way * queries]
    found = {}
    for k in shots:
        with contextlib.suppress(ValueError):  # one episode, say: no claim on other images
            found[k] = estimates.of_episodes(correct[k].reshape(-1, *shape), designs[k])
    for i, suffix in enumerate(CLASSIFIERS.values()):
        for k in shots:
            name, right = f"top1_{k}shot{suffix}", correct[k][i]
            these = intervals.mean_interval(right.mean(1, dtype=np.float64))
            if k in found:
                whole = found[k].share(i, designs[k].images)
                out.add(name, whole, len(right), "sample", these)
            else:
                out.add(name, these, len(right), "episodes", these)
            out.samples[name] = Samples.of_episodes(right)
            if (right.sum(1) == settings.queries).all():
                out.notes.append(
                    f"{name}: exactly chance in every episode, as where all queries are given one "
                    "class; the features do not tell these images apart"
                )
    return out


def _note_left_out(
    out: Outcome, task: TaskData, pool: Pool, classes: tuple[int, ...], ks: list[int]
) -> None:
    small = sorted(set(range(len(task.classes))) - set(classes))
    if not small:
        return
    names = [f"{task.classes[c]} ({int((pool.labels == c).sum())})" for c in small]
    shots = ", ".join(f"{k}-shot" for k in ks)
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    out.notes.append(f"{shots}: classes too small for the draw (images): {shown}")

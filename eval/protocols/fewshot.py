"""Few-shot recognition: the same episodes for every model, all solved at once."""

from __future__ import annotations

import time

import torch

from eval.common.errors import BadInput
from eval.data.task_data import TaskData
from eval.metrics import intervals
from eval.metrics.scores import Samples
from eval.protocols.episodes import Pool, draw_episodes, eligible_classes, refusals
from eval.protocols.outcome import Outcome
from eval.settings.protocols import Fewshot
from eval.solvers.episodes import Classifier, episode_predictions
from eval.training.context import Context

CLASSIFIERS: dict[Classifier, str] = {"logreg": "", "centroid": "_centroid", "cosine": "_cosine"}


def score(context: Context[TaskData], settings: Fewshot) -> Outcome:
    """Mean accuracy over episodes with 1.96 standard errors, per shot count and classifier.

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
    groups: dict[tuple[int, ...], list[int]] = {}
    for k in shots:
        groups.setdefault(eligible_classes(pool, k, settings.queries), []).append(k)
    answers: dict[tuple[int, Classifier], torch.Tensor] = {}
    start = time.perf_counter()
    for classes, ks in groups.items():
        _note_left_out(out, task, pool, classes, ks)
        drawn = draw_episodes(
            pool,
            classes,
            shot=max(ks),
            n_way=settings.n_way,
            queries=settings.queries,
            episodes=settings.episodes,
            split_hash=task.split_hash,
            seed=context.seed,
        )
        answers |= episode_predictions(
            context.features.features,
            torch.from_numpy(drawn.support),
            torch.from_numpy(drawn.query),
            shots=ks,
            classifiers=tuple(CLASSIFIERS),
            c=settings.c,
        )
    out.fit_seconds = time.perf_counter() - start
    truth = torch.arange(settings.n_way).repeat_interleave(settings.queries)  # [way * queries]
    for classifier, suffix in CLASSIFIERS.items():
        for k in shots:
            hits = (answers[k, classifier].cpu() == truth).sum(1).numpy()  # [E]
            name = f"top1_{k}shot{suffix}"
            out.add(name, intervals.mean_interval(hits / len(truth)), len(hits))
            out.samples[name] = Samples.of_episodes(hits, len(truth))
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

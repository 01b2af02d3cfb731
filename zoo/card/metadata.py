"""What the Hub reads of a checkpoint: the card's YAML and the entries of .eval_results."""

from __future__ import annotations

from typing import Any

from eval.common.text import slug
from eval.metrics import estimates
from eval.metrics.scores import Score
from eval.models.names import ZOO_ORG
from eval.protocols import PROTOCOLS
from eval.results.estimates import stated
from eval.results.evidence import LOSSES
from eval.results.leaderboard import main_scores, setting_label
from eval.results.schema import Result
from eval.tasks.declaration import Task
from eval.tasks.registry import TASKS
from zoo.checkpoint import Checkpoint

ARXIV = "2103.13517"
RESULTS_REPO = f"{ZOO_ORG}/results"  # the benchmark that .eval_results speak of
SOURCE = "TransferZoo"
KINDS = ("image-classification", "image-feature-extraction")  # with and without classifier


def training_data(checkpoint: Checkpoint) -> Task | None:
    """The declared data set the weights were trained on."""
    return TASKS.get(checkpoint.data)


def _boxes(result: Result) -> bool:
    return result.protocol.name in PROTOCOLS and PROTOCOLS[result.protocol.name].kind == "detection"


def _unit(score: Score) -> str:
    return "nats" if score.name in LOSSES else "%"


def _shown(score: Score, value: float) -> float:
    """A value of a score in its unit."""
    return round(value, 4) if score.name in LOSSES else round(100 * value, 2)


def metadata(checkpoint: Checkpoint, repo: str) -> dict[str, Any]:
    from huggingface_hub import EvalResult, ModelCardData

    kind = KINDS[0] if checkpoint.classes else KINDS[1]
    objective, data = checkpoint.objective, training_data(checkpoint)
    extra: dict[str, Any] = {}
    if data is not None:
        extra["license"] = "other"
        extra["license_name"] = "terms-of-the-training-data"
        extra["license_link"] = data.terms or f"https://huggingface.co/{repo}#licence"
    scores = [
        EvalResult(
            task_type="object-detection" if _boxes(result) else "image-classification",
            task_name="Object detection" if _boxes(result) else "Image classification",
            dataset_type=result.task.name,
            dataset_name=_title(result) + (" (subset)" if result.task.subset else ""),
            # Results that share data set, configuration and revision are merged into one entry.
            dataset_config=", ".join(p for p in (result.protocol.name, setting(result)) if p),
            dataset_revision=result.task.split_hash,
            dataset_split="test" if result.protocol.name != "fewshot" else "train+test",
            dataset_args=dict(result.task.counts),
            metric_type="accuracy" if score.name.startswith(("top1", "mean_per")) else score.name,
            metric_name=f"{result.protocol.name} {score.name}, {_unit(score)}",
            metric_value=_shown(score, score.value),
            metric_args={
                "ci95": [_shown(score, score.ci_low), _shown(score, score.ci_high)],
                "ci95_over": estimates.KINDS.get(score.kind, score.kind),
                "n": score.n,
            },
            source_name=SOURCE,
            source_url=f"https://huggingface.co/{repo}/blob/main/{name}",
        )
        for name, result in checkpoint.results
        for score in (stated(result, s) for s in result.scores)
    ]
    card = ModelCardData(
        library_name="timm",
        pipeline_tag=kind,
        tags=[
            kind,
            "timm",
            "transferzoo",
            f"arxiv:{ARXIV}",
            *([f"objective:{objective.name}"] if objective else []),
        ],
        datasets=[data.on_hub] if data and data.on_hub else None,
        model_name=checkpoint.name if scores else None,
        eval_results=scores or None,
        **extra,
    )
    return card.to_dict()


def _title(result: Result) -> str:
    return TASKS[result.task.name].title if result.task.name in TASKS else result.task.name


def setting(result: Result) -> str:
    """What makes a result unlike the others: settings, and the input size."""
    size = f"img_size={result.model.img_size}" if result.model.img_size else ""
    return ", ".join(part for part in (setting_label(result), size) if part)


def tabled(checkpoint: Checkpoint) -> str:
    """The `setting` of the results that a card's tables show, all of one precision: the default
    settings in fp32, or where there is none of these in bf16."""
    found = {setting(result) for _, result in checkpoint.results}
    half = "precision=bf16"
    return half if half in found and "" not in found else ""


def eval_results(checkpoint: Checkpoint, repo: str) -> dict[str, list[dict[str, Any]]]:
    """File stem -> entries: one file for the default settings, one for each other, with notes."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries: dict[str, list[EvalResultEntry]] = {}
    for name, result in checkpoint.results:
        differs = setting(result)
        for score in main_scores(result):
            low, high = 100 * score.ci_low, 100 * score.ci_high
            chance = estimates.KINDS.get(score.kind, score.kind)
            notes = [f"95 % interval {low:.2f} to {high:.2f} over {chance} (n = {score.n})"]
            notes += ["subset of the data set"] if result.task.subset else []
            notes += [f"split {result.task.split_hash[:12]}"]
            notes += [differs] if differs else []
            stem = "transferzoo" + (f".{slug(differs)}" if differs else "")
            entries.setdefault(stem, []).append(
                EvalResultEntry(
                    dataset_id=RESULTS_REPO,
                    task_id=f"{slug(result.task.name)}_{result.protocol.name}_{score.name}",
                    value=round(100 * score.value, 2),
                    date=result.created,
                    source_url=f"https://huggingface.co/{repo}/blob/main/{name}",
                    source_name="transfer-eval receipt",
                    notes="; ".join(notes),
                )
            )
    return {stem: eval_result_entries_to_yaml(found) for stem, found in entries.items()}

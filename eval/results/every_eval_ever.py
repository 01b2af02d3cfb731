"""Results in the neutral "every_eval_ever" schema, which other leaderboards read.

One document a result, one entry a score. What cannot be said there in a field of its own stands
in the details; samples and free text stay behind.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import parse_qsl

from eval.common.errors import BadInput, UserError
from eval.common.files import write_json
from eval.metrics.scores import Score
from eval.models.names import ZOO_ORG
from eval.results.leaderboard import setting_label
from eval.results.schema import ModelInfo, Result

EVERY_EVAL_EVER = "0.2.1"

_LIBRARY = "transferzoo"
_DEVELOPERS = {"zoo": ZOO_ORG, "random": "random", "local-dir": "local"}
_LOWER_IS_BETTER = frozenset({"ece", "nll"})
_MOST_NLL = 28  # nats: eval.metrics.intervals bounds probabilities from below by 1e-12
# what eval.metrics.intervals does for each unit
_INTERVALS = {"episode": "normal", "image": "bootstrap", "resample": "bootstrap"}
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "transferzoo.every_eval_ever")


def to_every_eval_ever(result: Result) -> dict[str, Any]:
    """The result as one document of the schema; the same result gives the same document.

    No path of this machine is in it. Raises UserError when ``created`` is not an ISO time.
    """
    developer, model = _model_name(result.model)
    seconds = str(_created(result).timestamp())
    versions = dict(result.environment.versions)
    version = versions.pop(_LIBRARY, "unknown")
    environment = result.environment
    source = _source_data(result)
    return {
        "schema_version": EVERY_EVAL_EVER,
        "evaluation_id": f"{_benchmark(result)}/{developer}/{model}/{seconds}",
        "evaluation_timestamp": result.created,
        "retrieved_timestamp": seconds,
        "source_metadata": {
            "source_name": "TransferZoo",
            "source_type": "evaluation_run",
            "source_organization_name": "TransferZoo",
            "evaluator_relationship": "other",  # a result does not record who ran it
        },
        "eval_library": {
            "name": _LIBRARY,
            "version": version,
            "additional_details": _details(
                **{f"version_{name}": text for name, text in versions.items()},
                device=environment.device,
                dtype=environment.dtype,
                threads=environment.threads,
                processes=environment.processes,
            ),
        },
        "model_info": {
            "name": model,
            "id": f"{developer}/{model}",
            "developer": developer,
            "inference_engine": {"name": "timm", "version": versions.get("timm", "unknown")},
            # Not the spec: a local model's is a path.
            "additional_details": _details(
                revision=result.model.revision,
                weights_sha256=result.model.weights_sha256,
                params=result.model.params,
                input=result.model.input,
                img_size=result.model.img_size,
            ),
        },
        "evaluation_results": [_entry(result, score, source) for score in result.scores],
    }


def write_every_eval_ever(results: Iterable[Result], out: Path) -> list[Path]:
    """Write ``out/data/BENCHMARK/DEVELOPER/MODEL/UUID.json`` for each result; their paths.

    A file is named by its content, so a second export writes the same files. Raises UserError
    when a place cannot be written.
    """
    paths = []
    for result in results:
        document = to_every_eval_ever(result)
        name = uuid.uuid5(_NAMESPACE, json.dumps(document, sort_keys=True))
        folder = out.joinpath("data", _benchmark(result), *_model_name(result.model))
        path = folder / f"{name}.json"
        try:
            write_json(path, document)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from None
        paths.append(path)
    return paths


def _entry(result: Result, score: Score, source: dict[str, Any]) -> dict[str, Any]:
    task, protocol = result.task.name, result.protocol.name
    interval: dict[str, Any] = {
        "lower": score.ci_low,
        "upper": score.ci_high,
        "confidence_level": 0.95,
    }
    # Scores without samples of their own are over the same units as those that have them.
    units = {samples.unit for samples in result.samples.values()}
    if len(units) == 1:
        interval["method"] = _INTERVALS[units.pop()]
    return {
        "evaluation_name": f"{task} / {protocol} / {score.name}",
        "source_data": source,
        "metric_config": {
            "evaluation_description": f"{score.name} under {protocol}",
            "lower_is_better": score.name in _LOWER_IS_BETTER,
            "score_type": "continuous",
            "min_score": 0,
            "max_score": _MOST_NLL if score.name == "nll" else 1,
            "additional_details": _details(
                **(
                    result.protocol.config
                    | {"protocol": protocol, "seed": result.seed, "precision": result.precision}
                )
            ),
        },
        "score_details": {
            "score": score.value,
            "uncertainty": {"confidence_interval": interval, "num_samples": score.n},
        },
    }


def _source_data(result: Result) -> dict[str, Any]:
    task = result.task
    known = {
        "split_hash": task.split_hash,
        "revision": task.revision or None,
        "duplicates": task.duplicates,
        "subset": task.subset,
        "limit": result.limit,
    } | {f"count_{what}": n for what, n in task.counts.items()}
    repo, _, query = task.source.removeprefix("hub:").partition("?")
    if task.source.startswith("hub:") and re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        # The columns, config and splits of the task string. No hf_split: few-shot episodes are
        # drawn from train and test together.
        options = {f"hub_{key}": text for key, text in parse_qsl(query)}
        return {
            "dataset_name": task.name,
            "source_type": "hf_dataset",
            "hf_repo": repo,
            "samples_number": task.counts.get("train", 0) + task.counts.get("test", 0),
            "additional_details": _details(**(options | known)),
        }
    # A folder of this machine, or made by this package: the split hash says which images.
    return {
        "dataset_name": task.name,
        "source_type": "other",
        "additional_details": _details(**known),
    }


def _model_name(model: ModelInfo) -> tuple[str, str]:
    """(developer, model), each fit to be a folder. A timm name is the Hub repository behind it."""
    prefix, colon, name = model.id.partition(":")
    if model.spec.startswith("hf-hub:"):
        repo = model.spec.removeprefix("hf-hub:").partition("@")[0]
        developer, _, name = repo.partition("/")
    elif colon:
        developer = _DEVELOPERS.get(prefix, "unknown")
        name = PurePath(name).name if prefix == "local-dir" else name
    else:
        developer, name = "timm", model.id
    return _folder_name(developer), _folder_name(name)


def _benchmark(result: Result) -> str:
    """What may be compared shares a name: task, protocol, and settings that are not default."""
    setting = setting_label(result)
    parts = (_LIBRARY, result.task.name, result.protocol.name, *([setting] if setting else []))
    return _folder_name("_".join(parts))


def _folder_name(text: str) -> str:
    """One path component: no separator, not hidden, never '..'."""
    return re.sub(r"[^A-Za-z0-9._+@=-]+", "-", text).strip(".-") or "unnamed"


def _details(**values: Any) -> dict[str, str]:
    """The schema allows strings alone; None is left out."""
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in values.items()
        if value is not None
    }


def _created(result: Result) -> datetime:
    try:
        created = datetime.fromisoformat(result.created)
    except ValueError:
        raise BadInput(
            f"result of {result.model.id} on {result.task.name}: "
            f"created {result.created!r} is not an ISO time"
        ) from None
    # A time without zone must not mean another moment on another machine.
    return created if created.tzinfo else created.replace(tzinfo=UTC)

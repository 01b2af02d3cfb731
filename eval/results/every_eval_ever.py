"""Results in the neutral "every_eval_ever" schema, which other leaderboards read.

One document a result, one entry a score. What cannot be said there in a field of its own stands
in the details; free text stays behind. The answers to images and episodes go into a file of
samples beside the document where they are asked for: they are a thousand times as long.

Source: github.com/evaleval/every_eval_ever, and what its validator asks of paths.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from eval.common.errors import BadInput, UserError
from eval.common.files import atomic_file, write_json
from eval.metrics.intervals import DRAWS
from eval.metrics.scores import Samples, Score
from eval.models.names import ZOO_ORG
from eval.results.leaderboard import setting_label
from eval.results.names import earlier
from eval.results.schema import ModelInfo, Result
from eval.tasks.names import options_of

EVERY_EVAL_EVER = "0.3.0"

_LIBRARY = "transferzoo"
_DEVELOPERS = {"zoo": ZOO_ORG, "random": "random", "local-dir": "local"}
_LOWER_IS_BETTER = frozenset({"ece", "nll"})
_MOST_NLL = 28  # nats: eval.metrics.intervals bounds probabilities from below by 1e-12
# what eval.metrics.intervals does for each unit
_INTERVALS = {"episode": "normal", "image": "bootstrap", "resample": "bootstrap"}


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
                deployment_type="self_deployed",  # a backbone is computed where it is scored
                model_availability=_availability(result.model),
                revision=result.model.revision,
                weights_sha256=result.model.weights_sha256,
                params=result.model.params,
                input=result.model.input,
                img_size=result.model.img_size,
            ),
        },
        "evaluation_results": [_entry(result, score, source) for score in result.scores],
    }


def write_every_eval_ever(
    results: Iterable[Result], out: Path, *, samples: bool = False
) -> list[Path]:
    """Write ``out/data/BENCHMARK/DEVELOPER/MODEL/UUID.json`` for each result; their paths.

    ``samples`` also writes ``UUID_samples.jsonl`` for those that have answers to images or
    episodes. A file is named by its content, so a second export writes the same files. Raises
    UserError when a place cannot be written.
    """
    paths = []
    for result in results:
        document = to_every_eval_ever(result)
        lines = b"".join(_lines(result, document)) if samples else b""
        name = _uuid(result, document)
        folder = Path("data", _benchmark(result), *_model_name(result.model))
        path = out / folder / f"{name}.json"
        try:
            if lines:
                beside = folder / f"{name}_samples.jsonl"
                with atomic_file(out / beside) as file:
                    file.write(lines)
                document["detailed_evaluation_results"] = {
                    "format": "jsonl",
                    "file_path": beside.as_posix(),
                    "hash_algorithm": "sha256",
                    "checksum": hashlib.sha256(lines).hexdigest(),
                    "total_rows": lines.count(b"\n"),
                }
            write_json(path, document)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from None
        paths.append(path)
    return paths


def _uuid(result: Result, document: dict[str, Any]) -> uuid.UUID:
    """Of the content, in the form of a random one: the schema's validator takes no other. The
    same with and without samples, so that a later export with them takes the place of the first."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for name, samples in sorted(result.samples.items()):
        digest.update(f"{name}:{samples.unit}:{samples.correct}".encode())
    return uuid.UUID(bytes=digest.digest()[:16], version=4)


def _lines(result: Result, document: dict[str, Any]) -> Iterator[bytes]:
    """One line a unit of each score that has answers; those of AP are resamples, no items."""
    split, protocol = result.task.split_hash[:12], result.protocol.name
    for name, samples in result.samples.items():
        if samples.unit == "resample" or result.score(name) is None:
            continue
        for number, share in enumerate(samples.values().tolist()):
            # by split and seed: the same item for every model, another one on other images
            item = f"{split}-{number}" if samples.unit == "image" else (
                f"{split}-seed{result.seed}-{number}"
            )  # fmt: skip
            line = {
                "schema_version": EVERY_EVAL_EVER,
                "evaluation_id": document["evaluation_id"],
                "model_id": document["model_info"]["id"],
                "evaluation_name": f"{result.task.name} / {protocol} / {name}",
                "evaluation_result_id": name,
                "sample_id": item,
                "interaction_type": "single_turn",
                # results keep neither images nor the classes that were answered
                "input": {"raw": _asked(samples, number, result), "reference": []},
                "output": {"raw": []},
                "answer_attribution": [],
                "evaluation": {"score": share, "is_correct": share == 1},
            }
            yield json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _asked(samples: Samples, number: int, result: Result) -> str:
    what = "test image" if samples.unit == "image" else f"episode of {samples.of} queries,"
    return f"{what} {number} of {result.task.name}, split {result.task.split_hash}"


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
    uncertainty = {"confidence_interval": interval, "num_samples": score.n}
    if interval.get("method") == "bootstrap":
        uncertainty["num_bootstrap_samples"] = DRAWS
    return {
        "evaluation_result_id": score.name,
        "evaluation_name": f"{task} / {protocol} / {score.name}",
        "source_data": source,
        "metric_config": {
            "evaluation_description": f"{score.name} under {protocol}",
            # a share of right answers is the same thing everywhere; the others name their source
            "metric_id": "accuracy" if _is_top1(score.name) else f"{_LIBRARY}.{score.name}",
            "metric_name": score.name,
            "metric_unit": "nats" if score.name == "nll" else "proportion",
            "lower_is_better": score.name in _LOWER_IS_BETTER,
            "score_type": "continuous",
            "min_score": 0,
            "max_score": _MOST_NLL if score.name == "nll" else 1,
            "additional_details": _details(
                **(
                    result.protocol.config
                    | earlier(result.protocol)
                    | {"protocol": protocol, "seed": result.seed, "precision": result.precision}
                )
            ),
        },
        "score_details": {
            "score": score.value,
            "uncertainty": uncertainty,
        },
    }


def _is_top1(score: str) -> bool:
    return score.partition("_")[0] == "top1"


def _availability(model: ModelInfo) -> str:
    """Anybody can have the weights, except those of a folder of this machine."""
    return "unknown" if model.spec.startswith("local-dir:") else "open_weights"


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
        options = {f"hub_{key}": text for key, text in options_of(query).items()}
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

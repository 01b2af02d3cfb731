"""Read scores in the every_eval_ever format, whoever wrote them, as rows of one kind.

Files of its schema 0.2 and 0.3 are read; a row needs few of the fields, and the others are not
looked at. Source: github.com/evaleval/every_eval_ever.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import NormalDist
from typing import Any

from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from eval.common.errors import BadInput, NotFound
from eval.common.files import read_plain

_SAMPLES = "_samples"  # UUID.json has its samples in UUID_samples.jsonl


@dataclass(frozen=True, slots=True)
class Row:
    """One score of one model.

    ``item`` is the sample it is about, or "" for an aggregate, which alone has ``standard_error``
    and ``n``, where the file gives them. Scores compare where ``benchmark``, ``task`` and
    ``metric`` are equal, and pair where ``item`` is too.
    """

    model: str  # developer/name
    benchmark: str  # the folder of like evaluations: ours have task, protocol and settings in it
    task: str
    metric: str  # "" where the file does not name it
    item: str
    score: float
    lower_is_better: bool
    standard_error: float | None = None
    n: int | None = None


def read_every_eval_ever(path: Path) -> list[Row]:
    """The scores of a file, or of every one below a folder, in the order of the files' names.

    A result with samples beside its file gives a row for each of them, in their order, and no
    aggregate; a sample that was asked more than once has as many rows. Any other result, also one
    whose samples were not fetched, gives one aggregate row. ``path`` may also name the samples.

    Raises UserError for what is not there, is not of the format, or has other samples than it says.
    """
    if path.is_dir():
        files = sorted(p for p in path.rglob("*.json") if not p.name.startswith("."))
        if not files:
            raise NotFound(f"{path} holds no .json file, so no results of every_eval_ever")
    else:
        files = [path]
        if path.suffix == ".jsonl":
            files = [path.with_name(path.stem.removesuffix(_SAMPLES) + ".json")]
            if not files[0].is_file():
                raise NotFound(f"{path} are samples of {files[0].name}, which is not beside them")
    return [row for file in files for row in _rows(file)]


class _StandardError(BaseModel):
    value: FiniteFloat = Field(ge=0)


class _ConfidenceInterval(BaseModel):
    lower: FiniteFloat
    upper: FiniteFloat
    confidence_level: float | None = Field(default=None, gt=0, lt=1)


class _Uncertainty(BaseModel):
    standard_error: _StandardError | None = None
    standard_deviation: FiniteFloat | None = Field(default=None, ge=0)
    confidence_interval: _ConfidenceInterval | None = None
    num_samples: int | None = None

    def of_the_score(self) -> float | None:
        """Its standard error, by the first of the three that says it."""
        interval, n = self.confidence_interval, self.num_samples
        if self.standard_error is not None:
            return self.standard_error.value
        if self.standard_deviation is not None and n:
            return self.standard_deviation / math.sqrt(n)
        if interval is not None and interval.confidence_level is not None:
            z = NormalDist().inv_cdf((1 + interval.confidence_level) / 2)
            return (interval.upper - interval.lower) / (2 * z)
        return None


class _ScoreDetails(BaseModel):
    score: FiniteFloat
    uncertainty: _Uncertainty | None = None


class _Metric(BaseModel):
    lower_is_better: bool
    metric_id: str | None = None
    metric_name: str | None = None


class _Entry(BaseModel):
    evaluation_name: str
    evaluation_result_id: str | None = None
    metric_config: _Metric
    score_details: _ScoreDetails

    @property
    def metric(self) -> str:
        return self.metric_config.metric_id or self.metric_config.metric_name or ""


class _Model(BaseModel):
    id: str


class _Samples(BaseModel):
    file_path: str
    hash_algorithm: str | None = None
    checksum: str | None = None
    total_rows: int | None = None


class _Log(BaseModel):
    schema_version: str = Field(pattern=r"^0\.[23]\.")
    evaluation_id: str
    model_info: _Model
    evaluation_results: list[_Entry]
    detailed_evaluation_results: _Samples | None = None


class _Evaluation(BaseModel):
    score: FiniteFloat


class _Line(BaseModel):
    evaluation_id: str
    model_id: str
    evaluation_name: str
    evaluation_result_id: str | None = None
    sample_id: str
    evaluation: _Evaluation


_LOG, _LINE = TypeAdapter(_Log), TypeAdapter(_Line)


def _rows(path: Path) -> Iterator[Row]:
    log: _Log = _parsed(_LOG, _content(path), str(path))
    benchmark, model = log.evaluation_id.partition("/")[0], log.model_info.id
    items: dict[int, list[tuple[str, float]]] = {}
    for number, line in _lines(path, log):
        where = f"{path.stem}{_SAMPLES}.jsonl, line {number}"
        if (line.evaluation_id, line.model_id) != (log.evaluation_id, model):
            raise BadInput(
                f"{where} is of {line.evaluation_id!r} by {line.model_id!r}, its aggregate of "
                f"{log.evaluation_id!r} by {model!r}"
            )
        place = _place(log, line, where)
        items.setdefault(place, []).append((line.sample_id, line.evaluation.score))
    for place, entry in enumerate(log.evaluation_results):
        about = (model, benchmark, entry.evaluation_name, entry.metric)
        lower, details = entry.metric_config.lower_is_better, entry.score_details
        if place in items:
            yield from (Row(*about, item, score, lower) for item, score in items[place])
            continue
        error = details.uncertainty.of_the_score() if details.uncertainty else None
        n = details.uncertainty.num_samples if details.uncertainty else None
        yield Row(*about, "", details.score, lower, error, n)


def _place(log: _Log, line: _Line, where: str) -> int:
    """Which result a sample belongs to: by its id, or by the name where that is one result's."""
    places = [
        place
        for place, entry in enumerate(log.evaluation_results)
        if (
            entry.evaluation_result_id == line.evaluation_result_id
            if line.evaluation_result_id is not None
            else entry.evaluation_name == line.evaluation_name
        )
    ]
    if len(places) != 1:
        sought = line.evaluation_result_id or line.evaluation_name
        raise BadInput(f"{where} is of result {sought!r}, of which its aggregate has {len(places)}")
    return places[0]


def _lines(path: Path, log: _Log) -> Iterator[tuple[int, _Line]]:
    """(line number from 1, sample) of the file beside the aggregate; none where it is not there."""
    said = log.detailed_evaluation_results
    if said is None:
        return
    # 0.3 has the path from the root of the datastore, 0.2 whatever its writer put there
    file = path.with_name(PurePosixPath(said.file_path).name)
    if not file.is_file():
        return
    content = _content(file)
    if said.checksum and said.hash_algorithm in ("sha256", "md5"):
        digest = hashlib.new(said.hash_algorithm, content).hexdigest()
        if digest != said.checksum.lower():
            raise BadInput(
                f"{file} has {said.hash_algorithm} {digest[:12]} where its aggregate says "
                f"{said.checksum[:12]}; fetch both again"
            )
    count = 0
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            count += 1
            yield number, _parsed(_LINE, line, f"{file}, line {number}")
    if said.total_rows is not None and said.total_rows != count:
        raise BadInput(f"{file} has {count} samples where its aggregate says {said.total_rows}")


def _content(path: Path) -> bytes:
    try:
        return read_plain(path)
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror or error}") from None


def _parsed(shape: TypeAdapter[Any], content: bytes, where: str) -> Any:
    try:
        return shape.validate_python(json.loads(content))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise BadInput(
            f"{where} is not every_eval_ever 0.2 or 0.3: {field}: {first['msg']}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is no readable JSON ({type(error).__name__})") from None

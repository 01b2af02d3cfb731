"""What the API answers: the names and types of every endpoint, and their JSON schemas.

Every answer has all of its names, whatever was asked: ``error`` is one sentence where something was
wrong, and then the others are empty. Scores are percent on a board, fractions of one elsewhere, as
each name says.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12


class Error(TypedDict):
    error: str  # empty where all went well


class BoardScore(TypedDict):
    """In percent, with a 95 % interval over the chance ``kind`` (eval.metrics.estimates.KINDS)."""

    value: float | None
    low: float | None
    high: float | None
    kind: str


class BoardRow(TypedDict):
    """One model. ``mean`` in percent, None without a number on every set that counts."""

    model: str
    revision: str
    objective: str
    architecture: str
    params: int
    multiply_adds: int  # of one image at the size that was scored; 0: not counted
    data: str
    facts_from: str  # the files that declare objective, architecture and data; empty: unknown
    training_data: str  # what these mean for its scores; empty: nothing
    tie_group: int  # 0: not told
    places: str
    mean: float | None
    mean_half: float | None
    mean_kind: str
    mean_rank: float | None
    computed: str  # verified or self-reported; empty where nobody asks
    scores: dict[str, BoardScore]  # by data set


class BoardAnswer(Error):
    headline: str
    protocol: str
    setting: str
    score: str
    unit: str
    level: float
    kinds: dict[str, str]  # of intervals, in words
    apart: list[str]  # data sets that count in no mean
    view: str  # the page's query
    rows: list[BoardRow]


class Difference(TypedDict):
    """a - b on one data set, in fractions of one; ``p_holm`` is corrected over those that count."""

    task: str
    title: str
    domain: str
    subset: bool
    a: float
    b: float
    difference: float
    low: float
    high: float
    variance: float
    noise: float
    kind: str
    wins: int
    losses: int
    unit: str
    n: int
    p: float
    p_holm: float
    verdict: str  # better, worse or undecided


class ObjectivesAnswer(Error):
    models: str  # what they have in common
    a: str
    b: str
    sentence: str
    tasks: list[Difference]
    apart: list[Difference]  # of sets that one of them was pretrained on


class PairBoard(TypedDict):
    board: str
    sentence: str
    tasks: list[Difference]
    apart: list[Difference]


class CompareAnswer(Error):
    a: str
    b: str
    boards: list[PairBoard]
    models: list[str]  # that can be named


class Detector(TypedDict):
    """Fractions of one; ``difference`` is the first's value less this one's."""

    model: str
    revision: str
    objective: str
    subset: bool
    value: float
    low: float
    high: float
    kind: str
    difference: float | None
    d_low: float | None
    d_high: float | None
    d_kind: str
    p: float | None
    verdict: str  # first, tied, worse; empty: not tested


class DetectionAnswer(Error):
    data_set: str
    setting: str
    score: str
    headline: str
    rows: list[Detector]
    data_sets: list[str]  # that can be named


class FindingName(TypedDict):
    name: str
    analysis: str
    title: str
    sentence: str


class FindingsAnswer(Error):
    findings: list[FindingName]
    finding: dict[str, Any]  # the named one whole: a finding's file; empty without a name


class RequestRow(TypedDict):
    model: str
    commit: str
    state: str
    note: str
    asked_by: str
    since: str


class RequestsAnswer(Error):
    requests: list[RequestRow]


class SubmitAnswer(Error):
    """``params`` and ``bytes`` are 0, ``licence`` is empty where nothing is known."""

    model: str
    commit: str
    architecture: str
    params: int
    bytes: int
    licence: str
    state: str
    note: str


class Prediction(TypedDict):
    """Of one query; fractions of one, the most probable class first."""

    picture: str
    probabilities: dict[str, float]


class ClassifyModel(TypedDict):
    """``right`` of ``pictures`` were told by a head that had not seen them; ``low`` and ``high``
    bound that share with 95 %. All three are None where a class has one picture."""

    model: str
    params: int
    right: int | None
    pictures: int
    low: float | None
    high: float | None
    places: str  # among the models asked
    group: int  # of ties, from 1; 0: not told
    log_me: float
    temperature: float
    seconds: float
    predictions: list[Prediction]


class ClassifyAnswer(Error):
    sentence: str
    take: str  # the model to take
    classes: list[str]
    models: list[ClassifyModel]  # best first
    notes: list[str]  # what looks odd in the pictures


def schema(answer: type[Any]) -> dict[str, Any]:
    """The JSON schema of an answer, without references."""
    whole = TypeAdapter(answer).json_schema()
    return dict(_whole(whole, whole.get("$defs", {})))


def _whole(value: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_whole(one, definitions) for one in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return _whole(definitions[value["$ref"].rpartition("/")[2]], definitions)
    kept = {k: v for k, v in value.items() if k not in ("$defs", "title", "default")}
    # a property may be called title: those of an object are names, not words about it
    return {
        k: {name: _whole(one, definitions) for name, one in v.items()} if k == "properties"
        else _whole(v, definitions)
        for k, v in kept.items()
    }  # fmt: skip

"""The result file, schema version 1: what was scored, how, on what machine, and the scores."""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from eval.metrics.intervals import ECE_BINS
from eval.metrics.scores import Samples, Score, _Part

SCHEMA_VERSION = 1
ANALYSES = "analyses"  # folder of a results directory: findings about models, no scores
_COUNTS = 65535  # of a confidence of one
SAME_CONFIDENCE = 4 / _COUNTS  # no further apart: the last bits of a float sum, and rounding


class ModelFacts(_Part):
    """What the model's own files say of its making, as its author declared it; what they do not say
    is empty. Files of before this was asked have none of it."""

    objective: str = ""  # ce+selfsupcon, a family such as mae, or untrained
    architecture: str = ""
    data: list[str] = Field(default_factory=list)  # what it was pretrained on
    recipe: str = ""  # equal for models that were trained alike but for objective and seed
    seed: int | None = None  # of the training
    said_in: list[str] = Field(default_factory=list)  # recipe.toml, config.json, README.md


class ModelInfo(_Part):
    spec: str  # the model string that gives exactly these weights
    id: str  # its name on the board
    revision: str
    weights_sha256: str
    params: int  # of the backbone, without classifier
    # of the backbone, on one image of the input's size; None: not counted, or before this was asked
    multiply_adds: int | None = Field(default=None, ge=1, lt=2**63)
    input: dict[str, Any] = Field(default_factory=dict)  # timm's data config
    img_size: int | None = None  # as overridden by the user
    step: int | None = None  # of the training that it was taken from, while that went on
    facts: ModelFacts | None = None  # what is declared of it; None: nobody asked

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A model of no step, whose cost was not counted, or of which nobody asked what is
        declared, is written as files of before these were known have it."""
        out: dict[str, Any] = handler(self)
        for name in ("multiply_adds", "step", "facts"):
            if getattr(self, name) is None:
                out.pop(name, None)
        return out


class TaskInfo(_Part):
    name: str
    source: str
    revision: str
    split_hash: str
    counts: dict[str, int]  # classes, train, test
    duplicates: int = 0  # test images that also stand in train
    subset: bool = False  # less than the whole data set
    split: str = ""  # of a declared set: study, clean, ...; subset for a known smaller copy


class ProtocolInfo(_Part):
    name: str
    config: dict[str, Any]


class ReadoutInfo(_Part):
    """Which features were scored, where not the network's own: see `eval.settings.readout`."""

    pool: str = "default"
    layer: str = ""


class Environment(_Part):
    versions: dict[str, str]
    device: str
    dtype: str
    threads: int
    processes: int = 1
    # of the processor, as torch uses them: "x86_64 AVX512"; earlier files do not say
    instructions: str | None = None

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without instructions as earlier versions wrote it."""
        out: dict[str, Any] = handler(self)
        if self.instructions is None:
            out.pop("instructions", None)
        return out


def pack_confidence(values: NDArray[np.float64]) -> str:
    """[N] probabilities as base64 of little-endian uint16, 65535 for 1. NaN is packed as 0.

    The count is the nearest, or the next above where the nearest lies in another bin of the ECE:
    classifiers that hardly prefer one of three classes answer with 1/3 and a little, and 1/3 is
    such an edge.
    """
    values = np.clip(np.nan_to_num(values), 0, 1)
    counts = np.rint(_COUNTS * values)
    edges = np.linspace(0, 1, ECE_BINS + 1)  # whole counts: 15 divides 65535
    counts += np.searchsorted(edges, values) > np.searchsorted(edges, counts / _COUNTS)
    return base64.b64encode(counts.astype("<u2").tobytes()).decode()


class Result(_Part):
    schema_version: Literal[1]
    model: ModelInfo
    task: TaskInfo
    protocol: ProtocolInfo
    scores: list[Score]
    samples: dict[str, Samples]
    environment: Environment
    seed: int
    seconds: dict[str, float]
    created: str
    details: dict[str, Any] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)  # about data of the user's own
    limit: int | None = None  # images of each split, where the user cut the task short
    # As in the file's name: where the user chose it, or it is not fp32. What was used is
    # environment.dtype; earlier versions chose bf16 without a word here.
    precision: str | None = None
    readout: ReadoutInfo | None = None  # None: the features that the network itself gives
    # the largest probability of each test image, in the order of samples["top1"]: pack_confidence
    confidence: str | None = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _one_confidence_an_image(self) -> Result:
        found, samples = self.confidences(), self.samples.get("top1")
        if found is not None and samples is not None and len(found) != samples.n:
            raise ValueError(f"{len(found)} confidences where top1 has {samples.n} samples")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without confidences, warnings and a readout the file is, byte for byte, what earlier
        versions wrote."""
        out: dict[str, Any] = handler(self)
        if self.readout is None:
            out.pop("readout", None)
        if self.confidence is None:
            out.pop("confidence", None)
        if not self.warnings:
            out.pop("warnings", None)
        return out

    def confidences(self) -> NDArray[np.float64] | None:
        """[N_test] largest probability of each image; None where the protocol has none.

        Raises ValueError for a text that is not base64 of whole uint16, which no result has.
        """
        if self.confidence is None:
            return None
        raw = base64.b64decode(self.confidence, validate=True)
        return np.frombuffer(raw, "<u2").astype(np.float64) / _COUNTS

    def score(self, name: str) -> Score | None:
        return next((s for s in self.scores if s.name == name), None)


def confidence_gap(a: Result, b: Result) -> float:
    """How far apart the confidences are at some image; 0 where one has none, inf where they are
    not as many."""
    ours, theirs = a.confidences(), b.confidences()
    if ours is None or theirs is None:
        return 0.0
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max(initial=0))

"""A score and the samples it is the mean of: what every protocol hands on."""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from eval.metrics.intervals import Interval


class _Part(BaseModel):
    # Unknown fields of a later version survive reading and writing back.
    model_config = ConfigDict(extra="allow", frozen=True)


class Score(_Part):
    """A value with its 95 % interval, over n units (episodes or test images).

    ``kind`` says of which chance the interval speaks (`eval.metrics.estimates.KINDS`); it is empty
    in files of before it was said. A few-shot score also has ``these``, the interval over other
    episodes of the same images that papers print.
    """

    name: str
    value: float
    ci_low: float
    ci_high: float
    n: int
    kind: str = ""
    these: tuple[float, float] | None = None

    @field_validator("these", mode="before")
    @classmethod
    def _a_list(cls, value: Any) -> Any:
        """JSON has lists alone."""
        return tuple(value) if isinstance(value, list) else value

    @classmethod
    def of(
        cls, name: str, interval: Interval, n: int, kind: str = "", these: Interval | None = None
    ) -> Score:
        """Rounded to six digits: the last bits of a float sum depend on the thread count."""

        def rounded(value: float) -> float:
            return round(float(value), 6)

        return cls(
            name=name, value=rounded(interval.value), ci_low=rounded(interval.low),
            ci_high=rounded(interval.high), n=n, kind=kind,
            these=(rounded(these.low), rounded(these.high)) if these else None,
        )  # fmt: skip

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What a file of before a field existed does not have, it does not get."""
        found: dict[str, Any] = handler(self)
        return {k: v for k, v in found.items() if k not in ("kind", "these") or v}


class Samples(_Part):
    """Right answers per unit, in the order of the episodes or of the split's canonical rows.

    A score that is not a mean over units (AP) has its value in each of n resamples of the test
    images instead; models on the same images and seed are resampled alike.
    """

    unit: Literal["episode", "image", "resample"]
    n: int
    of: int  # answers a unit: queries of an episode, 1 for an image; images of a resample
    # base64 of a bit an answer, or of little-endian float32; counts an episode in older files
    correct: list[int] | str = Field(repr=False)
    # the score with one group of the training images left out, for each group: for the jackknife
    # over training images
    without: list[float] | None = Field(default=None, repr=False)

    @classmethod
    def of_episodes(cls, correct: NDArray[np.bool_]) -> Samples:
        """[E, way * queries] right answers, class by class."""
        bits = base64.b64encode(np.packbits(correct).tobytes()).decode()
        return cls(unit="episode", n=len(correct), of=correct.shape[1], correct=bits)

    @classmethod
    def of_images(cls, correct: NDArray[np.bool_], without: list[float] | None = None) -> Samples:
        bits = base64.b64encode(np.packbits(correct).tobytes()).decode()
        return cls(unit="image", n=len(correct), of=1, correct=bits, without=without)

    @classmethod
    def of_resamples(cls, values: NDArray[np.float64], images: int) -> Samples:
        text = base64.b64encode(values.astype("<f4").tobytes()).decode()
        return cls(unit="resample", n=len(values), of=images, correct=text)

    def packed(self) -> bytes:
        """The samples in few bytes: a bit an answer; of older files a byte an episode.

        Raises ValueError for what fits neither.
        """
        if isinstance(self.correct, str):
            return base64.b64decode(self.correct, validate=True)
        return bytes(self.correct)

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        return {k: v for k, v in found.items() if k != "without" or v is not None}

    @model_validator(mode="after")
    def _complete(self) -> Samples:
        if len(self.values()) != self.n:
            raise ValueError(f"{len(self.values())} samples where n says {self.n}")
        return self

    def values(self) -> NDArray[np.float64]:
        """[n] share of right answers of each unit, or the score in each resample."""
        if isinstance(self.correct, str):
            raw = np.frombuffer(base64.b64decode(self.correct, validate=True), np.uint8)
            if self.unit == "resample":
                return raw.view("<f4").astype(np.float64)
            return self.answers().mean(1, dtype=np.float64)
        return np.asarray(self.correct, np.float64) / self.of

    def answers(self) -> NDArray[np.bool_]:
        """[n, of] right answers of episodes or images. Raises ValueError where the file has but
        counts, or resamples."""
        if self.unit == "resample" or not isinstance(self.correct, str):
            raise ValueError("no single answers are known")
        raw = np.frombuffer(base64.b64decode(self.correct, validate=True), np.uint8)
        bits = np.unpackbits(raw)
        if not 0 <= len(bits) - self.n * self.of < 8:
            raise ValueError(f"{len(bits)} answers where n says {self.n} of {self.of}")
        return bits[: self.n * self.of].reshape(self.n, self.of).astype(bool)

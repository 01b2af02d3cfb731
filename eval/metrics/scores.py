"""A score and the samples it is the mean of: what every protocol hands on."""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from eval.metrics.intervals import Interval


class _Part(BaseModel):
    # Unknown fields of a later version survive reading and writing back.
    model_config = ConfigDict(extra="allow", frozen=True)


class Score(_Part):
    name: str
    value: float
    ci_low: float
    ci_high: float
    n: int

    @classmethod
    def of(cls, name: str, interval: Interval, n: int) -> Score:
        """Rounded to six digits: the last bits of a float sum depend on the thread count."""
        value, low, high = (
            round(float(v), 6) for v in (interval.value, interval.low, interval.high)
        )
        return cls(name=name, value=value, ci_low=low, ci_high=high, n=n)


class Samples(_Part):
    """Right answers per unit, in the order of the episodes or of the split's canonical rows.

    A score that is not a mean over units (AP) has its value in each of n resamples of the test
    images instead; models on the same images and seed are resampled alike.
    """

    unit: Literal["episode", "image", "resample"]
    n: int
    of: int  # answers a unit: queries of an episode, 1 for an image; images of a resample
    # counts; base64 of bits for images, of little-endian float32
    correct: list[int] | str = Field(repr=False)

    @classmethod
    def of_episodes(cls, hits: NDArray[np.integer[Any]], queries: int) -> Samples:
        return cls(unit="episode", n=len(hits), of=queries, correct=hits.tolist())

    @classmethod
    def of_images(cls, correct: NDArray[np.bool_]) -> Samples:
        bits = base64.b64encode(np.packbits(correct).tobytes()).decode()
        return cls(unit="image", n=len(correct), of=1, correct=bits)

    @classmethod
    def of_resamples(cls, values: NDArray[np.float64], images: int) -> Samples:
        text = base64.b64encode(values.astype("<f4").tobytes()).decode()
        return cls(unit="resample", n=len(values), of=images, correct=text)

    def packed(self) -> bytes:
        """The samples in few bytes: bits of images, a byte of right answers an episode.

        Raises ValueError for what fits neither.
        """
        if isinstance(self.correct, str):
            return base64.b64decode(self.correct, validate=True)
        return bytes(self.correct)

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
            return np.unpackbits(raw)[: self.n].astype(np.float64)
        return np.asarray(self.correct, np.float64) / self.of

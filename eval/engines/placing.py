"""Where an engine places groups, and how many: what ``--on`` and the flags beside it say."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.common.errors import BadInput, NotFound, did_you_mean
from eval.run.group import Group

_LEAST = {"gpus": 0, "cpus": 1, "max_jobs": 1, "images_per_job": 1}
_TIME = re.compile(r"(?:(\d+)-)?(\d{1,3}):(\d\d)(?::(\d\d))?")


@dataclass(frozen=True)
class Placing:
    """What each job asks for. The names are those of the flags, and of the keys of a TOML file."""

    partition: str = ""  # slurm
    gpus: int = 0  # of a job
    cpus: int = 1
    time: str = "12:00:00"  # slurm: of a job, HH:MM:SS or DAYS-HH:MM
    max_jobs: int = 64  # at once
    images_per_job: int = 200_000  # of one set that one job encodes; several share a larger one
    slurm: Mapping[str, Any] = field(default_factory=dict)  # further options of sbatch

    @property
    def minutes(self) -> int:
        """Raises UserError for a time that Slurm does not take."""
        found = _TIME.fullmatch(self.time)
        if found is None:
            raise BadInput(f"--time {self.time!r} is no time; use HH:MM:SS or DAYS-HH:MM")
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return max(1, (days * 24 + hours) * 60 + minutes + (seconds > 0))


def placing_from(file: Path | None, flags: Mapping[str, Any]) -> Placing:
    """The settings of a TOML file, under those of the flags that are given (not None).

    Raises UserError for a file that is none, a key that is not known and a value out of bounds.
    """
    told: dict[str, Any] = {}
    if file is not None:
        try:
            told = tomllib.loads(file.read_text())
        except FileNotFoundError:
            raise NotFound(f"--engine {str(file)!r} does not exist") from None
        except (OSError, ValueError) as error:
            raise BadInput(f"--engine {str(file)!r} is no TOML that can be read: {error}") from None
    told = {key.replace("-", "_"): value for key, value in told.items()}
    told |= {key: value for key, value in flags.items() if value is not None}
    known = [f.name for f in dataclasses.fields(Placing)]
    for key, value in told.items():
        if key not in known:
            raise BadInput(
                f"--engine {str(file)!r} has the key {key!r}"
                + did_you_mean(key, known, "known are " + ", ".join(known))
            )
        if key in _LEAST:
            if not isinstance(value, int) or value < _LEAST[key]:
                raise BadInput(f"{key} must be a number of at least {_LEAST[key]}, got {value!r}")
        elif not isinstance(value, wanted := dict if key == "slurm" else str):
            shape = "a table" if wanted is dict else "text"
            raise BadInput(f"{key} must be {shape}, got {value!r}")
    placing = Placing(**told)
    _ = placing.minutes
    return placing


def portions(groups: Sequence[Group], slots: int) -> Iterator[tuple[Group, ...]]:
    """The groups of each model together, as it is then loaded once; in smaller portions where
    there would be fewer than four for each of the slots, so that all end at about the same time."""
    most = max(1, len(groups) // (4 * slots))
    by_model: dict[str, list[Group]] = {}
    for group in groups:
        by_model.setdefault(group.shelf, []).append(group)
    for mine in by_model.values():
        for start in range(0, len(mine), most):
            yield tuple(mine[start : start + most])

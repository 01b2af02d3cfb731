"""Some results of a pull request computed again before it is merged.

What is consistent with itself may still be invented: the same model on the same images says so.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from eval.common.errors import UserError
from eval.common.text import counted
from eval.data.locations import Data
from eval.results.schema import Result
from eval.results.store import write_result
from eval.run.verify import verify
from eval.tasks.registry import TASKS


@dataclass(frozen=True)
class Sample:
    """What came out: paths that were computed again, those that could not be and why, and the
    sentence on the first that differs, after which none was looked at."""

    verified: tuple[str, ...]
    absent: tuple[tuple[str, str], ...] = ()
    differing: str = ""

    @property
    def absent_text(self) -> str:
        """How many could not be computed again, and why the first could not."""
        if not self.absent:
            return ""
        path, why = self.absent[0]
        return f"{counted(len(self.absent), 'result')} could not be, the first {path}: {why}"


Recompute = Callable[[Mapping[str, Result]], Sample]  # of results by path


def sampler(count: int, cache: Path, data: Data | None) -> Recompute:
    """Computes ``count`` results again, drawn so that nobody can know which; where the data or the
    model of one is not at hand, another is drawn."""

    def recompute(results: Mapping[str, Result]) -> Sample:
        verified: list[str] = []
        absent: list[tuple[str, str]] = []
        drawn = sorted(results)
        random.SystemRandom().shuffle(drawn)
        for path in drawn:
            if len(verified) == count:
                break
            if why := _elsewhere(results[path]):
                absent.append((path, why))
                continue
            with tempfile.TemporaryDirectory(prefix="transferzoo-merge-") as folder:
                file = Path(folder) / "result.json"
                write_result(file, results[path])
                try:
                    verdict = verify(file, cache, data)
                except UserError as error:
                    absent.append((path, str(error).replace(str(file), "it")))
                    continue
            if verdict.word == "differs":
                why = next(d.text for d in verdict.differences if not d.allowed)
                return Sample(tuple(verified), tuple(absent), f"{path} differs ({why})")
            verified.append(path)
        return Sample(tuple(verified), tuple(absent))

    return recompute


def _elsewhere(result: Result) -> str:
    """Why a stranger's result is not even tried: it would be asked for in files of this machine."""
    source, spec = result.task.source, result.model.spec
    if result.task.name not in TASKS and not source.startswith("hub:"):
        return f"its data ({source!r}) are its author's own"
    if not spec.startswith(("hf-hub:", "zoo:", "random:")):
        return f"its model ({spec!r}) is its author's own"
    return ""

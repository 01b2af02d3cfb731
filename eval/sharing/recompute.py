"""Some results of a pull request computed again before it is merged.

What is consistent with itself may still be invented: the same model on the same images says so.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from eval.common.errors import Refused, UserError
from eval.common.text import counted
from eval.data.locations import Data
from eval.models.arguments import MOST_PX
from eval.models.names import split_architecture
from eval.models.resolve import resolve
from eval.models.untrained import check_untrained
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


def sampler(
    count: int, cache: Path, data: Data | None, admit: Callable[[str], object]
) -> Recompute:
    """Computes ``count`` results again, drawn so that nobody can know which; where the data or the
    model of one is not at hand, another is drawn.

    ``admit`` raises UserError for a model of the Hub (``hf-hub:org/name@sha``) that is not to be
    built here: it is asked before any weights are downloaded.
    """

    def recompute(results: Mapping[str, Result]) -> Sample:
        verified: list[str] = []
        absent: list[tuple[str, str]] = []
        drawn = sorted(results)
        random.SystemRandom().shuffle(drawn)
        for path in drawn:
            if len(verified) == count:
                break
            try:
                _admit(results[path], cache, admit)
            except UserError as error:
                absent.append((path, str(error)))
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


def _admit(result: Result, cache: Path, admit: Callable[[str], object]) -> None:
    """Raises UserError, saying why, for a stranger's result that is not even tried: it would be
    asked for in files of this machine, or its model would fill it."""
    source, spec = result.task.source, result.model.spec
    if result.task.name not in TASKS and not source.startswith("hub:"):
        raise Refused(f"its data ({source!r}) are its author's own")
    if (result.model.img_size or 0) > MOST_PX:
        raise Refused(
            f"its images are of {result.model.img_size:,} px, at most {MOST_PX:,} are encoded"
        )
    if spec.startswith("hf-hub:"):
        admit(split_architecture(spec)[0])
    elif spec.startswith("random:"):
        check_untrained(resolve(spec, cache, result.model.img_size))
    elif not spec.startswith("zoo:"):
        raise Refused(f"its model ({spec!r}) is its author's own")

"""What a worker does while its queue is empty: it computes self-reported results again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from eval.common.errors import UserError, one_line
from eval.data.locations import Data
from eval.results.evidence import broken
from eval.results.signoff import content_of, sign_offs, signed, write_sign_off
from eval.results.store import NotAResult, read_result, result_files
from eval.run.sign_off import root_of, verify_and_sign


class Reviewer:
    """Signs results of one directory off: those that its worker computed itself, and those of
    others that come out again. Each file is looked at once, until it changes."""

    def __init__(
        self, root: Path, cache: Path, data: Data | None, by: str, say: Callable[[str], None]
    ) -> None:
        self._root, self._cache, self._data, self._by, self._say = root, cache, data, by, say
        self._seen: dict[Path, tuple[int, int]] = {}

    def sign(self, path: Path) -> None:
        """A result that was computed here a moment ago."""
        result = read_result(path)
        root = root_of(path, result)
        place = path.resolve().relative_to(root).as_posix()
        write_sign_off(root, signed(result, place, "equal", self._by))

    def one(self) -> bool:
        """Compute the next self-reported result again; False where none is left.

        What goes wrong with one is said, and it stays self-reported.
        """
        path = self._next()
        if path is None:
            return False
        try:
            verdict, file = verify_and_sign(path, self._cache, self._data, self._by)
        except UserError as error:
            said = f"could not be computed again ({one_line(error)})"
        except Exception as error:
            said = f"could not be computed again ({type(error).__name__}: {one_line(error)})"
        else:
            first = next((d.text for d in verdict.differences if not d.allowed), "")
            said = f"{verdict.word}, signed off" if file else f"differs ({first})"
        self._say(f"{path.relative_to(self._root)}: {said}")
        return True

    def _next(self) -> Path | None:
        if not self._root.is_dir():
            return None
        offs = sign_offs(self._root)
        for path in result_files(self._root):
            try:
                found = path.stat()
                stamp = found.st_size, found.st_mtime_ns
                if self._seen.get(path) == stamp:
                    continue
                self._seen[path] = stamp
                result = read_result(path)
            except (OSError, NotAResult):
                continue
            if not broken(result) and content_of(result) not in offs:
                return path
        return None

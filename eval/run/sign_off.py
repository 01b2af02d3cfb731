"""Computing a result again and saying so beside it."""

from __future__ import annotations

from pathlib import Path

from eval.common.errors import BadInput, Conflict
from eval.data.locations import Data
from eval.results.names import shelf_folder
from eval.results.schema import Result
from eval.results.signoff import content_of, signed, write_sign_off
from eval.results.store import NotAResult, read_result
from eval.run.verdict import Verdict
from eval.run.verify import verify


def verify_and_sign(
    path: Path, cache: Path, data: Data | None, by: str
) -> tuple[Verdict, Path | None]:
    """(what came out, the sign-off's file); no sign-off where it differs.

    Raises UserError where `verify` does, and where the file changed meanwhile.
    """
    before = _read(path)
    verdict = verify(path, cache, data)
    if verdict.word == "differs":
        return verdict, None
    if content_of(_read(path)) != content_of(before):
        raise Conflict(f"{path} changed while it was verified; verify it again")
    root = root_of(path, before)
    place = path.resolve().relative_to(root).as_posix()
    return verdict, write_sign_off(root, signed(before, place, verdict.word, by))


def root_of(path: Path, result: Result) -> Path:
    """The results directory that a file lies in: its own folder where it is not on a shelf."""
    file = path.resolve()
    shelved = file.parent.as_posix().endswith(f"/{shelf_folder(result.model)}")
    return file.parents[2] if shelved else file.parent


def _read(path: Path) -> Result:
    try:
        return read_result(path)
    except NotAResult as why:
        raise BadInput(f"{path} is not a result file: {why}") from None

"""A checkpoint's folder -> its model card: README.md, its picture and the Hub's result files.

Every number in the card comes from a file in the folder (or in a sibling's): what has no file is
not printed. The generated text stands between markers; what a person writes outside them, and
metadata keys that are not ours, stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from eval.common.errors import BadInput, UserError, one_line
from eval.common.files import atomic_file
from eval.hub.commits import check_repo_id
from eval.models.names import ZOO_ORG
from zoo.card.body import facts
from zoo.card.metadata import KINDS, SOURCE, eval_results, metadata
from zoo.checkpoint import CURVE, Checkpoint, read_checkpoint, siblings

BEGIN = "<!-- transferzoo: `transfer-zoo card` writes what follows; your own text goes outside -->"
END = "<!-- /transferzoo -->"
_HEAD = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*\n?", re.DOTALL | re.MULTILINE)


def render(folder: Path, repo: str | None = None) -> dict[str, bytes]:
    """Path in the folder -> content of all that is generated: README.md, .eval_results/*.yaml and,
    where there is a training log, the learning curve.

    The same folder (and siblings) give the same bytes; the picture's depend on matplotlib's
    version too. ``repo`` is the Hub repository the card speaks of, by default the one it names
    now. Raises UserError where the folder's files contradict each other.
    """
    checkpoint = read_checkpoint(folder)
    old = _read(checkpoint.folder / "README.md")
    repo = repo or repo_named(old) or f"{ZOO_ORG}/{checkpoint.name}"
    check_repo_id(repo, "--repo")
    family = siblings(checkpoint)
    files = {"README.md": _readme(checkpoint, family, repo, old).encode()}
    for name, entries in eval_results(checkpoint, repo).items():
        files[f".eval_results/{name}.yaml"] = _yaml(entries).encode()
    if checkpoint.log:
        from zoo.card.curve import draw, drawn_from

        path = checkpoint.folder / CURVE
        log = checkpoint.folder / "log.jsonl"
        files[CURVE] = path.read_bytes() if drawn_from(path, log) else draw(checkpoint, log)
    return files


@dataclass(frozen=True)
class Written:
    """What ``transfer-zoo card`` changed."""

    changed: tuple[str, ...]
    removed: tuple[str, ...]


def write(folder: Path, repo: str | None = None) -> Written:
    """Bring the folder's card up to date, each file atomically."""
    files = render(folder, repo)
    changed = [name for name in files if _bytes(folder / name) != files[name]]
    for name in changed:
        with atomic_file(folder / name) as file:
            file.write(files[name])
    stale = _stale(folder, files)
    for name in stale:
        (folder / name).unlink()
    return Written(tuple(changed), tuple(stale))


def out_of_step(folder: Path) -> list[str]:
    """Generated files that are not what the folder's other files say now."""
    files = render(folder)
    wrong = [name for name in files if _bytes(folder / name) != files[name]]
    return wrong + _stale(folder, files)


def _stale(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    """Our own result files for results that are gone; other people's stay."""
    ours = (folder / ".eval_results").glob("transferzoo*.yaml")
    names = sorted(path.relative_to(folder).as_posix() for path in ours)
    return [name for name in names if name not in files]


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None


def repo_named(readme: str) -> str | None:
    """The Hub repository that a card of ours tells to load."""
    head = _HEAD.match(readme)
    inside = _generated(readme[head.end() :] if head else readme)[1]
    found = re.search(r'create_model\(\s*"hf-hub:([\w.-]+/[\w.-]+)"', inside)
    return found[1] if found else None


# ---------------------------------------------------------------------- README.md


def _readme(checkpoint: Checkpoint, family: Sequence[Checkpoint], repo: str, old: str) -> str:
    head = _HEAD.match(old)
    try:
        held = yaml.safe_load(head[1]) or {} if head else {}
        if not isinstance(held, dict):
            raise ValueError("it is not a mapping")
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(
            f"the metadata of {checkpoint.folder}/README.md are not YAML: {one_line(error)}"
        ) from None
    before, _, after = _generated(old[head.end() :] if head else old)
    head_matter = _merged(metadata(checkpoint, repo), held)
    body = _template().render(facts(checkpoint, family, repo)).strip()
    return f"---\n{_yaml(head_matter)}---\n{before}{BEGIN}\n\n{body}\n\n{END}\n{after}"


def _generated(text: str) -> tuple[str, str, str]:
    """(before, generated, after) of a card's text; text without markers is all a person's."""
    begins, ends = text.count(BEGIN), text.count(END)
    if begins == ends == 0:
        return "", "", text
    if begins != 1 or ends != 1 or text.index(BEGIN) > text.index(END):
        raise BadInput(
            f"README.md has {begins} begin and {ends} end markers of the generated part; keep one "
            f"{BEGIN!r} before one {END!r}, or remove both"
        )
    before, _, rest = text.partition(BEGIN)
    inside, _, after = rest.partition(END)
    return before, inside, after.removeprefix("\n")


def _merged(ours: dict[str, Any], held: dict[str, Any]) -> dict[str, Any]:
    """Our metadata with a person's: other keys, more tags and data sets, results from elsewhere."""
    merged = ours | {k: v for k, v in held.items() if k not in ours and k not in _OURS_ALONE}
    for key in ("tags", "datasets"):
        theirs = [held[key]] if isinstance(held.get(key), str) else held.get(key) or []
        more = [t for t in theirs if t not in ours.get(key, []) and not _made_by_us(str(t))]
        if ours.get(key) or more:
            merged[key] = [*ours.get(key, []), *more]
    name, foreign = _foreign_results(held.get("model-index") or [])
    if foreign:
        index = ours.get("model-index") or [{"name": name, "results": []}]
        merged["model-index"] = [{**index[0], "results": [*index[0]["results"], *foreign]}]
    return merged


_OURS_ALONE = ("model-index", "tags", "datasets")


def _made_by_us(tag: str) -> bool:
    """Whether an earlier card of ours put this tag there: it may no longer be true."""
    return tag.startswith("objective:") or tag in KINDS


def _foreign_results(index: Any) -> tuple[str, list[dict[str, Any]]]:
    """(model's name, results that are not ours) of a model-index."""
    try:
        results = [result for model in index for result in model["results"]]
        foreign = [r for r in results if (r.get("source") or {}).get("name") != SOURCE]
        return (str(index[0]["name"]) if index else "", foreign)
    except (TypeError, KeyError, AttributeError):
        raise BadInput("README.md has a 'model-index' of another form; mend or remove it") from None


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parents[1] / "templates"),
        undefined=StrictUndefined,  # a fact that is missing is a bug, not an empty place
        autoescape=False,  # Markdown: card_body escapes what is foreign
        keep_trailing_newline=True,
    )
    return environment.get_template("card.md.jinja")

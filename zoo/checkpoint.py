"""A checkpoint's folder, read and checked: what its Hub repository holds. Imports no torch."""

from __future__ import annotations

import json
import math
import re
import struct
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.common.errors import BadInput, Refused, UserError
from eval.common.files import sha256_file
from eval.models.names import study_order
from eval.models.objectives import ObjectiveName, parse_objective
from eval.models.resolve import folder_revision
from eval.results.names import number_format, portable, shelf_path
from eval.results.schema import Result
from eval.results.store import NotAResult, read_result, read_shelf, write_result
from zoo.train.recipe import Recipe, completed, decisive, validate

CURVE = "learning_curve.png"
_ALONE = ("README.md", "config.json", "model.safetensors", "recipe.toml", "source.toml",
          "log.jsonl", CURVE)  # fmt: skip
_INSIDE = {"results": ".json", ".eval_results": ".yaml"}
# A run's training states, the Hub's own file, what a clone or a download leaves.
_LEFT_BEHIND = ("state", ".gitattributes", ".git", ".cache")
_PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl", ".pickle", ".tar")
_BUFFERS = re.compile(r"(^|\.)(running_mean|running_var|num_batches_tracked)$")


class _Section(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class Run(_Section):
    """[run] of recipe.toml: what happened in the training."""

    objective: str
    weights: dict[str, float] = {}  # of terms, where they were written out
    learning_rate: float
    data: str
    data_fingerprint: str
    images: int
    classes: int
    images_seen: int
    seconds: float
    validation_knn_top1: float | None = None
    precision: str
    device: str
    versions: dict[str, str] = {}


class Source(_Section):
    """[source] of source.toml: the foreign file that was converted."""

    kind: str
    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    objective: str | None = None
    keys_used: int
    keys_dropped: int


Part = TypeVar("Part", bound=_Section)


@dataclass(frozen=True)
class Checkpoint:
    """Weights with all that is known of them. ``recipe``, ``run`` and ``log`` are of a backbone
    trained here, ``source`` of a converted one."""

    folder: Path
    config: dict[str, Any]
    weights_sha256: str
    params: int  # without buffers, with the classifier
    recipe: Recipe | None
    run: Run | None
    source: Source | None
    log: tuple[dict[str, Any], ...]
    results: tuple[tuple[str, Result], ...]  # (path in the folder, what it says)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def classes(self) -> int:
        return int(self.config.get("num_classes", 0))

    @property
    def px(self) -> int:
        return int(self.config["pretrained_cfg"]["input_size"][1])

    @property
    def objective(self) -> ObjectiveName | None:
        """What it was trained with; None where its file did not tell."""
        text = self.run.objective if self.run else self.source.objective if self.source else None
        return parse_objective(text) if text else None

    @property
    def data(self) -> str:
        """The data set it was trained on, by name; empty where it is not known."""
        return self.run.data if self.run else ""

    @property
    def weights(self) -> dict[str, float]:
        """Of the objective's terms, all of them."""
        name = self.objective
        if name is None:
            return {}
        known = self.recipe.term_weights(name) if self.recipe else {}
        known |= self.run.weights if self.run else {}
        return {term: known.get(term, 1.0) for term, _ in name.terms}

    @property
    def knn(self) -> list[tuple[float, float]]:
        """(epoch, top-1 in percent) of each probe of the training."""
        return [(row["epoch"], row["knn_top1"]) for row in self.log if "knn_top1" in row]


def contents(folder: Path) -> tuple[str, ...]:
    """Paths of the files that belong on the Hub, sorted.

    Raises UserError for a folder that lacks what a model needs or holds what does not belong.
    """
    if not folder.is_dir():
        raise BadInput(f"{str(folder)!r} is not a folder; name one like those in model_cards/")
    found: list[str] = []
    extra: list[str] = []
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.is_dir() or place.parts[0] in _LEFT_BEHIND:
            continue
        inside = len(place.parts) == 2 and path.suffix == _INSIDE.get(place.parts[0])
        (found if inside or place.as_posix() in _ALONE else extra).append(place.as_posix())
    if pickles := [name for name in extra if name.endswith(_PICKLES)]:
        raise Refused(
            f"{folder} holds {pickles[0]!r}, a format that can run code when loaded; "
            "move it away (model.safetensors has the weights)"
        )
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise BadInput(
            f"{folder} holds {extra[0]!r}{more}, which belongs to no checkpoint; move it away"
        )
    for name in ("config.json", "model.safetensors"):
        if name not in found:
            raise UserError(f"{folder} has no {name}")
    if "recipe.toml" not in found and "source.toml" not in found:
        raise BadInput(
            f"{folder} has neither recipe.toml (of `transfer-zoo pretrain`) nor source.toml (of "
            "`transfer-zoo convert`), so nobody could tell where its weights come from"
        )
    return tuple(found)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Everything in the folder, each part checked against the others.

    Raises UserError for missing or extra files, for files that cannot be read, and for results
    that were measured on other weights.
    """
    folder = folder.resolve()
    files = contents(folder)
    config = _config(folder / "config.json")
    recipe, run, source = None, None, None
    if "recipe.toml" in files:
        tree = _toml(folder / "recipe.toml")
        run = _section(Run, tree.pop("run", None), folder / "recipe.toml", "run")
        recipe = validate(tree, f"{folder}/recipe.toml")
        parse_objective(run.objective)
    if "source.toml" in files:
        path = folder / "source.toml"
        source = _section(Source, _toml(path).get("source"), path, "source")
    log = _log(folder / "log.jsonl") if "log.jsonl" in files else ()
    checkpoint = Checkpoint(
        folder, config, sha256_file(folder / "model.safetensors"),
        _params(folder / "model.safetensors"), recipe, run, source, log, _results(folder, files),
    )  # fmt: skip
    _check_results(checkpoint)
    last = checkpoint.knn[-1][1] if checkpoint.knn else None
    if run is not None and run.validation_knn_top1 != last:
        raise BadInput(
            f"{folder}: recipe.toml says validation kNN {run.validation_knn_top1}, "
            f"the last of log.jsonl is {last}; one of them is of another run"
        )
    return checkpoint


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
        if not isinstance(config["architecture"], str):
            raise TypeError
        size = config["pretrained_cfg"]["input_size"]
        if len(size) != 3 or not all(isinstance(v, int) for v in size):
            raise TypeError
        for key in ("mean", "std", "interpolation", "crop_pct"):
            config["pretrained_cfg"][key]
        for key in ("num_classes", "num_features"):
            if type(config.get(key, 0)) is not int or config.get(key, 0) < 0:
                raise TypeError(f"{key} {config[key]!r}")
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(
            f"{path} is not a complete config of timm's: it needs 'architecture' and a "
            "'pretrained_cfg' with input_size, mean, std, interpolation and crop_pct "
            f"({type(error).__name__} at {error})"
        ) from None
    return config


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None


def _section(kind: type[Part], value: Any, path: Path, name: str) -> Part:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([name, *(str(part) for part in first["loc"])])
        what = "is missing" if first["type"] == "missing" or value is None else first["msg"].lower()
        raise UserError(f"{path}: {where}: {what}") from None


def _log(path: Path) -> tuple[dict[str, Any], ...]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            if not all(isinstance(row[key], int | float) for key in ("epoch", *row)):
                raise TypeError
    except (ValueError, TypeError, KeyError):
        raise BadInput(
            f"{path} is not a log of a training: a line of it is not a JSON object of numbers "
            "with epoch"
        ) from None
    return tuple(rows)


def _params(path: Path) -> int:
    """Counted from the header alone."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, 100_000_000)))
        shapes = {k: v["shape"] for k, v in header.items() if k != "__metadata__"}
        return sum(math.prod(s) for name, s in shapes.items() if not _BUFFERS.search(name))
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(f"{path} is not a safetensors file") from None


def _results(folder: Path, files: tuple[str, ...]) -> tuple[tuple[str, Result], ...]:
    found = []
    for name in files:
        if name.startswith("results/"):
            try:
                found.append((name, read_result(folder / name)))
            except NotAResult as why:
                raise BadInput(f"{folder / name} is not a result file: {why}") from None
    return tuple(found)


def _check_results(checkpoint: Checkpoint) -> None:
    """Every number must have been measured on these very weights, prepared in this very way."""
    revision = folder_revision(checkpoint.folder)
    seen: dict[tuple[str, ...], str] = {}
    for name, result in checkpoint.results:
        path = checkpoint.folder / name
        if result.model.weights_sha256 != checkpoint.weights_sha256:
            raise BadInput(
                f"{path} was measured on other weights (sha256 {result.model.weights_sha256[:12]}, "
                f"here {checkpoint.weights_sha256[:12]}); run transfer-eval again or move it away"
            )
        if _is_local(result) and result.model.revision != revision:
            raise BadInput(
                f"{path} was measured with another config.json; run transfer-eval again or move "
                "it away"
            )
        setting = json.dumps(result.protocol.config, sort_keys=True)
        which = (result.task.split_hash, result.protocol.name, setting, str(result.seed),
                 str(result.limit), number_format(result), str(result.model.img_size))  # fmt: skip
        if which in seen:
            raise BadInput(f"{path} and {seen[which]} are results of the same thing; keep one")
        seen[which] = name


def _is_local(result: Result) -> bool:
    """Whether its revision is a folder's content rather than a commit of the Hub."""
    return result.model.spec.partition(":")[0] in ("zoo", "local-dir")


def adopt(folder: Path, shelf: Path) -> list[str]:
    """Copy the results that a shelf holds of these weights into ``results/``; their names.

    Raises UserError where the shelf has none.
    """
    contents(folder)
    weights, revision = sha256_file(folder / "model.safetensors"), folder_revision(folder)
    mine = [
        result
        for _, result in read_shelf(shelf).results
        if result.model.weights_sha256 == weights
        and (not _is_local(result) or result.model.revision == revision)
    ]
    if not mine:
        raise BadInput(
            f"no result under {str(shelf)!r} was measured on the weights and config of {folder}"
        )
    found: dict[str, Result] = {}
    for result in sorted(mine, key=lambda r: r.created):
        name = _file_name(result, by_hash=False)
        if name in found and found[name].task.split_hash != result.task.split_hash:
            name = _file_name(result, by_hash=True)
        found[name] = result
    for name, result in found.items():
        write_result(folder / "results" / name, portable(result))
    return sorted(f"results/{name}" for name in found)


def _file_name(result: Result, *, by_hash: bool) -> str:
    name = Path(shelf_path(result, by_hash=by_hash)).name
    if result.model.img_size:  # other sizes lie in folders of their own on a shelf
        name = f"{name.removesuffix('.json')}@{result.model.img_size}px.json"
    return name


def siblings(checkpoint: Checkpoint) -> list[Checkpoint]:
    """The checkpoints beside it that differ in the objective alone, itself among them: same
    recipe (but for how often it was probed and saved), same data. In the order of the study."""
    if checkpoint.recipe is None:
        return [checkpoint]
    assert checkpoint.run is not None
    mine = decisive(json.loads(checkpoint.recipe.model_dump_json()))
    data = (checkpoint.run.data_fingerprint, checkpoint.run.images_seen)
    found = {checkpoint.folder: checkpoint}
    for path in checkpoint.folder.parent.glob("*/recipe.toml"):
        folder, tree = path.parent.resolve(), _toml(path)  # a link may name one twice
        run = tree.pop("run", {})
        same = decisive(completed(tree)) == mine and isinstance(run, dict)
        same = same and (run.get("data_fingerprint"), run.get("images_seen")) == data
        if same and folder not in found:
            found[folder] = read_checkpoint(folder)
    return sorted(found.values(), key=lambda c: study_order(c.name))

"""What stands behind a cell: its file without the numbers of single images, and the command that
makes it again."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.common.errors import BadInput
from eval.protocols import PROTOCOLS
from eval.results.names import earlier, readout_of, task_label
from eval.results.schema import Result
from eval.results.store import NotAResult, read_result
from eval.tasks.registry import TASKS


@dataclass(frozen=True)
class Receipt:
    """A cell's title, its result without the numbers of single images, and how to have it again."""

    title: str
    content: dict[str, Any]
    command: str


def receipt(root: Path, path: str) -> Receipt:
    """Raises UserError where the file is gone since the table was made."""
    result = read(root, path)
    content = result.model_dump(mode="json", exclude={"samples", "confidence"})
    title = f"{result.model.id} on {result.task.name}, {result.protocol.name}"
    return Receipt(title, content, command(result))


def read(root: Path, path: str) -> Result:
    """One result of the shelf. Raises UserError where it is gone since the table was made."""
    # The Hub's cache links the files of a commit to its blobs: ROOT is .../snapshots/SHA then.
    bounds = root.parent.parent if root.parent.name == "snapshots" else root
    place = (root / path).resolve()
    if not place.is_relative_to(bounds.resolve()):  # a link out of the shelf
        raise BadInput("this result lies outside of the results")
    try:
        return read_result(place)
    except NotAResult:
        raise BadInput("this result is gone or was changed; the table is read anew") from None


def _owner(result: Result) -> str:
    """hub:OWNER where the data came from a repository of the Hub, OWNER/<task>."""
    repo = result.task.source.removeprefix("hub:")
    return f"hub:{repo.partition('/')[0]}" if repo != result.task.source else ""


def _is_copy(result: Result) -> bool:
    """Whether the data are the copy on the Hub that the declaration names."""
    copy = TASKS[result.task.name].hub
    return copy is not None and result.task.source == f"hub:{copy.repo}"


def command(result: Result) -> str:
    """The line that makes this result again."""
    known = TASKS.get(result.task.name)
    # A published result names no folder: the reader's own goes there.
    elsewhere = result.task.source.startswith("local:")
    task = result.task.name if known else "imagefolder:DIR" if elsewhere else result.task.source
    if known:
        task = task_label(task, result.task.split)
    words = ["transfer-eval", "run", result.model.spec, "--task", task,
             "--protocol", result.protocol.name]  # fmt: skip
    if known and not known.embedded and not _is_copy(result):
        words += ["--data", _owner(result) or "DATA"]
    config = result.protocol.config | earlier(result.protocol)
    settings = PROTOCOLS.get(result.protocol.name)
    shots = config.get("shots")
    if isinstance(shots, list) and shots and all(type(k) is int for k in shots):
        words += ["--shots", *map(str, shots)]
    default = vars(settings.settings()) if settings else {}
    flags = ("n_way", "queries", "episodes")
    for name in flags:
        if name in config and config[name] != default.get(name):
            words += [f"--{name.replace('_', '-')}", str(config[name])]
    if settings:
        for name, value in config.items():
            plain = name not in (*flags, "shots")
            if plain and name in default and value != _plain(default[name]):
                words += ["--set", f"{settings.name}.{name}={_toml(value)}"]
    read = readout_of(result).changed
    for flag, value in (("--seed", result.seed), ("--limit", result.limit),
                        ("--img-size", result.model.img_size),
                        ("--precision", result.precision),
                        *((f"--{k}", v) for k, v in read.items())):  # fmt: skip
        if value:
            words += [flag, str(value)]
    return shlex.join(words)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _toml(value: Any) -> str:
    """A setting as --set takes it: a bare word is a string."""
    return value if isinstance(value, str) else json.dumps(value)

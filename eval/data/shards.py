"""Which Parquet files of a folder are train and which are scored, and whether all are there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.common.errors import BadInput
from eval.data.inventory.facts import Inventory, Tally
from eval.data.inventory.junk import is_junk
from eval.data.inventory.split_words import FREE, Chosen, Given, choose, is_told, role_of
from eval.data.sources import ParquetSource

_SHARD = re.compile(r"-(\d+)-of-(\d+)\b")
_NUMBERED = re.compile(r"(.+)_(\d+)")


@dataclass(frozen=True)
class Shards:
    """The files of both parts, in order."""

    train: tuple[Path, ...]
    test: tuple[Path, ...]
    validation: tuple[tuple[Path, ...], ...]  # of a part beside a test; at most one
    names: tuple[str, ...]  # its name
    inventory: Inventory


def read_shards(
    folder: Path, subject: str = "", given: Given = FREE, boxes: bool = False
) -> Shards:
    """Files PART.parquet, PART-*.parquet, PART_0.parquet and on, or PART/*.parquet, in ``folder``
    or in its ``data``, as a copy of a data set of the Hub lies.

    ``given`` are the parts that the user names. Opens no file. Raises UserError for
    a part that is missing, for shards that are missing or of two writings, and for parts that
    cannot be told apart.
    """
    head = f"{subject}: " if subject else ""
    parts = _parts(folder, given) or _parts(folder / "data", given)
    chosen = choose(parts, f"{head}{folder}", given, boxes=boxes) or _none(folder, parts, head)
    taken = (chosen.train, chosen.test, *chosen.validation)
    files = [_whole(folder, name, parts[name], head) for name in taken]
    tally = Tally("Parquet files")
    tally.take(sum(map(len, files)))
    for said in (*chosen.said, *_united(taken, files, given)):
        tally.say(said)
    for name in sorted(parts.keys() - {*taken}):
        for file in parts[name]:
            tally.leave(f"of part {name}", file.name, expected=is_told(name, chosen, given))
    train_files, test_files, *held = files
    return Shards(train_files, test_files, tuple(held), chosen.validation, tally.done())


def every_shard(folder: Path, subject: str) -> tuple[Path, ...]:
    """All Parquet files of ``folder``, or of its ``data``, whatever their parts, in order. Opens no
    file. Raises UserError where there is none, and for a part of which shards are missing."""
    parts = _parts(folder) or _parts(folder / "data")
    if not parts:
        raise BadInput(f"{subject}: {folder} holds no Parquet file")
    return tuple(
        file for name in sorted(parts) for file in _whole(folder, name, parts[name], f"{subject}: ")
    )


def parquet_pair(folder: Path) -> tuple[ParquetSource, ParquetSource]:
    """(train, test) of a folder of train-*.parquet and test-*.parquet, or validation-*.parquet
    instead. Raises UserError as ``read_shards`` does; no file is opened."""
    found = read_shards(folder)
    return ParquetSource(found.train), ParquetSource(found.test)


def _parts(folder: Path, given: Given = FREE) -> dict[str, list[Path]]:
    """Part -> its files: by the beginning of their names, or by the folder that they lie in."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.parquet")):
        if file.is_file() and not is_junk(file.name):
            found.setdefault(file.stem.partition("-")[0], []).append(file)
    if not found:
        for file in sorted(folder.glob("*/*.parquet")):
            if file.is_file() and not is_junk(file.name) and role_of(file.parent.name):
                found.setdefault(file.parent.name, []).append(file)
        return found
    return _joined(found, given)


def _joined(found: Mapping[str, list[Path]], given: Given) -> dict[str, list[Path]]:
    """Files train_0, train_1, .. as shards of train, where those of all parts are numbered from 0
    or 1 without a gap: other numbers, such as years, tell parts apart. All stay parts of their own
    where the user names one of them."""
    runs: dict[str, dict[int, str]] = {}
    for name in sorted(found):
        match = _NUMBERED.fullmatch(name)
        if match and name in given.options().values():
            return dict(found)
        if match and role_of(match[1]) and all(file.stem == name for file in found[name]):
            runs.setdefault(match[1], {})[int(match[2])] = name
    parts = dict(found)
    if any(min(run) > 1 or max(run) - min(run) >= len(run) for run in runs.values()):
        return parts
    for part, names in runs.items():
        shards = [file for number in sorted(names) for file in parts.pop(names[number])]
        parts[part] = [*parts.get(part, []), *shards]
    return parts


def _is_numbered(file: Path, part: str) -> bool:
    """Whether a file is one of train_0, train_1, .., beside those of other parts."""
    match = _NUMBERED.fullmatch(file.stem)
    return match is not None and match[1] == part and file.parent.name != part


def _united(
    taken: Sequence[str], files: Sequence[tuple[Path, ...]], given: Given
) -> list[str]:  # fmt: skip
    """What to say of numbered files, which could be parts of their own, folds for instance."""
    return [
        f"{these[0].name} to {these[-1].name} are taken as the shards of one part, {name}"
        for name, these in zip(taken, files, strict=True)
        if len(these) > 1 and _is_numbered(these[0], name)
        and name not in given.options().values()
    ]  # fmt: skip


def _none(folder: Path, parts: Mapping[str, Sequence[Path]], head: str) -> Chosen:
    have = sorted(file.name for files in parts.values() for file in files)
    lacks = "test" if any(r and r[0] == "train" for r in map(role_of, parts)) else "train"
    holds = f"it holds {', '.join(have[:5])}" if have else "it holds no Parquet file at all"
    deeper = sorted({str(p.parent.relative_to(folder)) for p in folder.glob("*/*.parquet")})
    if not have and deeper:
        holds += f", but {', '.join(deeper[:3])} below it does"
    raise BadInput(f"{head}{folder} has no {lacks}-*.parquet; {holds}")


def _writing(file: Path, part: str) -> str:
    """How a file that does not say how many there are is numbered."""
    if file.stem == part:
        return "whole"
    return "_" if _is_numbered(file, part) else ""


def _whole(folder: Path, part: str, files: Sequence[Path], head: str) -> tuple[Path, ...]:
    """The files of one part. Raises UserError where some are missing or belong to another
    writing: half of a set, or one and a half, is another set."""
    numbered = [(file, m) for file in files if (m := _SHARD.search(file.stem))]
    counts = {file: m[2] for file, m in numbered}
    writing = {file: counts.get(file) or _writing(file, part) for file in files}
    numbers = [int(m[1]) for _, m in numbered]
    other = next((f for f in files if writing[f] != writing[files[0]]), None)
    twice = next((f for k, (f, _) in enumerate(numbered) if numbers[k] in numbers[:k]), None)
    if stranger := other or twice:
        raise BadInput(
            f"{head}{folder} has {files[0].name} and {stranger.name}, two writings of one part; "
            "take one of them away"
        )
    first = 0 if 0 in numbers else 1
    total = int(counts[files[0]]) if counts else 0
    missing = sorted({*range(first, first + total)} - {*numbers})
    if missing:
        raise BadInput(
            f"{head}{folder} has {len(numbers):,} of the {total:,} shards of {part}: "
            f"{_SHARD.sub(f'-{missing[0]:05d}-of-{total:05d}', files[0].stem)} is missing; fetch "
            "them, or rename the files if these are all"
        )
    return tuple(files)

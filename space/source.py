"""Where results come from: a directory, a store's address or ``hub:ORG/NAME``, kept fresh in the
background.

Reading is incremental: what was read is kept in an index file in the cache, by path, size and time
of change, so that a thousand models are there at once the next time.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from eval.common.errors import NotFound
from eval.common.files import atomic_file
from eval.results.evidence import broken
from eval.results.parquet_table import flaw
from eval.results.shared import pull_results
from eval.results.signoff import SignOffs
from eval.results.store import NotAResult, read_result, result_files
from eval.sharing.read import marks_at
from eval.stores.front import folder_of
from space.tables.scores import COLUMNS, computed, frame, oddity, rows, typed

VERSION = 5  # of the index: another one is read anew
STEP = 1000  # files between two snapshots of a long first reading

Stamp = tuple[int, int]  # size, time of change in nanoseconds


@dataclass(frozen=True)
class Snapshot:
    """All scores at one moment. ``waiting`` counts files that are still to be read."""

    scores: pd.DataFrame
    version: int
    where: str
    waiting: int = 0
    problems: tuple[str, ...] = ()  # files that are no results, and why


class Source:
    """The results behind the pages. ``snapshot`` never blocks; ``refresh`` looks for changes."""

    def __init__(self, text: str, cache: Path) -> None:
        """Raises UserError where a directory is missing, or the Hub refuses."""
        self.text = text
        self._root = self._locate()
        self._against = flaw if text.startswith("hub:") else broken
        where = text if text.startswith("hub:") else str(self._root.resolve())
        self._index = cache / "space" / f"{hashlib.sha256(where.encode()).hexdigest()[:16]}.parquet"
        self._lock = threading.Lock()
        self._stamps: dict[str, Stamp] = {}
        self._flaws: dict[str, str] = {}
        self._signed: SignOffs | None = None
        self._snapshot = Snapshot(frame([]), 0, text)
        self._recall()

    def snapshot(self) -> Snapshot:
        return self._snapshot

    def root(self) -> Path:
        """The folder that the snapshot's paths lie in."""
        return self._root

    def refresh(self) -> Snapshot:
        """Read what is new or changed, forget what is gone; the new snapshot."""
        with self._lock:
            self._root = self._locate()
            now = {str(p.relative_to(self._root)): stamp(p) for p in result_files(self._root)}
            gone = {path for path in (*self._stamps, *self._flaws) if path not in now}
            todo = [path for path, seen in now.items() if self._stamps.get(path) != seen]
            signed = marks_at(self.text, self._root)
            if not gone and not todo and signed == self._signed:
                return self._snapshot
            self._signed = signed
            for path in gone:
                self._stamps.pop(path, None)
                self._flaws.pop(path, None)
            self._publish(gone, [], len(todo))
            for start in range(0, len(todo), STEP):
                part = todo[start : start + STEP]
                found = [row for path in part for row in self._read(path)]
                self._stamps |= {path: now[path] for path in part}
                self._publish(set(part), found, len(todo) - start - len(part))
            self._remember()
            return self._snapshot

    def watch(self, seconds: float, told: Callable[[str], None]) -> threading.Thread:
        """Refresh now and then in the background, for ever; what goes wrong is told."""

        def loop() -> None:
            while True:
                try:
                    self.refresh()
                except Exception as error:  # the pages go on with what they have
                    told(f"results were not refreshed: {error}")
                threading.Event().wait(seconds)

        thread = threading.Thread(target=loop, daemon=True, name="results")
        thread.start()
        return thread

    def _locate(self) -> Path:
        if self.text.startswith("hub:"):
            from eval.sharing.read import fetch

            return fetch(self.text)
        folder = folder_of(self.text).expanduser()
        pull_results(folder)
        if not folder.is_dir():
            raise NotFound(f"results directory {self.text!r} does not exist or is not a directory")
        return folder

    def _read(self, path: str) -> list[dict[str, object]]:
        """The file's rows; none, and a flaw noted, for one that is not a publishable result."""
        try:
            result = read_result(self._root / path)
            found = rows(path, result)
            why = self._against(result) or next(filter(None, map(oddity, found)), "")
        except NotAResult as error:
            found, why = [], str(error)
        self._flaws.pop(path, None)
        if why:
            self._flaws[path] = why
        return [] if why else found

    def _publish(self, without: set[str], more: list[dict[str, object]], waiting: int) -> None:
        scores = self._snapshot.scores
        if without:
            scores = scores[~scores["path"].isin(without)]
        if more:
            scores = pd.concat([scores, frame(more)], ignore_index=True)
        scores = computed(scores, self._signed)
        problems = tuple(f"{path}: {why}" for path, why in sorted(self._flaws.items()))
        version = self._snapshot.version + 1
        self._snapshot = Snapshot(scores, version, self.text, waiting, problems)

    def _remember(self) -> None:
        """The index file; a cache that cannot be written costs time at the next start only."""
        table = self._snapshot.scores.assign(
            index_version=VERSION,
            size=[self._stamps[p][0] for p in self._snapshot.scores["path"]],
            changed=[self._stamps[p][1] for p in self._snapshot.scores["path"]],
        )
        with contextlib.suppress(OSError), atomic_file(self._index) as file:
            table.to_parquet(file, compression="zstd")

    def _recall(self) -> None:
        try:
            table = pd.read_parquet(self._index)
            if not (table["index_version"] == VERSION).all():
                return
            scores = typed(table[list(COLUMNS)])
            stamps = {
                path: (int(size), int(changed))
                for path, size, changed in zip(
                    table["path"], table["size"], table["changed"], strict=True
                )
            }
        except Exception:  # absent, damaged in some way, of another version: all is read anew
            return
        self._stamps = stamps
        self._signed = marks_at(self.text, self._root)
        self._snapshot = Snapshot(computed(scores, self._signed), 1, self.text)


def stamp(path: Path) -> Stamp:
    """What changes when a file does; (-1, -1) for one that is gone, or a link to nothing."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns

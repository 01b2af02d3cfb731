"""What the pages share: the results, the grids made of them, and where things lie."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from eval.common.errors import BadInput, NotFound, did_you_mean
from eval.data.locations import Data
from space.source import Snapshot, Source
from space.tables.board import Board, build
from space.tables.matrix import Grid, Key, grid, keys
from space.tables.view import View

NAMED = 3  # files that are left out are named, of more the first
GRIDS = 24  # kept at once; each is some megabytes for a thousand models


@dataclass
class Desk:
    """One for the whole app; safe to use from many threads."""

    source: Source
    cache: Path
    data: Data | None = None
    queue: str = ""
    _grids: OrderedDict[tuple[int, Key], Grid] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def snapshot(self) -> Snapshot:
        return self.source.snapshot()

    def left_out(self) -> str:
        """Which files of the results are none that can be shown, and why; '' for none. Foreign
        text, not escaped."""
        problems = self.snapshot.problems
        if not problems:
            return ""
        named = "; ".join(problem[:200] for problem in problems[:NAMED])
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        count = f"{len(problems)} file{'s are' if len(problems) > 1 else ' is'}"
        return f"{count} left out, as no results: {named}{more}."

    def boards(self) -> list[Key]:
        """The leaderboards there are."""
        return keys(self.snapshot.scores)

    def key(self, text: str) -> Key:
        """By its text; '' is the first. Raises UserError for one that is not there."""
        known = self.boards()
        if not known:
            raise BadInput(
                "no results yet; make some with `transfer-eval run` and start with --results DIR"
            )
        if not text:
            return next((k for k in known if k.score == "top1_5shot"), known[0])
        found = [k for k in known if k.text == text]
        if not found:
            names = [k.text for k in known]
            raise NotFound(f"no leaderboard {text!r}" + did_you_mean(text, names, names[0]))
        return found[0]

    def grid(self, key: Key) -> Grid:
        """The leaderboard's matrices, made once for each state of the results."""
        snapshot = self.snapshot
        place = snapshot.version, key
        with self._lock:
            if place in self._grids:
                self._grids.move_to_end(place)
                return self._grids[place]
        made = grid(snapshot.scores, key)
        with self._lock:
            self._grids[place] = made
            while len(self._grids) > GRIDS:
                self._grids.popitem(last=False)
        return made

    def board(self, view: View) -> Board:
        """Raises UserError where there are no results, or the view names no leaderboard."""
        return build(self.grid(self.key(view.board)), view)

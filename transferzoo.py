"""Where the installed commands start, whatever lies in the working directory.

``eval``, ``zoo`` and ``space`` are names that a user's own files may have too. Where PYTHONPATH
holds their folder (``PYTHONPATH=.`` is common), Python would take those for ours. This module has a
name of its own and lies beside our packages: it sees to it that they are found first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

HOME = Path(__file__).resolve().parent  # where eval, zoo and space lie
NAMES = ("eval", "zoo", "space")


def transfer_eval() -> int:
    sys.path[:] = ours_first(sys.path)
    from eval.__main__ import main

    return main()


def transfer_zoo() -> int:
    sys.path[:] = ours_first(sys.path)
    from zoo.__main__ import main

    return main()


def transfer_space() -> int:
    sys.path[:] = ours_first(sys.path)
    from space.__main__ import main

    return main()


def ours_first(path: Sequence[str], home: Path = HOME) -> list[str]:
    """The entries of sys.path, those that hold another module of our names behind our own.

    Processes that we start get sys.path as it is then, so they find ours too. Where nothing is in
    the way nothing changes.
    """
    others = [entry for entry in path if Path(entry).resolve() != home and _holds_one(Path(entry))]
    if not others:
        return list(path)
    rest = [entry for entry in path if entry not in others]
    ours = [] if any(Path(entry).resolve() == home for entry in rest) else [str(home)]
    return [*rest, *ours, *others]


def _holds_one(folder: Path) -> bool:
    return any((folder / name).is_dir() or (folder / f"{name}.py").is_file() for name in NAMES)

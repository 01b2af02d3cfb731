"""What stdout shows: a screen of some width, or a file."""

from __future__ import annotations

import os
import shutil
import sys


def screen_width() -> int | None:
    """Characters a line, from a terminal or from COLUMNS; None for a file or a pipe without it,
    which gets Markdown."""
    told = os.environ.get("COLUMNS", "")
    if sys.stdout.isatty() or (told.isascii() and told.isdigit() and int(told) > 0):
        return shutil.get_terminal_size().columns
    return None

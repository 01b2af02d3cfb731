"""Results as bytes, for comparisons."""

from __future__ import annotations

import re
from pathlib import Path

TIMES = re.compile(rb'"created": "[^"]*"|"seconds": \{[^}]*\}')


def files(folder: Path) -> dict[str, bytes]:
    """All results below a folder, without their times."""
    return {
        p.relative_to(folder).as_posix(): TIMES.sub(b"", p.read_bytes())
        for p in sorted(folder.rglob("*.json"))
        if not any(part.startswith(".") for part in p.relative_to(folder).parts)
    }

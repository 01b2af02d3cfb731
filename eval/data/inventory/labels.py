"""Labels as their authors meant them: one spelling of each."""

from __future__ import annotations

import unicodedata


def composed(name: str) -> str:
    """The name with its accents in one Unicode form (NFC): macOS writes them apart."""
    return unicodedata.normalize("NFC", name)

"""Images that cannot be read: all of them counted, the first ones named."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 20  # in one sentence


def unreadable(found: Sequence[tuple[str, str]]) -> str:
    """The sentence about images, each with where it stands and why it cannot be read."""
    if len(found) == 1:
        where, why = found[0]
        return f"{where} cannot be read as an image: {why}"
    named = "; ".join(f"{where}: {why}" for where, why in found[:NAMED])
    more = f"; and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
    return f"{len(found):,} images cannot be read: {named}{more}"

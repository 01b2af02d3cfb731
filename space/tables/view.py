"""What a visitor looks at: the choices of the leaderboard, to and from a URL's query."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from urllib.parse import quote, unquote, urlencode

# columns that tell, not score
EXTRAS = ("objective", "architecture", "params", "multiply_adds", "data", "revision")


@dataclass(frozen=True)
class View:
    """Empty tuples and texts mean: all. ``sort`` is a column's name, '' the mean."""

    board: str = ""  # Key.text of the leaderboard
    search: str = ""
    objectives: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    most_params: float = 0.0  # millions; 0: any
    whole: bool = False  # only data sets that are whole
    pretraining: bool = False  # also data sets that the zoo was pretrained on
    extras: tuple[str, ...] = ("objective", "params")
    sort: str = ""
    rising: bool = False
    colour: bool = True

    def query(self) -> str:
        """What differs from the defaults, as a URL's query."""
        default = asdict(View())
        pairs = []
        for name, value in asdict(self).items():
            if value != default[name]:
                pairs.append((name, _text(value)))
        return urlencode(pairs, errors="replace")

    @classmethod
    def of(cls, query: Mapping[str, str]) -> View:
        """From a URL; what it does not say, or says in no form of ours, is the default."""
        found: dict[str, object] = {}
        for field in fields(cls):
            text = query.get(field.name)
            if text is None:
                continue
            text = str(text)[:100_000]
            if field.type == "bool":
                found[field.name] = text == "1"
            elif field.type == "float":
                with contextlib.suppress(ValueError):
                    number = float(text)
                    found[field.name] = min(max(number, 0.0), 1e6) if isfinite(number) else 0.0
            elif field.type == "str":
                found[field.name] = text[:2000]
            elif text:
                parts = [""] if text == "," else text.split(",")
                found[field.name] = tuple(unquote(part) for part in parts)
            else:
                found[field.name] = ()
        return cls(**found)  # type: ignore[arg-type]  # each made of its field's type above


def _text(value: object) -> str:
    """One choice as a URL has it; parts of a list are quoted, for they may hold commas. A list of
    the empty text alone is a quoted nothing, so that it is not an empty list."""
    if isinstance(value, tuple):
        parts = [quote(part, safe="", errors="replace") for part in value]
        return ",".join(parts) if parts != [""] else ","
    return str(int(value)) if isinstance(value, bool) else str(value)

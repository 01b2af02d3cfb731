"""Labels as their authors meant them: one spelling of each, none where there is none."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from eval.data.inventory.split_words import HOW

MULTI_LABEL = (
    "give each image one label, or, where they have several, name the column as labels=COLUMN"
)


def composed(name: str) -> str:
    """The name with its accents in one Unicode form (NFC): macOS writes them apart."""
    return unicodedata.normalize("NFC", name)


def is_unlabelled(label: Any, numbers: bool = True) -> bool:
    """Whether a label says that there is none: nothing, not a number, or, where labels are
    ``numbers``, -1."""
    if isinstance(label, float):
        return math.isnan(label) or (numbers and label == -1)
    if isinstance(label, str):
        plain = label.strip().lower()
        return plain in ("", "nan") or (numbers and plain in ("-1", "-1.0"))
    return label is None or (numbers and type(label) is int and label == -1)


def are_numbers(labels: Iterable[Any]) -> bool:
    """Whether all labels are whole numbers or none at all, so that -1 stands for none."""
    return all(
        is_unlabelled(label)
        or isinstance(label, int)
        or (isinstance(label, str) and bool(_number_text(label)))
        for label in labels
    )


def unlabelled(count: int, total: int, what: str, label: Any, where: str) -> str:
    """The sentence about images without a label; ``where`` the first stands."""
    said = "no label" if label is None else f"label {label!r}"
    if count == total:
        return f"unlabelled: all {total:,} {what} ({said}); score another part with {HOW}"
    return (
        f"unlabelled: {count:,} of {total:,} {what} ({said}), the first is {where}; label them or "
        "take them out"
    )


def as_meant(labels: Sequence[Any]) -> list[Any]:
    """Raw labels with numbers written alike: 1.0 is 1, and so is the text '1.0' where all are
    whole numbers; a float that is no number is None; a text of which two Unicode forms occur is
    composed."""
    values = set(map(type, labels))
    found: list[Any] = list(labels)
    if float in values:
        found = [_whole(v) if isinstance(v, float) else v for v in found]
    if values == {str}:
        texts = {v: _number_text(v) for v in set(found)}
        if all(texts.values()) and any(k != v for k, v in texts.items()):
            return [texts[v] for v in found]
        forms = Counter(composed(v) for v in texts)
        if len(forms) < len(texts):
            return [composed(v) if forms[composed(v)] > 1 else v for v in found]
    return found


def _whole(value: float) -> Any:
    if math.isnan(value):
        return None
    return int(value) if math.isfinite(value) and value % 1 == 0 else value


def _number_text(text: str) -> str:
    """'3.0' as '3'; '' for what is not a whole number written plainly."""
    digits, point, rest = text.strip().partition(".")
    plain = digits.removeprefix("-")
    whole = plain.isdecimal() and plain.isascii() and not rest.strip("0")
    return digits if whole and (rest or not point) else ""


def several_in_one(names: Iterable[str]) -> str:
    """A label that names several classes, such as 'cat|dog' beside 'cat' and 'dog'; '' for none."""
    known = set(names)
    for mark in "|;,":
        joined = {name: [part.strip() for part in name.split(mark)] for name in sorted(known)
                  if mark in name}  # fmt: skip
        shared = Counter(part for parts in joined.values() for part in {*parts})
        for name, parts in joined.items():
            alone = all(part in known for part in parts)
            if alone or (mark == "|" and any(shared[part] > 1 for part in parts)):
                return name
    return ""

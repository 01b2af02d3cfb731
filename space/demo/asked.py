"""What a question was made of: an answer keeps it, and can tell when the page has moved on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Files = tuple[tuple[str, str], ...]  # (file, caption) of each picture, in order


@dataclass(frozen=True)
class Asked:
    """Models, (name, pictures) of each class and the pictures to recognise, as the page had them.

    A picture is known by the file it was uploaded to, whose folder is a hash of its content.
    """

    models: tuple[str, ...]
    classes: tuple[tuple[str, Files], ...]
    queries: Files

    @classmethod
    def of(
        cls, models: Sequence[str] | None, ways: int, names: Sequence[str | None],
        galleries: Sequence[Any], queries: Any,
    ) -> Asked:  # fmt: skip
        """From the values of the page's inputs, of which the first ``ways`` classes count."""
        classes = zip(names[:ways], galleries[:ways], strict=True)
        return cls(
            tuple(models or ()),
            tuple((str(name or ""), files(gallery)) for name, gallery in classes),
            files(queries),
        )

    def changed(self, now: Asked) -> str:
        """In words what ``now`` has otherwise; empty where it is the same question."""
        found = ["the models"] * (set(self.models) != set(now.models))
        if len(self.classes) != len(now.classes):
            found.append("the number of classes")
        else:
            for i, (old, new) in enumerate(zip(self.classes, now.classes, strict=True), 1):
                name = new[0] or f"class {i}"
                if old[0] != new[0]:
                    found.append(f"the name of class {i}")
                if old[1] != new[1]:
                    found.append(f"the pictures of {name!r}")
        found += ["the pictures to recognise"] * (self.queries != now.queries)
        return ", ".join(found[:3]) + (" and more" if len(found) > 3 else "")


def files(gallery: Any) -> Files:
    """(file, caption) of a gallery's value, whatever form it came in."""
    items = gallery if isinstance(gallery, list | tuple) else []
    pairs = (item if isinstance(item, list | tuple) else (item, "") for item in items)
    return tuple((str(pair[0]), str(pair[1] or "")) for pair in pairs if len(pair) > 1)

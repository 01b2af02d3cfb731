"""Image files in folders whose names are the classes: which layout it is, and what is in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eval.common.errors import BadInput, NotFound
from eval.common.text import counted, some
from eval.data.inventory.facts import Inventory, Tally
from eval.data.inventory.image_files import kind_of, unread
from eval.data.inventory.junk import JUNK, NO_IMAGES
from eval.data.inventory.labels import composed
from eval.data.inventory.split_words import FREE, HOW, Chosen, Given, choose, is_told, role_of
from eval.data.inventory.walk import Entry, walk
from eval.data.sources import FolderSource


@dataclass(frozen=True)
class Folders:
    """A folder of class folders, or of two parts with class folders each."""

    train: FolderSource  # all images, where there is no test
    test: FolderSource | None
    validation: tuple[FolderSource, ...]  # beside a test
    inventory: Inventory


def read_folders(root: Path, subject: str, given: Given = FREE) -> Folders:
    """The images below ``root``: PART/CLASS/.., CLASS/PART/.., or CLASS/.., to be split.

    ``given`` are the folders of the parts that the user names. Which words are parts is the rule of
    ``split_words``. Opens no file that has a suffix. Raises UserError for what
    cannot be told apart, for a test without labels, and for classes that train has not.
    """
    tree = _Tree(root)
    tally = Tally("files")
    if given != FREE or _has_parts(tree, subject):
        parts = _outer(tree, tally, subject, given)
    elif inner := _inner(tree, subject):
        parts = _take_inner(tree, tally, inner)
    else:
        _refuse_lone_folder(tree, subject)
        parts = [_source(tree, (), tally)]
    if len(parts) == 1:
        return Folders(parts[0], None, (), tally.done())
    ours, *others = parts
    same = {composed(name): name for name in ours.names}
    for part, theirs in zip(("test", *["validation"] * len(others)), others, strict=False):
        if strange := [name for name in theirs.names if composed(name) not in same]:
            raise BadInput(f"{subject}: {part} has classes that train has not: {some(strange)}")
    unlike = [n for one in others for n in one.names if same[composed(n)] != n]
    if unlike:
        tally.say(f"{unlike[0]!r} is written in two Unicode forms, which look alike: taken as one "
                  "class")  # fmt: skip
    scored, *held = [replace(one, names=ours.names) for one in others]
    return Folders(ours, scored, tuple(held), tally.done())


def folder_source(root: Path) -> FolderSource:
    """The images of one folder of class folders. Raises UserError where there are none."""
    return _source(_Tree(root), (), Tally("files"))


# --------------------------------------------------------------------------- which layout


class _Tree:
    """Everything below a folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.entries = root, tuple(walk(root))
        self._inside: dict[tuple[str, ...], list[Entry]] = {}
        for entry in self.entries:
            if not entry.is_junk:
                self._inside.setdefault(entry.parts[:-1], []).append(entry)

    def folders(self, *above: str) -> list[str]:
        """Names of the folders directly below one, without junk, sorted."""
        return sorted(e.parts[-1] for e in self._inside.get(above, ()) if e.is_folder)

    def holds_images(self, *above: str) -> bool:
        """Directly, not in folders below."""
        files = (e for e in self._inside.get(above, ()) if not e.is_folder)
        return any(kind_of(self.root / e.path) == "image" for e in files)


def _has_parts(tree: _Tree, subject: str) -> bool:
    """Whether the outer folders are parts: the one to train on has folders of classes. A class may
    be called train too, but then it lies among others and holds images."""
    names = tree.folders()
    chosen = choose(names, f"{subject}: {tree.root}", labelled=lambda n: bool(tree.folders(n)))
    if chosen is None:
        return False
    only = all(role_of(name) for name in names)
    return bool(tree.folders(chosen.train)) or only


def _refuse_lone_folder(tree: _Tree, subject: str) -> None:
    """Raise UserError where the classes lie a folder deeper, or train alone is there."""
    names = tree.folders()
    if len(names) == 1 and len(tree.folders(names[0])) > 1 and not role_of(names[0]):
        inside = tree.root / names[0]
        raise BadInput(
            f"{subject}: {tree.root} holds one folder alone, {names[0]}/, which would be the only "
            f"class; did you mean imagefolder:{inside}?"
        )
    roles = [found[0] for name in names if (found := role_of(name))]
    if len(names) == 1 and roles == ["train"] and tree.folders(names[0]):
        root = tree.root
        raise BadInput(
            f"{subject}: {root} has {names[0]}/ but no part to score (test, val, validation, dev "
            f"or eval); to split one folder here, use imagefolder:{root / names[0]}"
        )


def _inner(tree: _Tree, subject: str) -> Chosen | None:
    """The parts, where every class folder holds nothing else."""
    inside = {name: tree.folders(name) for name in tree.folders()}
    every = sorted({part for parts in inside.values() for part in parts})
    if len(inside) < 2 or not all(map(role_of, every)) or not all(inside.values()):
        return None
    if any(tree.holds_images(name) for name in inside):
        return None
    return choose(every, f"{subject}: each class folder in {tree.root}")


# --------------------------------------------------------------------------- what is in it


def _outer(tree: _Tree, tally: Tally, subject: str, given: Given) -> list[FolderSource]:
    """root/PART/CLASS/.."""
    names = tree.folders()
    where = f"{subject}: {tree.root}"
    chosen = choose(names, where, given, lambda name: bool(tree.folders(name)))
    if chosen is None:
        raise BadInput(f"{where} holds {', '.join(names[:8])}; say which are parts with {HOW}")
    for said in chosen.said:
        tally.say(said)
    for part in (chosen.train, chosen.test, *chosen.validation):
        if not tree.folders(part) and tree.holds_images(part):
            raise BadInput(
                f"{subject}: {tree.root / part} holds images without class folders, so that none "
                f"has a label; name other parts with {HOW}"
            )
    above = {part: _place(tree, part) for part in (chosen.train, chosen.test, *chosen.validation)}
    sources = [_source(tree, place, tally) for place in above.values()]
    for entry in tree.entries:
        place = above.get(entry.parts[0], ())
        if entry.is_folder or (place and entry.parts[: len(place)] == place):
            continue
        if entry.is_junk:
            tally.leave(JUNK, entry.path, expected=True)
        elif len(entry.parts) == 1 or place:
            _leave_stray(tree, entry, tally, "images beside the parts")
        else:
            _leave_beside(chosen, given, entry, entry.parts[0], tally)
    return sources


def _place(tree: _Tree, part: str) -> tuple[str, ...]:
    """Where a part's class folders lie; some archives have seg_train/seg_train/CLASS."""
    deeper = tree.folders(part) == [part] and tree.folders(part, part)
    return (part, part) if deeper else (part,)


def _take_inner(tree: _Tree, tally: Tally, chosen: Chosen) -> list[FolderSource]:
    """root/CLASS/PART/.."""
    names = tuple(tree.folders())
    tally.say("the class folders hold the parts, so that classes are the outer folders")
    for said in chosen.said:
        tally.say(said)
    files: dict[str, list[str]] = {
        part: [] for part in (chosen.train, chosen.test, *chosen.validation)
    }
    for entry in tree.entries:
        if entry.is_folder:
            continue
        if entry.is_junk:
            tally.leave(JUNK, entry.path, expected=True)
        elif len(entry.parts) < 3:
            _leave_stray(tree, entry, tally, "images beside the class folders")
        elif entry.parts[1] in files:
            files[entry.parts[1]] += _kept(tree, entry, tally)
        else:
            _leave_beside(chosen, FREE, entry, entry.parts[1], tally)
    return [FolderSource(tree.root, tuple(sorted(part)), names) for part in files.values()]


def _source(tree: _Tree, above: tuple[str, ...], tally: Tally) -> FolderSource:
    """The class folders of one part, or of the whole."""
    root = tree.root.joinpath(*above)
    names = _one_of_each_form(tree.folders(*above), tally)
    if not names:
        raise BadInput(f"{root} has no class folders; expected {root}/CLASS/IMAGE")
    depth = len(above)
    files: list[str] = []
    nested: list[str] = []
    for entry in tree.entries:
        if entry.is_folder or entry.parts[:depth] != above:
            continue
        if entry.is_junk:
            tally.leave(JUNK, entry.path, expected=True)
        elif len(entry.parts) == depth + 1:
            _leave_stray(tree, entry, tally, "images beside the class folders")
        else:
            kept = _kept(tree, entry, tally)
            files += [str(Path(file).relative_to(Path(*above))) for file in kept]
            nested += [entry.path] if kept and len(entry.parts) > depth + 2 else []
    labelled = {file.partition(os.sep)[0] for file in files}
    if files and (empty := [name for name in tree.folders(*above) if name not in labelled]):
        tally.say(f"{counted(len(empty), 'class folder')} without an image ({some(empty)})")
    if not files:
        raise NotFound(f"{root} holds no image files such as .jpg or .png{_instead(tally)}")
    if nested:
        first = Path(nested[0]).parent
        tally.say(f"{counted(len(nested), 'image')} in folders below a class folder, such as "
                  f"{first}: counted to the outer class")  # fmt: skip
    return FolderSource(root, tuple(sorted(files)), names)


def _instead(tally: Tally) -> str:
    left = [str(one) for one in tally.done().left_out]
    return f"; left out: {'; '.join(left)}" if left else ""


def _kept(tree: _Tree, entry: Entry, tally: Tally) -> list[str]:
    """The entry's path where it is an image that can be read here; counted either way."""
    path = tree.root / entry.path
    kind = kind_of(path)
    if kind == "image":
        tally.take()
        return [entry.path]
    if kind == "foreign":
        tally.leave(unread(path.suffix.lower()), entry.path)
    else:
        tally.leave(NO_IMAGES, entry.path, expected=True)
    return []


def _leave_beside(chosen: Chosen, given: Given, entry: Entry, folder: str, tally: Tally) -> None:
    """A file in another folder than those of the parts."""
    why = f"files of folders beside {chosen.train} and {chosen.test}"
    tally.leave(why, entry.path, expected=is_told(folder, chosen, given))


def _leave_stray(tree: _Tree, entry: Entry, tally: Tally, why: str) -> None:
    if kind_of(tree.root / entry.path) == "other":
        tally.leave(NO_IMAGES, entry.path, expected=True)
    else:
        tally.leave(why, entry.path)


def _one_of_each_form(names: Sequence[str], tally: Tally) -> tuple[str, ...]:
    """Names that differ in their Unicode form alone are one class."""
    found: dict[str, str] = {}
    for name in names:
        if found.setdefault(composed(name), name) != name:
            tally.say(f"{name!r} is written in two Unicode forms, which look alike: taken as one "
                      "class")  # fmt: skip
    return tuple(found.values())

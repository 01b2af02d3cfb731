"""Sets whose folders are their classes: CropDisease, EuroSAT, RESISC45, Omniglot, ImageNet-Sketch.

The study reads them with torchvision's ImageFolder: classes sorted by name, then files sorted by
name, both as strings. That is the order here, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from eval.common.errors import BadInput
from eval.prepare.layouts.lists import positions, unknown_class
from eval.prepare.layouts.marks import nothing_found
from eval.prepare.layouts.pictures import FILE, SUFFIX, Pictures, every, last
from eval.prepare.listing import Entry, Item, Listing

if TYPE_CHECKING:
    from eval.prepare.archives import Download

# datasets.md 2.3: images of a class. They are numbered from 1, so a missing one has a name.
EUROSAT = {
    "AnnualCrop": 3000,
    "Forest": 3000,
    "HerbaceousVegetation": 3000,
    "Highway": 2500,
    "Industrial": 2500,
    "Pasture": 2000,
    "PermanentCrop": 2500,
    "Residential": 3000,
    "River": 2500,
    "SeaLake": 3000,
}
RESISC45 = 700  # images of every class: <class>_001.jpg to <class>_700.jpg
OMNIGLOT = 20  # drawings of every character


def _folder(entry: Entry) -> tuple[int, str, str]:
    """(container, path of the folder above, folder) of a file."""
    above, _, folder = entry.name.rpartition("/")[0].rpartition("/")
    return entry.container, above, folder


def _no_other_folders(
    download: Download, inside: Sequence[Entry], task: str, classes: Sequence[str]
) -> None:
    """Refuse a folder of images beside the class folders: then it is another version of the set.

    Known: PlantVillage with a 39th class of backgrounds (datasets.md 2.1).
    """
    roots = {_folder(entry)[:2] for entry in inside}
    known = set(classes)
    for entry in every(download):
        container, above, folder = _folder(entry)
        if (container, above) in roots and folder and folder not in known:
            raise unknown_class(folder, repr(download.where(entry)), task, classes)


def _all_classes(task: str, where: str, present: set[str], classes: Sequence[str]) -> None:
    absent = [name for name in classes if name not in present]
    if absent:
        raise BadInput(
            f"{where} has no images of {absent[0]!r}"
            + (f" and {len(absent) - 1} other classes" if len(absent) > 1 else "")
            + f"; {task} has {len(classes)} classes"
        )


def cropdisease(download: Download, classes: Sequence[str]) -> Listing:
    """The copy of the CD-FSL benchmark: train/<Class>/* and test/<Class>/* are the official parts.

    The authors' repository has the same images without these parts, so it cannot stand in.
    """
    label = positions(classes)
    pictures = every(download)
    named: dict[tuple[str, str], dict[str, Entry]] = {}
    inside = []
    for match, entry in download.find(rf"(?P<part>train|test)/(?P<cls>[^/]+)/(?P<file>{FILE})"):
        if match["cls"] in label:
            inside.append(entry)
            named.setdefault((match["part"], match["cls"]), {})[match["file"]] = entry
    if not inside:
        if download.find(rf"color/[^/]+/{FILE}"):
            raise BadInput(
                "the download is the PlantVillage repository (raw/color/<Class>), which has no "
                "train and test parts; cropdisease is the CD-FSL benchmark's CropDiseases.zip "
                "with train/<Class> and test/<Class>"
            )
        raise nothing_found(
            download, "cropdisease", "CropDisease images train/<Class>/* and test/<Class>/*"
        )
    _no_other_folders(download, inside, "cropdisease", classes)
    files = Pictures(download, ((last(entry, 3), entry) for entry in inside), exact=True)
    items = []
    for part in ("train", "test"):
        _all_classes("cropdisease", part, {cls for p, cls in named if p == part}, classes)
        for cls in sorted(classes):
            for file in sorted(named[part, cls]):
                name = f"{part}/{cls}/{file}"
                items.append(Item(name, label[cls], part, files.get(name)))
    return Listing(tuple(items), files.strangers(pictures))


def sketch(download: Download, classes: Sequence[str]) -> Listing:
    """sketch/<wnid>/sketch_<n>.JPEG; a declared class begins with its wnid ('n01440764 tench').

    Nothing lists the files and their numbers have gaps, so only a whole class can be missed here.
    """
    wnids = [name.split()[0] for name in classes]
    label = positions(wnids)
    pictures = every(download)
    inside = [entry for entry in pictures if _folder(entry)[2] in label]
    # Beside other ImageNet folders (val/<wnid>) it is the one of this name.
    inside = [e for e in inside if _folder(e)[1].split("/")[-1] == "sketch"] or inside
    if not inside:
        raise nothing_found(download, "sketch", "ImageNet-Sketch images <wnid>/sketch_<n>.JPEG")
    _no_other_folders(download, inside, "sketch", wnids)
    _all_classes("sketch", "the download", {_folder(entry)[2] for entry in inside}, wnids)
    files = Pictures(download, ((last(entry, 2), entry) for entry in inside), exact=True)
    names = sorted({last(entry, 2) for entry in inside}, key=lambda name: name.split("/"))
    items = tuple(Item(name, label[name.split("/")[0]], "", files.get(name)) for name in names)
    return Listing(items, files.strangers(pictures))


def _numbered(
    download: Download,
    task: str,
    title: str,
    classes: Sequence[str],
    expected: Mapping[str, int],
    digits: int,
    flattened: bool,
) -> Listing:
    """<Class>/<Class>_<n>.jpg with n from 1 to the class's expected number."""
    label = positions(classes)
    if set(expected) != set(classes):
        raise BadInput(
            f"the declared classes of {task} are not the official ones: they differ in "
            + ", ".join(repr(name) for name in sorted(set(expected) ^ set(classes))[:5])
        )
    pictures = every(download)
    named, inside = [], []
    for match, entry in download.find(rf"(?P<cls>[^/]+)_(?P<number>\d+){SUFFIX}"):
        cls, folder = match["cls"], _folder(entry)[2]
        if cls not in label or len(match["number"]) < digits:
            continue
        if folder == cls:
            inside.append(entry)
        elif not flattened or folder in label:
            continue  # in another class's folder: on no list
        named.append((f"{cls}/{cls}_{match['number']}.jpg", entry))
    if not named:
        pattern = f"<Class>/<Class>_<{'n' if digits < 2 else '001'}>.jpg"
        raise nothing_found(download, task, f"{title} images {pattern}")
    _no_other_folders(download, inside, task, classes)
    files = Pictures(download, named)
    items = []
    for cls in sorted(classes):
        for name in sorted(f"{cls}/{cls}_{n + 1:0{digits}d}.jpg" for n in range(expected[cls])):
            items.append(Item(name, label[cls], "", files.get(name)))
    return Listing(tuple(items), files.strangers(pictures))


def eurosat(
    download: Download, classes: Sequence[str], expected: Mapping[str, int] = EUROSAT
) -> Listing:
    """<anything>/<Class>/<Class>_<n>.jpg: the top folder is 2750 or EuroSAT_RGB, by the source."""
    return _numbered(download, "eurosat", "EuroSAT", classes, expected, 1, flattened=False)


def resisc45(
    download: Download, classes: Sequence[str], expected: Mapping[str, int] | None = None
) -> Listing:
    """NWPU-RESISC45/<class>/<class>_<001..700>.jpg, or the same files without class folders.

    The study's script unpacks with ``unrar e``, which leaves the folders out (paper.md 6.17); a
    file's name says its class all the same.
    """
    counts = dict.fromkeys(classes, RESISC45) if expected is None else expected
    return _numbered(download, "resisc45", "RESISC45", classes, counts, 3, flattened=True)


def omniglot(download: Download, classes: Sequence[str], drawings: int = OMNIGLOT) -> Listing:
    """images_evaluation/<Alphabet>/characterNN/<IIII>_<DD>.png; a class is 'Alphabet/characterNN'.

    The study takes the evaluation alphabets alone (torchvision's ``background=False``). It lists
    folders in the file system's order, which is not an order; here they are sorted by path.
    """
    label = positions(classes)
    numbers: dict[str, set[str]] = {}
    named = []
    for match, entry in download.find(
        r"images_evaluation/(?P<cls>[^/]+/character\d+)"
        r"/(?P<number>\d{4})_(?P<drawer>\d\d)\.(?i:png)",
    ):
        cls = match["cls"]
        if cls not in label:
            raise unknown_class(cls, repr(download.where(entry)), "omniglot", classes)
        numbers.setdefault(cls, set()).add(match["number"])
        named.append((f"{cls}/{match['number']}_{match['drawer']}.png", entry))
    background = {entry for _, entry in download.find(rf"images_background/.*/{FILE}")}
    if not named:
        if background:
            raise BadInput(
                "the download has Omniglot's images_background alone; omniglot is the evaluation "
                "part: add images_evaluation.zip"
            )
        raise nothing_found(
            download,
            "omniglot",
            "Omniglot drawings images_evaluation/<Alphabet>/characterNN/<IIII>_<DD>.png",
        )
    _all_classes("omniglot", "images_evaluation", set(numbers), classes)
    files = Pictures(download, named)
    items = []
    for cls in sorted(classes, key=lambda name: name.split("/")):
        if len(numbers[cls]) > 1:
            raise BadInput(
                f"{cls} has drawings of {len(numbers[cls])} numbers "
                f"({', '.join(sorted(numbers[cls])[:3])}); a character has one"
            )
        (number,) = numbers[cls]
        for drawer in range(1, drawings + 1):
            name = f"{cls}/{number}_{drawer:02d}.png"
            items.append(Item(name, label[cls], "", files.get(name)))
    strangers = files.strangers(entry for entry in every(download) if entry not in background)
    notes = (
        (f"drawings of images_background, not of this task: {len(background):,}",)
        if background
        else ()
    )
    return Listing(tuple(items), strangers, notes)

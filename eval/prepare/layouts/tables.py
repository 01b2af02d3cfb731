"""Sets whose labels stand in lists: DeepWeeds, ChestX-ray14, ISIC 2018, DTD, Kaokore.

The study reads each list in its order of rows, so that is the order here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eval.common.errors import BadInput
from eval.prepare.layouts.lists import (
    enough_classes,
    lines,
    once,
    positions,
    rows,
    sole,
    table,
    unknown_class,
    whole,
)
from eval.prepare.layouts.marks import nothing_found
from eval.prepare.layouts.pictures import FILE, Pictures, every, flat, last
from eval.prepare.listing import Entry, Item, Listing

if TYPE_CHECKING:
    from eval.prepare.archives import Download

# Every label of Data_Entry_2017.csv that is not of the seven (the authors' list of 14 findings).
CHESTX_DROPPED = (
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "No Finding",
    "Pleural_Thickening",
    "Pneumonia",
)
KAOKORE_ROWS = 8215
# datasets.md 2.10: labelled images of each version, counted in the authors' repository.
KAOKORE_VERSIONS = {5298: "1.0", 8215: "1.1", 8446: "1.2", 9257: "1.3"}
KAOKORE_PARTS = {"train": "train", "dev": "validation", "test": "test"}


def deepweeds(download: Download, classes: Sequence[str]) -> Listing:
    """labels.csv (Filename, Label, Species) and the files of images.zip; labels 0 to 8."""
    if not download.find(r"labels\.csv"):
        raise nothing_found(download, "deepweeds", "labels.csv")
    entry = sole(download, r"labels\.csv", "labels.csv of DeepWeeds")
    listed = table(download, entry, ("Filename", "Label", "Species"))
    once((name for _, (name, _, _) in listed), repr(download.where(entry)))
    files = flat(download, prefer="images")
    items = []
    for line, (name, value, species) in listed:
        where = f"{download.where(entry)!r}, line {line}"
        label = whole(value, len(classes) - 1, where, "Label")
        if species.casefold() != classes[label].casefold():
            raise BadInput(
                f"{where}: label {label} is {species!r}; of deepweeds it is {classes[label]!r}"
            )
        items.append(Item(name, label, "", files.get(name)))
    return Listing(tuple(items), files.strangers(every(download)))


def _chestx_rows(
    download: Download, entry: Entry, kept: Sequence[str]
) -> list[tuple[str, list[str], str]]:
    """(file, findings, patient) of every row of Data_Entry_2017.csv.

    Names in the header hold commas and its line may end with one, so columns go by position: file,
    findings joined by '|', follow-up, patient.
    """
    where, every_row = repr(download.where(entry)), rows(download, entry)
    _, header = next(every_row, (0, []))
    if header[:4] != ["Image Index", "Finding Labels", "Follow-up #", "Patient ID"]:
        raise BadInput(
            f"{where} does not begin with the columns Image Index, Finding Labels, Follow-up #, "
            f"Patient ID: its header is {','.join(header)[:200]!r}"
        )
    known = (*kept, *CHESTX_DROPPED)
    listed = []
    for line, fields in every_row:
        if len(fields) < 4:
            raise BadInput(f"{where}, line {line}: {len(fields)} fields, at least 4 needed")
        name, findings, patient = fields[0], fields[1].split("|"), fields[3]
        for finding in findings:
            if finding not in known:
                raise unknown_class(finding, f"{where}, line {line}", "ChestX-ray14", known)
        if not patient:
            raise BadInput(f"{where}, line {line}: no patient, which the split needs")
        listed.append((name, findings, patient))
    once((name for name, _, _ in listed), where)
    return listed


def chestx(download: Download, classes: Sequence[str]) -> Listing:
    """Data_Entry_2017.csv and images/<name>.png of images_001 to 012.tar.gz.

    The task keeps the rows with exactly one finding that is one of the seven (the study's
    ``ChestX``, after the CD-FSL benchmark).
    """
    # Of both releases the one that the study names; v2020 differs in other columns.
    names = [n for n in ("Data_Entry_2017", "Data_Entry_2017_v2020") if download.find(rf"{n}\.csv")]
    if not names:
        raise nothing_found(download, "chestx", "Data_Entry_2017.csv")
    entry = sole(download, rf"{names[0]}\.csv", "Data_Entry_2017.csv of ChestX-ray14")
    label = positions(classes)
    files = flat(download, prefer="images")
    items = []
    dropped: Counter[str] = Counter()
    for name, findings, patient in _chestx_rows(download, entry, classes):
        picture = files.get(name)  # asked for in any case: what is dropped is not a stranger
        if len(findings) > 1:
            dropped["several findings"] += 1
        elif findings[0] not in label:
            dropped[findings[0]] += 1
        else:
            items.append(Item(name, label[findings[0]], "", picture, group=patient))
    notes = []
    if dropped:
        left_out = ", ".join(f"{why} {count:,}" for why, count in sorted(dropped.items()))
        of = dropped.total() + len(items)
        notes.append(f"images not of this task: {dropped.total():,} of {of:,} ({left_out})")
    return Listing(tuple(items), files.strangers(every(download)), tuple(notes))


def _lesions(download: Download) -> tuple[str, dict[str, str]]:
    """(the list's name, image -> lesion), by ISIC's own list or by that of HAM10000."""
    for pattern, what in (
        (r"ISIC2018_Task3_Training_LesionGroupings\.csv", "ISIC's list of lesions"),
        (r"HAM10000_metadata(?:\.csv|\.tab|)", "the metadata of HAM10000"),
    ):
        if download.find(pattern):
            entry = sole(download, pattern, what)
            listed = table(download, entry, ("image|image_id", "lesion_id"))
            once((image for _, (image, _) in listed), repr(download.where(entry)))
            return download.where(entry), {image: lesion for _, (image, lesion) in listed}
    raise BadInput(
        "the download says of no image which lesion it shows, which the default split needs: add "
        "ISIC2018_Task3_Training_LesionGroupings.csv or HAM10000_metadata"
    )


def isic2018(download: Download, classes: Sequence[str]) -> Listing:
    """ISIC2018_Task3_Training_GroundTruth.csv, one column a class, and ISIC_<7 digits>.jpg."""
    pattern = r"ISIC2018_Task3_Training_GroundTruth\.csv"
    if not download.find(pattern):
        raise nothing_found(download, "isic2018", "ISIC2018_Task3_Training_GroundTruth.csv")
    entry = sole(download, pattern, "ISIC2018_Task3_Training_GroundTruth.csv")
    listed = table(download, entry, ("image", *classes))
    source, lesions = _lesions(download)
    once((image for _, (image, *_) in listed), repr(download.where(entry)))
    files = flat(download, prefer="ISIC2018_Task3_Training_Input")
    items = []
    for line, (image, *values) in listed:
        where = f"{download.where(entry)!r}, line {line}"
        try:
            hot = [float(value) for value in values]
        except ValueError:
            hot = []
        if sorted(hot) != [0.0] * (len(classes) - 1) + [1.0]:
            raise BadInput(
                f"{where}: {image!r} is {','.join(values)[:80]!r}, not one 1.0 and else 0.0"
            )
        lesion = lesions.get(image, "")
        if not lesion:
            raise BadInput(f"{source!r} does not say which lesion {image!r} shows")
        name = f"{image}.jpg"
        items.append(Item(name, hot.index(1.0), "", files.get(name), group=lesion))
    return Listing(tuple(items), files.strangers(every(download)))


def dtd(download: Download, classes: Sequence[str]) -> Listing:
    """dtd/images/<class>/<file>.jpg by the first of ten splits: train1 and val1 train, test1 test.

    The study trains on both of the first (its class ``DTD``), in this order of lists.
    """
    label = positions(classes)
    if not download.find(r"labels/(?:train|val|test)1\.txt"):
        raise nothing_found(download, "dtd", "dtd/labels/train1.txt, val1.txt and test1.txt")
    pairs = download.find(rf"images/[^/]+/{FILE}")
    files = Pictures(download, ((last(entry, 2), entry) for _, entry in pairs))
    items, listed = [], []
    for file, part in (("train1", "train"), ("val1", "train"), ("test1", "test")):
        entry = sole(download, rf"labels/{file}\.txt", f"labels/{file}.txt of DTD")
        for name in lines(download, entry):
            cls, slash, _ = name.partition("/")
            if not slash or cls not in label:
                raise unknown_class(
                    cls, f"{name[:80]!r} of {download.where(entry)!r}", "dtd", classes
                )
            listed.append(name)
            items.append(Item(name, label[cls], part, files.get(name)))
    once(listed, "DTD's first split")
    return Listing(tuple(items), files.strangers(every(download)))


def _kaokore_labels(download: Download) -> Entry:
    """The labels.csv of v1.1: the authors' repository has one of each version."""
    if not download.find(r"labels\.csv"):
        raise nothing_found(download, "kaokore", "labels.csv")
    if download.find(r"dataset_v1\.1/labels\.csv"):
        return sole(download, r"dataset_v1\.1/labels\.csv", "labels.csv of Kaokore v1.1")
    return sole(download, r"labels\.csv", "labels.csv of Kaokore v1.1")


def kaokore(
    download: Download, classes: Sequence[str], expected: int | None = KAOKORE_ROWS
) -> Listing:
    """labels.csv (image, gender, status, set) of v1.1 and the files that download.py fetched.

    A label is 4 * gender + status. The study does not use the part dev. ``expected``: how many
    rows the list has; it tells the versions apart.
    """
    enough_classes("kaokore", classes, 8)
    entry = _kaokore_labels(download)
    listed = table(download, entry, ("image", "gender", "status", "set"))
    if expected is not None and len(listed) != expected:
        version = KAOKORE_VERSIONS.get(len(listed))
        told = f"that is v{version}" if version else "that is not a known version"
        raise BadInput(
            f"{download.where(entry)!r} lists {len(listed):,} images: {told}; kaokore is v1.1 with "
            f"{expected:,}, in the folder dataset_v1.1 of the authors' repository"
        )
    once((name for _, (name, *_) in listed), repr(download.where(entry)))
    files = flat(download, prefer="images_256")
    items = []
    for line, (name, gender, status, part) in listed:
        where = f"{download.where(entry)!r}, line {line}"
        if part not in KAOKORE_PARTS:
            raise BadInput(f"{where}: set is {part[:40]!r}, not train, dev or test")
        label = 4 * whole(gender, 1, where, "gender") + whole(status, 3, where, "status")
        items.append(Item(name, label, KAOKORE_PARTS[part], files.get(name)))
    return Listing(tuple(items), files.strangers(every(download)))

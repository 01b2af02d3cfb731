"""Sets whose images have boxes: PASCAL VOC 2007 and 2012, COCO 2017."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eval.common.errors import BadInput, one_line
from eval.data.boxes.notation import voc_difficult, voc_place, without_outline, xml_root
from eval.prepare.layouts.lists import lines, once, positions, sole, texts, unknown_class
from eval.prepare.layouts.marks import nothing_found
from eval.prepare.layouts.pictures import FILE, Pictures, every, last
from eval.prepare.listing import Box, Entry, Item, Listing

if TYPE_CHECKING:
    from eval.prepare.archives import Download

_XML = 1 << 20  # bytes; the official annotations have less than 20 kB

# MoCo's recipe for VOC07+12: both trainval lists train, the 2007 test list tests.
_VOC = (
    ("VOC2007", "trainval", "train"),
    ("VOC2012", "trainval", "train"),
    ("VOC2007", "test", "test"),
)
_YEAR = r"(?P<year>VOC20(?:07|12))"


def _voc_box(node: ET.Element, where: str, label: Mapping[str, int]) -> Box | None:
    """One object; None for a box without area. Pixels count from 1, both ends belong to the box.

    Only direct children count: the parts of a person have boxes of their own.
    """
    name = (node.findtext("name") or "").strip()
    if name not in label:
        raise unknown_class(name, where, "voc0712", label)
    x, y, width, height = voc_place(node, f"{where} ({name})")
    if width <= 0 or height <= 0:
        return None
    return Box(x, y, width, height, label[name], width * height, difficult=voc_difficult(node))


def _voc_boxes(
    download: Download, entries: Iterable[Entry], label: Mapping[str, int]
) -> tuple[dict[Entry, tuple[Box, ...]], int]:
    """Each annotation's boxes, and how many have no area. One pass over each archive."""
    found: dict[Entry, tuple[Box, ...]] = {}
    empty = 0
    for entry, content in texts(download, entries, _XML):
        where = repr(download.where(entry))
        nodes = xml_root(content, where).findall("object")
        boxes = [
            _voc_box(node, f"object {place} of {where}", label)
            for place, node in enumerate(nodes, 1)
        ]
        found[entry] = tuple(box for box in boxes if box is not None)
        empty += len(nodes) - len(found[entry])
    return found, empty


def voc0712(download: Download, classes: Sequence[str]) -> Listing:
    """VOCdevkit/VOC2007 (two archives with the same folders) and VOC2012.

    VOC2012 has more images than its Main lists: those of its other challenges. They have official
    annotations, so they are no strangers; a note counts them.
    """
    if not download.find(r"VOC20(?:07|12)/ImageSets/Main/(?:trainval|test)\.txt"):
        raise nothing_found(
            download, "voc0712", "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt and its fellows"
        )
    images = {
        entry: f"{match['year']}/{match['file']}"
        for match, entry in download.find(rf"{_YEAR}/JPEGImages/(?P<file>{FILE})")
    }
    files = Pictures(download, ((name, entry) for entry, name in images.items()))
    annotations = Pictures(
        download,
        (
            (f"{match['year']}/{match['id']}.xml", entry)
            for match, entry in download.find(rf"{_YEAR}/Annotations/(?P<id>[^/]+)\.xml")
        ),
    )
    listed: list[tuple[str, str, Entry]] = []  # official name, part, annotation
    for year, which, part in _VOC:
        what = f"ImageSets/Main/{which}.txt of {year}"
        entry = sole(download, rf"{year}/ImageSets/Main/{which}\.txt", what)
        for number in lines(download, entry):
            annotation = annotations.get(f"{year}/{number}.xml")
            if annotation is None:
                raise BadInput(
                    f"{what} lists {number[:80]!r}, which has no annotation {year}/Annotations/"
                    f"{number[:80]}.xml in {download.source}"
                )
            listed.append((f"{year}/{number}.jpg", part, annotation))
    once((name for name, _, _ in listed), "VOC07+12")
    boxes, empty = _voc_boxes(download, (entry for _, _, entry in listed), positions(classes))
    items = tuple(
        Item(name, -1, part, files.get(name), boxes=boxes[annotation])
        for name, part, annotation in listed
    )
    notes = [f"boxes without area, left out: {empty:,}"] if empty else []
    others = {
        entry
        for entry, name in images.items()
        if entry not in files.known and annotations.get(name.rpartition(".")[0] + ".xml")
    }
    if others:
        notes.append(f"images on the authors' other lists, not of this task: {len(others):,}")
    # What lies outside JPEGImages are masks of other challenges.
    strangers = files.strangers(entry for entry in images if entry not in others)
    return Listing(items, strangers, tuple(notes))


def _json(download: Download, entry: Entry) -> dict[str, Any]:
    where = repr(download.where(entry))
    try:
        facts = json.loads(download.read(entry), object_hook=without_outline)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not valid JSON: {one_line(error, 120)}") from None
    keys = ("images", "annotations", "categories")
    if not isinstance(facts, dict) or not all(isinstance(facts.get(key), list) for key in keys):
        raise BadInput(f"{where} has no lists of images, annotations and categories")
    return facts


def _coco_boxes(
    facts: dict[str, Any], where: str, label: Mapping[int, int]
) -> tuple[dict[int, list[Box]], int]:
    """Image id -> boxes in the file's order, and how many boxes have no area."""
    boxes: dict[int, list[Box]] = {image["id"]: [] for image in facts["images"]}
    if len(boxes) != len(facts["images"]):
        raise BadInput(f"{where} lists an image id twice; take the official file")
    empty = 0
    for note in facts["annotations"]:
        x, y, width, height = (float(value) for value in note["bbox"])
        if note["image_id"] not in boxes or note["category_id"] not in label:
            raise BadInput(
                f"{where}: annotation {note['id']} is of image {note['image_id']!r} and category "
                f"{note['category_id']!r}, of which one is not listed"
            )
        area = float(note["area"])
        if not all(map(math.isfinite, (x, y, width, height, area))):
            raise BadInput(
                f"{where}: annotation {note['id']} has a bbox or area that is not a number"
            )
        if width <= 0 or height <= 0:
            empty += 1
            continue
        category, crowd = label[note["category_id"]], bool(note["iscrowd"])
        boxes[note["image_id"]].append(Box(x, y, width, height, category, area, crowd=crowd))
    return boxes, empty


def coco2017(download: Download, classes: Sequence[str]) -> Listing:
    """annotations/instances_{train,val}2017.json with train2017/<file> and val2017/<file>.

    The training file has 450 MB and is parsed in one go: about 1.2 GB of memory (estimated from a
    made-up file of a tenth of the size). Category ids run to 90 with gaps; labels count the
    categories in the file's order.
    """
    if not download.find(r"instances_(?:train|val)2017\.json"):
        raise nothing_found(download, "coco2017", "annotations/instances_train2017.json")
    images = download.find(rf"(?:train|val)2017/{FILE}")
    files = Pictures(download, ((last(entry, 2), entry) for _, entry in images))
    items: list[Item] = []
    empty = 0
    for folder, part in (("train2017", "train"), ("val2017", "test")):
        entry = sole(download, rf"instances_{folder}\.json", f"instances_{folder}.json of COCO")
        facts = _json(download, entry)
        where = repr(download.where(entry))
        try:
            names = [category["name"] for category in facts["categories"]]
            if names != list(classes):
                raise BadInput(
                    f"{where} has {len(names)} categories ({', '.join(map(str, names[:3]))}, ...), "
                    f"not the {len(classes)} of coco2017 in their order"
                )
            label = {category["id"]: place for place, category in enumerate(facts["categories"])}
            boxes, without = _coco_boxes(facts, where, label)
            named = sorted((image["id"], str(image["file_name"])) for image in facts["images"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BadInput(
                f"{where} is not laid out as COCO's: {type(error).__name__} {one_line(error, 80)}"
            ) from None
        empty += without
        once((name for _, name in named), where)
        for number, file in named:
            name = f"{folder}/{file}"
            items.append(Item(name, -1, part, files.get(name), boxes=tuple(boxes[number])))
    notes = (f"boxes without area, left out: {empty:,}",) if empty else ()
    others = {entry for _, entry in download.find(rf"(?:test|unlabeled)2017/{FILE}")}
    strangers = files.strangers(entry for entry in every(download) if entry not in others)
    return Listing(tuple(items), strangers, notes)

"""Official downloads with a label a pixel: PASCAL VOC 2012, ADE20K, Cityscapes.

A reader lists images with their masks and reads none of them. What a stored value means is a
table: the class, ``VOID`` for what is not scored, ``UNKNOWN`` for what no such mask holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput
from eval.common.text import counted
from eval.data.masks.label_map import VOID
from eval.data.own_masks import VOC_CLASSES
from eval.prepare.layouts.lists import lines, once, sole, text
from eval.prepare.layouts.pictures import FILE, Pictures
from eval.prepare.listing import Entry

if TYPE_CHECKING:
    from eval.prepare.archives import Download

UNKNOWN = -1
ADE_CLASSES = 150
CITYSCAPES_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle",
    "bicycle",
)  # fmt: skip
# Cityscapes' ids 0 to 33 of these classes in their order; the benchmark scores no others
# (`trainId` in cityscapesscripts/helpers/labels.py).
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


@dataclass(frozen=True)
class MaskItem:
    """An image and its mask, in the download."""

    name: str
    part: str  # train or test
    image: Entry
    mask: Entry
    group: str = ""  # what stands together: a city


@dataclass(frozen=True)
class MaskListing:
    """What a download holds. ``table[v]`` is what value v of a mask means."""

    classes: tuple[str, ...]
    items: tuple[MaskItem, ...]
    table: NDArray[np.int16]  # [256]


def voc2012_seg(download: Download) -> MaskListing:
    """VOCdevkit/VOC2012 with its lists train and val of ImageSets/Segmentation; masks are palette
    pictures, of which 255 is the border of objects. Raises UserError for what is missing."""
    root = r"VOC2012"
    images = Pictures(download, _by_name(download, rf"{root}/JPEGImages/{FILE}"))
    masks = Pictures(download, _by_name(download, rf"{root}/SegmentationClass/{FILE}"))
    items = []
    for listed, part in (("train", "train"), ("val", "test")):
        what = f"VOC2012/ImageSets/Segmentation/{listed}.txt"
        numbers = lines(download, sole(download, rf"{root}/ImageSets/Segmentation/{listed}\.txt",
                                       what))  # fmt: skip
        once(numbers, what)
        pairs = [(n, images.get(f"{n}.jpg"), masks.get(f"{n}.png")) for n in numbers]
        items += _paired(download, pairs, part, what)
    return MaskListing(VOC_CLASSES, tuple(items), _table({i: i for i in range(21)} | {VOID: VOID}))


def ade20k(download: Download) -> MaskListing:
    """ADEChallengeData2016: images and annotations, each with training and validation. 0 is what
    none of the 150 classes names, and void; their names are in objectInfo150.txt."""
    images = Pictures(download, _by_folder(download, rf"images/(?:training|validation)/{FILE}"))
    masks = Pictures(download, _by_folder(download, rf"annotations/(?:training|validation)/{FILE}"))
    names = sorted(
        f"{match['part']}/{match['id']}"
        for match, _ in download.find(
            r"images/(?P<part>training|validation)/(?P<id>ADE_[^/]+)\.(?i:jpg)"
        )
    )
    items: list[MaskItem] = []
    for folder, part in (("training", "train"), ("validation", "test")):
        ours = list(dict.fromkeys(name for name in names if name.startswith(f"{folder}/")))
        if not ours:
            raise download.missing(f"ADEChallengeData2016/images/{folder}/ADE_*.jpg")
        pairs = [(n, images.get(f"{n}.jpg"), masks.get(f"{n}.png")) for n in ours]
        items += _paired(download, pairs, part, f"images/{folder}")
    table = {0: VOID} | {value: value - 1 for value in range(1, ADE_CLASSES + 1)}
    return MaskListing(_ade_names(download), tuple(items), _table(table))


def cityscapes(download: Download) -> MaskListing:
    """leftImg8bit and gtFine (``*_labelIds.png``), each with train and val by city. The 19 classes
    of the benchmark are numbered as its trainIds; all else is void. A city is a group."""
    images = download.find(
        r"leftImg8bit/(?P<part>train|val)/(?P<city>[^/]+)/(?P<id>[^/]+)_leftImg8bit\.png"
    )
    masks = Pictures(
        download,
        (
            (f"{match['id']}.png", entry)
            for match, entry in download.find(
                r"gtFine/(?:train|val)/[^/]+/(?P<id>[^/]+)_gtFine_labelIds\.png"
            )
        ),
    )
    cities = {f"{match['id']}.png": match["city"] for match, _ in images}
    pictures = Pictures(download, ((f"{match['id']}.png", entry) for match, entry in images))
    items: list[MaskItem] = []
    for folder, part in (("train", "train"), ("val", "test")):
        ours = sorted({f"{match['id']}.png" for match, _ in images if match["part"] == folder})
        if not ours:
            raise download.missing(f"leftImg8bit/{folder}/CITY/*_leftImg8bit.png")
        pairs = [(n, pictures.get(n), masks.get(n)) for n in ours]
        what = f"leftImg8bit/{folder}"
        items += [_of_group(item, cities[item.name])
                  for item in _paired(download, pairs, part, what)]  # fmt: skip
    table = dict.fromkeys(range(34), VOID) | {
        value: number for number, value in enumerate(_CITYSCAPES_IDS)
    }
    return MaskListing(CITYSCAPES_CLASSES, tuple(items), _table(table))


MASK_LAYOUTS: dict[str, Callable[[Download], MaskListing]] = {
    "voc2012-seg": voc2012_seg,
    "ade20k": ade20k,
    "cityscapes": cityscapes,
}


def _by_name(download: Download, pattern: str) -> Iterable[tuple[str, Entry]]:
    return ((entry.name.rpartition("/")[2], entry) for _, entry in download.find(pattern))


def _by_folder(download: Download, pattern: str) -> Iterable[tuple[str, Entry]]:
    return (("/".join(entry.name.split("/")[-2:]), entry) for _, entry in download.find(pattern))


def _paired(
    download: Download,
    pairs: list[tuple[str, Entry | None, Entry | None]],
    part: str,
    what: str,
) -> list[MaskItem]:
    """Raises UserError for images that are not there, and for images without a mask."""
    for gone, said in (
        ([n for n, image, _ in pairs if image is None], "not there"),
        ([n for n, _, mask in pairs if mask is None], "without a mask"),
    ):
        if gone:
            raise BadInput(
                f"{len(gone):,} of {counted(len(pairs), 'image')} of {what} in {download.source} "
                f"are {said}, the first is {gone[0]!r}; complete the download"
            )
    return [MaskItem(n, part, i, m) for n, i, m in pairs if i is not None and m is not None]


def _of_group(item: MaskItem, group: str) -> MaskItem:
    return MaskItem(item.name, item.part, item.image, item.mask, group)


def _table(known: dict[int, int]) -> NDArray[np.int16]:
    table = np.full(256, UNKNOWN, np.int16)
    table[list(known)] = list(known.values())
    return table


def _ade_names(download: Download) -> tuple[str, ...]:
    """The first word of each class for itself; all of them where two classes share it."""
    entry = sole(download, r"objectInfo150\.txt", "objectInfo150.txt, which names the classes")
    rows = [line.split("\t") for line in text(download, entry).splitlines() if line.strip()]
    named = [row[-1].strip() for row in rows[1:]]
    if len(named) != ADE_CLASSES or [row[0] for row in rows[1:]] != [
        str(n + 1) for n in range(ADE_CLASSES)
    ]:
        raise BadInput(
            f"{download.where(entry)!r} lists {counted(len(named), 'class', 'classes')}, not "
            f"{ADE_CLASSES} numbered from 1; take the official file"
        )
    short = [name.partition(",")[0].strip() for name in named]
    return tuple(s if short.count(s) == 1 else n for s, n in zip(short, named, strict=True))

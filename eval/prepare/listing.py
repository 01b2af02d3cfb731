"""What an official download holds: its images in the authors' order, before any is read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One file of a download: a file in a folder, or a member of an archive there."""

    container: int  # which folder or archive, an index into Download.containers
    name: str  # path within it, with '/', checked to be safe
    size: int  # bytes, unpacked
    place: int = 0  # where it stands in its container: what is read in one pass is read in order


@dataclass(frozen=True)
class Box:
    """One object of a detection set, in pixels of the image; x and y count from 0."""

    x: float
    y: float
    width: float
    height: float
    category: int
    area: float  # as the authors give it, else width * height
    difficult: bool = False  # PASCAL VOC
    crowd: bool = False  # COCO's iscrowd


@dataclass(frozen=True)
class Item:
    """One image of the official list, in the list's order."""

    name: str  # official relative name, such as AnnualCrop/AnnualCrop_1.jpg
    label: int  # of the task's declared classes; -1 for detection
    part: str  # official part: 'train', 'test', 'validation' (unused), '' where there are none
    entry: Entry | None  # None: on the list but not in the download
    group: str = ""  # what must not be split: a lesion, a patient; '' where unknown
    row: int = -1  # of an array file (SVHN); -1: the entry's bytes are the image
    boxes: tuple[Box, ...] | None = None  # of a detection set


@dataclass(frozen=True)
class Listing:
    """The whole official list."""

    items: tuple[Item, ...]
    strangers: tuple[str, ...] = ()  # image files of the download that are on no list
    notes: tuple[str, ...] = ()  # what a reader of the report should know

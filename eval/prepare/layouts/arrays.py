"""Sets whose labels are MATLAB arrays: SVHN (images, too) and Flowers-102."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eval.common.errors import BadInput, one_line
from eval.prepare.layouts.lists import enough_classes, sole
from eval.prepare.layouts.marks import nothing_found
from eval.prepare.layouts.pictures import Pictures, every, last
from eval.prepare.listing import Item, Listing

if TYPE_CHECKING:
    from eval.prepare.archives import Download


def _whole_numbers(
    data: bytes, where: str, key: str, lowest: int, highest: int
) -> NDArray[np.int64]:
    """[N] the variable's values; refuses all but whole numbers of lowest..highest."""
    from scipy.io import loadmat

    try:
        values = loadmat(io.BytesIO(data), variable_names=[key]).get(key)
    except Exception as error:  # scipy raises of all kinds for a file that is not what it says
        raise BadInput(f"{where} is not a MATLAB 5 file: {one_line(error, 120)}") from None
    if values is None:
        raise BadInput(f"{where} has no variable {key!r}; take the official file")
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf" or not values.size:
        raise BadInput(f"{key!r} of {where} holds no numbers; take the official file")
    numbers = values.ravel().astype(np.float64)
    wrong = numbers[(numbers != np.rint(numbers)) | (numbers < lowest) | (numbers > highest)]
    if wrong.size:
        raise BadInput(f"{key!r} of {where} holds {wrong[0]:g}, not one of {lowest} to {highest}")
    return numbers.astype(np.int64)


def _pictures_in(data: bytes, where: str) -> int:
    """How many 32x32 colour pictures the array X has, by its head: the array stays packed."""
    from scipy.io import whosmat

    shapes = {name: shape for name, shape, _ in whosmat(io.BytesIO(data))}
    shape = shapes.get("X", ())
    if len(shape) != 4 or shape[:3] != (32, 32, 3):
        raise BadInput(f"'X' of {where} has the shape {shape}, not (32, 32, 3, N)")
    return int(shape[3])


def svhn(download: Download, classes: Sequence[str]) -> Listing:
    """train_32x32.mat and test_32x32.mat: X (32,32,3,N) and y, in which 10 is the digit 0.

    The pictures have no names; they are numbered from 1 as the authors' files are. A file is held
    in memory while its labels are read (180 MB), its pictures are not unpacked.
    """
    enough_classes("svhn", classes, 10)
    if not download.find(r"(?:train|test)_32x32\.mat"):
        raise nothing_found(download, "svhn", "train_32x32.mat and test_32x32.mat")
    items = []
    for part in ("train", "test"):
        entry = sole(download, rf"{part}_32x32\.mat", f"{part}_32x32.mat of SVHN")
        data, where = download.read(entry), repr(download.where(entry))
        labels = _whole_numbers(data, where, "y", 1, 10) % 10
        pictures = _pictures_in(data, where)
        if len(labels) != pictures:
            raise BadInput(f"{where} has {pictures:,} pictures and {len(labels):,} labels")
        items += [
            Item(f"{part}/{row + 1:06d}.png", int(label), part, entry, row=row)
            for row, label in enumerate(labels)
        ]
    extra = download.find(r"extra_32x32\.mat")
    notes = ("extra_32x32.mat is not part of this task",) if extra else ()
    return Listing(tuple(items), tuple(sorted(map(download.where, every(download)))), notes)


def flowers102(download: Download, classes: Sequence[str]) -> Listing:
    """jpg/image_<00001..>.jpg; imagelabels.mat (labels 1 to 102); setid.mat (image numbers from 1).

    trnid and valid train, tstid is test, as in the published study; its first version trained on
    tstid (paper.md 6.7).
    """
    enough_classes("flowers102", classes, 102)
    if not download.find(r"(?:imagelabels|setid)\.mat"):
        raise nothing_found(download, "flowers102", "imagelabels.mat and setid.mat")
    entry = sole(download, r"imagelabels\.mat", "imagelabels.mat of Flowers-102")
    where = repr(download.where(entry))
    labels = _whole_numbers(download.read(entry), where, "labels", 1, 102) - 1
    entry = sole(download, r"setid\.mat", "setid.mat of Flowers-102")
    data, where = download.read(entry), repr(download.where(entry))
    part = np.full(len(labels), "", object)
    for key, name in (("trnid", "train"), ("valid", "train"), ("tstid", "test")):
        for number in _whole_numbers(data, where, key, 1, len(labels)):
            if part[number - 1]:
                raise BadInput(f"{where} has image {number} twice; take the official file")
            part[number - 1] = name
    without = np.flatnonzero(part == "")
    if without.size:
        raise BadInput(
            f"{where} gives no part to {without.size:,} of {len(labels):,} images, such as "
            f"number {without[0] + 1}; take the official setid.mat and imagelabels.mat"
        )
    images = download.find(r"image_\d{5}\.(?i:jpe?g)")
    files = Pictures(download, ((last(entry), entry) for _, entry in images))
    items = []
    for index, label in enumerate(labels):
        name = f"image_{index + 1:05d}.jpg"
        items.append(Item(name, int(label), part[index], files.get(name)))
    return Listing(tuple(items), files.strangers(every(download)))

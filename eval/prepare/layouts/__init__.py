"""The official layouts: one reader a data set, which lists its images and reads none of them.

A reader takes a download and the task's class names in the order of labels. What is on the
authors' list but not in the download is listed without an entry; nothing is dropped or replaced
in silence, as the study's loader does (paper.md 6.6). The layouts are described in datasets.md;
the rules of labels, order and parts are those of the study's code (transfer_broad @8b6d6fc).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from eval.prepare.layouts.arrays import flowers102, svhn
from eval.prepare.layouts.boxes import coco2017, voc0712
from eval.prepare.layouts.folders import cropdisease, eurosat, omniglot, resisc45, sketch
from eval.prepare.layouts.tables import chestx, deepweeds, dtd, isic2018, kaokore
from eval.prepare.listing import Listing

if TYPE_CHECKING:
    from eval.prepare.archives import Download

LAYOUTS: dict[str, Callable[[Download, Sequence[str]], Listing]] = {
    "cropdisease": cropdisease,
    "deepweeds": deepweeds,
    "eurosat": eurosat,
    "resisc45": resisc45,
    "chestx": chestx,
    "isic2018": isic2018,
    "dtd": dtd,
    "omniglot": omniglot,
    "svhn": svhn,
    "kaokore": kaokore,
    "sketch": sketch,
    "flowers102": flowers102,
    "voc0712": voc0712,
    "coco2017": coco2017,
}

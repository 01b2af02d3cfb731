"""What a download looks like: the words for one in which nothing of the task was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eval.common.errors import UserError

if TYPE_CHECKING:
    from eval.prepare.archives import Download

# A path that the download of the task has and no other's does. Task -> regular expression.
MARKS = {
    "cropdisease": r"(?:train|test|color)/[^/]+___[^/]+/[^/]+\.(?i:jpe?g|png)",
    "deepweeds": r"\d{8}-\d{6}-\d+\.(?i:jpg)",
    "eurosat": r"(?:AnnualCrop|SeaLake|PermanentCrop)_\d+\.(?i:jpg)",
    "resisc45": r"(?:airplane|palace|wetland|ship|stadium)_\d{3}\.(?i:jpg)",
    "chestx": r"(?:Data_Entry_2017(?:_v2020)?\.csv|\d{8}_\d{3}\.(?i:png))",
    "isic2018": r"(?:ISIC2018_Task3_.*|ISIC_\d{7}\.(?i:jpg)|HAM10000_.*)",
    "dtd": r"labels/(?:train|val|test)\d+\.txt",
    "omniglot": r"images_(?:background|evaluation)/[^/]+/character\d+/[^/]+\.png",
    "svhn": r"(?:train|test|extra)_32x32\.mat",
    "kaokore": r"(?:images_256/\d{8}\.jpg|original_tags\.txt)",
    "sketch": r"n\d{8}/sketch_\d+\.(?i:jpe?g)",
    "flowers102": r"(?:setid\.mat|imagelabels\.mat|jpg/image_\d{5}\.jpg)",
    "voc0712": r"VOC20(?:07|12)/(?:JPEGImages|Annotations)/[^/]+",
    "coco2017": r"annotations/instances_\w+\.json",
}


def looks_like(download: Download, but: str) -> str:
    """The task whose download this seems to be, other than ``but``; '' where that is unclear."""
    for task, mark in MARKS.items():
        if task != but and download.find(mark):
            return task
    return ""


def nothing_found(download: Download, task: str, looked_for: str) -> UserError:
    """One sentence: what was looked for, what is there instead, which task that may be."""
    message = str(download.missing(looked_for))
    other = looks_like(download, task)
    return UserError(f"{message}; this looks like {other}, not {task}" if other else message)

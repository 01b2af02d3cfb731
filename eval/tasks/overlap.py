"""Which data sets share images: what is no transfer for a model that was pretrained on one.

Known by declaration alone: a set, its copies on the Hub, the sets that it is a part of. Sets that
nobody ever listed, as those gathered from the web, may hold anything; nothing is claimed of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from eval.tasks.registry import TASKS

# Sets that no task here is, by what they are a part of.
_PARTS = {
    "imagenet-1k": ("imagenet-21k",),
    "imagenet-12k": ("imagenet-21k",),
    "imagenet-100": ("imagenet-1k",),
    "mini-imagenet": ("imagenet-1k",),
}
_ALSO = {
    "imagenet": "imagenet-1k",
    "ilsvrc2012": "imagenet-1k",
    "imagenet1k": "imagenet-1k",
    "imagenet21k": "imagenet-21k",
    "imagenet-22k": "imagenet-21k",
    "imagenet22k": "imagenet-21k",
}
# Gathered from the web, and in parts not public: what is in them cannot be looked up.
UNLISTED = frozenset({
    "jft-300m", "instagram-1b", "yfcc-100m", "laion-400m", "laion-2b", "dfn-2b", "dfn-5b", "webli",
    "lvd-142m", "lvd-1689m", "wit-400m",
})  # fmt: skip


def shared_images(data: str, task: str) -> str:
    """Why a model that was pretrained on ``data`` has seen images of a task, in words; '' where
    nothing says that it has. ``data`` is what its author calls the set.

    >>> shared_images("zh-plus/tiny-imagenet", "tiny_imagenet")
    'pretrained on tiny_imagenet'
    >>> shared_images("imagenet-1k", "tiny_imagenet")
    'pretrained on imagenet-1k, of which tiny_imagenet is a part'
    >>> shared_images("imagenet-1k", "dtd")
    ''
    """
    mine, theirs = _canonical(data), _canonical(task)
    if mine == theirs:
        return f"pretrained on {theirs}"
    if mine in _wholes(theirs):
        return f"pretrained on {mine}, of which {theirs} is a part"
    if theirs in _wholes(mine):
        return f"pretrained on {mine}, a part of {theirs}"
    if both := sorted(_wholes(mine) & _wholes(theirs)):
        return f"pretrained on {mine}, like {theirs} a part of {both[0]}"
    return ""


def why_seen(data: Iterable[str], task: str) -> str:
    """The first reason why images of a task were in the pretraining data; '' for none."""
    return next((why for one in data if (why := shared_images(one, task))), "")


def unlisted(data: Iterable[str]) -> bool:
    """Whether one of the sets was never listed, so that it may hold images of any task."""
    return any(_canonical(one) in UNLISTED for one in data)


def _canonical(name: str) -> str:
    """One name for a set, however it is written: a task's where it is one."""
    lower = name.strip().lower()
    names = _names()
    for text in (lower, lower.rpartition("/")[2], lower.partition("@")[0]):
        for plain in (text, re.sub(r"[\s_]+", "-", text)):
            if found := names.get(plain):
                return found
    return re.sub(r"[\s_]+", "-", lower.rpartition("/")[2])


@cache
def _names() -> dict[str, str]:
    found = dict(_ALSO) | {name: name for name in _PARTS}
    for task in TASKS.values():
        also = [task.name, task.name.replace("_", "-"), task.title, task.on_hub]
        if task.hub is not None:
            also.append(task.hub.repo)
        for text in filter(None, also):
            found[text.lower()] = task.name
    return found


@cache
def _wholes(name: str) -> frozenset[str]:
    """All sets that a set is a part of."""
    task = TASKS.get(name)
    above = task.part_of if task else _PARTS.get(name, ())
    return frozenset(above).union(*(_wholes(one) for one in above))

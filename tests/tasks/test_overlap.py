"""Which data sets share images, by what is declared of them."""

from __future__ import annotations

import pytest

from eval.tasks.overlap import shared_images, unlisted, why_seen
from eval.tasks.registry import TASKS

SAME, PART = "pretrained on tiny_imagenet", ", of which tiny_imagenet is a part"


@pytest.mark.parametrize(
    ("data", "task", "why"),
    [
        ("tiny_imagenet", "tiny_imagenet", SAME),
        ("Tiny-ImageNet", "tiny_imagenet", SAME),
        ("zh-plus/tiny-imagenet", "tiny_imagenet", SAME),
        ("tiny_imagenet@study", "tiny_imagenet", SAME),
        ("imagenet-1k", "tiny_imagenet", f"pretrained on imagenet-1k{PART}"),
        ("ILSVRC/imagenet-1k", "tiny_imagenet", f"pretrained on imagenet-1k{PART}"),
        ("imagenet-21k", "tiny_imagenet", f"pretrained on imagenet-21k{PART}"),
        ("mini_imagenet", "tiny_imagenet",
         "pretrained on mini-imagenet, like tiny_imagenet a part of imagenet-1k"),
        ("coco128", "coco2017", "pretrained on coco128, a part of coco2017"),
        ("coco2017", "coco128", "pretrained on coco2017, of which coco128 is a part"),
        ("timm/eurosat-rgb", "eurosat", "pretrained on eurosat"),
        ("imagenet-1k", "sketch", ""),  # the same classes, other images
        ("sketch", "pacs_sketch", ""),
        ("eurosat", "resisc45", ""),
        ("laion-2b", "dtd", ""),
        ("", "dtd", ""),
        ("photos", "photos", "pretrained on photos"),
    ],
)  # fmt: skip
def test_shared_images(data: str, task: str, why: str) -> None:
    assert shared_images(data, task) == why


def test_every_task_is_its_own_under_all_its_names() -> None:
    for name, task in TASKS.items():
        for called in (name, name.replace("_", "-"), task.title, f"org/{name}"):
            assert shared_images(called, name), called
        others = [o for o in TASKS if o != name and not task.part_of and not TASKS[o].part_of]
        assert [o for o in others if shared_images(name, o)] == []


def test_wholes_are_known() -> None:
    """A set that another is a part of is a task, or one that `shared_images` knows."""
    for name, task in TASKS.items():
        for whole in task.part_of:
            assert shared_images(whole, name).endswith("is a part")


def test_several_sets() -> None:
    assert why_seen(["laion-2b", "dtd"], "dtd") == "pretrained on dtd"
    assert why_seen([], "dtd") == ""
    assert unlisted(["dtd", "LAION-2B"])
    assert not unlisted(["imagenet-1k", "dtd"])

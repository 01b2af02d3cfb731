"""Schedules by name, what settings change of them, and which image comes when."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import ChainedScheduler, LinearLR, MultiStepLR

from eval.detection.stream import Pick, batches
from eval.protocols.requested import requested
from eval.protocols.task_schedule import resolved
from eval.settings.protocols import Detection
from eval.settings.schedules import NAMED, Schedule, default_schedule, schedule_named
from eval.training.images import share_of
from tests.factories import refusal

# ---- schedules


@pytest.mark.parametrize(
    ("name", "iterations", "drops", "warmup", "sides"),
    [  # facebookresearch/moco, detection/configs: pascal_voc_R_50_C4_24k and coco_R_50_C4_*
        ("voc-24k", 24_000, (18_000, 22_000), 100, range(480, 801, 32)),
        ("coco-1x", 90_000, (60_000, 80_000), 1000, (640, 672, 704, 736, 768, 800)),
        ("coco-2x", 180_000, (120_000, 160_000), 1000, (640, 672, 704, 736, 768, 800)),
    ],
)
def test_the_numbers_of_the_moco_recipe(
    name: str, iterations: int, drops: tuple[int, int], warmup: int, sides: tuple[int, ...]
) -> None:
    found = schedule_named(name)
    assert found == resolved(Detection(schedule=name))
    assert found == Schedule(
        name, iterations, 16, 0.02, drops, warmup, tuple(sides), 800, 1333,
        channels=256, head=1024, warmup_factor=0.001, momentum=0.9, weight_decay=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("name", [*NAMED, "short:600", "short:7"])
def test_the_rate_is_that_of_torch_s_schedulers(name: str) -> None:
    schedule = schedule_named(name)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], schedule.lr)
    both = ChainedScheduler(
        [
            LinearLR(optimiser, schedule.warmup_factor, total_iters=schedule.warmup),
            MultiStepLR(optimiser, list(schedule.drops), 0.1),
        ]
        if schedule.warmup
        else [MultiStepLR(optimiser, list(schedule.drops), 0.1)]
    )
    # All of the short ones; of the long ones as many, with every warm-up.
    for iteration in range(min(schedule.iterations, 2000)):
        rate = optimiser.param_groups[0]["lr"]
        assert schedule.rate(iteration) == pytest.approx(rate, rel=1e-6), iteration
        optimiser.step()
        both.step()
    for drop, tenths in zip(schedule.drops, (1, 2), strict=False):
        assert schedule.rate(drop - 1) == pytest.approx(schedule.lr * 10.0 ** (1 - tenths))
        assert schedule.rate(drop) == pytest.approx(schedule.lr * 10.0**-tenths)


def test_a_warm_up_begins_at_a_thousandth() -> None:
    rates = [NAMED["voc-24k"].rate(i) for i in (0, 50, 99, 100)]
    assert rates == pytest.approx([0.02 * s for s in (0.001, 0.5005, 0.99001, 1)])


def test_short_schedules() -> None:
    found = schedule_named("short:600")
    assert (found.iterations, found.batch_size, found.drops, found.warmup) == (
        600, 4, (450, 550), 100,
    )  # fmt: skip
    assert schedule_named("short:80").warmup == 20
    assert schedule_named("short:9999999").iterations == 9_999_999
    for n in range(1, 30):
        few = schedule_named(f"short:{n}")
        assert few.iterations == n
        assert list(few.drops) == sorted(set(few.drops))
        assert all(0 < d < n or n == 1 for d in few.drops)
        assert few.warmup <= n / 4
        assert all(few.rate(i) > 0 for i in range(n))
    assert schedule_named("short:2").drops == (1,)
    assert schedule_named("short:1").rate(0) == 0.02


@pytest.mark.parametrize(
    "name",
    ["", "voc", "VOC-24K", "short", "short:", "short:0", "short:-3", "short:1.5", "short:12345678",
     "short:5 ", "coco-3x"],
)  # fmt: skip
def test_unknown_names(name: str) -> None:
    text = refusal(schedule_named, name)
    assert repr(name) in text
    for known in ("voc-24k", "coco-1x", "coco-2x", "short:N"):
        assert known in text


def test_what_is_asked_for_otherwise() -> None:
    named = NAMED["voc-24k"]
    less = resolved(Detection(schedule="voc-24k", iterations=2400))
    assert (less.iterations, less.drops, less.warmup) == (2400, (1800, 2200), 100)
    assert resolved(Detection(schedule="voc-24k", iterations=100)).warmup == 25
    more = resolved(Detection(schedule="coco-1x", iterations=180_000))
    assert more.drops == NAMED["coco-2x"].drops
    assert resolved(Detection(schedule="voc-24k", iterations=1)).drops == ()
    asked = Detection(
        schedule="voc-24k", batch_size=2, lr=0.5, sides=(32, 64), test_side=80, max_side=90,
        channels=8, head=9,
    )  # fmt: skip
    found = resolved(asked)
    for name in ("batch_size", "lr", "sides", "test_side", "max_side", "channels", "head"):
        assert getattr(found, name) == getattr(asked, name)
        assert getattr(found, name) != getattr(named, name)
    assert (found.iterations, found.drops, found.warmup) == (24_000, (18_000, 22_000), 100)


def test_the_schedule_of_a_task() -> None:
    assert default_schedule("voc0712", True) == "voc-24k"
    assert default_schedule("coco2017", True) == "coco-1x"
    for task, whole in (("voc0712", False), ("coco2017", False), ("bccd", True), ("", True)):
        assert default_schedule(task, whole) == "short:600"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("neck=foo", "neck must be one of fpn, c4, not 'foo'"),
        ("norm=foo", "norm must be one of batch, frozen, not 'foo'"),
        ("schedule=foo", "unknown schedule 'foo'; schedules are voc-24k"),
        ("schedule=short:0", "unknown schedule 'short:0'"),
        ("schedule=24", "schedule takes str values, not 24"),
        ("lr=-1", "lr must be at least 0, got -1"),
        ("lr=nan", "lr must be at least 0, got nan"),
        ("lr=1e7", "lr must be at most 1e+06"),
        ("sides=[8]", "sides must be at least 16, got 8"),
        ("sides=[64, 9000]", "sides must be at most 8192, got 9000"),
        ("iterations=1.5", "iterations takes int values, not 1.5"),
        ("iterations=-1", "iterations must be at least 0"),
        ("batch_size=-4", "batch_size must be at least 0"),
        ("channels=5000", "channels must be at most 4096, got 5000"),
        ("precise_bn=-1", "precise_bn must be at least 0"),
        ("schedul=1", "no setting 'schedul'; did you mean 'schedule'?"),
    ],
)
def test_settings_that_are_refused(override: str, words: str) -> None:
    text = refusal(requested, ["detection"], [f"detection.{override}"])
    assert f"--set 'detection.{override}'" in text
    assert words in text


def test_settings_that_are_taken() -> None:
    overrides = [
        "schedule=short:12", "neck=c4", "norm=frozen", "sides=[48, 64]", "lr=1", "precise_bn=0",
    ]  # fmt: skip
    found = requested(["detection"], [f"detection.{o}" for o in overrides])["detection"]
    assert found == Detection(
        schedule="short:12", neck="c4", norm="frozen", sides=(48, 64), lr=1.0, precise_bn=0
    )
    assert requested(["detection"], ["detection.sides=64"])["detection"] == Detection(sides=(64,))


# ---- the stream of batches

WIDE = np.random.RandomState(0).rand(23) < 0.6


def some(count: int, size: int = 4, seed: int = 0, begin: int = 0) -> list[list[Pick]]:
    return list(itertools.islice(batches(WIDE, size, seed), begin, begin + count))


def test_every_image_comes_once_an_epoch() -> None:
    picks = [pick for batch in some(120) for pick in batch]
    assert len(picks) == len(set(picks)) == 480
    complete = picks[-1][1] - 2  # what is left of an epoch comes soon after it
    assert complete > 15
    for epoch in range(complete):
        images = [image for image, when in picks if when == epoch]
        assert sorted(images) == list(range(len(WIDE)))
    orders = [[image for image, when in picks if when == e] for e in (0, 1)]
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


@pytest.mark.parametrize("size", [1, 3, 4, 16])
def test_wide_and_tall_images_are_apart(size: int) -> None:
    found = some(60, size)
    assert all(len(batch) == size for batch in found)
    assert all(len({bool(WIDE[image]) for image, _ in batch}) == 1 for batch in found)
    assert {bool(WIDE[batch[0][0]]) for batch in found} == {True, False}


def test_the_stream_is_its_seed_s_alone() -> None:
    assert some(30) == some(30)
    assert some(30) != some(30, seed=1)
    assert some(10, begin=20) == some(30)[20:]
    processes = [share_of(slice(0, 4), rank, 3) for rank in range(3)]
    shares = [[batch[mine] for batch in some(30)] for mine in processes]
    for batch, *parts in zip(some(30), *shares, strict=True):
        assert batch == list(itertools.chain(*parts))


def test_fewer_images_than_a_batch() -> None:
    stream = batches(np.array([True, False, False]), 4, 0)
    found = list(itertools.islice(stream, 12))
    assert all(len(batch) == 4 for batch in found)
    wide = [pick for batch in found for pick in batch if pick[0] == 0]
    assert wide == [(0, epoch) for epoch in range(len(wide))]

"""The training of a detector: the numbers of a plain loop, whatever happens on the way."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import itertools
import json
import math
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.optim.lr_scheduler import ChainedScheduler, LinearLR, MultiStepLR
from torch.optim.swa_utils import update_bn

from eval.common.errors import UserError
from eval.detection import train as detection_train
from eval.detection.batch import Batch, Target
from eval.detection.network import Detector, build_detector
from eval.detection.pixels import draw_view
from eval.detection.train import LOSSES, TrainBatches, Training, told
from eval.features.precision import Precision
from eval.protocols import detection as protocol
from eval.protocols.detection import _key, score
from eval.protocols.outcome import Outcome
from eval.protocols.task_schedule import resolved
from eval.settings.protocols import Detection
from eval.settings.schedules import Schedule
from eval.training.context import Context
from eval.training.images import draw_seed
from tests.children import FORKS, PATIENCE, finish, join_two, start
from tests.data.boxes.make import SHAPES, SMALL, make_setup, scenes, write_part, write_set
from tests.detection.drawn import Picture
from tests.factories import refusal

PRELOAD = [__name__, "timm", "accelerate", "eval.protocols.detection", "torchvision"]
SHORT = Detection(schedule="short:6", **SMALL)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 images to train on, a quarter of them tall, and 8 to test."""
    return write_set(tmp_path_factory.mktemp("sets") / "shapes")


@pytest.fixture(scope="module")
def like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of one shape."""
    return write_set(tmp_path_factory.mktemp("sets") / "like", tall=0)


@pytest.fixture
def setup(shapes: Path, cache: Path) -> Context:
    return make_setup(shapes, cache)


def training_of(setup: Context, settings: Detection = SHORT, micro: int | None = None) -> Training:
    return Training(setup, built(setup, settings), resolved(settings), micro)


def built(setup: Context, settings: Detection) -> Detector:
    schedule = resolved(settings)
    return build_detector(
        setup.backbone, len(setup.task.classes), neck=settings.neck, norm=settings.norm,
        channels=schedule.channels, head=schedule.head, seed=setup.seed,
    )  # fmt: skip


def numbers(out: Outcome) -> dict[str, Any]:
    """Of an outcome, what may not depend on the clock."""
    found = {
        "scores": [s.model_dump() for s in out.scores],
        "samples": {name: s.correct for name, s in out.samples.items()},
        "details": {k: v for k, v in out.details.items() if k != "images_per_s"},
        "notes": out.notes,
    }
    return json.loads(json.dumps(found), parse_constant=str)  # NaN equals NaN


def state_of(net: torch.nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in net.state_dict().items()}


def states(setup: Context) -> list[Path]:
    return sorted(setup.cache.glob("detection/*/*"))


def plain_sampling(patch: pytest.MonkeyPatch) -> None:
    """Anchors and proposals are drawn at random for the losses, in the order of the images; here
    the first ones are taken, as many in every image, so that batches can be compared with parts."""
    patch.setattr(torch, "randperm", lambda n, **kw: torch.arange(n, **kw))
    plain = protocol.build_detector

    def build(*args: Any, **kwargs: Any) -> Detector:
        detector = plain(*args, **kwargs)
        return few(detector)

    patch.setattr(protocol, "build_detector", build)
    patch.setattr(Detector, "sample", lambda self, rois: None)  # the schedule's number


def few(detector: Detector) -> Detector:
    """With so few proposals for the losses that each image has them."""
    sampler: Any = detector.roi_heads.fg_bg_sampler
    sampler.batch_size_per_image = 16
    return detector


# ---- the numbers


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_equals_a_plain_loop(setup: Context, norm: str) -> None:
    """The same start, views and draws; everything else as one writes it down."""
    settings = dataclasses.replace(SHORT, norm=norm, iterations=5)
    ours = training_of(setup, settings)
    with torch.random.fork_rng(devices=[]):
        ours.run(setup.cache / "never")

    net = built(setup, settings).train()
    net.sample(64)
    schedule = resolved(settings)
    optimiser = torch.optim.SGD(
        [p for p in net.parameters() if p.requires_grad], 0.02, 0.9, weight_decay=1e-4
    )
    warm = LinearLR(optimiser, 0.001, total_iters=schedule.warmup)
    rate = ChainedScheduler([warm, MultiStepLR(optimiser, list(schedule.drops))])
    with torch.random.fork_rng(devices=[]):
        for iteration, picks in enumerate(plain_batches(setup, 4, schedule.iterations)):
            torch.manual_seed(draw_seed(setup.seed, iteration, 0))
            losses = net(plain_batch(setup, schedule, picks, net.divisor))
            optimiser.zero_grad()
            sum(losses.values()).backward()
            optimiser.step()
            rate.step()
            point = told(ours.where.curve)[iteration]
            assert point["iteration"] == iteration + 1
            for name in LOSSES:
                assert point[name] == pytest.approx(losses[name].item(), abs=3e-5), iteration
    start = built(setup, settings).state_dict()
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(ours.net.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
    moved = [name for name, p in net.named_parameters() if not torch.equal(p, start[name])]
    assert len(moved) > 20  # else the comparison would say little


def plain_batches(setup: Context, size: int, count: int) -> Iterator[list[tuple[int, int]]]:
    """Epochs in their own order; wide images and others wait apart."""
    sizes = setup.task.train.sizes
    assert sizes is not None
    groups: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    for epoch in itertools.count():
        seeds = np.random.SeedSequence((setup.seed, epoch))
        for image in np.random.Generator(np.random.PCG64(seeds)).permutation(len(sizes)):
            height, width = sizes[image]
            group = groups[bool(width >= height)]
            group.append((int(image), epoch))
            if len(group) == size:
                yield group.copy()
                group.clear()
                count -= 1
                if not count:
                    return


def plain_batch(
    setup: Context, schedule: Schedule, picks: Sequence[tuple[int, int]], divisor: int
) -> Batch:
    pictures, targets = [], []
    config = setup.backbone.input_config
    mean, std = (torch.tensor(config[k]).view(3, 1, 1) for k in ("mean", "std"))
    split = setup.task.train
    files = dict(split.source.images(np.sort(split.rows)))
    for image, epoch in picks:
        view = draw_view(schedule.sides, setup.seed, epoch, image)
        pixels = decoded(files[int(split.rows[image])])
        high, wide = pixels.shape[1:]
        scale = min(view.side / min(high, wide), schedule.max_side / max(high, wide))
        new = int(high * scale + 0.5), int(wide * scale + 0.5)
        if new != (high, wide):
            pixels = F.interpolate(pixels[None], new, mode="bilinear", antialias=True)[0]
        ratio = torch.tensor([new[1] / wide, new[0] / high] * 2)
        objects = split.objects[image]
        boxes = torch.from_numpy(objects.boxes) * ratio
        if view.flip:
            pixels = pixels.flip(2)
            boxes = torch.stack(
                [new[1] - boxes[:, 2], boxes[:, 1], new[1] - boxes[:, 0], boxes[:, 3]], 1
            )
        pictures.append((pixels / 255 - mean) / std)
        targets.append(Target(boxes, torch.from_numpy(objects.labels) + 1))
    sizes = [(p.shape[1], p.shape[2]) for p in pictures]
    high, wide = (math.ceil(max(s[a] for s in sizes) / divisor) * divisor for a in (0, 1))
    padded = [F.pad(p, (0, wide - p.shape[2], 0, high - p.shape[1])) for p in pictures]
    return Batch(torch.stack(padded), sizes, targets)


def decoded(data: bytes) -> Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)))).permute(2, 0, 1)


def test_same_command_same_numbers(setup: Context, tmp_path: Path) -> None:
    before, random_state = state_of(setup.backbone.net), torch.random.get_rng_state()
    first = score(setup, SHORT)
    again = score(dataclasses.replace(setup, cache=tmp_path / "other"), SHORT)
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert numbers(first) == numbers(again)
    other = score(dataclasses.replace(setup, seed=1), SHORT)
    assert numbers(first)["details"]["losses"] != numbers(other)["details"]["losses"]
    # The backbone is other protocols' too.
    assert not setup.backbone.net.training
    assert all(torch.equal(before[k], v) for k, v in setup.backbone.net.state_dict().items())
    assert not states(setup)
    details = first.details
    assert details["images_seen"] == 24
    assert details["images_per_s"] > 0
    assert details["precise_bn"] == 0  # a tenth of the iterations at most
    assert details["micro_batch"] == 4
    assert details["classes"] == list(SHAPES)
    assert len(details["losses"]) == 6
    assert first.notes == []


@pytest.mark.slow
def test_learns(like: Path, cache: Path) -> None:
    out = score(make_setup(like, cache), dataclasses.replace(SHORT, iterations=60, lr=0.02))
    losses = [sum(point[name] for name in LOSSES) for point in out.details["losses"]]
    assert len(losses) == 20
    assert losses[-1] < 0.5 * losses[0]
    assert out.details["precise_bn"] == 6
    scores = {s.name: s.value for s in out.scores}
    assert scores["ap50"] > 0.3


@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_have_the_same_gradients(
    like: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, micro: int
) -> None:
    """Where BatchNorm is frozen and what the losses are drawn from does not matter."""
    plain_sampling(monkeypatch)
    setup = make_setup(like, cache)
    settings = dataclasses.replace(SHORT, norm="frozen")
    gradients, losses = [], []
    for most in (None, micro):
        training = training_of(setup, settings, most)
        few(training.net)
        with contextlib.closing(training.batches.since(0)) as stream:
            pictures = next(itertools.islice(stream, 1, None))
        # Of one size, for what is padding in a batch may not be in a part of it.
        pictures = [(F.pad(p, (0, 96 - p.shape[2], 0, 64 - p.shape[1])), t) for p, t in pictures]
        each = torch.zeros(len(LOSSES))
        training.gradients(pictures, each)
        losses.append(each)
        gradients.append({n: p.grad for n, p in training.net.named_parameters()})
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)
    for name, gradient in gradients[0].items():
        if gradient is None:
            assert gradients[1][name] is None
        else:
            torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-5)


def test_bf16_is_close(setup: Context) -> None:
    settings = dataclasses.replace(SHORT, iterations=3)
    half = dataclasses.replace(setup, precision=Precision("bf16", channels_last=True))
    curves = []
    with torch.random.fork_rng(devices=[]):
        for one in (setup, half):
            training = training_of(one, settings)
            training.run(setup.cache / "never")
            curves.append(np.array(training.where.curve)[:, 1:].sum(1))
            assert {p.dtype for p in training.net.parameters()} == {torch.float32}
    assert (curves[0] != curves[1]).all()
    np.testing.assert_allclose(curves[1], curves[0], rtol=0.05)
    assert _key(setup, settings) != _key(half, settings)


@pytest.mark.parametrize(("neck", "size", "count"), [("fpn", 4, 4), ("c4", 1, 2)])
def test_precise_batchnorm(setup: Context, neck: str, size: int, count: int) -> None:
    """Running statistics are the mean over batches that were not trained on."""
    settings = dataclasses.replace(SHORT, iterations=2, neck=neck, batch_size=size)
    training = training_of(setup, settings)
    with torch.random.fork_rng(devices=[]):
        training.run(setup.cache / "never")
        before = state_of(training.net)
        net = copy.deepcopy(training.net)
        assert training.settle_statistics(count) == count
        torch.manual_seed(draw_seed(setup.seed, 2))
        picks = [*plain_batches(setup, size, 2 + count)][2:]
        schedule = resolved(settings)
        with torch.no_grad():
            update_bn((plain_batch(setup, schedule, p, net.divisor) for p in picks), net)
    after, wanted = training.net.state_dict(), net.state_dict()
    for name, tensor in after.items():
        if name.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(tensor, wanted[name], rtol=1e-3, atol=1e-5)
            assert not torch.equal(tensor, before[name])
        elif not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, before[name])
    momenta = [getattr(m, "momentum", 0.1) for m in training.net.modules()]
    assert None not in momenta
    assert training.settle_statistics(0) == 0


def test_frozen_batchnorm_is_the_backbone_s(setup: Context) -> None:
    settings = dataclasses.replace(SHORT, iterations=3, norm="frozen")
    training = training_of(setup, settings)
    before = state_of(training.net)
    with torch.random.fork_rng(devices=[]):
        training.run(setup.cache / "never")
        assert training.settle_statistics(4) == 0
    buffers = {name for name, _ in training.net.body.named_buffers()}
    assert any(name.endswith("running_var") for name in buffers)
    for name in buffers:
        assert torch.equal(training.net.body.state_dict()[name], before[f"body.{name}"])
    assert any(not torch.equal(v, before[k]) for k, v in training.net.state_dict().items())


# ---- what is trained on


def test_crowds_are_not_trained_on_and_difficult_boxes_are(tmp_path: Path, cache: Path) -> None:
    def change(number: int, objects: dict[str, list[Any]]) -> None:
        """In each image a crowd before what is drawn, and a difficult object behind."""
        for field, first, last in (
            ("bbox", [0, 0, 40, 40], [1, 2, 30, 31]), ("category", 0, 1), ("difficult", 0, 1),
            ("iscrowd", 1, 0),
        ):  # fmt: skip
            objects[field] = [first, *objects[field], last]

    setup = make_setup(write_set(tmp_path / "shapes", change=change), cache)
    schedule = dataclasses.replace(resolved(SHORT), sides=(48,), max_side=64)  # as they are
    with contextlib.closing(TrainBatches(setup, schedule, 32).since(0)) as stream:
        batches = list(itertools.islice(stream, 4))
    plain = itertools.chain(*plain_batches(setup, 4, 4))
    for (pixels, target), (image, epoch) in zip(itertools.chain(*batches), plain, strict=True):
        objects = setup.task.train.objects[image]
        assert objects.crowd.tolist() == [True] + [False] * (len(objects) - 1)
        assert objects.difficult.tolist() == [False] * (len(objects) - 1) + [True]
        assert target.labels.tolist() == (objects.labels[1:] + 1).tolist()
        wanted = objects.boxes[1:].copy()
        if draw_view((48,), 0, epoch, image).flip:
            wanted[:, [0, 2]] = pixels.shape[2] - wanted[:, [2, 0]]
        np.testing.assert_allclose(target.boxes, wanted, atol=1e-4)


def test_images_without_boxes_are_trained_on(tmp_path: Path, cache: Path) -> None:
    def change(number: int, objects: dict[str, list[Any]]) -> None:
        if number:
            for values in objects.values():
                values.clear()

    setup = make_setup(write_set(tmp_path / "shapes", train=6, change=change), cache)
    training = training_of(setup, dataclasses.replace(SHORT, batch_size=2))
    with torch.random.fork_rng(devices=[]):
        training.run(cache / "never")
    assert training.where.images == 12
    box_losses = [point[4] for point in training.where.curve]
    assert 0 in box_losses  # of a batch without any box
    assert max(box_losses) > 0


def test_the_stream_goes_on_anywhere(setup: Context) -> None:
    batches = TrainBatches(setup, resolved(SHORT), 32)

    def first(count: int, begin: int, threads: int) -> list[list[tuple[Tensor, Target]]]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with contextlib.closing(batches.since(begin)) as stream:
                return list(itertools.islice(stream, count))
        finally:
            torch.set_num_threads(before)

    whole = first(9, 0, 3)
    later = first(4, 5, 1)
    for one, other in zip(itertools.chain(*whole[5:]), itertools.chain(*later), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1].boxes, other[1].boxes)
        assert torch.equal(one[1].labels, other[1].labels)
    shapes = {tuple(pixels.shape[1:]) for batch in whole for pixels, _ in batch}
    assert len(shapes) > 2  # sides are drawn
    for batch in whole:
        assert len({pixels.shape[2] >= pixels.shape[1] for pixels, _ in batch}) == 1


def test_the_key_names_what_the_weights_depend_on(
    setup: Context, like: Path, tmp_path: Path
) -> None:
    backbone = dataclasses.replace(setup.backbone, weights_sha256="0" * 64)
    others = [
        _key(setup, SHORT),
        _key(setup, dataclasses.replace(SHORT, lr=0.5)),
        _key(setup, dataclasses.replace(SHORT, precise_bn=1)),
        _key(dataclasses.replace(setup, seed=1), SHORT),
        _key(dataclasses.replace(setup, precision=Precision("bf16")), SHORT),
        _key(dataclasses.replace(setup, backbone=backbone), SHORT),
        _key(make_setup(like, setup.cache), SHORT),
    ]
    assert len(set(others)) == len(others)
    same = dataclasses.replace(setup, cache=tmp_path / "b", keep=tmp_path / "kept")
    assert _key(same, SHORT) == _key(setup, SHORT)


# ---- what goes wrong


def saves_every_step(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(detection_train, "SAVE_SECONDS", 0.0)
    patch.setattr(detection_train, "SAVE_SHARE", 0)


def test_a_loss_that_diverges(setup: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    saves_every_step(monkeypatch)
    high = dataclasses.replace(SHORT, lr=1e20)
    text = refusal(score, setup, high)
    assert (
        f"task {setup.task.name!r}: the loss of random:test_resnet is not a finite number" in text
    )
    assert "--set detection.lr=2.5e+19" in text
    assert "the last good state, of iteration 1, is kept" in text
    (kept,) = states(setup)
    assert kept.name == "training.safetensors"
    held = kept.read_bytes()
    assert "is not a finite number" in refusal(score, setup, high)
    assert kept.read_bytes() == held
    # Another rate is another training.
    monkeypatch.undo()
    out = score(setup, SHORT)
    assert out.details["images_seen"] == 24
    assert math.isfinite(out.scores[0].value)
    assert states(setup) == [kept]
    other = dataclasses.replace(setup, cache=setup.cache / "b")
    assert "no state was saved yet" in refusal(score, other, high)


class Memory:
    """A device that cannot hold more than ``most`` images at once."""

    def __init__(
        self, patch: pytest.MonkeyPatch, most: int, error: type[Exception], first: int = 0
    ) -> None:
        self.seen: list[int] = []
        plain = Detector.forward

        def forward(net: Detector, batch: Batch) -> dict[str, Tensor]:
            self.seen.append(len(batch.images))
            if len(batch.images) > most and len(self.seen) > first:
                raise error("CUDA out of memory. Tried to allocate 2 GiB")
            return plain(net, batch)

        patch.setattr(Detector, "forward", forward)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_memory_that_runs_out_halves_the_micro_batch(
    error: type[Exception], setup: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(monkeypatch, 2, error)
    out = score(setup, dataclasses.replace(SHORT, iterations=3))
    assert memory.seen == [4, *[2] * 6]
    assert out.details["micro_batch"] == 2
    assert out.details["images_seen"] == 12
    (note,) = out.notes
    assert "memory ran out: at most 2 images were taken at once" in note


def test_memory_that_runs_out_late(setup: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained before is kept."""
    saves_every_step(monkeypatch)
    memory = Memory(monkeypatch, 3, RuntimeError, first=4)
    out = score(setup, SHORT)
    assert memory.seen == [4] * 5 + [2] * 4
    assert out.details["images_seen"] == 24
    assert out.details["micro_batch"] == 2


def test_memory_that_runs_out_after_training(
    setup: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When BatchNorm's statistics are set."""
    saves_every_step(monkeypatch)
    memory = Memory(monkeypatch, 3, torch.OutOfMemoryError, first=10)
    out = score(setup, dataclasses.replace(SHORT, iterations=10))
    assert memory.seen == [4] * 11 + [2] * 4  # the last step again, and one batch after it
    assert out.details["images_seen"] == 40


def test_memory_that_runs_out_twice(setup: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(monkeypatch, 1, torch.OutOfMemoryError)
    text = refusal(score, setup, SHORT)
    assert memory.seen == [4, 2]
    assert "memory ran out while random:test_resnet learned detection on 2 images at once" in text
    assert "detection.sides" in text


def test_another_error_is_no_memory(setup: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(net: Detector, batch: Batch) -> dict[str, Tensor]:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Detector, "forward", forward)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        score(setup, SHORT)


@pytest.mark.parametrize(("part", "row"), [("train", 3), ("test", 5)])
def test_an_image_that_cannot_be_read(part: str, row: int, tmp_path: Path, cache: Path) -> None:
    """Its head is whole, so its size was found."""
    folder = write_set(tmp_path / "shapes")
    pictures = scenes(8, 3)
    broken = pictures[row]
    pictures[row] = Picture(broken.name, broken.data[: len(broken.data) // 2], *rest(broken))
    write_part(folder / f"{part}-00000-of-00001.parquet", pictures)
    setup = make_setup(folder, cache)
    text = refusal(score, setup, dataclasses.replace(SHORT, iterations=4, batch_size=3))
    assert f"row {row} of shapes/{part}-00000-of-00001.parquet cannot be read as an image" in text


def rest(picture: Picture) -> tuple[Any, Any]:
    return picture.size, picture.boxes


def test_more_processes_than_images_a_batch(setup: Context) -> None:
    workers = copy.copy(setup.workers)
    workers.count = 8
    text = refusal(score, dataclasses.replace(setup, workers=workers), SHORT)
    assert "schedule short:6 has 4 images a batch for 8 processes" in text
    assert "--set detection.batch_size=8" in text


def test_shares_on_accelerators_are_alike(setup: Context) -> None:
    """Else synchronised BatchNorm would wait for a pass that never comes."""
    workers = copy.copy(setup.workers)
    workers.count, workers.device = 3, torch.device("cuda")
    text = refusal(score, dataclasses.replace(setup, workers=workers), SHORT)
    assert "has 4 images a batch for 3 processes" in text
    assert "--set detection.batch_size=6, which all share alike" in text


def test_a_state_that_cannot_be_written(setup: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    saves_every_step(monkeypatch)
    monkeypatch.setattr(detection_train, "write_training", full)
    text = refusal(score, setup, SHORT)
    assert "No space left on device" in text
    assert "TRANSFERZOO_CACHE" in text


# ---- runs that are killed


def _score_in_child(
    data: Path, cache: Path, save: float, out: Path, asked: dict[str, Any], change: str = ""
) -> None:
    """In a child: train and score, saving a state every ``save`` seconds.

    ``change``: nothing is drawn (plain), or the second process loses an image (broken).
    """
    torch.set_num_threads(1)
    detection_train.SAVE_SECONDS, detection_train.SAVE_SHARE = save, 0
    setup = make_setup(data, cache)
    answered: list[int] = []
    find = protocol.find
    with pytest.MonkeyPatch.context() as patch:
        if change == "plain":
            plain_sampling(patch)
        if change == "broken" and not setup.workers.main:
            patch.setattr(TrainBatches, "collated", lost)

        def seen(detector: Detector, sight: Any, image_of: Any, order: Any, **more: Any) -> Any:
            answered.extend(order)
            return find(detector, sight, image_of, order, **more)

        patch.setattr(protocol, "find", seen)
        try:  # as a run does
            result = setup.workers.together(lambda: score(setup, Detection(**asked)))
        except Exception as error:
            if change != "broken":
                raise
            out.with_suffix(f".{setup.workers.rank}").write_text(str(error))
            setup.workers.close()
            return
    out.with_suffix(f".{setup.workers.rank}").write_text(json.dumps(answered))
    if setup.workers.main:
        out.write_text(json.dumps(numbers(result)))
    setup.workers.close()


def lost(self: TrainBatches, pictures: Any) -> Batch:
    """Is read in training, and no more when BatchNorm's statistics are set."""
    if not torch.is_grad_enabled():
        raise UserError("an image is gone")
    return collated(self, pictures)


collated = TrainBatches.collated


def _rank(rank: int, port: int, *args: Any) -> None:
    join_two(rank, port)
    _score_in_child(*args)


@pytest.fixture(scope="module", autouse=True)
def fork_server() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        FORKS.set_forkserver_preload(PRELOAD)
        yield


@pytest.mark.slow
def test_killed_and_started_again(shapes: Path, tmp_path: Path) -> None:
    settings = dataclasses.asdict(dataclasses.replace(SHORT, iterations=20))
    plain, killed, cache = tmp_path / "plain.json", tmp_path / "killed.json", tmp_path / "cache"
    assert finish(start(_score_in_child, shapes, tmp_path / "other", 1e6, plain, settings)) == 0
    for _ in range(2):
        process = start(_score_in_child, shapes, cache, 0.0, killed, settings)
        end = time.monotonic() + PATIENCE
        saves: set[int] = set()
        while len(saves) < 4:
            assert process.is_alive(), "it ended before it could be killed"
            assert time.monotonic() < end
            with contextlib.suppress(FileNotFoundError):
                for file in cache.glob("detection/*/training.safetensors"):
                    saves.add(file.stat().st_mtime_ns)
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not killed.exists()
    assert finish(start(_score_in_child, shapes, cache, 1e6, killed, settings)) == 0
    assert json.loads(killed.read_text()) == json.loads(plain.read_text())
    assert not list(cache.rglob("*.safetensors"))


def test_no_step_is_taken_twice(
    setup: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped every few steps, all runs together take those of one."""
    settings = dataclasses.replace(SHORT, iterations=8)
    wanted = score(setup, settings)
    taken: list[int] = []
    plain = Training.gradients

    def counted(self: Training, *args: Any) -> None:
        if len(taken) == stop:
            raise KeyboardInterrupt
        taken.append(self.where.iteration)
        plain(self, *args)

    monkeypatch.setattr(Training, "gradients", counted)
    saves_every_step(monkeypatch)
    other, out = dataclasses.replace(setup, cache=tmp_path / "other"), None
    while out is None:
        stop = len(taken) + 3
        with contextlib.suppress(KeyboardInterrupt):
            out = score(other, settings)
    assert taken == list(range(8))
    assert numbers(out) == numbers(wanted)
    assert not states(other)


def test_a_damaged_state_is_passed_over(setup: Context, tmp_path: Path) -> None:
    wanted = score(setup, SHORT)
    other = dataclasses.replace(setup, cache=tmp_path / "other")
    file = other.cache / "detection" / _key(other, SHORT) / "training.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"half of it")
    assert numbers(score(other, SHORT)) == numbers(wanted)


# ---- several processes


def two_processes(data: Path, cache: Path, out: Path, settings: Detection, *more: Any) -> Any:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = dataclasses.asdict(settings)
    ranks = [start(_rank, r, port, data, cache, 0.0, out, asked, *more) for r in range(2)]
    assert [finish(r) for r in ranks] == [0, 0]
    return json.loads(out.read_text())


@pytest.mark.slow
def test_two_processes(shapes: Path, tmp_path: Path) -> None:
    """BatchNorm sees each process's half alone; each test image is answered once."""
    settings = dataclasses.replace(SHORT, iterations=10, batch_size=5)
    found = two_processes(shapes, tmp_path / "cache", tmp_path / "two.json", settings)
    assert all(math.isfinite(s["value"]) for s in found["scores"] if s["name"].startswith("ap"))
    assert found["details"]["images_seen"] == 50
    assert found["details"]["micro_batch"] == 3
    assert found["details"]["precise_bn"] == 1
    assert found["notes"] == []
    answered = [json.loads((tmp_path / f"two.{rank}").read_text()) for rank in range(2)]
    assert [len(rows) for rows in answered] == [4, 4]
    assert sorted(itertools.chain(*answered)) == list(range(8))
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.slow
def test_an_image_that_one_process_cannot_read(shapes: Path, tmp_path: Path) -> None:
    """After training too, the other does not wait for ever."""
    settings = dataclasses.replace(SHORT, iterations=10)
    with pytest.raises(FileNotFoundError):  # there is no result
        two_processes(shapes, tmp_path / "cache", tmp_path / "two.json", settings, "broken")
    told = [(tmp_path / f"two.{rank}").read_text() for rank in range(2)]
    assert told == ["another process failed", "an image is gone"]


@pytest.mark.slow
def test_two_processes_equal_one(
    like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where BatchNorm is frozen and nothing is drawn; shares are of 1 and 2 images."""
    settings = dataclasses.replace(SHORT, norm="frozen", batch_size=3, sides=(48,), max_side=64)
    found = two_processes(like, tmp_path / "cache", tmp_path / "two.json", settings, "plain")
    plain_sampling(monkeypatch)
    one = numbers(score(make_setup(like, tmp_path / "cache"), settings))
    for here, there in zip(one["details"]["losses"], found["details"]["losses"], strict=True):
        assert there == pytest.approx(here, abs=1e-4)
    for mine, theirs in zip(one["scores"], found["scores"], strict=True):
        assert theirs["value"] == pytest.approx(mine["value"], abs=0.02)

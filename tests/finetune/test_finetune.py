"""Full-network transfer: the numbers of a plain loop, whatever happens on the way."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from eval.features.encode import pixels_of
from eval.features.precision import Precision
from eval.finetune import train as finetune_train
from eval.finetune.grid import fit
from eval.finetune.train import Training
from eval.models.backbone import Backbone, load
from eval.models.resolve import resolve
from eval.protocols.finetune import score
from eval.settings.protocols import Finetune
from eval.training import images as finetune_images
from eval.training.checkpoint import State, key
from eval.training.context import Context
from eval.training.images import EvalImages, TrainImages, batches_of, share_of
from eval.training.setup import Answer, Point, milestones
from tests.children import FORKS, PATIENCE, finish, join_two, start
from tests.factories import Cli, make_task, refusal, write_parquet
from tests.finetune.setups import SHORT, everything, make_setup

PRELOAD = [__name__, "timm", "accelerate", "eval.finetune.grid", "torchvision"]
CHANCE = 1 / 4


def write_task(folder: Path) -> Path:
    """4 classes, 48 train and 32 test images of 24 px."""
    return make_task(folder / "photos", classes=4, train=12, test=8)


@pytest.fixture
def setup(tmp_path: Path) -> Context:
    return make_setup(write_task(tmp_path), tmp_path / "cache")


def top1(setup: Context, answer: Answer) -> float:
    return float((answer.probability.argmax(1) == setup.task.test.labels).mean())


def timeless(details: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in details.items() if k != "images_per_s"}


def train(
    setup: Context, point: Point, epochs: int, rows: NDArray[np.int64], micro: int | None = None
) -> Training:
    training = Training(setup, TrainImages(setup, (0.2, 1.0)), point, rows, epochs, 0.9, micro)
    training.run(epochs, State(setup.cache, "apart", 1, setup.workers), "one", tqdm(disable=True))
    return training


# ---- the numbers


@pytest.mark.parametrize("model", ["random:test_resnet", "random:test_vit"])
def test_learns(model: str, tmp_path: Path) -> None:
    setup = make_setup(write_task(tmp_path), tmp_path / "cache", model)
    before = state_of(setup.backbone.net)
    settings = Finetune(
        lrs=(0.05, 0.02), batch_sizes=(16,), weight_decays=(1e-4,), tune_epochs=4, epochs=10
    )
    out = score(setup, settings)
    scores = {s.name: s.value for s in out.scores}
    assert scores["top1"] > 2 * CHANCE
    assert set(scores) == {"top1", "mean_per_class", "ece", "nll"}
    assert out.notes == []
    details = out.details
    assert details["chosen"]["lr"] in settings.lrs
    assert details["points"][0]["end"] == "whole"
    best = max(details["points"], key=lambda p: p["top1"])
    assert (details["chosen"]["lr"], details["validation_top1"]) == (best["lr"], best["top1"])
    assert (details["tuned_on"], details["validated_on"], details["trained_on"]) == (32, 16, 48)
    assert details["images_seen"] == 2 * 4 * 32 + 10 * 48
    assert details["images_per_s"] > 0
    assert math.isfinite(details["train_loss"])
    # The backbone is other protocols' too.
    assert not setup.backbone.net.training
    assert not any(p.requires_grad for p in setup.backbone.net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(setup.backbone.net), strict=True))
    # What is left is small, and tells a second run what was tuned.
    (folder,) = (setup.cache / "finetune").iterdir()
    assert [p.name for p in folder.iterdir()] == ["points.json"]


def state_of(net: nn.Module) -> list[Tensor]:
    return [t.clone() for t in net.state_dict().values()]


@pytest.mark.parametrize("model", ["random:test_resnet", "random:test_vit"])
def test_equals_a_plain_loop(model: str, tmp_path: Path) -> None:
    """The same start, order and views; everything else as one writes it down."""
    setup = make_setup(write_task(tmp_path), tmp_path / "cache", model)
    point, epochs = Point(0.03, 16, 1e-3), 4
    rows = everything(setup)[3:]  # 45: the last batch has 13
    ours = train(setup, point, epochs, rows)
    test = np.arange(len(setup.task.test))
    logits = ours.logits(EvalImages(setup, "test", test))

    backbone = copy.deepcopy(setup.backbone.net).requires_grad_(True)
    torch.manual_seed(setup.seed)
    head = nn.Sequential(
        nn.BatchNorm1d(setup.backbone.dim), nn.Linear(setup.backbone.dim, len(setup.task.classes))
    )
    net = nn.Sequential(backbone, head).train()
    net.to(memory_format=torch.channels_last)  # the same kernels: training magnifies rounding
    optimiser = torch.optim.SGD(net.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [*milestones(epochs)])
    images = TrainImages(setup, (0.2, 1.0))
    labels = torch.from_numpy(setup.task.train.labels)
    for epoch in range(epochs):
        order = images.order(rows, epoch)
        losses: list[float] = []
        for batch in np.split(order, [16, 32]):
            x, y = images.views(batch, images.read(batch, images.crops(epoch)))
            assert torch.equal(y, labels[batch])
            loss = F.cross_entropy(net(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item() * len(batch))
        schedule.step()
    mean, std = (
        torch.tensor(setup.backbone.input_config[k])[:, None, None] for k in ("mean", "std")
    )
    net.eval()
    wanted = []
    for row in setup.task.test.rows:
        ((_, data),) = setup.task.test.source.images(np.array([row]))
        pixels = torch.from_numpy(pixels_of(setup.backbone, setup.task, setup.task.test, row, data))
        with torch.no_grad():
            wanted.append(net(((pixels / 255 - mean) / std)[None])[0])
    torch.testing.assert_close(torch.from_numpy(logits), torch.stack(wanted), atol=2e-5, rtol=0)
    assert ours.where.last == pytest.approx(sum(losses) / len(rows), rel=1e-4)
    assert np.ptp(logits, 0).min() > 0.1  # else the comparison would say little


def test_order_and_views(setup: Context) -> None:
    """A view is its image's in that epoch, in whichever batch it comes."""
    images = TrainImages(setup, (0.2, 1.0))
    rows = everything(setup)
    assert sorted(images.order(rows, 0)) == rows.tolist()
    assert images.order(rows, 0).tolist() != images.order(rows, 1).tolist()
    whole, labels = images.views(rows, images.read(rows, images.crops(2)))
    some = np.array([7, 3, 40])
    part, its = images.views(some, images.read(some, images.crops(2)))
    torch.testing.assert_close(part, whole[some])
    assert torch.equal(its, labels[some])
    other, _ = images.views(some, images.read(some, images.crops(3)))
    assert (other - part).abs().mean() > 0.1


def test_trainings_from_before_a_setting_are_gone_on_with(setup: Context) -> None:
    """Those of reduced images lie where they did when there was nothing else."""
    rows = everything(setup)
    names = [f.name for f in dataclasses.fields(Finetune) if f.name != "crops_from"]
    before = dataclasses.make_dataclass("Before", names)(*(getattr(SHORT, n) for n in names))
    reduced = dataclasses.replace(SHORT, crops_from="reduced")
    assert key(setup, reduced, rows) == key(setup, before, rows)
    assert key(setup, SHORT, rows) != key(setup, before, rows)


def test_bf16_answers_alike(setup: Context) -> None:
    """bfloat16 is what the run's precision says, for the backbone; the head stays in fp32."""
    half = dataclasses.replace(setup, precision=Precision("bf16", channels_last=True))
    probability = [fit(s, SHORT, everything(s)).probability for s in (setup, half)]
    difference = np.abs(probability[0] - probability[1])
    assert 0 < difference.max() < 0.2
    assert key(setup, SHORT, everything(setup)) != key(half, SHORT, everything(setup))


def test_same_command_same_numbers(setup: Context, tmp_path: Path) -> None:
    rows = everything(setup)
    first = fit(setup, SHORT, rows)
    random_state = torch.random.get_rng_state()
    again = fit(dataclasses.replace(setup, cache=tmp_path / "other"), SHORT, rows)
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert np.array_equal(first.probability, again.probability)
    assert timeless(first.details) == timeless(again.details)
    other = fit(dataclasses.replace(setup, seed=1), SHORT, rows)
    assert not np.allclose(first.probability, other.probability)
    np.testing.assert_allclose(first.probability.sum(1), 1, atol=1e-12)
    assert first.probability.dtype == np.float64


def test_parts_of_train(setup: Context) -> None:
    """Each part is tuned and trained by itself; a class may have no image in it."""
    settings = dataclasses.replace(SHORT, fractions=(0.5,), subsets=2)
    out = score(setup, settings)
    assert {"top1_50pct", "top1_50pct_draws"} <= {s.name for s in out.scores}
    assert [c["train"] for c in out.details["curve"]] == [24, 24]
    assert all(c["details"]["trained_on"] == 24 for c in out.details["curve"])
    rows = np.flatnonzero(setup.task.train.labels != 2)
    answer = fit(setup, dataclasses.replace(SHORT, epochs=6), rows)
    assert (answer.probability.argmax(1) == 2).mean() < 0.1


def test_the_first_of_equals(setup: Context) -> None:
    settings = dataclasses.replace(SHORT, weight_decays=(1e-9, 0.0, 2e-9))
    details = fit(setup, settings, everything(setup)).details
    assert len({p["top1"] for p in details["points"]}) == 1
    assert details["chosen"]["weight_decay"] == 1e-9


def test_one_point_needs_no_tuning(setup: Context) -> None:
    settings = dataclasses.replace(SHORT, weight_decays=(0.0,))
    details = fit(setup, settings, everything(setup)).details
    assert details["images_seen"] == 3 * 48
    assert details["validation_top1"] is None
    assert details["points"][0]["end"] == "not tuned"


# ---- the last stages alone


def trained(setup: Context, last: int, epochs: int = 2) -> Training:
    """With momentum and weight decay, of which nothing frozen may have any."""
    images = TrainImages(setup, (0.2, 1.0))
    training = Training(
        setup, images, Point(0.05, 16, 1e-2), everything(setup), epochs, 0.9, last=last
    )
    state = State(setup.cache, "apart", 1, setup.workers)
    training.run(epochs, state, "one", tqdm(disable=True))
    return training


@pytest.mark.parametrize(
    ("model", "last", "free"),
    [
        ("random:test_resnet", 1, "layer4"),
        ("random:test_resnet", 4, "layer1 layer2 layer3 layer4"),
        ("random:test_vit", 2, "blocks.4 blocks.5 norm"),
        # A stage begins where the one before ends, whatever timm names of it.
        ("random:test_efficientnet", 1, "blocks.4 conv_head bn2"),
        ("random:test_nfnet", 1, "stages.3 final_conv"),
        ("random:test_convnext", 1, "stages.3 head"),
    ],
)
def test_what_is_frozen_stays(model: str, last: int, free: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    backbone = load(resolve(model, cache, img_size=32))
    setup = dataclasses.replace(make_setup(write_task(tmp_path), cache), backbone=backbone)
    training = trained(setup, last)
    net = training.net
    before = setup.backbone.net.state_dict()
    starts = tuple(f"net.{name}." for name in free.split())
    weights = dict(net.backbone.named_parameters())
    for name, now in net.backbone.state_dict().items():
        if not name.startswith(starts):
            assert torch.equal(now, before[name]), name
        elif name in weights and weights[name].grad is not None:
            assert not torch.equal(now, before[name]), name
    moved = {n for n, p in weights.items() if p.requires_grad}
    assert moved == {n for n in weights if n.startswith(starts)}
    frozen = [p for p in weights.values() if not p.requires_grad]
    assert frozen
    assert all(p.grad is None and p not in training.optimiser.state for p in frozen)
    statistics = {n for n, b in net.backbone.named_buffers() if n.endswith("running_var")}
    changed = {n for n in statistics if not torch.equal(net.backbone.state_dict()[n], before[n])}
    assert changed == {n for n in statistics if n.startswith(starts)}


def test_dropped_paths_are_not_of_frozen_stages(tmp_path: Path) -> None:
    setup = make_setup(write_task(tmp_path), tmp_path / "cache", "random:test_vit")
    net = finetune_train.Classifier(setup.backbone, 4, 0, last=2).train()
    blocks = cast(Any, net.backbone.net).blocks
    assert [b.training for b in blocks] == [False] * 4 + [True] * 2
    assert not any(part.training for b in blocks[:4] for part in b.modules())
    assert all(part.training for b in blocks[4:] for part in b.modules())
    assert not any(m.training for m in net.eval().modules())


@pytest.mark.parametrize(("model", "stages"), [("random:test_resnet", 5), ("random:test_vit", 6)])
def test_all_stages_are_everything(model: str, stages: int, tmp_path: Path) -> None:
    setup = make_setup(write_task(tmp_path), tmp_path / "cache", model)
    whole = fit(setup, SHORT, everything(setup))
    every = fit(setup, dataclasses.replace(SHORT, last=stages), everything(setup))
    fewer = fit(setup, dataclasses.replace(SHORT, last=1), everything(setup))
    assert np.array_equal(whole.probability, every.probability)
    assert not np.allclose(whole.probability, fewer.probability)
    names = every.details.pop("free_stages")
    assert timeless(every.details) == timeless(whole.details)
    assert len(names) == stages
    assert fewer.details["free_stages"] == names[-1:]


def test_stages_that_are_not_there(setup: Context, tmp_path: Path) -> None:
    text = refusal(fit, setup, dataclasses.replace(SHORT, last=6), everything(setup))
    assert "random:test_resnet has 5 stages (act1, layer1, layer2, layer3, layer4)" in text
    assert "finetune.last is 6" in text
    assert "use 5 at most" in text
    cast(Any, setup.backbone.net.net).feature_info = [{"module": n} for n in ("layer4", "fc")]
    fit(setup, dataclasses.replace(SHORT, last=2), everything(setup))
    cast(Any, setup.backbone.net.net).feature_info = [{"module": n} for n in ("layer4", "layer1")]
    text = refusal(fit, setup, dataclasses.replace(SHORT, last=1), everything(setup))
    assert "not modules that follow one another" in text
    del cast(Any, setup.backbone.net.net).feature_info
    text = refusal(fit, setup, dataclasses.replace(SHORT, last=1), everything(setup))
    assert "no feature_info" in text
    assert fit(setup, SHORT, everything(setup)).details["epochs"] == 3


def test_too_many_stages_on_the_command_line(cli: Cli, tmp_path: Path) -> None:
    data = write_task(tmp_path)
    command = [
        "run", "random:test_resnet", "--task", f"parquet:{data}", "--protocol", "finetune",
        "--grid", "small", "--img-size", "24", "--precision", "fp32",
        "--cache", tmp_path / "c", "--results", tmp_path / "r",
    ]  # fmt: skip
    ran = cli(*command, "--set", "finetune.last=9")
    assert ran.code == 2
    assert "(act1, layer1, layer2, layer3, layer4)" in ran.err
    ran = cli(*command, "--set", "finetune.last=-1")
    assert ran.code == 2
    assert "last must be at least 0" in ran.err
    short = ["finetune.last=1", "finetune.lrs=[0.05]", "finetune.epochs=1"]
    ran = cli(*command, "--set", *short)
    assert ran.code == 0, ran.err
    assert "last=1" in ran.out
    (file,) = (tmp_path / "r").rglob("*.json")
    assert "last=1" in file.name
    assert json.loads(file.read_text())["details"]["free_stages"] == ["layer4"]


# ---- batches


def test_batches() -> None:
    def sizes(count: int, size: int, processes: int = 1) -> list[int]:
        return [s.stop - s.start for s in batches_of(count, size, processes)]

    assert sizes(10, 4) == [4, 4, 2]
    assert sizes(9, 4) == [4, 4]  # BatchNorm has no variance of one image
    assert sizes(3, 128) == [3]
    assert sizes(1, 4) == []
    assert sizes(11, 4, processes=2) == [4, 4]
    for count in (4, 5, 7):
        for processes in (1, 2, 3):
            parts = [share_of(slice(10, 10 + count), r, processes) for r in range(processes)]
            rows = [row for p in parts for row in range(p.start, p.stop)]
            assert rows == list(range(10, 10 + count))


def test_a_last_batch_of_one_image_is_left_out(setup: Context) -> None:
    training = train(setup, Point(0.01, 16, 0.0), 2, everything(setup)[:33])
    assert training.where.images == 2 * 32
    assert math.isfinite(training.where.last)


def test_evaluation_images_are_decoded_once_or_each_time(
    setup: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    plain = finetune_images.pixels_of

    def counted(*args: Any) -> Any:
        calls.append(1)
        return plain(*args)

    monkeypatch.setattr(finetune_images, "pixels_of", counted)
    rows = np.arange(len(setup.task.test))[::-1]
    kept, streamed = EvalImages(setup, "test", rows), EvalImages(setup, "test", rows)
    monkeypatch.setattr(streamed, "_keep", False)
    monkeypatch.setattr(streamed, "_size", 5)
    seen = []
    for images, decoded in ((kept, 32), (streamed, 64)):
        calls.clear()
        for _ in range(2):
            out = np.zeros((32, 3, 24, 24), np.uint8)
            for places, pixels in images:
                out[places] = pixels
            seen.append(out)
        assert len(calls) == decoded
    assert all(np.array_equal(seen[0], other) for other in seen)


# ---- what goes wrong


def test_a_point_that_diverges(setup: Context) -> None:
    settings = dataclasses.replace(SHORT, lrs=(1e20, 0.05), weight_decays=(0.0,), epochs=3)
    answer = fit(setup, settings, everything(setup))
    alone = fit(setup, dataclasses.replace(settings, lrs=(0.05,)), everything(setup))
    assert answer.details["chosen"]["lr"] == 0.05
    assert answer.details["diverged"] == 1
    assert [p["end"] for p in answer.details["points"]] == ["diverged", "whole"]
    assert answer.notes == ["1 of 2 points of the grid diverged in tuning"]
    assert np.array_equal(answer.probability, alone.probability)


def test_all_points_diverge(setup: Context) -> None:
    settings = dataclasses.replace(SHORT, lrs=(1e20, 1e25), weight_decays=(0.0,))
    text = refusal(fit, setup, settings, everything(setup))
    assert "every point of the grid (lr 1e+20 1e+25, batch size 16, weight decay 0)" in text
    assert "random:test_resnet" in text
    assert "smaller" in text
    settings = dataclasses.replace(settings, lrs=(1e20,))
    assert "on all training images" in refusal(fit, setup, settings, everything(setup))


def test_the_next_best_answers_where_the_best_diverges(
    setup: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(SHORT, weight_decays=(0.0, 1e-3, 1e-2))
    best = fit(setup, settings, everything(setup)).details
    chosen = best["chosen"]["weight_decay"]
    plain = Training.run

    def run(self: Training, until: int, state: State, name: str, bar: Any) -> None:
        if name.startswith("final") and self.point.weight_decay == chosen:
            raise finetune_train.Diverged
        plain(self, until, state, name, bar)

    monkeypatch.setattr(Training, "run", run)
    answer = fit(dataclasses.replace(setup, cache=setup.cache / "b"), settings, everything(setup))
    points = [p for p in best["points"] if p["weight_decay"] != chosen]
    second = max(points, key=lambda p: p["top1"])
    assert answer.details["chosen"]["weight_decay"] == second["weight_decay"]
    (note,) = answer.notes
    assert f"weight decay {chosen:g} the network diverged; the next best" in note


class Memory:
    """A device that cannot hold more than ``most`` images at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int, error: type[Exception]) -> None:
        self.most, self.error = most, error
        self.seen: list[int] = []
        plain = finetune_train.Classifier.forward

        def forward(net: Any, images: Tensor, half: bool = False) -> Tensor:
            if net.training:
                self.seen.append(len(images))
                if len(images) > self.most:
                    raise self.error("CUDA out of memory. Tried to allocate 2 GiB")
            return plain(net, images, half)

        monkeypatch.setattr(finetune_train.Classifier, "forward", forward)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_memory_that_runs_out_halves_the_micro_batch(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradients are those of the whole batch. Only BatchNorm sees halves: a ViT has it in the
    head alone, so here it is taken away, and nothing differs but the order of sums."""
    setup = make_setup(write_task(tmp_path), tmp_path / "cache", "random:test_vit")
    monkeypatch.setattr(nn, "BatchNorm1d", nn.LayerNorm)
    settings = dataclasses.replace(SHORT, lrs=(0.01,), batch_sizes=(16, 6), weight_decays=(0.0,))
    whole = fit(setup, settings, everything(setup))
    memory = Memory(monkeypatch, 8, error)
    halved = fit(dataclasses.replace(setup, cache=tmp_path / "b"), settings, everything(setup))
    np.testing.assert_allclose(halved.probability, whole.probability, atol=1e-5)
    assert memory.seen.count(16) == 1
    assert set(memory.seen) == {16, 8, 6, 2}
    assert halved.details["micro_batch"] == min(8, halved.details["chosen"]["batch_size"])
    assert whole.details["micro_batch"] == whole.details["chosen"]["batch_size"]
    (note,) = halved.notes
    assert "at most 8 images were taken at once" in note


def test_memory_that_runs_out_twice(setup: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    Memory(monkeypatch, 5, torch.OutOfMemoryError)
    text = refusal(fit, setup, SHORT, everything(setup))
    assert "memory ran out while random:test_resnet was fine-tuned on 8 images at once" in text


def test_micro_batches_keep_batchnorm_s_two_images(setup: Context) -> None:
    training = train(setup, Point(0.01, 16, 0.0), 1, everything(setup), micro=2)
    for n, sizes in ((5, [3, 2]), (3, [3]), (4, [2, 2]), (2, [2])):
        parts = training.micro_batches(torch.zeros(n, 3), torch.zeros(n))
        assert [len(y) for _, y in parts] == sizes


def test_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    folder = write_task(tmp_path)
    images = [b"no image at all", *(bytes([i]) * 20 for i in range(7))]
    write_parquet(folder / "train-00000-of-00001.parquet", images, [0, 0, 1, 1, 2, 2, 3, 3])
    setup = make_setup(folder, tmp_path / "cache")
    text = refusal(fit, setup, SHORT, everything(setup))
    assert "row 0 of photos/train-00000-of-00001.parquet" in text


def test_too_few_images(setup: Context) -> None:
    rows = np.array([np.flatnonzero(setup.task.train.labels == c)[0] for c in range(4)])
    assert "no class has two different training images" in refusal(fit, setup, SHORT, rows)
    pair = np.flatnonzero(setup.task.train.labels == 0)[:2]
    assert "1 training images are left beside" in refusal(fit, setup, SHORT, pair)
    small = dataclasses.replace(SHORT, batch_sizes=(16, 1))
    assert "must be at least 2 for BatchNorm" in refusal(fit, setup, small, everything(setup))


# ---- successive halving


def test_halving(setup: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 points, then 3, then 2; those that go on are trained as if nothing had been compared."""
    settings = Finetune(
        lrs=(0.05, 0.02, 0.01, 0.005, 0.002), batch_sizes=(16,), weight_decays=(0.0,),
        tune_epochs=6, epochs=1, halving=True,
    )  # fmt: skip
    halved = fit(setup, settings, everything(setup)).details
    whole = fit(setup, dataclasses.replace(settings, halving=False), everything(setup)).details
    assert sorted(p["epochs"] for p in halved["points"]) == [2, 2, 4, 6, 6]
    assert halved["halved"] == 3
    assert whole["halved"] == 0
    for ours, other in zip(halved["points"], whole["points"], strict=True):
        assert ours["end"] == ("whole" if ours["epochs"] == 6 else "halved")
        if ours["epochs"] == 6:
            assert ours["top1"] == other["top1"]
    assert halved["images_seen"] == 32 * (2 + 2 + 4 + 6 + 6) + 48
    assert not list(setup.cache.rglob("*.safetensors"))


# ---- runs that are killed


def _fit_in_child(
    data: Path, cache: Path, save: float, out: Path, asked: dict[str, Any],
    model: str = "random:test_resnet", most: int = 0,
) -> None:  # fmt: skip
    """In a child: fine-tune, saving a state every ``save`` seconds.

    With ``most``, the head has no BatchNorm, and the second process runs out of memory beyond so
    many images.
    """
    torch.set_num_threads(1)
    finetune_train.SAVE_SECONDS, finetune_train.SAVE_SHARE = save, 0
    setup = make_setup(data, cache, model)
    with pytest.MonkeyPatch.context() as patch:
        if most:
            patch.setattr(nn, "BatchNorm1d", nn.LayerNorm)
            if not setup.workers.main:
                Memory(patch, most, RuntimeError)
        answer = fit(setup, Finetune(**asked), everything(setup))
    if setup.workers.main:
        details = timeless(answer.details)
        np.savez(out, probability=answer.probability, details=json.dumps(details))
    setup.workers.close()


def _rank(rank: int, port: int, *args: Any) -> None:
    join_two(rank, port)
    _fit_in_child(*args)


@pytest.fixture(scope="module", autouse=True)
def fork_server() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        FORKS.set_forkserver_preload(PRELOAD)
        yield


@pytest.mark.slow
def test_killed_and_started_again(tmp_path: Path) -> None:
    """Twice in tuning, in the midst of an epoch too, and once in the final training."""
    data = write_task(tmp_path)
    settings = dataclasses.asdict(
        dataclasses.replace(SHORT, tune_epochs=4, epochs=12, lrs=(0.05, 0.02), weight_decays=(0.0,))
    )
    process = start(
        _fit_in_child, data, tmp_path / "plain", 1000.0, tmp_path / "plain.npz", settings
    )
    assert finish(process) == 0
    cache, out = tmp_path / "cache", tmp_path / "killed.npz"
    places = []
    for wanted in ("point-000", "point-001", "final-"):
        process = start(_fit_in_child, data, cache, 0.0, out, settings)
        end = time.monotonic() + PATIENCE
        saves: set[tuple[str, int]] = set()
        while len(saves) < 3:
            assert process.is_alive(), "it ended before it could be killed"
            assert time.monotonic() < end
            for file in cache.glob(f"finetune/*/{wanted}*.safetensors"):
                try:
                    saves.add((file.name, file.stat().st_mtime_ns))
                except FileNotFoundError:
                    continue
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        places.append(sorted(p.name for p in cache.glob("finetune/*/[pf]*")))
    assert "points.json" in places[1]
    assert any(name.startswith("final-") for name in places[2])
    assert finish(start(_fit_in_child, data, cache, 1000.0, out, settings)) == 0
    with np.load(tmp_path / "plain.npz") as plain, np.load(out) as killed:
        assert np.array_equal(plain["probability"], killed["probability"])
        assert str(plain["details"]) == str(killed["details"])
    (folder,) = (cache / "finetune").iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["answer.npy", "points.json"]


@pytest.mark.parametrize(("halving", "last"), [(False, 0), (True, 0), (False, 2)])
@pytest.mark.slow
def test_no_step_is_taken_twice(
    setup: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, halving: bool, last: int
) -> None:
    """Stopped every few steps, wherever that is, all runs together take those of one."""
    settings = dataclasses.replace(
        SHORT, lrs=(0.05, 0.02), tune_epochs=3, halving=halving, last=last
    )
    steps = [0]
    plain = Training.gradients

    def counted(self: Training, *args: Any) -> None:
        if steps[0] == stop:
            raise KeyboardInterrupt
        steps[0] += 1
        plain(self, *args)

    stop = 10**9
    monkeypatch.setattr(Training, "gradients", counted)
    wanted = fit(setup, settings, everything(setup))
    total, steps[0] = steps[0], 0
    monkeypatch.setattr(finetune_train, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(finetune_train, "SAVE_SHARE", 0)
    other, answer = dataclasses.replace(setup, cache=tmp_path / "other"), None
    while answer is None:
        stop = steps[0] + 3
        with contextlib.suppress(KeyboardInterrupt):
            answer = fit(other, settings, everything(setup))
    assert steps[0] == total
    assert np.array_equal(answer.probability, wanted.probability)
    assert timeless(answer.details) == timeless(wanted.details)
    assert not list(other.cache.rglob("*.safetensors"))


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step(
    setup: Context, monkeypatch: pytest.MonkeyPatch, kind: signal.Signals
) -> None:
    """Between two states that the clock asks for: no step of the stopped run is taken again."""
    steps, plain = [0], Training.gradients

    def counted(self: Training, *args: Any) -> None:
        steps[0] += 1
        if steps[0] == 5:
            signal.raise_signal(kind)
        plain(self, *args)

    def stopped(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "gradients", counted)
    before = signal.signal(kind, stopped)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(setup, SHORT, everything(setup))
        assert steps[0] == 5  # the step was ended first
        assert signal.getsignal(kind) is stopped
    finally:
        signal.signal(kind, before)
    fit(setup, SHORT, everything(setup))
    together = steps[0]
    shutil.rmtree(setup.cache / "finetune")
    steps[0] = 100
    fit(setup, SHORT, everything(setup))
    assert together == steps[0] - 100


def test_damaged_state_is_passed_over(setup: Context, tmp_path: Path) -> None:
    rows = everything(setup)
    wanted = fit(setup, SHORT, rows)
    (folder,) = (setup.cache / "finetune").iterdir()
    for name in ("answer.npy", "points.json", "point-000.safetensors"):
        (folder / name).write_bytes(b"{}")
    assert np.array_equal(fit(setup, SHORT, rows).probability, wanted.probability)
    # With its points known, a second run only trains the best of them again.
    (folder / "answer.npy").unlink()
    (folder / "point-000.safetensors").write_bytes(b"{}")
    again = fit(setup, SHORT, rows)
    assert np.array_equal(again.probability, wanted.probability)
    assert timeless(again.details) == timeless(wanted.details)


def test_a_state_that_cannot_be_written(setup: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eval.training.checkpoint.write_json", full)
    text = refusal(fit, setup, SHORT, everything(setup))
    assert "No space left on device" in text
    assert "TRANSFERZOO_CACHE" in text


def test_the_key_names_what_matters(setup: Context) -> None:
    rows = everything(setup)
    same = dataclasses.replace(SHORT, fractions=(0.1,), per_class=(1,), subsets=9)
    assert key(setup, same, rows) == key(setup, SHORT, rows)
    others = {
        key(setup, SHORT, rows),
        key(setup, dataclasses.replace(SHORT, epochs=4), rows),
        key(setup, dataclasses.replace(SHORT, last=1), rows),
        key(setup, SHORT, rows[1:]),
        key(dataclasses.replace(setup, seed=1), SHORT, rows),
        key(dataclasses.replace(setup, precision=Precision()), SHORT, rows),
        key(dataclasses.replace(setup, backbone=other_weights(setup.backbone)), SHORT, rows),
    }
    assert len(others) == 7


def other_weights(backbone: Backbone) -> Backbone:
    return dataclasses.replace(backbone, weights_sha256="0" * 64)


# ---- several processes


def two_processes(data: Path, cache: Path, out: Path, settings: Finetune, *more: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = dataclasses.asdict(settings)
    ranks = [start(_rank, r, port, data, cache, 0.0, out, asked, *more) for r in range(2)]
    assert [finish(r) for r in ranks] == [0, 0]


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    """BatchNorm sees each process's half alone."""
    data, settings = write_task(tmp_path), dataclasses.replace(SHORT, epochs=8)
    two_processes(data, tmp_path / "cache", tmp_path / "two.npz", settings)
    with np.load(tmp_path / "two.npz") as two:
        details, probability = json.loads(str(two["details"])), two["probability"]
    setup = make_setup(data, tmp_path / "cache")
    one = fit(setup, settings, everything(setup))
    assert details["images_seen"] == one.details["images_seen"]
    assert details["micro_batch"] == 8
    assert (probability.argmax(1) == setup.task.test.labels).mean() > 2 * CHANCE


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without BatchNorm nothing depends on their number: batches of 13 are shares of 6 and 7, and
    the second process alone runs out of memory."""
    data = write_task(tmp_path)
    settings = dataclasses.replace(SHORT, lrs=(0.02,), batch_sizes=(13,))
    model = "random:test_vit"
    two_processes(data, tmp_path / "cache", tmp_path / "two.npz", settings, model, 4)
    setup = make_setup(data, tmp_path / "cache", model)
    monkeypatch.setattr(nn, "BatchNorm1d", nn.LayerNorm)
    one = fit(setup, settings, everything(setup))
    with np.load(tmp_path / "two.npz") as two:
        np.testing.assert_allclose(two["probability"], one.probability, atol=1e-5)
        details = json.loads(str(two["details"]))
    assert details["micro_batch"] == 3
    assert details["train_loss"] == pytest.approx(one.details["train_loss"], abs=1e-4)
    assert details["validation_top1"] == one.details["validation_top1"]

"""The choice of number format and layout: by a rule, and never at the price of the features."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features.encode import encode
from eval.features.precision import (
    MIN_COSINE,
    Precision,
    agrees,
    device_format,
    forward,
    preferred,
    prepared,
)
from eval.models.backbone import Backbone, load
from eval.models.resolve import resolve

CPU = torch.device("cpu")
ALL = [Precision(d, c) for d in ("fp32", "bf16") for c in (False, True)]  # type: ignore[arg-type]


class Cancelling(nn.Module):
    """A network whose features are small differences of large numbers: bf16 loses them."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, bias=True)
        self.second = nn.Conv2d(8, 4, 3, bias=False)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in (self.first.weight, self.second.weight):
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
            self.first.bias.fill_(offset)  # type: ignore[union-attr]
            # The offset reaches no output: each filter sums to nothing.
            self.second.weight -= self.second.weight.mean((1, 2, 3), keepdim=True)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.second(self.first(images))
        return nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1)


@pytest.fixture(scope="module")
def workers() -> Workers:
    return Workers("cpu")


@pytest.fixture(scope="module")
def backbone(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load(resolve(f"local-dir:{model_dir}", tmp_path_factory.mktemp("cache")))


@pytest.fixture
def task(task_dir: Path, cache: Path) -> TaskData:
    return load_task(f"parquet:{task_dir}", cache)


def images(count: int = 8) -> Tensor:
    return torch.randn(count, 3, 24, 24, generator=torch.Generator().manual_seed(1))


@contextmanager
def counted(net: nn.Module) -> Iterator[list[int]]:
    """Sizes of the batches that pass through a network."""
    batches: list[int] = []
    handle = net.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    try:
        yield batches
    finally:
        handle.remove()


@pytest.mark.parametrize("precision", ALL, ids=str)
def test_names_are_read_back(precision: Precision) -> None:
    assert Precision.parse(str(precision)) == precision


@pytest.mark.parametrize("text", ["", "fp16", "fp32-nhwc", "bf16-channels_last-", "FP32"])
def test_unknown_names(text: str) -> None:
    with pytest.raises(ValueError, match="unknown precision"):
        Precision.parse(text)


VIT = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(), nn.Linear(8, 8))


def test_the_layout_follows_from_the_architecture() -> None:
    assert preferred(VIT, CPU) == Precision("fp32", channels_last=False)
    assert preferred(Cancelling(0), CPU) == Precision("fp32", channels_last=True)


@pytest.mark.parametrize("declared", [False, True])
def test_the_format_follows_from_the_device(
    declared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU with bf16 instructions computes in fp32 like all others; CUDA says what it has."""
    asked = []
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda **how: bool(asked.append(how)) or declared
    )
    assert [device_format(torch.device(d)) for d in ("cpu", "mps")] == ["fp32", "fp32"]
    assert asked == []
    cuda = torch.device("cuda")
    assert device_format(cuda) == ("bf16" if declared else "fp32")
    assert preferred(VIT, cuda) == Precision("bf16" if declared else "fp32")
    assert asked[0] == {"including_emulation": False}  # slower than fp32, and no gain


@pytest.mark.parametrize("precision", ALL, ids=str)
def test_forward_gives_float32_in_every_precision(precision: Precision) -> None:
    net = Cancelling(0.0)
    with prepared(net, CPU, precision) as ready:
        out = forward(ready, images(), precision)
        inner = ready.first(images())  # type: ignore[operator]
    assert out.dtype == torch.float32
    assert not out.requires_grad
    assert inner.dtype == (torch.bfloat16 if precision.dtype == "bf16" else torch.float32)
    assert net.first.weight.dtype == torch.float32  # the weights themselves are left alone
    layout = torch.channels_last if precision.channels_last else torch.contiguous_format
    assert net.second.weight.is_contiguous(memory_format=layout)
    with torch.no_grad():
        plain = net.to(memory_format=torch.contiguous_format)(images())
    tolerance = 0.05 if precision.dtype == "bf16" else 1e-5
    torch.testing.assert_close(out, plain, atol=tolerance, rtol=tolerance)


def test_agreement_is_about_the_worst_image() -> None:
    good, bad = Cancelling(0.0), Cancelling(3000.0)
    for channels_last in (False, True):
        assert agrees(good, images(), CPU, Precision("bf16", channels_last))
        assert not agrees(bad, images(), CPU, Precision("bf16", channels_last))
        assert agrees(bad, images(), CPU, Precision("fp32", channels_last))


@pytest.mark.parametrize(("turn", "same"), [(0.05, False), (0.04, True)])
def test_one_disagreeing_image_is_enough(turn: float, same: bool) -> None:
    class OneBad(nn.Module):
        """Exact in both formats, but for the last image in bf16: cosine 1 / sqrt(1 + turn^2)."""

        def forward(self, images: Tensor) -> Tensor:
            out = images.flatten(1)[:, :6].clone()
            if torch.is_autocast_enabled("cpu"):
                out[-1, 5] += turn
            return out

    assert MIN_COSINE == 0.999
    flat = torch.zeros(4, 3, 2, 2)  # with mean 0: an image and its opposite
    flat.view(4, -1)[:, 1] = torch.tensor([2.0, -2.0, -1.0, 1.0])
    assert agrees(OneBad(), flat, CPU, Precision("bf16")) is same


class Common(nn.Module):
    """Features that all images share but for a small rest, which bf16 gets wrong or right."""

    def __init__(self, wrong: bool, scale: float = 1.0) -> None:
        super().__init__()
        self.wrong, self.scale = wrong, scale

    def forward(self, images: Tensor) -> Tensor:
        rest = images.flatten(1)[:, :64]
        if torch.is_autocast_enabled("cpu") and self.wrong:
            rest = rest.flip(0)  # that of another image
        return (1000.0 + rest) * self.scale


def test_a_common_part_does_not_hide_a_wrong_rest() -> None:
    shown, bf16 = images(), Precision("bf16")
    with torch.autocast("cpu", torch.bfloat16):
        found = Common(wrong=True)(shown)
    exact = Common(wrong=True)(shown)
    assert torch.cosine_similarity(found, exact).min() > 0.9999  # what earlier versions asked
    assert not agrees(Common(wrong=True), shown, CPU, bf16)
    assert agrees(Common(wrong=False), shown, CPU, bf16)


@pytest.mark.parametrize("power", [-100, -40, 40, 90])
def test_agreement_does_not_depend_on_the_length_of_features(power: int) -> None:
    for wrong in (False, True):
        net = Common(wrong, 2.0**power)
        assert agrees(net, images(), CPU, Precision("bf16")) is not wrong


def test_what_cannot_be_told_apart_agrees_with_nothing() -> None:
    assert not agrees(Common(wrong=False), images(1), CPU, Precision("bf16"))
    assert not agrees(Common(wrong=False), images(1).expand(4, -1, -1, -1), CPU, Precision("bf16"))


def test_a_format_that_cannot_run_does_not_agree() -> None:
    class NoBf16(nn.Module):
        """Fails as an operator without a bf16 kernel does."""

        def forward(self, images: Tensor) -> Tensor:
            if torch.is_autocast_enabled("cpu"):
                raise RuntimeError("\"op\" not implemented for 'BFloat16'")
            return images.flatten(1)

    assert not agrees(NoBf16(), images(), CPU, Precision("bf16"))


class Slow(nn.Module):
    """Takes its time in one of the two formats."""

    def __init__(self, net: nn.Module, slow: str) -> None:
        super().__init__()
        self.net, self.slow = net, slow

    def forward(self, images: Tensor) -> Tensor:
        half = torch.is_autocast_enabled("cpu")
        if self.slow == ("bf16" if half else "fp32"):
            time.sleep(0.05)
        return self.net(images)


@pytest.mark.parametrize("preferred_here", ["fp32", "bf16"])
def test_speed_chooses_nothing(
    preferred_here: str,
    backbone: Backbone,
    task: TaskData,
    tmp_path: Path,
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two fresh caches, one format or the other slow: the same precision and the same bits."""
    monkeypatch.setattr("eval.features.precision.device_format", lambda device: preferred_here)
    made = []
    for slow in ("fp32", "bf16"):
        there = replace(backbone, net=Slow(Cancelling(0.0), slow), dim=16)
        made.append(encode(there, task, tmp_path / slow, workers).bank)
    assert [b.precision for b in made] == [f"{preferred_here}-channels_last"] * 2
    assert torch.equal(made[0].features, made[1].features)


@pytest.fixture
def takes_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that declares bf16, as CUDA devices do; the CPU computes in its place."""
    monkeypatch.setattr("eval.features.precision.device_format", lambda device: "bf16")


@pytest.mark.usefixtures("takes_bf16")
def test_bf16_is_used_where_it_agrees(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    sharp = replace(backbone, net=Cancelling(0.0), dim=16, weights_sha256="11" * 32)
    bank = encode(sharp, task, cache, workers).bank
    assert bank.precision == "bf16-channels_last"
    exact = encode(sharp, task, cache, workers, Precision("fp32", True)).bank
    assert exact.precision == "fp32-channels_last"
    assert not torch.equal(bank.features, exact.features)
    cosine = torch.cosine_similarity(bank.features, exact.features)
    assert cosine.min() >= MIN_COSINE - 1e-3  # checked on the first images, not on all


@pytest.mark.usefixtures("takes_bf16")
def test_bf16_is_refused_when_the_features_disagree(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    blurred = replace(backbone, net=Cancelling(300.0), dim=16, weights_sha256="22" * 32)
    bank = encode(blurred, task, cache, workers).bank
    assert bank.precision == "fp32-channels_last"
    exact = encode(blurred, task, cache, workers, Precision("fp32", True)).bank
    assert torch.equal(bank.features, exact.features)
    # The user may still insist.
    forced = encode(blurred, task, cache, workers, Precision("bf16")).bank
    assert torch.cosine_similarity(forced.features, exact.features).min() < MIN_COSINE


def test_on_a_cpu_nothing_is_tried_out(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    with counted(backbone.net) as batches:
        first = encode(backbone, task, cache, workers)
    assert first.bank.precision.startswith("fp32")
    assert sum(batches) == len(task.train) + len(task.test)
    with counted(backbone.net) as batches:
        again = encode(backbone, task, cache, workers)
    assert (again.images, batches) == (0, [])
    assert not (cache / "probes").exists()


@pytest.mark.parametrize("made_as", ALL, ids=str)
def test_a_bank_of_an_earlier_version_is_found_in_either_layout(
    made_as: Precision, backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    """Earlier versions chose the layout by time, and remembered what they chose."""
    old = encode(backbone, task, cache, workers, made_as).bank
    memo = cache / "probes" / "0123.json"
    memo.parent.mkdir()
    memo.write_text(json.dumps({"choice": str(made_as)}))
    for layout in (False, True):
        wanted = replace(made_as, channels_last=layout)
        with counted(backbone.net) as batches:
            found = encode(backbone, task, cache, workers, wanted)
        assert (found.images, batches) == (0, [])
        assert found.bank.precision == str(made_as)
        assert torch.equal(found.bank.features, old.features)
    # What was remembered decides nothing: a CPU computes in fp32.
    auto = encode(backbone, task, cache, workers)
    assert auto.bank.precision.startswith("fp32")
    assert (auto.images == 0) == (made_as.dtype == "fp32")


def test_a_bank_in_its_own_layout_comes_before_one_in_the_other(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    there = replace(backbone, net=Cancelling(0.0), dim=16, weights_sha256="33" * 32)
    plain = encode(there, task, cache, workers, Precision()).bank
    with contextlib.ExitStack() as undo:
        # A folder that lacks the first bank makes the second.
        path = next((cache / "banks").iterdir())
        path.rename(cache / "aside")
        undo.callback((cache / "aside").rename, path)
        last = encode(there, task, cache, workers, Precision("fp32", True)).bank
    assert (plain.precision, last.precision) == ("fp32", "fp32-channels_last")
    for layout, name in ((False, "fp32"), (True, "fp32-channels_last")):
        found = encode(there, task, cache, workers, Precision("fp32", layout))
        assert (found.bank.precision, found.images) == (name, 0)

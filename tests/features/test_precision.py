"""The choice of number format and layout: remembered, and never at the price of the features."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Barrier

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
    candidates,
    choose,
    forward,
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
        return self.second(self.first(images)).flatten(2).std(2)


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


def test_candidates_try_layouts_only_for_networks_of_convolutions() -> None:
    vit = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(), nn.Linear(8, 8))
    assert {p.channels_last for p in candidates(vit)} == {False}
    assert {p.dtype for p in candidates(vit)} == {"fp32", "bf16"}
    assert {p.channels_last for p in candidates(Cancelling(0))} == {False, True}


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


@pytest.mark.parametrize(("turn", "same"), [(0.02, False), (0.005, True)])
def test_one_disagreeing_image_is_enough(turn: float, same: bool) -> None:
    class OneBad(nn.Module):
        """Exact in both formats, but for the last image in bf16: cosine 1 / sqrt(1 + turn^2)."""

        def forward(self, images: Tensor) -> Tensor:
            out = images.flatten(1)[:, :6].clone()
            if torch.is_autocast_enabled("cpu"):
                out[-1, 0] += turn
            return out

    assert MIN_COSINE == 0.9999
    flat = torch.zeros(4, 3, 2, 2)
    flat[:, 0, 0, 1] = 1.0
    assert agrees(OneBad(), flat, CPU, Precision("bf16")) is same


def test_the_choice_is_remembered(tmp_path: Path) -> None:
    net = Cancelling(0.0)
    with counted(net) as batches:
        first = choose(net, images(), CPU, "ab" * 32, tmp_path)
    assert len(batches) > len(candidates(net))
    (memo,) = (tmp_path / "probes").glob("*.json")
    said = json.loads(memo.read_text())
    assert said["choice"] == str(first)
    assert set(said["images_per_second"]) <= {str(p) for p in candidates(net)}
    assert all(speed > 0 for speed in said["images_per_second"].values())
    for other in candidates(net):  # whatever a probe said once holds, however fast it is now
        memo.write_text(json.dumps(said | {"choice": str(other)}))
        with counted(net) as batches:
            assert choose(net, images(), CPU, "ab" * 32, tmp_path) == other
        assert batches == []


def test_two_runs_at_once_choose_once(tmp_path: Path) -> None:
    nets, begin, chosen = [Cancelling(0.0), Cancelling(0.0)], Barrier(2), []

    def run(net: nn.Module) -> int:
        with counted(net) as batches:
            begin.wait()
            chosen.append(choose(net, images(), CPU, "ab" * 32, tmp_path))
        return len(batches)

    with ThreadPoolExecutor(2) as pool:
        batches = sorted(pool.map(run, nets))
    assert batches[0] == 0
    assert batches[1] > 0
    assert chosen[0] == chosen[1]


def test_other_weights_and_sizes_are_probed_anew(tmp_path: Path) -> None:
    net = Cancelling(0.0)
    choose(net, images(), CPU, "ab" * 32, tmp_path)
    with counted(net) as batches:
        choose(net, images(4), CPU, "ab" * 32, tmp_path)  # fewer images: the same question
    assert batches == []
    choose(net, images(), CPU, "cd" * 32, tmp_path)
    choose(net, images()[:, :, :20, :20], CPU, "ab" * 32, tmp_path)
    assert len(list((tmp_path / "probes").glob("*.json"))) == 3


@pytest.mark.parametrize(
    "damaged", ["", "{", "[]", "null", '"fp32"', "{}", '{"choice": "fp8"}', '{"choice": 3}']
)
def test_a_damaged_memo_is_made_again(damaged: str, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))  # quick to probe
    small = images()[:, :, :2, :2]
    choose(net, small, CPU, "ab" * 32, tmp_path)
    (memo,) = (tmp_path / "probes").glob("*.json")
    memo.write_text(damaged)
    chosen = choose(net, small, CPU, "ab" * 32, tmp_path)
    assert json.loads(memo.read_text())["choice"] == str(chosen)


def test_a_format_that_cannot_run_is_not_chosen(tmp_path: Path) -> None:
    class NoBf16(nn.Module):
        """Fails as an operator without a bf16 kernel does."""

        def forward(self, images: Tensor) -> Tensor:
            if torch.is_autocast_enabled("cpu"):
                raise RuntimeError("\"op\" not implemented for 'BFloat16'")
            return images.flatten(1)

    assert choose(NoBf16(), images(), CPU, "ab" * 32, tmp_path).dtype == "fp32"


def remembered(backbone: Backbone, task: TaskData, cache: Path, workers: Workers) -> Path:
    """Encode once with no precision given, and let the memo say that bf16 is the fastest.

    Which format wins depends on the machine; what follows from bf16 winning must not.
    """
    encode(backbone, task, cache, workers)
    (memo,) = (cache / "probes").glob("*.json")
    memo.write_text(json.dumps({"choice": "bf16"}))
    return memo


def test_bf16_is_used_where_it_is_faster_and_agrees(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    sharp = replace(backbone, net=Cancelling(0.0), dim=4, weights_sha256="11" * 32)
    remembered(sharp, task, cache, workers)
    bank = encode(sharp, task, cache, workers).bank
    assert bank.precision == "bf16"
    exact = encode(sharp, task, cache, workers, Precision()).bank
    assert exact.precision == "fp32"
    cosine = torch.cosine_similarity(bank.features, exact.features)
    assert not torch.equal(bank.features, exact.features)
    assert cosine.min() >= MIN_COSINE - 1e-3  # checked on the first images, not on all


def test_bf16_is_refused_when_the_features_disagree(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    blurred = replace(backbone, net=Cancelling(300.0), dim=4, weights_sha256="22" * 32)
    memo = remembered(blurred, task, cache, workers)
    for choice, taken in (("bf16", "fp32"), ("bf16-channels_last", "fp32-channels_last")):
        memo.write_text(json.dumps({"choice": choice}))
        bank = encode(blurred, task, cache, workers).bank
        assert bank.precision == taken
        exact = encode(blurred, task, cache, workers, Precision.parse(taken)).bank
        assert torch.equal(bank.features, exact.features)
    # The user may still insist.
    forced = encode(blurred, task, cache, workers, Precision("bf16")).bank
    assert torch.cosine_similarity(forced.features, exact.features).min() < MIN_COSINE


def test_an_encode_with_no_precision_given_is_repeatable(
    backbone: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    first = encode(backbone, task, cache, workers)
    with counted(backbone.net) as batches:
        again = encode(backbone, task, cache, workers)
    assert again.images == 0
    assert again.bank.precision == first.bank.precision
    assert sum(batches) <= 2 * 16  # only the check of agreement, not the probe

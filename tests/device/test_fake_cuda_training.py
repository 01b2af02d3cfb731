"""Encoding and the training protocols on an accelerator: one step each, as on the CPU."""

from __future__ import annotations

import dataclasses
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from eval.data.load import load_task
from eval.data.validation import held_out
from eval.features.bank import FeatureBank
from eval.features.encode import default_batch_size, normalised, pixels_of
from eval.features.precision import Precision, agrees, forward, preferred, prepared
from eval.features.readout import reading
from eval.finetune.train import Training
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.protocols import attentive
from eval.protocols.linear_sgd import _Grid
from eval.settings.protocols import Attentive, LinearSgd
from eval.settings.readout import TOKENS, Readout
from eval.training.context import Context
from eval.training.images import EvalImages, TrainImages, batches_of
from eval.training.setup import Point
from eval.training.step import agree
from eval.training.views import Views
from tests.device.fake_cuda import CUDA, Cuda, assert_on_cuda, cuda_workers, value_of
from tests.factories import make_task


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """24 train and 8 test images of 24 px. The bank holds drawn features: a bank is always on the
    CPU, whatever made it."""
    folder = tmp_path_factory.mktemp("device")
    task = load_task(
        f"parquet:{make_task(folder / 'photos', classes=4, train=6, test=2)}", folder / "cache"
    )
    backbone = load(resolve("random:test_resnet", folder / "cache", img_size=24))
    drawn = torch.randn(32, backbone.dim, generator=torch.Generator().manual_seed(0))
    labels = torch.from_numpy(np.concatenate([task.train.labels, task.test.labels]))
    workers = cuda_workers()
    workers.device = torch.device("cpu")
    bank = FeatureBank(drawn, labels, len(task.train), "fp32")
    return Context(backbone, task, bank, workers, Precision(), folder / "cache", seed=0)


def everything(setup: Context) -> np.ndarray:
    return np.arange(len(setup.task.train))


def on_cuda(setup: Context) -> Context:
    return dataclasses.replace(setup, workers=cuda_workers())


def pixels(setup: Context) -> np.ndarray:
    split = setup.task.test
    return np.stack(
        [
            pixels_of(setup.backbone, setup.task, split, row, data)
            for row, data in split.source.images(np.sort(split.rows))
        ]
    )


# `encode` itself writes shards by the address of their bytes, which a fake has not. These are its
# parts that see a device; what comes after `.cpu()` is tested in tests/features.
@pytest.mark.parametrize("channels_last", [False, True])
def test_encode(channels_last: bool, setup: Context, cuda: Cuda) -> None:
    precision = Precision("fp32", channels_last)
    read = pixels(setup)
    batch = normalised(read, setup.backbone)
    with prepared(setup.backbone.net, torch.device("cpu"), precision) as net:
        expected = forward(net, batch, precision)
    there = load(setup.backbone.resolved)  # a network of its own: it stays on the device
    with cuda():
        images = normalised(read, there, str(CUDA))
        with prepared(there.net, CUDA, precision) as net:
            found = forward(net, images, precision)
        chosen = preferred(there.net, CUDA)
        assert agrees(there.net, normalised(read, there), CUDA, Precision("bf16", channels_last))
    assert_on_cuda(images, batch)
    assert_on_cuda(found, expected)
    assert chosen.dtype in ("fp32", "bf16")
    assert default_batch_size(CUDA, 224 * 224) > default_batch_size(torch.device("cpu"), 224 * 224)


def test_views(setup: Context, cuda: Cuda) -> None:
    rows = np.array([1, 4, 5, 20])
    expected = Views(setup, (0.2, 1.0)).epoch(1, rows)
    there = dataclasses.replace(on_cuda(setup), backbone=load(setup.backbone.resolved))
    with cuda():
        found = Views(there, (0.2, 1.0), batch_size=3).epoch(1, rows)
    assert_on_cuda(found, expected)


def test_linear_sgd(setup: Context, cuda: Cuda) -> None:
    settings = LinearSgd(
        lrs=(0.1,), batch_sizes=(8, 4), weight_decays=(0.0, 1e-3), tune_epochs=1, epochs=2
    )
    rows = everything(setup)

    def answer(setup: Context) -> tuple[np.ndarray, list[float]]:
        grid = _Grid(setup, settings, rows, held_out(setup.task, settings.validation, 0))
        features = setup.bank.train[0].to(setup.workers.device)
        grid.tune(0, features, True)
        grid.choose()
        grid.train(1, features)
        return grid.answer().probability, grid.accuracy

    probability, accuracy = answer(setup)
    with cuda():
        found, found_accuracy = answer(on_cuda(setup))
    np.testing.assert_allclose(found, probability, atol=1e-4)
    assert found_accuracy == accuracy


def test_attentive(setup: Context, cuda: Cuda) -> None:
    """A bank of drawn tokens: 3 x 3 places of the second stage."""
    backbone = reading(setup.backbone, [Readout(TOKENS, "layer2")])
    drawn = torch.randn(32, backbone.dim, generator=torch.Generator().manual_seed(0))
    assert setup.bank is not None
    bank = dataclasses.replace(setup.bank, features=drawn)
    setup = dataclasses.replace(setup, backbone=backbone, bank=bank)
    settings = Attentive(lrs=(1e-2, 1e-3), batch_size=8, epochs=2)
    expected = attentive.score(setup, settings)
    with cuda():
        found = attentive.score(on_cuda(setup), settings)
    assert found.details == expected.details
    assert found.details["tokens"] == 9
    assert found.confidence is not None
    assert expected.confidence is not None
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-4)


@pytest.mark.parametrize("last", [0, 1])
def test_finetune(last: int, setup: Context, cuda: Cuda) -> None:
    """A step in two micro-batches, and the answers to the test images."""
    rows = everything(setup)

    def trained(setup: Context) -> tuple[list[Tensor], np.ndarray, float]:
        images = TrainImages(setup, (0.2, 1.0))
        training = Training(setup, images, Point(0.05, 12, 1e-3), rows, 1, 0.9, 6, last)
        (whole, *_) = batches_of(len(rows), 12)
        order = images.order(rows, 0)[whole]
        training.step(order, images.read(order, images.crops(0)), 12)
        training._read_losses()
        answers = training.logits(EvalImages(setup, "test", np.arange(len(setup.task.test))))
        return list(training.net.parameters()), answers, training.where.loss

    expected, logits, loss = trained(setup)
    with cuda():
        found, found_logits, found_loss = trained(on_cuda(setup))
    for mine, theirs in zip(found, expected, strict=True):
        assert_on_cuda(mine, theirs, 1e-3)
    np.testing.assert_allclose(found_logits, logits, atol=1e-2)
    assert found_loss == pytest.approx(loss, rel=1e-4)


def test_losses_are_told_on_the_device(cuda: Cuda) -> None:
    with cuda():
        losses = torch.ones(4, device=CUDA)
        optimiser = cast(torch.optim.Optimizer, None)  # of which one process has no use
        assert agree(cuda_workers(), optimiser, None, losses, True)
    assert value_of(losses).tolist() == [1, 1, 1, 1]

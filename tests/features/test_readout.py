"""What is read off a network: timm's own intermediate features, in columns of one bank."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from eval.common.distributed import Workers
from eval.common.errors import BadInput, NotFound
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.data.validation import held_out
from eval.features import read as module
from eval.features.encode import bank_key, encode
from eval.features.precision import Precision
from eval.features.read import read
from eval.features.readout import candidates, pieces_of, reading, tokens_of
from eval.models.backbone import Backbone, load
from eval.models.resolve import resolve
from eval.settings.readout import TOKENS, Readout, readout, readouts
from eval.solvers.logistic import fit, standardise

# Of each kind: class token, class and register tokens, distilled, pooled by mean, by attention and
# without tokens; windows in [B, H, W, D], maps in [B, D, H, W] with and without a last norm.
VITS = ("test_vit", "test_vit3", "vit_wee_patch16_reg1_gap_256", "deit_tiny_distilled_patch16_224")
MAPS = ("test_resnet", "test_convnext", "resnetv2_18", "swin_tiny_patch4_window7_224")


@pytest.fixture(scope="module")
def workers() -> Workers:
    return Workers("cpu")


def untrained(name: str, tmp_path: Path, px: int | None = None) -> Backbone:
    return load(resolve(f"random:{name}", tmp_path, px))


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return untrained("test_vit", tmp_path_factory.mktemp("cache"), 64)


@pytest.fixture
def task(task_dir: Path, cache: Path) -> TaskData:
    """96 train and 72 test images."""
    return load_task(f"parquet:{task_dir}", cache)


def images_for(backbone: Backbone, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, *backbone.input_config["input_size"], generator=generator)


def intermediates(net: nn.Module, images: Tensor) -> list[tuple[Tensor | None, Tensor]]:
    """(class token, patch tokens [B, T, D]) of each layer, as timm gives them."""
    with torch.inference_mode():
        if not hasattr(net, "blocks"):
            maps = net.forward_intermediates(images, norm=True, intermediates_only=True)  # type: ignore[operator]
            return [(None, m.flatten(2).transpose(1, 2)) for m in maps]
        found = net.forward_intermediates(  # type: ignore[operator]
            images, norm=True, intermediates_only=True, output_fmt="NLC", return_prefix_tokens=True
        )
    classed = getattr(net, "cls_token", None) is not None
    return [(prefix[:, 0] if classed else None, patches) for patches, prefix in found]


@pytest.mark.parametrize("name", [*VITS, *MAPS])
def test_pieces_are_those_of_timm(name: str, tmp_path: Path) -> None:
    backbone = untrained(name, tmp_path)
    images = images_for(backbone)
    theirs = intermediates(backbone.net.net, images)
    count = len(theirs)
    asked = {"mean": [p for _, p in theirs]}
    if theirs[0][0] is not None:
        asked["cls"] = [c for c, _ in theirs if c is not None]
    for pool, layers in asked.items():
        vectors = [x.mean(1) for x in layers] if pool == "mean" else layers
        for n in (1, min(3, count)):
            wanted = torch.cat(vectors[-n:], 1)
            with torch.inference_mode():
                found = reading(backbone, [readout(pool, f"last-{n}")]).net(images)
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_pieces_stand_as_dinov2_puts_them(vit: Backbone) -> None:
    images = images_for(vit)
    theirs = intermediates(vit.net.net, images)[-4:]
    classes = [c for c, _ in theirs if c is not None]
    means = [p.mean(1) for _, p in theirs]
    for pool, wanted in (
        ("cls+last-mean", [*classes, means[-1]]),  # dinov2/eval/linear.py, create_linear_input
        ("cls+mean", [*classes, *means]),
    ):
        with torch.inference_mode():
            found = reading(vit, [readout(pool, "last-4")]).net(images)
        torch.testing.assert_close(found, torch.cat(wanted, 1))


def test_a_layer_by_its_name_pools_as_the_network_does(vit: Backbone, tmp_path: Path) -> None:
    images = images_for(vit)
    with torch.inference_mode():
        own = vit.net(images)
        torch.testing.assert_close(reading(vit, [readout(layer="blocks.5")]).net(images), own)
        early = reading(vit, [readout(layer="blocks.1")]).net(images)
    cls, _ = intermediates(vit.net.net, images)[1]
    torch.testing.assert_close(early, cls)
    resnet = untrained("test_resnet", tmp_path, 64)
    with torch.inference_mode():
        own = resnet.net(images)
        found = reading(resnet, [readout("mean")]).net(images)
    torch.testing.assert_close(found, own)


def test_the_network_itself_is_the_default(vit: Backbone, task: TaskData) -> None:
    assert reading(vit, [Readout()]) is vit
    precision = Precision()
    assert bank_key(vit, task, precision).layer == "pooled"


def test_several_readouts_are_one_pass_and_one_bank(
    vit: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    asked = readouts(["default", "cls", "cls+mean"], ["", "last-2", "blocks.0+blocks.3"])
    seen = []
    handle = vit.net.net.get_submodule("blocks.0").register_forward_hook(
        lambda module, given, out: seen.append(len(out))
    )
    try:
        found = read(vit, asked, task, cache, workers, Precision())
    finally:
        handle.remove()
    images = len(task.train) + len(task.test)
    assert sum(seen) == images + 1 + len(asked) - 1  # a black image finds the widths out
    assert len(list((cache / "banks").glob("*"))) == 1
    for one in asked:
        alone = encode(reading(vit, [one]), task, cache, workers, Precision())
        assert torch.equal(found[one].encoded.bank.features, alone.bank.features)
        assert torch.equal(found[one].encoded.bank.labels, alone.bank.labels)
        assert found[one].backbone.dim == alone.bank.features.shape[1]


def test_linear_on_layers_side_by_side_is_scikit_learns(
    vit: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    layers = [readout("mean", name) for name in ("blocks.2", "blocks.5")]
    both = readout("mean", "blocks.2+blocks.5")
    found = read(vit, [*layers, both], task, cache, workers, Precision())
    parts = [found[one].encoded.bank.train[0].numpy() for one in layers]
    x, y = np.concatenate(parts, 1), task.train.labels
    theirs = LogisticRegression(C=0.1, tol=1e-8, max_iter=10_000)
    theirs.fit((x - x.mean(0)) / x.std(0), y)
    ours, labels = found[both].encoded.bank.train
    mean, scale = standardise(ours)
    model = fit((ours - mean) / scale, labels, len(task.classes), 0.1)
    probability = model.logits((ours - mean) / scale).softmax(1).numpy()
    np.testing.assert_allclose(
        probability, theirs.predict_proba((x - x.mean(0)) / x.std(0)), atol=2e-3
    )


def test_auto_chooses_on_train_alone(
    vit: Backbone, task: TaskData, cache: Path, workers: Workers
) -> None:
    auto = readout(layer="auto")
    found = read(vit, [auto], task, cache, workers, Precision(), seed=3)[auto]
    held = held_out(task, module.HELD_OUT, 3)
    accuracy = {}
    for one in candidates(vit, auto):
        bank = read(vit, [one], task, cache, workers, Precision())[one].encoded.bank
        x, y = (part.numpy() for part in bank.train)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        theirs = KNeighborsClassifier(module.NEIGHBOURS, metric="cosine", algorithm="brute")
        theirs.fit(x[~held], y[~held])
        accuracy[one.layer or "features"] = theirs.score(x[held], y[held])
    told = found.details["layer_validation"]
    assert list(told) == [*(f"blocks.{i}" for i in range(6)), "features"]
    # scikit-learn gives a tied majority to the lower class, ours to the nearest neighbour's
    assert max(abs(told[k] - v) for k, v in accuracy.items()) <= 2 / held.sum() + 1e-6
    best = max(told.values())
    assert found.details["layer"] == [k for k, v in told.items() if v == best][-1]
    own = readout(layer=found.details["layer"])
    alone = read(vit, [own], task, cache, workers, Precision())[own]
    assert torch.equal(found.encoded.bank.features, alone.encoded.bank.features)


def test_tokens_are_those_of_the_last_layer(vit: Backbone) -> None:
    images = images_for(vit)
    own = reading(vit, [dataclasses.replace(readout(), pool=TOKENS)])
    with torch.inference_mode():
        found = tokens_of(own, own.net(images))
    torch.testing.assert_close(found, intermediates(vit.net.net, images)[-1][1])


@pytest.mark.parametrize(
    ("pool", "layer", "words"),
    [
        ("max", "", "pool must be one of default, cls"),
        ("cls", "last", "not last-N"),
        ("cls", "last-0", "not last-N"),
        ("cls", "blocks.1+blocks.1", "each once"),
        ("cls", "blocks.1+", "each once"),
        ("cls", "auto+blocks.1", "mixes names"),
        ("cls", "features+blocks.1", "mixes names"),
        ("cls", "a/b", "must be auto"),
    ],
)
def test_readouts_that_mean_nothing(pool: str, layer: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        readout(pool, layer)


def test_two_ways_of_writing_one_readout() -> None:
    assert readout("cls", "last-1") == readout("cls", "features") == readout("cls")
    assert readout("default", "features") == Readout()
    assert readout("default", "last-1") != Readout()  # a ConvNeXt's own vector is normed
    assert readouts(["cls", "cls"], ["", "last-1"]) == (Readout("cls"),)


@pytest.mark.parametrize(
    ("name", "asked", "error", "words"),
    [
        ("test_vit", Readout("cls", "blocks.9"), NotFound, "its layers are blocks.0, .*features"),
        ("test_vit", Readout("cls", "last-9"), NotFound, "has 6 layers, not the 9"),
        ("test_resnet", Readout("cls"), BadInput, "has no class token; take --pool mean"),
        ("test_resnet", Readout("cls", "auto"), BadInput, "has no class token"),
    ],
)
def test_what_a_network_has_not(
    name: str, asked: Readout, error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        reading(untrained(name, tmp_path, 64), [asked])


def test_a_network_without_named_layers(vit: Backbone, tmp_path: Path) -> None:
    net = nn.Module()
    net.net = timm.create_model("test_resnet", num_classes=0)
    net.net.feature_info = []
    with pytest.raises(NotFound, match="no layers that timm names"):
        pieces_of(dataclasses.replace(vit, net=net), Readout("mean"))

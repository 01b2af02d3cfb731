"""The layers of a backbone as columns of one bank."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from eval.analysis.layers import LAST, SPATIAL, layer_names, layered, sketch
from eval.common.distributed import Workers
from eval.common.errors import UserError
from eval.data.load import load_task
from eval.features.encode import encode
from eval.features.precision import Precision
from eval.models.backbone import Backbone, load
from eval.models.resolve import resolve
from tests.factories import make_task


def loaded(name: str, cache: Path) -> Backbone:
    return load(resolve(f"random:{name}", cache, None))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_columns_are_the_network_s_own_maps(name: str, tmp_path: Path) -> None:
    """Against timm's forward_intermediates, averaged over places."""
    backbone = loaded(name, tmp_path)
    many, layers = layered(backbone)
    assert [x.name for x in layers] == [*layer_names(backbone)]
    images = torch.rand(3, *backbone.input_config["input_size"])
    with torch.no_grad():
        found = many.net(images)
        last = backbone.net(images)
        maps = backbone.net.net.forward_intermediates(images, intermediates_only=True)
    assert found.shape == (3, many.dim)
    assert layers[0].start == 0
    assert [x.stop for x in layers[:-1]] == [x.start for x in layers[1:]]
    torch.testing.assert_close(layers[-1].of(found), last)
    assert layers[-1].name == LAST
    assert len(maps) == len(layers) - 1
    for layer, expected in zip(layers[:-1], maps, strict=True):
        mean = expected.mean((2, 3))  # [B, C, H, W] from CNN and ViT alike
        if layer.name == layers[-2].name and "vit" in name:
            continue  # timm norms the last one
        torch.testing.assert_close(layer.of(found), mean, atol=1e-5, rtol=1e-4)


def test_the_shared_network_is_not_listened_to_afterwards(tmp_path: Path) -> None:
    backbone = loaded("test_resnet", tmp_path)
    many, _ = layered(backbone)
    many.net(torch.rand(2, *backbone.input_config["input_size"]))
    assert not any(m._forward_hooks for m in backbone.net.modules())


def test_some_layers_by_name(tmp_path: Path) -> None:
    backbone = loaded("test_resnet", tmp_path)
    _, everything = layered(backbone)
    _, chosen = layered(backbone, ["layer2", LAST])
    assert chosen == (everything[2], everything[-1])
    with pytest.raises(UserError, match=r"has no layer 'layer9'; its layers are act1, layer1"):
        layered(backbone, ["layer9"])


def test_a_bank_of_layers_stands_beside_that_of_the_features(tmp_path: Path) -> None:
    """One pass; another bank than the protocols', whose features are its last columns."""
    folder = make_task(tmp_path / "photos", classes=2, train=6, test=4)
    task = load_task(f"parquet:{folder}", tmp_path / "cache")
    backbone = loaded("test_resnet", tmp_path)
    many, layers = layered(backbone)
    workers, precision = Workers("cpu"), Precision("fp32")
    plain = encode(backbone, task, tmp_path / "cache", workers, precision)
    both = encode(many, task, tmp_path / "cache", workers, precision)
    assert (plain.images, both.images) == (20, 20)
    torch.testing.assert_close(layers[-1].of(both.bank.features), plain.bank.features)
    assert encode(many, task, tmp_path / "cache", workers, precision).images == 0


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_places_are_kept_or_sketched(name: str, tmp_path: Path) -> None:
    """A map that is no longer than the sketch is itself; a longer one keeps inner products."""
    backbone = loaded(name, tmp_path)
    many, layers = layered(backbone, spatial=True)
    images = torch.rand(3, *backbone.input_config["input_size"])
    with torch.no_grad():
        found = many.net(images)
        maps = backbone.net.net.forward_intermediates(images, intermediates_only=True, norm=False)
    for layer, expected in zip(layers[:-1], maps, strict=True):
        flat = expected.flatten(1)
        vector = layer.of(found)
        assert vector.shape[1] == min(SPATIAL, flat.shape[1])
        if flat.shape[1] <= SPATIAL:
            torch.testing.assert_close(vector, flat, atol=1e-5, rtol=1e-4)
    assert layered(backbone)[0].layer != many.layer  # another bank


def test_a_sketch_keeps_inner_products() -> None:
    random = torch.Generator().manual_seed(0)
    values = torch.randn(40, 3, 50, 50, generator=random, dtype=torch.float64)
    short, flat = sketch(values, 1000), values.flatten(1)
    assert short.shape == (40, 1000)
    torch.testing.assert_close(short, sketch(values, 1000))
    exact, found = flat @ flat.T, short @ short.T
    norms = flat.square().sum(1)
    bound = ((norms[:, None] * norms[None] + exact.square()) / 1000).sqrt()  # standard deviation
    assert ((found - exact).abs() < 4.5 * bound).all()
    assert (found - exact).mean().abs() < 0.1 * bound.mean()  # unbiased
    torch.testing.assert_close(sketch(values[:1], 7500), flat[:1])  # short enough: as it is

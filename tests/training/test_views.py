"""Features of augmented views: the same view of an image, whoever asks for it and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from eval.common.distributed import Workers
from eval.common.errors import UserError
from eval.common.images import decode
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features.bank import FeatureBank
from eval.features.cache import entries
from eval.features.encode import encode
from eval.features.precision import Precision
from eval.models.backbone import Backbone, load
from eval.models.resolve import resolve
from eval.training.augment import Augmentation, cut, draw_crops, weak
from eval.training.context import Context
from eval.training.crop_images import reduced_side
from eval.training.views import Views
from tests.factories import make_task, refusal

SCALE = (0.2, 1.0)


@pytest.fixture(scope="module")
def workers() -> Workers:
    return Workers("cpu")


@pytest.fixture(scope="module")
def backbone(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load(resolve(f"local-dir:{model_dir}", tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    """40 train and 8 test images of 24 px."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    return load_task(f"parquet:{make_task(folder, 4, 10, 2)}", folder.parent / "cache")


@pytest.fixture
def setup(backbone: Backbone, task: TaskData, cache: Path, workers: Workers) -> Context:
    empty = FeatureBank(torch.empty(0, backbone.dim), torch.empty(0).long(), 0, "fp32")
    return Context(backbone, task, empty, workers, Precision(), cache, 0)


def everything(setup: Context) -> np.ndarray:
    return np.arange(len(setup.task.train))


@contextmanager
def counted(net: nn.Module) -> Iterator[list[int]]:
    """Sizes of the batches that pass through a network."""
    batches: list[int] = []
    handle = net.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    try:
        yield batches
    finally:
        handle.remove()


def different(a: Tensor, b: Tensor) -> bool:
    """Whether every row is another one."""
    return bool(((a - b).abs().amax(1) > 1e-3).all())


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-4, rtol=1e-4)


def test_drawing_and_cutting_are_what_weak_does() -> None:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (7, 40, 40, 3), generator=g, dtype=torch.uint8)
    images = images.permute(0, 3, 1, 2)
    aspect = torch.linspace(0.5, 2, 7)
    settings = Augmentation(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    whole = weak(images, aspect, settings, torch.Generator().manual_seed(3))
    crops = draw_crops(7, aspect, settings, torch.Generator().manual_seed(3))
    assert torch.equal(whole, cut(images, crops, settings))
    rows = torch.tensor([5, 1])
    assert torch.equal(whole[rows], cut(images[rows], crops.of(rows, "cpu"), settings))


@pytest.mark.parametrize("crops_from", ["originals", "reduced"])
def test_a_view_of_the_whole_image_is_the_image(
    crops_from: str, setup: Context, backbone: Backbone, task: TaskData
) -> None:
    """With a scale of 1 a square image has one crop, mirrored or not; decoded here by hand."""
    features = Views(setup, (1.0, 1.0), crops_from=crops_from).epoch(0, everything(setup))
    config = backbone.input_config
    px = config["input_size"][1]
    train = task.train
    ascending = np.sort(train.rows)
    data = dict(train.source.images(ascending))
    mean, std = (torch.tensor(config[k]).view(3, 1, 1) for k in ("mean", "std"))
    best = []
    for i, row in enumerate(train.rows.tolist()):
        image = decode(data[row])
        if crops_from == "reduced":
            image = image.resize((reduced_side(px),) * 2, Image.Resampling.BICUBIC)
        x = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255
        small = nn.functional.interpolate(x, (px, px), mode="bilinear", antialias=True)
        both = torch.cat([small, small.flip(3)])
        with torch.inference_mode():
            expected = backbone.net((both - mean) / std)
        best.append(float((expected - features[i]).abs().amax(1).min()))
    # A ratio other than 1 never fits into the whole, and the fallback is the whole image.
    assert max(best) < 1e-3


def test_views_depend_on_seed_and_epoch(setup: Context) -> None:
    rows = everything(setup)
    views = Views(setup, SCALE)
    first = views.epoch(0, rows)
    assert first.shape == (len(rows), setup.backbone.dim)
    assert first.dtype == torch.float32
    assert not first.is_inference()
    assert torch.equal(first, Views(setup, SCALE).epoch(0, rows))
    assert different(first, views.epoch(1, rows))
    assert different(first, Views(dataclasses.replace(setup, seed=1), SCALE).epoch(0, rows))
    assert different(first, Views(setup, (0.2, 0.3)).epoch(0, rows))
    assert different(first, Views(setup, SCALE, crops_from="reduced").epoch(0, rows))
    assert views.encoded == 2 * len(rows)
    assert views.seconds > 0


def test_views_do_not_depend_on_the_rows_asked_for_or_the_batch_size(setup: Context) -> None:
    rows = everything(setup)
    whole = Views(setup, SCALE).epoch(3, rows)
    some = np.array([0, 3, 4, 11, 39])
    with counted(setup.backbone.net) as batches:
        part = Views(setup, SCALE, batch_size=3).epoch(3, some)
    assert batches == [3, 2]
    assert close(part, whole[torch.from_numpy(some)])
    assert close(Views(setup, SCALE, batch_size=7).epoch(3, rows), whole)


def test_a_mirror_in_another_order_has_the_same_views(setup: Context, tmp_path: Path) -> None:
    """Rows of the same images, stored the other way round."""
    import pyarrow.parquet as pq

    source = setup.task.train.source
    folder = tmp_path / "mirror"
    folder.mkdir()
    for file in source.files[0].parent.glob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.take(list(range(len(table)))[::-1]), folder / file.name)
    task = load_task(f"parquet:{folder}", tmp_path / "other")
    assert task.split_hash == setup.task.split_hash
    assert not np.array_equal(task.train.rows, setup.task.train.rows)
    rows = everything(setup)
    mirrored = Views(dataclasses.replace(setup, task=task), SCALE).epoch(2, rows)
    assert close(mirrored, Views(setup, SCALE).epoch(2, rows))


@pytest.mark.parametrize("precision", ["fp32-channels_last", "bf16-channels_last", "bf16"])
def test_views_in_the_precision_of_the_run(setup: Context, precision: str) -> None:
    rows = everything(setup)
    exact = Views(setup, SCALE).epoch(0, rows)
    other = dataclasses.replace(setup, precision=Precision.parse(precision))
    found = Views(other, SCALE).epoch(0, rows)
    assert found.dtype == torch.float32
    cosine = torch.cosine_similarity(found, exact, dim=1)
    assert cosine.min() > 0.999
    assert not (precision.startswith("bf16") and torch.equal(found, exact))


def test_cached_views(setup: Context) -> None:
    rows = everything(setup)
    some = np.array([2, 5, 30])
    fresh = Views(setup, SCALE)
    views = Views(setup, SCALE, count=2)
    part = views.epoch(1, some)
    assert views.encoded == len(rows)  # the whole view, once
    assert torch.equal(part, fresh.epoch(1, rows)[torch.from_numpy(some)])
    assert torch.equal(views.epoch(3, rows), fresh.epoch(1, rows))
    assert views.encoded == len(rows)
    assert torch.equal(views.epoch(2, rows), fresh.epoch(0, rows))
    assert views.encoded == 2 * len(rows)
    assert [e.rows for e in entries(setup.cache)] == [len(rows)] * 2
    with counted(setup.backbone.net) as batches:
        again = Views(setup, SCALE, count=2)
        assert torch.equal(again.epoch(1, rows), views.epoch(1, rows))
        assert torch.equal(again.epoch(0, some), views.epoch(0, some))
    assert batches == []
    assert again.encoded == 0
    # more views: those that are there are used
    more = Views(setup, SCALE, count=3)
    more.epoch(1, rows)
    assert more.encoded == 0
    for change in ({"seed": 1}, {"precision": Precision("fp32", True)}):
        Views(dataclasses.replace(setup, **change), SCALE, count=1).epoch(0, rows)
    Views(setup, (0.5, 1.0), count=1).epoch(0, rows)
    Views(setup, SCALE, count=1, crops_from="reduced").epoch(0, rows)
    assert len(entries(setup.cache)) == 6


def test_a_damaged_cached_view_is_encoded_again(setup: Context) -> None:
    rows = everything(setup)
    good = Views(setup, SCALE, count=1).epoch(0, rows).clone()
    (entry,) = entries(setup.cache)
    raw = bytearray(entry.path.read_bytes())
    raw[-1000] ^= 1
    entry.path.write_bytes(bytes(raw))
    views = Views(setup, SCALE, count=1)
    assert torch.equal(views.epoch(0, rows), good)
    assert views.encoded == len(rows)


def test_cached_views_stand_beside_the_bank_of_the_task(setup: Context) -> None:
    Views(setup, SCALE, count=1).epoch(0, everything(setup))
    encoded = encode(setup.backbone, setup.task, setup.cache, setup.workers, Precision())
    assert encoded.images == len(setup.task.train) + len(setup.task.test)
    assert len(entries(setup.cache)) == 2


def test_features_that_are_not_finite(setup: Context) -> None:
    handle = setup.backbone.net.register_forward_hook(
        lambda _, args, out: torch.full_like(out, float("nan"))
    )
    try:
        text = refusal(Views(setup, SCALE).epoch, 0, everything(setup))
    finally:
        handle.remove()
    assert "not finite" in text
    assert "parquet:" in text or "photos" in text


def test_a_model_whose_input_is_no_square(setup: Context) -> None:
    config = setup.backbone.input_config | {"input_size": [3, 32, 48]}
    wide = dataclasses.replace(setup.backbone, input_config=config)
    with pytest.raises(UserError, match="takes images of 48 x 32"):
        Views(dataclasses.replace(setup, backbone=wide), SCALE)

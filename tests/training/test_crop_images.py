"""Views of a task's images: as sharp as torchvision's crops of the originals."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features.precision import Precision
from eval.models.backbone import Backbone, load
from eval.models.resolve import resolve
from eval.settings.protocols import Finetune, LinearSgd
from eval.training.augment import Crops
from eval.training.context import Context
from eval.training.crop_images import TrainCrops, reduced_side, to_store
from eval.training.windows import Drawn
from tests.factories import png, write_parquet

PX = 32
SCALE = (0.2, 1.0)
SIZES = [(64, 64), (90, 60), (60, 78), (48, 80)]  # width and height: none is larger than crops need
LARGE = [(400, 300), (300, 420), (250, 250), (640, 350)]


def natural(width: int, height: int, seed: int) -> np.ndarray:
    """[height, width, 3] uint8 with the spectrum of photographs: amplitude by 1 / frequency."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1
    waves = random.normal(size=(2, 3, height, width))
    x = np.fft.ifft2((waves[0] + 1j * waves[1]) / frequency).real
    x = (x - x.mean()) / x.std() * 45 + 128
    return np.clip(np.rint(x), 0, 255).astype(np.uint8).transpose(1, 2, 0)


def checkerboard(width: int, height: int, seed: int) -> np.ndarray:
    """[height, width, 3] uint8, black and white squares of two pixels."""
    y, x = np.mgrid[:height, :width] // 2
    return np.repeat((((x + y + seed) % 2) * 255).astype(np.uint8)[..., None], 3, 2)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load(resolve("random:test_resnet", tmp_path_factory.mktemp("cache"), img_size=PX))


def setup_of(folder: Path, backbone: Backbone, images: list[np.ndarray]) -> Context[TaskData]:
    """Three of each picture, the last bytes apart, in train."""
    data = [png(i) + bytes([copy]) for i in images for copy in range(3)]
    labels = [n % 2 for n in range(len(data))]
    for part in ("train", "test"):
        write_parquet(folder / "some" / f"{part}.parquet", data, labels, ["a", "b"])
    task = load_task(f"parquet:{folder / 'some'}", folder / "cache")
    return Context(backbone, task, None, Workers("cpu"), Precision(), folder / "cache", 0)


def views(setup: Context[TaskData], crops_from: str) -> tuple[Tensor, Tensor]:
    """[N, 3, px, px] in [0, 1] of three epochs' crops, and torchvision's crops of the originals at
    the same boxes, but for their rounding to whole pixels."""
    images = TrainCrops(setup, SCALE, crops_from)
    mean, std = (
        torch.tensor(setup.backbone.input_config[k])[:, None, None] for k in ("mean", "std")
    )
    train = setup.task.train
    data = dict(train.source.images(np.sort(train.rows)))
    originals = [Image.open(io.BytesIO(data[row])).convert("RGB") for row in train.rows.tolist()]
    found, expected = [], []
    for epoch in range(3):
        drawn = images.draw(epoch)
        size = torch.tensor([(i.height, i.width) for i in originals])
        # Boxes at whole pixels of the original, which torchvision can cut too.
        crops = drawn.crops
        mirrored = crops.width < 0
        left = torch.where(mirrored, crops.left + crops.width, crops.left)
        sides = [crops.top, left, crops.height, crops.width.abs()]
        box = torch.stack(sides, 1) * size.repeat(1, 2)
        box = box.round().long()
        box[:, 2:] = torch.minimum(box[:, 2:].clamp(min=1), size - box[:, :2])
        top, left, height, width = (box / size.repeat(1, 2)).unbind(1)
        whole = Crops(left, top, width, height)
        drawn = Drawn.of(whole, drawn.sides.long().numpy(), PX)
        rows = np.arange(len(images))
        found.append(images.cut(images.read(rows, drawn)) * std + mean)
        expected += [
            tv.resized_crop(tv.to_dtype(tv.to_image(i), scale=True), *b, [PX, PX], antialias=True)
            for i, b in zip(originals, box.tolist(), strict=True)
        ]
    return torch.cat(found), torch.stack(expected)


def error(found: Tensor, expected: Tensor) -> float:
    """The distance by the contrast, in the mean over views."""
    contrast = (expected - expected.mean((2, 3), keepdim=True)).flatten(1).norm(dim=1)
    return float(((found - expected).flatten(1).norm(dim=1) / contrast).mean())


@pytest.mark.parametrize("paint", [natural, checkerboard])
def test_views_are_torchvisions_crops_of_the_originals(
    paint: Callable[[int, int, int], np.ndarray], backbone: Backbone, tmp_path: Path
) -> None:
    setup = setup_of(tmp_path, backbone, [paint(*s, n) for n, s in enumerate(SIZES)])
    found, expected = views(setup, "originals")
    assert (found - expected).abs().max() < 1e-4
    blurred, _ = views(setup, "reduced")
    assert error(blurred, expected) > 0.15


def test_views_of_images_too_large_to_keep_are_as_sharp(backbone: Backbone, tmp_path: Path) -> None:
    setup = setup_of(tmp_path, backbone, [natural(*s, n) for n, s in enumerate(LARGE)])
    found, expected = views(setup, "originals")
    blurred, _ = views(setup, "reduced")
    assert error(found, expected) < 0.04
    assert error(blurred, expected) > 0.15


def test_what_it_will_store_and_that_it_is_shared(backbone: Backbone, tmp_path: Path) -> None:
    setup = setup_of(tmp_path, backbone, [natural(*s, n) for n, s in enumerate(SIZES)])
    folder, size = to_store(setup, LinearSgd())
    assert size == 3 * sum(3 * w * h for w, h in SIZES)
    assert to_store(setup, Finetune()) == (folder, size)
    assert to_store(setup, Finetune(scale=(0.3, 1.0)))[0] != folder
    reduced, smaller = to_store(setup, LinearSgd(crops_from="reduced"))
    assert (reduced != folder, smaller) == (True, 12 * reduced_side(PX) ** 2 * 3)
    for crops_from, where in (("originals", folder), ("reduced", reduced)):
        TrainCrops(setup, SCALE, crops_from)
        assert where.is_dir()
    assert to_store(setup, LinearSgd()) == (folder, 0)
    assert to_store(setup, LinearSgd(crops_from="reduced")) == (reduced, 0)
    written = sum(f.stat().st_size for f in folder.iterdir())
    assert size <= written < size + 4096


@pytest.mark.parametrize(("px", "side"), [(224, 258), (32, 37), (64, 74)])
def test_the_side_that_images_are_reduced_to(px: int, side: int) -> None:
    assert reduced_side(px) == side


def test_a_crop_depends_on_the_seed_alone(backbone: Backbone, tmp_path: Path) -> None:
    """Not on what the crops are cut from: the same boxes of a smaller copy."""
    setup = setup_of(tmp_path, backbone, [natural(*s, n) for n, s in enumerate(SIZES)])
    one, other = (TrainCrops(setup, SCALE, kind).draw(7).crops for kind in ("originals", "reduced"))
    for field in dataclasses.fields(one):
        assert torch.equal(getattr(one, field.name), getattr(other, field.name))

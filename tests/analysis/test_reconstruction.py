"""`transfer-eval analyze reconstruction`: pixels from features, and how alike they are."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from eval.__main__ import main
from eval.analysis import Reconstruction, reconstruction
from eval.analysis.analyze import analyze
from eval.analysis.layer_maps import LayerMaps
from eval.analysis.measures.image_similarity import MOST, psnr, ssim
from eval.analysis.measures.inversion import (
    Decoder,
    Prior,
    decoded,
    fit,
    grids,
    invert,
    reduced,
    spread,
)
from eval.analysis.reconstruction import data_uri, of_many_classes
from eval.analysis.reconstruction_figure import picture_of
from eval.data.load import load_task
from eval.data.task_data import TaskData
from tests.factories import make_task, refusal

RESNET = "random:test_resnet"
FEW = Reconstruction(steps=8, train_images=16, test_images=12, pictures=2, prior_steps=3)
RESNET_LAYERS = ["act1", "layer1", "layer2", "layer3", "layer4", "features"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task(tmp_path_factory.mktemp("rebuild") / "photos", classes=3, train=12, test=8)


@pytest.fixture
def task(photos: Path, cache: Path) -> TaskData:
    return load_task(f"parquet:{photos}", cache)


def smooth(count: int, height: int = 16, width: int = 16, seed: int = 0) -> Tensor:
    """[count, 3, height, width] in 0..1, each with its own colours and shades."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=random)
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear")


@pytest.mark.parametrize(("height", "width"), [(11, 11), (32, 32), (24, 40)])
def test_measures_are_those_of_torchmetrics(height: int, width: int) -> None:
    a = smooth(3, height, width)
    noise = torch.rand(a.shape, generator=torch.Generator().manual_seed(1))
    for b in (0.8 * a + 0.2 * noise, noise, 1 - a, a.flip(3)):
        wanted = [
            peak_signal_noise_ratio(x[None], y[None], data_range=1.0)
            for x, y in zip(a, b, strict=True)
        ]
        assert psnr(a, b) == pytest.approx(torch.stack(wanted).numpy(), abs=1e-5)
        if min(height, width) > 11:
            # It pads by reflection; Wang et al. count the windows within the picture alone.
            found = structural_similarity_index_measure(
                a, b, data_range=1.0, reduction="none", return_full_image=True
            )
            inner = found[1][:, :, 5:-5, 5:-5].mean((1, 2, 3))
            assert ssim(a, b) == pytest.approx(inner.numpy(), abs=1e-5)
    assert ssim(a, a) == pytest.approx(np.ones(3), abs=1e-5)


def test_equal_pictures_and_small_ones() -> None:
    a = smooth(2)
    assert psnr(a, a).tolist() == [MOST, MOST]
    with pytest.raises(ValueError, match="smaller than the window"):
        ssim(a[:, :, :10], a[:, :, :10])


@pytest.mark.parametrize("size", [(16, 16), (13, 20)])
def test_grids_double_up_to_the_picture(size: tuple[int, int]) -> None:
    found = grids(size)
    assert found[0] == (1, 1)
    assert found[-1] == size
    for (h, w), (height, width) in itertools.pairwise(found):
        assert height <= 2 * h
        assert width <= 2 * w


@pytest.mark.parametrize("shape", [(5, 1, 1), (4, 3, 3), (7, 4, 4), (3, 13, 20), (2, 1, 5)])
def test_a_decoder_serves_any_map(shape: tuple[int, ...]) -> None:
    maps, base = torch.rand(6, *shape), smooth(1, 13, 20)[0]
    torch.testing.assert_close(Decoder(maps, base)(maps), base.expand(6, 3, 13, 20))
    with pytest.raises(ValueError, match="for pictures of"):
        Decoder(torch.rand(2, 3, 14, 20), base)


def test_decoders_differ_between_layers_of_one_size_in_the_first_convolution_alone() -> None:
    shapes = []
    for channels in (8, 300):
        decoder = Decoder(torch.rand(2, channels, 2, 2), smooth(1)[0])
        shapes.append([tuple(p.shape) for n, p in decoder.named_parameters() if "first" not in n])
    assert shapes[0] == shapes[1]


def test_spread() -> None:
    maps = torch.rand(70, 3, 4, 5) * torch.tensor([1.0, 10.0, 0.0]).view(1, 3, 1, 1) + 7
    mean, std = spread(maps)
    torch.testing.assert_close(mean, maps.mean((0, 2, 3)))
    wanted = maps.double().std((0, 2, 3), correction=0).float()
    torch.testing.assert_close(std, wanted, atol=1e-6, rtol=1e-5)


def test_the_image_itself_as_features_is_rebuilt() -> None:
    train, test = smooth(64), smooth(16, seed=1)
    floor = psnr(train.mean(0, keepdim=True).expand_as(test), test).mean()
    rebuilt = decoded(fit(train.half(), train, 400, 0), test.half())
    assert psnr(rebuilt, test).mean() > floor + 15
    assert ssim(rebuilt, test).mean() > 0.97


def test_features_that_say_nothing_give_the_mean_image() -> None:
    train, test = smooth(64), smooth(16, seed=1)
    floor = psnr(train.mean(0, keepdim=True).expand_as(test), test).mean()
    same = torch.full((64, 5, 2, 2), 0.3, dtype=torch.float16)
    rebuilt = decoded(fit(same, train, 30, 0), same[:16])
    assert float(psnr(rebuilt, test).mean()) == pytest.approx(float(floor), abs=0.5)
    # random numbers are learnt by heart at most, which is worse than nothing
    random = torch.randn(80, 5, 1, 1, generator=torch.Generator().manual_seed(3)).half()
    rebuilt = decoded(fit(random[:64], train, 30, 0), random[64:])
    assert float(psnr(rebuilt, test).mean()) < float(floor) + 0.5


def test_a_seed_is_a_decoder() -> None:
    train = smooth(20)
    maps = reduced(train, (4, 4)).half()
    state = torch.random.get_rng_state()
    first, again, other = (decoded(fit(maps, train, 5, s), maps) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's draws are its own


def test_a_prior_finds_an_image_with_those_features() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1)).eval()
    images = smooth(2)
    with torch.no_grad():
        wanted = net(images)
    _, before = invert(net, wanted, (16, 16), 1, 0)
    pictures, after = invert(net, wanted, (16, 16), 150, 0)
    assert (after < before / 20).all()
    assert pictures.shape == images.shape
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert (psnr(pictures, images) > 15).all()
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(
        invert(net, wanted, (16, 16), 3, 5)[0], invert(net, wanted, (16, 16), 3, 5)[0]
    )
    # one picture by itself is what it is beside another
    alone, _ = invert(net, wanted[:1], (16, 16), 5, 0)
    torch.testing.assert_close(
        alone, invert(net, wanted, (16, 16), 5, 0)[0][:1], atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("size", [(64, 64), (30, 50), (11, 11)])
def test_a_prior_of_any_size(size: tuple[int, int]) -> None:
    assert Prior(size)().shape == (1, 3, *size)


def test_pictures_are_of_many_classes() -> None:
    labels = np.array([1, 1, 1, 0, 0, 2])
    assert of_many_classes(labels, 3) == [0, 3, 5]
    assert of_many_classes(labels, 4) == [0, 3, 5, 1]
    assert of_many_classes(labels, 10) == [0, 3, 5, 1, 4, 2]
    assert of_many_classes(labels, 0) == []


def test_a_picture_survives_its_png() -> None:
    picture = smooth(1)[0]
    again = torch.from_numpy(picture_of(data_uri(picture)).copy())
    torch.testing.assert_close(again.permute(2, 0, 1) / 255, picture, atol=0.5 / 255 + 1e-6, rtol=0)


@pytest.fixture(scope="module")
def done(photos: Path, cache: Path) -> Any:
    task = load_task(f"parquet:{photos}", cache)
    models = [RESNET, "random:test_vit"]
    return analyze("reconstruction", models, [task], cache, settings=FEW, img_size=32, device="cpu")


def test_analysis(done: Any, task: TaskData) -> None:
    values = done.values
    assert json.loads(json.dumps(values)) == values
    assert (values["train_images"], values["test_images"], values["side"]) == (16, 12, 32)
    assert len(values["originals"]) == 2
    found = values["models"][RESNET][task.name]
    assert list(found["layers"]) == RESNET_LAYERS
    for layer in found["layers"].values():
        for value, low, high in layer.values():
            assert low <= value <= high
    assert list(found["prior"]) == ["layer2", "layer4", "features"]
    for key in ("decoded", "inverted"):
        assert list(found[key]) == list(found["prior"])
        assert all(len(uris) == 2 for uris in found[key].values())
    assert all(len(v) == 2 for facts in found["prior"].values() for v in facts.values())
    vit = values["models"]["random:test_vit"][task.name]
    assert list(vit["layers"]) == [*(f"blocks.{i}" for i in range(6)), "features"]
    assert list(vit["prior"]) == ["blocks.2", "blocks.5", "features"]


def test_models_with_other_views_have_their_own_floors(done: Any, task: TaskData) -> None:
    """test_vit is made for bicubic images, test_resnet for bilinear ones."""
    floors = [tasks[task.name]["floor"] for tasks in done.values["models"].values()]
    assert floors[0] == done.values["floor"]
    assert floors[0] != floors[1]
    assert any("other crops or sizes" in note for note in done.notes)


def test_words_and_picture(done: Any) -> None:
    assert done.sentence.startswith("A decoder rebuilds most of the image from the last map (")
    assert "the least, and random:test_" in done.sentence
    header, lines = reconstruction.table(done)
    assert [len(line) for line in lines] == [len(header)] * 2
    assert lines[1][1] == "-"  # a ViT has no act1
    picture = reconstruction.figure(done)
    assert len(picture.axes) == 2 + 6
    for width in (1, 3):  # one layer, and models with unlike numbers of them
        less = done.model_copy(deep=True)
        one = next(iter(next(iter(less.values["models"].values())).values()))
        for key in ("prior", "decoded", "inverted", "layers"):
            one[key] = dict(list(one[key].items())[-width:])
        assert reconstruction.figure(less).axes
        assert reconstruction.sentence(less)


def test_a_seed_is_a_finding(task: TaskData, cache: Path) -> None:
    few = Reconstruction(("layer4",), 4, 10, 10, 1, 2)
    first, again = (
        analyze("reconstruction", [RESNET], [task], cache, settings=few, img_size=32, device="cpu")
        for _ in range(2)
    )
    assert first.values == again.values
    (found,) = (tasks[task.name] for tasks in first.values["models"].values())
    assert list(found["layers"]) == list(found["prior"]) == ["layer4"]


def test_groups_do_not_change_a_number(
    done: Any, task: TaskData, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers that are too large together are encoded one after the other."""
    monkeypatch.setattr(reconstruction, "MEMORY", 1)
    again = analyze(
        "reconstruction", [RESNET], [task], cache, settings=FEW, img_size=32, device="cpu"
    )
    assert again.values["models"][RESNET] == done.values["models"][RESNET]


@pytest.mark.parametrize("power", [-40, 50])
def test_features_of_another_length_are_the_same_features(
    power: int, done: Any, task: TaskData, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the digit: half precision neither loses them nor cuts them off, nor is a square lost."""

    class Longer(LayerMaps):
        def __call__(self, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
            return {n: x * 2.0**power for n, x in super().__call__(images, names).items()}

    monkeypatch.setattr(reconstruction, "LayerMaps", Longer)
    again = analyze(
        "reconstruction", [RESNET], [task], cache, settings=FEW, img_size=32, device="cpu"
    )
    assert again.values["models"][RESNET] == done.values["models"][RESNET]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            Reconstruction(layers=("layer9",)),
            "random:test_resnet has no layer 'layer9'; its layers are act1, layer1, layer2, "
            "layer3, layer4, features",
        ),
        (
            Reconstruction(layers=("layer1", "layer2"), prior_layers=("layer4",)),
            "random:test_resnet is not decoded from a layer 'layer4'; its layers are layer1, "
            "layer2",
        ),
    ],
)
def test_unknown_layers(task: TaskData, cache: Path, settings: Reconstruction, said: str) -> None:
    def call() -> None:
        analyze("reconstruction", [RESNET], [task], cache, settings=settings, img_size=32)

    assert refusal(call) == said


def test_command(
    photos: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "out.png"
    common = [
        "analyze",
        "reconstruction",
        RESNET,
        "--task",
        f"parquet:{photos}",
        "--img-size",
        "32",
    ]
    common += ["--results", str(tmp_path), "--cache", str(cache), "--device", "cpu"]
    few = ["steps=2", "train_images=8", "test_images=8", "prior_steps=2"]
    assert (
        main([*common, "--set", *few, 'layers=["layer1", "features"]', "--out", str(picture)]) == 0
    )
    out = capsys.readouterr().out
    assert "layer1 dB (SSIM)" in out
    assert "from the first layer to the last random:test_resnet loses" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "analyses" / "reconstruction").glob("*.json"))) == 1
    assert main([*common, "--set", *few, "pictures=0", "--out", str(picture)]) == 0
    assert main([*common, "--set", "steps=0"]) == 2
    assert "steps must be at least 1" in capsys.readouterr().err

"""Kept detectors: whole, the same again, and refused where they are damaged."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from eval.common.errors import UserError
from eval.common.files import sha256_file
from eval.detection import load_detector, saved_model
from eval.detection.batch import Batch
from eval.detection.inference import Sight, find
from eval.detection.network import Detector, build_detector
from eval.detection.saved_model import detect_pictures, keep
from eval.models.backbone import load
from eval.models.resolve import resolve

CLASSES = ("cat", "dog", "Wellensittich")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FACTS = {"model": "random:resnet10t", "schedule": "short:10", "scores": {"AP": 12.5, "AP50": None}}
SIZES = ((60, 90), (80, 50), (1, 40), (64, 64))


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """One with no number as ``rebuild`` draws it, statistics and counters included."""
    backbone = load(resolve("random:resnet10t", tmp_path_factory.mktemp("cache")))
    net = build_detector(backbone, len(CLASSES), channels=16, head=16)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(0.9 + 0.2 * torch.rand(tensor.shape, generator=generator))
                tensor.add_(0.01 * torch.rand(tensor.shape, generator=generator))
            else:
                tensor.add_(7)
    return net


def kept_in(folder: Path, detector: Detector) -> Path:
    return keep(
        folder, detector, CLASSES, test_side=64, max_side=100, mean=MEAN, std=STD, facts=FACTS
    )


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory, detector: Detector) -> Path:
    return kept_in(tmp_path_factory.mktemp("kept") / "new" / "MODEL_DIR", detector)


@pytest.fixture
def damaged(tmp_path: Path, model_dir: Path) -> Path:
    """A copy to damage."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    for file in model_dir.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def change(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def same(one, other) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("boxes", "scores", "labels")
    )


def test_the_same_detections_bit_for_bit(detector, model_dir):
    images = [picture(*size, seed) for seed, size in enumerate(SIZES)]
    sight = Sight(64, 100, MEAN, STD)
    before = dict(find(detector, sight, images.__getitem__, range(len(images)), batch_size=1))
    loaded = load_detector(model_dir, "cpu")
    after = loaded.detect(images)
    assert all(same(before[i], found) for i, found in enumerate(after))
    assert sum(map(len, (found.scores for found in after))) > 10  # there was something to compare
    assert loaded.classes == CLASSES
    state, again = detector.state_dict(), loaded.detector.state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert not loaded.detector.training
    assert not any(p.requires_grad for p in loaded.detector.parameters())


def test_what_is_written(detector, model_dir):
    assert sorted(p.name for p in model_dir.iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    config = json.loads((model_dir / "config.json").read_text())
    assert config == {
        "detector_version": 1,
        "recipe": detector.recipe,
        "classes": list(CLASSES),
        "test_side": 64,
        "max_side": 100,
        "mean": list(MEAN),
        "std": list(STD),
        "weights_sha256": sha256_file(model_dir / "model.safetensors"),
        **FACTS,
    }
    weights = load_file(model_dir / "model.safetensors")
    assert {t.dtype for t in weights.values()} == {torch.float32, torch.int64}
    assert detector.training  # as it was


def test_facts_do_not_overwrite_what_loading_needs(detector, tmp_path):
    with pytest.raises(ValueError, match="classes"):
        keep(
            tmp_path, detector, CLASSES, test_side=64, max_side=100, mean=MEAN, std=STD,
            facts={"classes": 3},
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_half_written_over_an_older_one_is_no_detector(detector, damaged, monkeypatch):
    def fails(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(saved_model, "write_json", fails)
    with pytest.raises(OSError, match="disk full"):
        kept_in(damaged, detector)
    with pytest.raises(UserError, match="not written to the end"):
        load_detector(damaged)


@pytest.mark.slow
def test_the_example_of_the_readme_runs(model_dir):
    text = (model_dir / "README.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    [facts] = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert json.loads(facts) == FACTS
    assert len(code.splitlines()) == 5
    picture(60, 90).save(model_dir.parent / "photo.jpg")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=model_dir.parent, capture_output=True, text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines
    assert all(re.match(r"(cat|dog|Wellensittich) 0\.\d\d \[", line) for line in lines)


def test_importing_the_package_is_light():
    code = "import sys, eval.detection; print('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout == "False\n"
    with pytest.raises(ImportError):
        from eval.detection import no_such_name  # noqa: F401  # that it is missing is the test


def test_damage_is_told(damaged):
    weights = damaged / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UserError, match="sha256 differ"):
        load_detector(damaged)
    weights.write_bytes(data[: len(data) // 2])
    change(damaged, weights_sha256=sha256_file(weights))
    with pytest.raises(UserError, match="cannot be read"):
        load_detector(damaged)
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors in .* cannot be read"):
        load_detector(damaged)


@pytest.mark.parametrize("how", ["less", "more", "shape"])
def test_weights_must_fit_to_the_last_tensor(damaged, how):
    weights = damaged / "model.safetensors"
    state = load_file(weights)
    name = next(n for n, t in state.items() if t.ndim == 4)
    if how == "less":
        del state[name]
    elif how == "more":
        state["another"] = torch.zeros(1)
    else:
        state[name] = state[name][:-1].clone()
    save_file(state, weights)
    change(damaged, weights_sha256=sha256_file(weights))
    with pytest.raises(UserError, match=r"cannot be rebuilt here: .*" + (
        "another" if how == "more" else re.escape(name)
    )):  # fmt: skip
        load_detector(damaged)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("recipe", None),
        ("recipe", {"architecture": "hf-hub:someone/something"}),
        ("recipe", {"architecture": "resnet10t", "model_args": {"checkpoint_path": "bad.pth"}}),
        ("classes", []),
        ("classes", ["cat", "dog", 3]),
        ("classes", ["cat", "dog"]),  # the network knows three
        ("test_side", 0),
        ("test_side", "800"),
        ("max_side", True),
        ("mean", [0.5, 0.5]),
        ("mean", 0.5),
        ("std", [0.5, 0.0, 0.5]),
        ("std", None),
        ("weights_sha256", None),
    ],
)
def test_a_config_that_cannot_be(damaged, key, value):
    change(damaged, **{key: value})
    with pytest.raises(UserError, match=f"'{key}' cannot be"):
        load_detector(damaged)


def test_recipes_that_build_nothing(damaged):
    recipe = json.loads((damaged / "config.json").read_text())["recipe"]
    for wrong in ({**recipe, "channels": -1}, {**recipe, "architecture": "no_such_net"}):
        change(damaged, recipe=wrong)
        with pytest.raises(UserError, match="cannot be rebuilt here"):
            load_detector(damaged)


def test_folders_that_hold_no_detector(damaged, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_detector(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no config\.json; name"):
        load_detector(tmp_path)
    config = damaged / "config.json"
    change(damaged, detector_version=2)
    with pytest.raises(UserError, match=r"version '2'.*reads 1"):
        load_detector(damaged)
    for text in ('{"architecture": "resnet50"}', "[1]"):
        config.write_text(text)
        with pytest.raises(UserError, match="no 'detector_version'"):
            load_detector(damaged)
    for data in (b"{", b"\xff\xfe\x00", b"[" * 100_000):
        config.write_bytes(data)
        with pytest.raises(UserError, match="not valid JSON"):
            load_detector(damaged)


def test_loading_leaves_random_numbers_alone(model_dir):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_detector(model_dir, "cpu")
    assert torch.equal(torch.rand(3), expected)


def test_unknown_device(model_dir):
    with pytest.raises(UserError, match="abacus"):
        load_detector(model_dir, "abacus")


def bright_pixels(_: Detector, batch: Batch) -> list[dict[str, torch.Tensor]]:
    """In the place of a network: the bright pixels of each image, and the whole of it."""
    outputs = []
    for image, (h, w) in zip(batch.images, batch.sizes, strict=True):
        ys, xs = torch.nonzero(image[0, :h, :w] > 0, as_tuple=True)
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        outputs.append(
            {
                "boxes": torch.tensor([[0, 0, w, h], box], dtype=torch.float32),
                "scores": torch.tensor([0.3, 0.9]),
                "labels": torch.tensor([1, 2]),
            }
        )
    return outputs


@pytest.fixture
def bright(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Detector, "detect", bright_pixels)


def spot(height: int = 60, width: int = 120) -> Image.Image:
    """Black with a white box at 20, 10 to 50, 40."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[10:40, 20:50] = 255
    return Image.fromarray(pixels)


@pytest.mark.usefixtures("bright")
def test_files_and_images_upright_in_their_own_pixels(model_dir, tmp_path):
    loaded = load_detector(model_dir, "cpu")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned right by 90 degrees
    lying = spot().transpose(Image.Transpose.ROTATE_90)
    lying.save(tmp_path / "turned.png", exif=exif)
    spot().save(tmp_path / "plain.png")
    spot().convert("L").save(tmp_path / "grey.png")
    in_memory = Image.open(tmp_path / "turned.png")
    images = [
        tmp_path / "turned.png",
        str(tmp_path / "plain.png"),
        tmp_path / "grey.png",
        in_memory,
    ]
    for batch_size in (1, 3):
        for found in loaded.detect(images, batch_size=batch_size):
            assert found.labels.tolist() == [1, 0]
            assert np.allclose(found.boxes[0], [20, 10, 50, 40], atol=2)
            assert found.boxes[1].tolist() == [0, 0, 120, 60]
    [only] = loaded.detect(images[:1], least=0.5)
    assert only.labels.tolist() == [1]
    assert only.boxes.shape == (1, 4)
    [none] = loaded.detect(images[:1], least=1)
    assert none.boxes.shape == (0, 4)
    assert loaded.detect([]) == []


def test_what_cannot_be_detected(model_dir, tmp_path):
    loaded = load_detector(model_dir, "cpu")
    (tmp_path / "text.jpg").write_text("no image")
    for wrong, message in (
        ("photo.jpg", r"detect\(\[image\]\)"),
        ([tmp_path / "text.jpg"], "text.jpg' cannot be read"),
        ([tmp_path / "nowhere.jpg"], "nowhere.jpg' cannot be read"),
    ):
        with pytest.raises(UserError, match=message):
            loaded.detect(wrong)
    with pytest.raises(UserError, match="between 0 and 1, got 50"):
        loaded.detect([], least=50)
    with pytest.raises(UserError, match="batch_size must be 1 or more"):
        loaded.detect([], batch_size=0)


@pytest.mark.usefixtures("bright")
def test_command_draws_all_that_can_be_read(model_dir, tmp_path):
    for name in ("a/photo.png", "b/photo.png", "b/PHOTO.png", "out/photo.detected-2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        spot().save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes((tmp_path / "a/photo.png").read_bytes()[:60])
    names = [
        "a/photo.png", "broken.png", "nowhere.png", "b/photo.png", "b/PHOTO.png",
        "out/photo.detected-2.png",
    ]  # fmt: skip
    paths = [tmp_path / name for name in names]
    before = paths[-1].read_bytes()
    out = tmp_path / "out"
    for _ in range(2):  # a second run draws over its own pictures
        done = detect_pictures(model_dir, paths, out, 0.5, "cpu")
        assert [Path(image["image"]) for image in done.images] == [paths[0], *paths[3:]]
        assert [Path(image["drawn"]).name for image in done.images] == [
            "photo.detected.png", "photo.detected-3.png", "PHOTO.detected-4.png",
            "photo.detected-2.detected.png",
        ]  # fmt: skip
        assert len(list(out.iterdir())) == 5
        assert paths[-1].read_bytes() == before
    assert [re.findall(r"(\w+)\.png' cannot be read", f) for f in done.failures] == [
        ["broken"], ["nowhere"],
    ]  # fmt: skip
    [found] = done.images[0]["objects"]
    assert found["class"] == "dog"
    assert found["score"] == 0.9
    assert np.allclose(found["box"], [20, 10, 50, 40], atol=2)
    json.dumps(done.images)
    with Image.open(out / "photo.detected.png") as drawn:
        colours = np.unique(np.asarray(drawn.convert("RGB")).reshape(-1, 3), axis=0)
    assert len(colours) > 2  # more than black and white


@pytest.mark.usefixtures("bright")
def test_command_without_pictures(model_dir, tmp_path, monkeypatch):
    spot().save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    done = detect_pictures(model_dir, [Path("photo.png")], None, 0.2)
    assert [o["class"] for o in done.images[0]["objects"]] == ["dog", "cat"]
    assert done.images[0]["drawn"] is None
    assert [p.name for p in tmp_path.iterdir()] == ["photo.png"]
    with pytest.raises(UserError, match="name at least one image"):
        detect_pictures(model_dir, [], None)
    with pytest.raises(UserError, match="between 0 and 1"):
        detect_pictures(model_dir, [Path("photo.png")], None, 2)
    with pytest.raises(UserError, match="cannot be written"):
        detect_pictures(model_dir, [Path("photo.png")], Path("photo.png"))

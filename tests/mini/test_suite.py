"""The mini suite: frozen pixels, balanced classes, true labels, readable files, difficulty."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.random import RandomState
from PIL import Image

from eval.data.load import load_task
from eval.mini import factors, painters, suite

TASKS = tuple(factors.FACTOR_TASKS)

# sha256 of images 0 and 1 of every class (train) and image 0 (test). If one changes, undo the
# change of the generator or bump MINI_VERSION and renew all of them.
FROZEN: dict[str, str] = {
    "digits": "640ef916d99059fb3401735b0689648cb6143619e9fcd69cca034a14fa3c8900",
    "orientation": "666e033ef73c88b4f2f034b1fa089834e00c60f8274ed8e9fab37e0c783f6042",
    "frequency": "0290c11a83671f50319762d191a5fa47394da99f5cb6a5a25a0f2b66fca989bf",
    "hue": "559ea04579abe9e00b1a5bbc7bd2b7bd0468f209805b73ffb7553c5846a895c2",
    "texture": "3e0211a6d64220c52ea0262a2ff349bd5257ab161847c0373aecfb184a4160d2",
    "shape": "174c479586b0842bd3312e8bb80191738e3b9a1251bb5aab1115b1123ff301f4",
    "symmetry": "352b35534f997e70e91009f3fe0726e4e35ea21c2ea0c7eaaa6630e2b1fa6ccd",
    "count": "373080e381822897accf3f52c8d3cc300d4549934324dd96c5c915d77106626a",
    "relation": "7c288c3df566b554ef83fdf748c5a74cd7c9e19efa47b4f8ad482ef232ce1c9c",
    "glyph": "0ca2e1dc686752823a1de212ea58c4d4d075ab2a6b9dc89c0a965901e25fde65",
}

# Test accuracy in percent that logistic regression on raw pixels must not reach.
RAW_PIXEL_BOUND = 60.0


def images_of(name: str, split: suite.Split, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first images of every class, [classes * per_class, 64, 64, 3], and labels."""
    classes = range(len(factors.FACTOR_TASKS[name].classes))
    images = [suite.draw(name, split, c, i) for c in classes for i in range(per_class)]
    return np.stack(images), np.repeat(np.arange(len(classes)), per_class)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every task of the suite, written once."""
    root = tmp_path_factory.mktemp("mini")
    for name in ("digits", *TASKS):
        suite.write_task(name, root / name)
    return root


def pixel_digest(name: str) -> str:
    digest = hashlib.sha256(images_of(name, "train", 2)[0].tobytes())
    digest.update(images_of(name, "test", 1)[0].tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("name", TASKS)
def test_pixels_are_frozen(name: str) -> None:
    assert pixel_digest(name) == FROZEN[name], "generator changed: bump MINI_VERSION"


def test_digits_are_frozen() -> None:
    digest = hashlib.sha256()
    for part in suite.digits_split():
        digest.update(part.tobytes())
    assert digest.hexdigest() == FROZEN["digits"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", *TASKS])
def test_split_hashes_are_declared(name: str, written: Path, tmp_path: Path) -> None:
    assert load_task(f"parquet:{written / name}", tmp_path).split_hash == factors.SPLIT_HASHES[name]


def test_import_is_cheap() -> None:
    heavy = "{'torch', 'numpy', 'sklearn', 'pyarrow'}"
    code = (
        f"import sys, eval.mini.suite; assert not {heavy} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(suite.__file__).parents[2])


def test_declared_facts() -> None:
    assert {task.level for task in factors.FACTOR_TASKS.values()} == {"low", "mid", "high"}
    for name, task in factors.FACTOR_TASKS.items():
        assert task.name == name
        assert len(set(task.classes)) == len(task.classes) >= 5
        least = (40, 20) if name == "glyph" else (100, 50)
        assert (task.train_per_class, task.test_per_class) >= least
        assert task.description.endswith("?")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("nope", "train", 0, 0), KeyError),
        (("digits", "train", 0, 0), KeyError),
        (("hue", "validation", 0, 0), ValueError),
        (("hue", "train", 8, 0), ValueError),
        (("hue", "train", -1, 0), ValueError),
        (("hue", "train", 0, -1), ValueError),
    ],
)
def test_draw_refuses(arguments: tuple, error: type[Exception]) -> None:
    with pytest.raises(error):
        suite.draw(*arguments)


# The files ---------------------------------------------------------------------------------------


def test_unknown_task_is_a_key_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="digits, orientation"):
        suite.write_task("nope", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_files_are_balanced_distinct_and_shuffled(written: Path, name: str) -> None:
    task = factors.FACTOR_TASKS[name]
    seen: set[bytes] = set()
    total = 0
    for split, per_class in (("train", task.train_per_class), ("test", task.test_per_class)):
        rows = pq.read_table(written / name / f"{split}-00000-of-00001.parquet").to_pydict()
        assert np.bincount(rows["label"]).tolist() == [per_class] * len(task.classes)
        assert rows["label"] != sorted(rows["label"])
        seen.update(image["bytes"] for image in rows["image"])
        total += len(rows["label"])
    assert len(seen) == total  # no duplicates, within or across splits


def test_digits_split_is_stratified_and_whole() -> None:
    from sklearn.datasets import load_digits

    train, train_labels, test, test_labels = suite.digits_split()
    assert train.dtype == test.dtype == np.uint8
    assert (train.min(), train.max()) == (0, 255)
    share = np.bincount(test_labels) / np.bincount(np.concatenate([train_labels, test_labels]))
    assert np.abs(share - 0.3).max() < 0.01
    pixels = {image.tobytes() for image in (*train, *test)}
    assert len(pixels) == len(train) + len(test) == 1797  # disjoint: no image occurs twice
    assert pixels == {
        np.rint(i * 255 / 16).astype(np.uint8).tobytes() for i in load_digits().images
    }


@pytest.mark.slow
def test_rows_hold_what_draw_returns(written: Path) -> None:
    rows = pq.read_table(written / "shape" / "test-00000-of-00001.parquet").to_pylist()
    drawn = images_of("shape", "test", 50)[0]
    for row in rows[:20]:
        number = int(row["image"]["path"].removesuffix(".bmp").split("-")[1])
        decoded = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))
        np.testing.assert_array_equal(decoded, drawn[number])
        assert row["label"] == number // 50


@pytest.mark.parametrize("shape", [(8, 8), (3, 5), (64, 64, 3), (5, 3, 3)])
def test_bmp_round_trip(shape: tuple[int, ...]) -> None:
    image = RandomState(0).randint(0, 256, shape).astype(np.uint8)
    decoded = Image.open(io.BytesIO(suite.encode_bmp(image)))
    assert decoded.mode == ("L" if len(shape) == 2 else "RGB")
    np.testing.assert_array_equal(np.asarray(decoded), image)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "relation"])
def test_datasets_reads_images_and_class_names(written: Path, tmp_path: Path, name: str) -> None:
    datasets = pytest.importorskip("datasets")
    file = str(written / name / "test-00000-of-00001.parquet")
    data = datasets.Dataset.from_parquet(file, cache_dir=str(tmp_path))
    classes = suite.DIGITS_CLASSES if name == "digits" else factors.FACTOR_TASKS[name].classes
    assert data.features["label"].names == list(classes)
    assert data[0]["image"].size == ((8, 8) if name == "digits" else (64, 64))


@pytest.mark.slow
def test_written_whole_or_not_at_all(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["test-00000-of-00001.parquet", "train-00000-of-00001.parquet"]
    for folder in written.iterdir():
        assert sorted(file.name for file in folder.iterdir()) == names

    def fail(rows: list, classes: tuple, path: Path) -> None:
        path.write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(suite, "_write_parquet", fail)
    with pytest.raises(OSError, match="disk full"):
        suite.write_task("digits", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_writing_again_gives_the_same_rows(written: Path, tmp_path: Path) -> None:
    suite.write_task("frequency", tmp_path)
    for file in tmp_path.iterdir():
        assert pq.read_table(file).equals(pq.read_table(written / "frequency" / file.name))


# The labels are true -----------------------------------------------------------------------------


def test_hue_patch_has_the_hue_of_its_class() -> None:
    for label in range(8):
        for index in range(10):
            scene = painters.paint_hue(
                RandomState(100 * label + index), label
            )  # no light, no noise
            pixels = Image.fromarray(np.rint(scene * 255).astype(np.uint8)).convert("HSV")
            hue, saturation, _ = np.asarray(pixels).reshape(-1, 3).T.astype(float)
            vivid = hue[saturation > 0.72 * 255] * 360 / 255
            error = np.abs((vivid - 45 * label + 180) % 360 - 180)
            assert len(vivid) > 60
            assert np.median(error) < 12


def peak_frequency(plane: np.ndarray) -> tuple[float, float]:
    """Return (x, y) of the strongest frequency of a plane [64, 64], in cycles an image."""
    window = np.hanning(64)[:, None] * np.hanning(64)
    power = np.abs(np.fft.rfft2((plane - plane.mean()) * window, (256, 256)))
    power[:4, :4] = power[-3:, :4] = 0.0  # the light, not the grating
    row, column = np.unravel_index(power.argmax(), power.shape)
    return column / 4, (row - 256 if row > 128 else row) / 4


def test_frequency_and_orientation_are_in_the_spectrum() -> None:
    share: dict[str, float] = {}
    for name in ("frequency", "orientation"):
        right = 0
        images, labels = images_of(name, "train", 20)
        for image, label in zip(images, labels, strict=True):
            x, y = peak_frequency(image.astype(float).mean(axis=2))
            if name == "frequency":
                guess = round(np.log(np.hypot(x, y) / 2.0) / np.log(1.5))
            else:  # stripes run across their frequency; y points down
                guess = round((np.rad2deg(np.arctan2(x, y)) % 180) / 22.5) % 8
            right += int(guess == label)
        share[name] = right / len(labels)
    assert share["frequency"] > 0.8
    assert share["orientation"] > 0.75  # the rest are wide irregular bars: no single peak


SYMMETRIES = {
    "left-right": lambda plane: plane[:, ::-1],
    "top-bottom": lambda plane: plane[::-1],
    "half-turn": lambda plane: plane[::-1, ::-1],
    "quarter-turn": lambda plane: np.rot90(plane),
}
HELD = {
    "none": set(),
    "left-right": {"left-right"},
    "top-bottom": {"top-bottom"},
    "both": {"left-right", "top-bottom", "half-turn"},
    "half-turn": {"half-turn"},
    "quarter-turn": {"half-turn", "quarter-turn"},
}


@pytest.mark.parametrize("kind", factors.FACTOR_TASKS["symmetry"].classes)
def test_symmetry_holds_and_no_other_does(kind: str) -> None:
    for seed in range(20):
        plane = painters.hook_coverage(*painters.symmetric_strokes(RandomState(seed), kind))
        for name, move in SYMMETRIES.items():
            error = np.abs(plane - move(plane)).sum() / plane.sum()
            assert (error < 1e-6) if name in HELD[kind] else (error > 0.1), (name, seed)


def test_symmetry_is_not_told_by_the_number_of_strokes() -> None:
    for seed in range(20):
        counts = {len(painters.symmetric_strokes(RandomState(seed), kind)[1]) for kind in HELD}
        assert len(counts) == 1


def test_count_objects_are_separate_components(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.ndimage import label as components

    black_and_white = np.array([[0.0] * 3, [1.0] * 3, [1.0] * 3])
    monkeypatch.setattr(painters, "palette", lambda rng, count: black_and_white)
    monkeypatch.setattr(painters, "background", lambda rng, colour: np.zeros((64, 64, 3)))
    for label in range(6):
        for seed in range(20):
            scene = painters.paint_count(RandomState(seed), label)
            assert components(scene[..., 0] > 0.4, np.ones((3, 3)))[1] == label + 1


def test_relations_hold_in_the_plane() -> None:
    for seed in range(200):
        for kind in factors.FACTOR_TASKS["relation"].classes:
            disc, radius, square, side, tilt = painters.place_pair(RandomState(seed), kind)
            dx, dy = disc - square
            x, y = (float(np.abs(part)) for part in painters.turn(dx, dy, tilt))
            nearest = np.hypot(max(x - side, 0), max(y - side, 0))  # 0 inside the square
            assert np.abs(disc).max() + radius < 1.0
            if kind == "inside":
                assert max(x, y) + radius < side
            elif kind == "overlapping":
                assert nearest < radius
                assert max(x, y) + radius > side
            else:
                assert nearest > radius
                along, aside = (dx, dy) if kind in ("left", "right") else (dy, dx)
                assert np.sign(along) == (1 if kind in ("right", "below") else -1)
                assert abs(along) > 1.5 * abs(aside)


def test_outlines_and_glyphs_differ() -> None:
    masks = [
        painters.outline_distance(name, painters.X / 0.7, painters.Y / 0.7) < 0
        for name in factors.FACTOR_TASKS["shape"].classes
    ]
    glyphs = []
    for label in range(20):
        path = painters.curve(painters.glyph_strokes(label), 12)
        path = path - 0.5 * (path.min(axis=(0, 1)) + path.max(axis=(0, 1)))
        ends = path[:, :-1].reshape(-1, 2), path[:, 1:].reshape(-1, 2)
        glyphs.append(painters.stroke_distance(*ends) < 0.06)
    for group in (masks, glyphs):
        for i, one in enumerate(group):
            assert 0.02 < one.mean() < 0.5
            for other in group[:i]:
                assert (one & other).sum() / (one | other).sum() < 0.9


# The difficulty is what we say -------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.slow
def test_raw_pixels_do_not_solve_it(name: str) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def flat(images: np.ndarray) -> np.ndarray:  # [n, 16 * 16 * 3]
        return images.reshape(-1, 16, 4, 16, 4, 3).mean(axis=(2, 4)).reshape(len(images), -1)

    train, train_labels = images_of(name, "train", 50)
    test, test_labels = images_of(name, "test", 20)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=500))
    model.fit(flat(train), train_labels)
    assert 100 * model.score(flat(test), test_labels) < RAW_PIXEL_BOUND


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "gone"])
def test_a_damaged_file_in_the_cache_is_drawn_again(
    part: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a sentence, and the task is the same."""
    whole = load_task("digits", tmp_path)
    (path,) = tmp_path.rglob(f"{part}-*.parquet")
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes(data[: {"cut": len(data) // 2, "empty": 0}.get(how, len(data))])
    if how == "gone":
        path.unlink()
    capsys.readouterr()
    again = load_task("digits", tmp_path)
    assert capsys.readouterr().err == f"{path.parent} is damaged; it is made again\n"
    assert again.split_hash == whole.split_hash
    load_task("digits", tmp_path)
    assert capsys.readouterr().err == ""

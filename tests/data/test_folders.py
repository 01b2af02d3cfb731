"""Class folders as people bring them: which layout it is, what is taken, and what is said."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from eval.common.errors import UserError
from eval.data.inventory.split_words import Chosen, Given, choose, role_of
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.data.validation import held_out
from tests.factories import blobs, refusal


def drawn(seed: int, kind: str = "PNG", mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    pixels = np.random.RandomState(seed).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(out, kind)
    return out.getvalue()


def class_folders(root: Path, names: Sequence[str] = ("cat", "dog"), each: int = 4) -> Path:
    """root/CLASS/IMAGE; the images of a folder differ from those of any other."""
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        seed = abs(hash(str(root))) % 2**31
        for i, image in enumerate(blobs(number, each, seed, size=6)):
            (root / name / f"{i}.png").write_bytes(image)
    return root


def loaded(root: Path, options: str = "") -> TaskData:
    with tempfile.TemporaryDirectory() as cache:
        return load_task(f"imagefolder:{root}{options}", Path(cache))


def files_below(root: Path) -> int:
    """Counted by the system's own walk."""
    return sum(len(files) for _, _, files in os.walk(root, followlinks=True))


def adds_up(task: TaskData) -> bool:
    found = task.inventory
    left = sum(one.count for one in found.left_out)
    return found.found == found.taken + left and found.taken == len(task.train) + len(task.test)


# --------------------------------------------------------------------------- split words


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("train", ("train", ())), ("Training", ("train", ())), ("TRAIN", ("train", ())),
        ("training_set", ("train", ("set",))), ("TrainSet", ("train", ("set",))),
        ("seg_test", ("test", ("seg",))), ("test2017", ("test", ("2017",))),
        ("val", ("validation", ())), ("valid", ("validation", ())), ("Dev", ("validation", ())),
        ("EVAL", ("validation", ())), ("Testing", ("test", ())),
        ("train_test", None), ("cat", None), ("trainer", None), ("", None), ("contest", None),
    ],
)  # fmt: skip
def test_roles(name: str, role: object) -> None:
    assert role_of(name) == role


@pytest.mark.parametrize(
    ("names", "train", "test", "unused"),
    [
        (["Training", "Testing"], "Training", "Testing", ()),
        (["train", "val", "test"], "train", "test", ("val",)),
        (["train", "valid"], "train", "valid", ()),
        (["seg_train", "seg_test", "seg_pred"], "seg_train", "seg_test", ()),
        (["train", "test", "extra_train"], "train", "test", ()),
        (["train station", "test tube"], "", "", ()),
        (["train"], "", "", ()),
        (["test", "val"], "", "", ()),
    ],
)
def test_choice(names: list[str], train: str, test: str, unused: tuple[str, ...]) -> None:
    found = choose(names, "it")
    assert (found and (found.train, found.test, found.validation)) == (
        (train, test, unused) if train else None
    )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train", "Train", "test"], "it has Train and train; say which with ?train=NAME"),
        (["train", "val", "dev"], "it has dev and val; say which"),
        (["train", "test", "testing"], "it has test and testing; say which"),
        (["train", "test", "val", "dev"], "it has dev and val; say which with ?validation=NAME"),
        (["train2014", "val2014", "train2017", "val2017"], "it has train2014 and train2017"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(names: list[str], said: str) -> None:
    assert said in refusal(choose, names, "it")


def test_a_choice_of_the_users_own() -> None:
    assert choose(["train", "val", "dev"], "it", Given(test="dev")) == Chosen("train", "dev")
    folds = ["fold1", "fold2", "fold3"]
    assert choose(folds, "it", Given("fold3", "fold1")) == Chosen("fold3", "fold1")
    assert choose(folds, "it", Given("fold3", "fold1", "fold2")) == Chosen(
        "fold3", "fold1", ("fold2",)
    )
    several = ["train", "val", "dev", "test"]
    assert choose(several, "it", Given(validation="dev")) == Chosen("train", "test", ("dev",))
    assert choose(several, "it", Given(test="test")) == Chosen("train", "test")
    said = refusal(choose, ["train", "val"], "it", Given("train", "vall"))
    assert said == "it has no 'vall'; did you mean 'val'?"


# --------------------------------------------------------------------------- parts


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"), ("Train", "Test"), ("TRAIN", "VAL"),
        ("training_set", "test_set"), ("seg_train", "seg_test"), ("train", "valid"),
        ("train", "dev"), ("train", "eval"), ("train", "validation"),
    ],
)  # fmt: skip
def test_parts_by_any_word(train: str, test: str, tmp_path: Path) -> None:
    """Frozen folders of train/ and val/ have the same images in the same split."""
    class_folders(tmp_path / "x" / train, each=5)
    class_folders(tmp_path / "x" / test, each=3)
    task = loaded(tmp_path / "x")
    assert (task.classes, len(task.train), len(task.test)) == (("cat", "dog"), 10, 6)
    (tmp_path / "x" / train).rename(tmp_path / "x" / "first")
    (tmp_path / "x" / "first").rename(tmp_path / "x" / "train")
    (tmp_path / "x" / test).rename(tmp_path / "x" / "second")
    (tmp_path / "x" / "second").rename(tmp_path / "x" / "test")
    assert loaded(tmp_path / "x").split_hash == task.split_hash
    said = task.inventory.said
    assert bool(said) == (test.lower() in ("val", "valid", "dev", "eval", "validation"))
    assert loaded(tmp_path / "x", "?train=train&test=test").inventory.warnings() == ()


def test_a_validation_part_beside_a_test(tmp_path: Path) -> None:
    for part, each in (("train", 6), ("val", 3), ("test", 4)):
        class_folders(tmp_path / "x" / part, each=each)
    task = loaded(tmp_path / "x")
    assert (len(task.train), len(task.test)) == (18, 8)
    assert task.inventory.said == (
        "val is what settings are chosen on, and trained on with train in the end",
    )
    assert adds_up(task)
    held = held_out(task, 0.2, 0)
    order = np.argsort(task.train.rows)
    read = dict(task.train.source.images(task.train.rows[order]))
    val = {file.read_bytes() for file in (tmp_path / "x" / "val").rglob("*.png")}
    assert len(val) == held.sum() == 6
    for row, is_held in zip(task.train.rows.tolist(), held.tolist(), strict=True):
        assert (read[row] in val) == is_held
        assert (f"{os.sep}val{os.sep}" in task.train.source.describe(row)) == is_held
    named = loaded(tmp_path / "x", "?train=train&test=test&validation=val")
    assert (named.split_hash, named.inventory.warnings()) == (task.split_hash, ())
    assert loaded(tmp_path / "x", "?validation=val").split_hash == task.split_hash
    alone = loaded(tmp_path / "x", "?train=train&test=test")
    assert (len(alone.train), alone.inventory.warnings()) == (12, ())
    assert alone.split_hash != task.split_hash
    assert held_out(alone, 0.2, 0).sum() == 2


def test_what_is_chosen_on_is_part_of_the_split_hash(tmp_path: Path) -> None:
    """The same images in train, others of them held out: another setting may be chosen."""
    for part, each in (("train", 6), ("val", 4), ("test", 4)):
        class_folders(tmp_path / "x" / part, each=each)
    before = loaded(tmp_path / "x")
    for name in ("cat", "dog"):
        ours, theirs = (tmp_path / "x" / part / name / "0.png" for part in ("train", "val"))
        content = ours.read_bytes()
        ours.write_bytes(theirs.read_bytes())
        theirs.write_bytes(content)
    after = loaded(tmp_path / "x")
    assert after.train.hash == before.train.hash
    assert after.split_hash != before.split_hash


def test_a_flat_test_has_no_labels(tmp_path: Path) -> None:
    class_folders(tmp_path / "x" / "train")
    (tmp_path / "x" / "test").mkdir()
    (tmp_path / "x" / "test" / "1.png").write_bytes(drawn(1))
    said = refusal(loaded, tmp_path / "x")
    assert f"{tmp_path / 'x' / 'test'} holds images without class folders, so that none has" in said
    class_folders(tmp_path / "x" / "val", each=3)
    task = loaded(tmp_path / "x")
    assert len(task.test) == 6
    assert task.inventory.said[0] == "test has no labels: val is scored in its place"
    assert adds_up(task)


@pytest.mark.parametrize("sides", [("train", "test"), ("Training", "valid")])
def test_parts_within_the_classes(sides: tuple[str, str], tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for side, each in zip(sides, (5, 2), strict=True):
            class_folders(tmp_path / "x" / name, [side], each)
    task = loaded(tmp_path / "x")
    assert (task.classes, len(task.train), len(task.test)) == (("cat", "dog"), 10, 4)
    assert "the class folders hold the parts" in task.inventory.said[0]
    assert adds_up(task)
    (tmp_path / "y").mkdir()
    for part, side in zip(("train", "test"), sides, strict=True):  # the same the usual way round
        for name in ("cat", "dog"):
            (tmp_path / "y" / part).mkdir(exist_ok=True)
            (tmp_path / "x" / name / side).rename(tmp_path / "y" / part / name)
    assert loaded(tmp_path / "y").split_hash == task.split_hash


def test_parts_that_hold_themselves(tmp_path: Path) -> None:
    """seg_train/seg_train/CLASS, as one well-known archive unpacks."""
    plain, root = tmp_path / "plain", tmp_path / "x"
    for part in ("seg_train", "seg_test"):
        class_folders(root / part / part)
        shutil.copytree(root / part / part, plain / part)
        put(root, f"{part}/.DS_Store", b"x")
        put(root, f"{part}/lone.png", drawn(3))
    task = loaded(root)
    assert task.split_hash == loaded(plain).split_hash
    assert adds_up(task)
    assert task.inventory.found == files_below(root)
    assert task.inventory.warnings() == (
        "left out: images beside the parts (2: seg_test/lone.png, seg_train/lone.png)",
    )


def test_a_flat_validation_is_not_used(tmp_path: Path) -> None:
    for part in ("train", "test"):
        class_folders(tmp_path / "x" / part)
    put(tmp_path / "x", "val/1.png", drawn(2))
    task = loaded(tmp_path / "x")
    assert task.validation is None
    assert task.inventory.warnings() == ("val has no labels and is not used",)
    assert adds_up(task)


def test_a_class_called_train(tmp_path: Path) -> None:
    """With folders of its own or without, among other classes."""
    root = class_folders(tmp_path / "x", ["bus", "car", "train"], each=10)
    assert loaded(root).classes == ("bus", "car", "train")
    (root / "train" / "steam").mkdir()
    (root / "train" / "0.png").rename(root / "train" / "steam" / "0.png")
    task = loaded(root)
    assert task.classes == ("bus", "car", "train")
    assert len(task.train) + len(task.test) == 30


def test_folders_beside_the_parts_are_named(tmp_path: Path) -> None:
    for part in ("train", "test", "unlabelled"):
        class_folders(tmp_path / "x" / part)
    (tmp_path / "x" / "lone.png").write_bytes(drawn(1))
    (tmp_path / "x" / "README.md").write_text("hello")
    task = loaded(tmp_path / "x")
    assert adds_up(task)
    assert task.inventory.found == files_below(tmp_path / "x")
    assert task.inventory.warnings() == (
        "left out: images beside the parts (1: lone.png)",
        "left out: files of folders beside train and test "
        "(8: unlabelled/cat/0.png, unlabelled/cat/1.png, unlabelled/cat/2.png, ..)",
    )


@pytest.mark.parametrize("inner", [False, True])
def test_a_part_beside_the_pair_is_warned_of(inner: bool, tmp_path: Path) -> None:
    """train_1 beside train_0 and test_0 may be half of train, or another fold."""
    root = tmp_path / "x"
    for part in ("train_0", "train_1", "test_0"):
        for name in ("cat", "dog"):
            folders = (name, part) if inner else (part, name)
            class_folders(root / folders[0], [folders[1]])
    task = loaded(root)
    assert adds_up(task)
    first = "cat/train_1/0.png" if inner else "train_1/cat/0.png"
    (warning,) = (w for w in task.inventory.warnings() if "left out" in w)
    assert warning.startswith(f"left out: files of folders beside train_0 and test_0 (8: {first}")
    named = loaded(root, "?train=train_0&test=test_0") if not inner else None
    assert named is None or named.inventory.warnings() == ()


# --------------------------------------------------------------------------- what is in them


JUNK: list[str] = [
    "train/cat/.ipynb_checkpoints/0-checkpoint.png",
    "train/cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
    "train/__MACOSX/cat/._0.png",
    "__MACOSX/train/cat/0.png",
    "train/.hidden/0.png",
    "test/dog/._1.png",
    "test/dog/Thumbs.db",
    "test/dog/.DS_Store",
    "test/$RECYCLE.BIN/0.png",
    ".ipynb_checkpoints/0.png",
]


def put(root: Path, name: str, content: bytes) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)


def test_what_programs_leave_behind_changes_nothing(tmp_path: Path) -> None:
    root = tmp_path / "x"
    for part in ("train", "test"):
        class_folders(root / part)
    before = loaded(root)
    for seed, name in enumerate(JUNK):
        put(root, name, drawn(seed))
    task = loaded(root)
    assert (task.split_hash, task.classes) == (before.split_hash, ("cat", "dog"))
    assert adds_up(task)
    (left,) = task.inventory.left_out
    assert (left.count, left.expected) == (len(JUNK), True)
    assert task.inventory.warnings() == ()


names = st.sampled_from(["0.png", "1.JPG", "notes.txt", "x.heic", "none", "._0.png", "Thumbs.db"])
steps = st.sampled_from(
    ["cat", "dog", "deep", "@eaDir", "__MACOSX", ".git", "train", "test", "val"]
)
paths = st.tuples(st.lists(steps, max_size=4), names).map(lambda p: "/".join([*p[0], p[1]]))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sets(paths, max_size=14), st.sampled_from(["parts", "whole", "inner"]))
def test_taken_and_left_out_are_all_that_was_found(files: set[str], form: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, "x")
        outer = {"parts": ("train", "test"), "whole": ("",), "inner": ("cat", "dog")}[form]
        for part in outer:
            inside = ["train", "test"] if form == "inner" else ["cat", "dog"]
            class_folders(root / part, inside)
        for seed, file in enumerate(sorted(files)):
            place = root / file
            if not any(p.is_file() for p in place.parents) and not place.is_dir():
                put(root, file, drawn(seed))
        try:
            task = loaded(root)
        except UserError:  # a class that train has not, or what cannot be told apart
            event("refused")
            return
        event("read")
        assert adds_up(task)
        assert task.inventory.found == files_below(root)


SAVED = [("0.JFIF", "JPEG"), ("1.PNG", "PNG"), ("2", "PNG"), ("3", "JPEG"), ("4.tga", "TGA")]
SAVED += [("5.jp2", "JPEG2000")] * bool(features.check("jpg_2000"))
SAVED += [("6.avif", "AVIF")] * bool(features.check("avif"))


@pytest.mark.parametrize(("name", "kind"), SAVED)
def test_every_format_that_pillow_reads_is_an_image(name: str, kind: str, tmp_path: Path) -> None:
    root = class_folders(tmp_path / "x", each=6)
    put(root, f"cat/{name}", drawn(5, kind))
    task = loaded(root)
    assert len(task.train) + len(task.test) == 13
    assert task.inventory.left_out == ()


def test_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "x", each=6)
    put(root, "cat/a.svg", b"<svg/>")
    put(root, "dog/b.DCM", b"x")
    put(root, "dog/c.txt", b"x")
    put(root, "dog/LICENSE", b"no picture")
    task = loaded(root)
    assert task.inventory.warnings() == (
        "left out: .svg images, which cannot be read here; convert them to PNG or JPEG "
        "(1: cat/a.svg)",
        "left out: .dcm images, which cannot be read here; convert them to PNG or JPEG "
        "(1: dog/b.DCM)",
    )
    assert adds_up(task)
    for file in root.rglob("*.png"):
        file.rename(file.with_suffix(".svg"))
    said = refusal(loaded, root)
    assert "holds no image files such as .jpg or .png; left out: .svg images" in said


def test_images_deeper_and_beside_are_said(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "x", each=6)
    put(root, "cat/siamese/9.png", drawn(9))
    put(root, "stray.png", drawn(8))
    task = loaded(root)
    assert len(task.train) + len(task.test) == 13
    assert task.inventory.warnings() == (
        "1 image in folders below a class folder, such as cat/siamese: counted to the outer class",
        "left out: images beside the class folders (1: stray.png)",
    )


def test_links(tmp_path: Path) -> None:
    """To a class, to a folder below one, to an image, in a circle, and to nothing."""
    plain = class_folders(tmp_path / "x", each=6)
    expected = loaded(plain)
    root = tmp_path / "y"
    (root / "cat" / "more").mkdir(parents=True)
    (root / "dog").symlink_to(plain / "dog")
    for i in range(6):
        place = root / "cat" / ("more" if i > 2 else "") / f"{i}.png"
        place.symlink_to(plain / "cat" / f"{i}.png")
    (root / "cat" / "round").symlink_to(root)
    task = loaded(root)
    assert len(task.train) + len(task.test) == 12
    assert sorted(map(bytes, [*task.train.hashes, *task.test.hashes])) == sorted(
        map(bytes, [*expected.train.hashes, *expected.test.hashes])
    )
    (root / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    said = refusal(loaded, root)
    assert f"{root / 'cat' / 'gone.png'} is a link to" in said
    assert "which is not there; mend it or take it out" in said


def test_two_unicode_forms_of_one_class(tmp_path: Path) -> None:
    apart, together = (unicodedata.normalize(form, "café") for form in ("NFD", "NFC"))
    class_folders(tmp_path / "x" / "train", ["bar", apart])
    class_folders(tmp_path / "x" / "test", ["bar", together])
    task = loaded(tmp_path / "x")
    assert task.classes == ("bar", apart)
    assert sorted(task.test.labels.tolist()) == [0] * 4 + [1] * 4
    assert (
        "is written in two Unicode forms, which look alike: taken as one class"
        in (task.inventory.said[0])
    )
    class_folders(tmp_path / "x" / "train", [together])
    assert [len(t.classes) for t in (task, loaded(tmp_path / "x"))] == [2, 2]


def test_folders_named_by_numbers_keep_their_names(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "x", [str(i) for i in range(12)], each=4)
    task = loaded(root)
    for split in (task.train, task.test):
        for label, row in zip(split.labels, split.rows, strict=True):
            assert split.source.describe(int(row)).startswith(
                f"file {root / task.classes[label]}{os.sep}"
            )


def test_labels_are_looked_up_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 classes of 60,000 images took 10 s when each row searched all names."""

    class Names(tuple[str, ...]):
        def index(self, *args: object) -> int:
            raise AssertionError("searched")

    from eval.data import sources

    root = class_folders(tmp_path / "x", each=4)
    files = tuple(sorted(str(p.relative_to(root)) for p in root.rglob("*.png")))
    source = sources.FolderSource(root, files, Names(("cat", "dog")))
    assert source.scan().labels == [0] * 4 + [1] * 4


def test_a_class_without_an_image_is_said(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "x", each=6)
    (root / "eel").mkdir()
    task = loaded(root)
    assert task.classes == ("cat", "dog", "eel")
    assert task.inventory.said == ("1 class folder without an image ('eel')",)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda r: class_folders(r / "train"), "no part to score (test, val, validation, dev or"),
        (lambda r: [class_folders(r / "brain" / p) for p in ("Training", "Testing")],
         "holds one folder alone, brain/, which would be the only class; did you mean imagefold"),
        (lambda r: [class_folders(r / p) for p in ("train", "Training", "test")],
         "has Training and train; say which with ?train=NAME&test=NAME"),
        (lambda r: [class_folders(r / p) for p in ("train", "val", "eval")],
         "has eval and val; say which with ?train=NAME&test=NAME"),
        (lambda r: [class_folders(r, ("train", "test"))],
         "train holds images without class folders, so that none has a label"),
    ],
)  # fmt: skip
def test_folders_refused(make: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    make(tmp_path / "x")
    message = refusal(loaded, tmp_path / "x")
    assert said in message
    assert message.startswith(f"task 'imagefolder:{tmp_path / 'x'}': ")

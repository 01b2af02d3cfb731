"""What a run says of data of the user's own, keeps in the result, and refuses when asked to."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from eval.api import evaluate
from eval.common.errors import BadInput
from eval.data.load import load_task
from eval.results.store import read_result
from eval.run.plan import warnings_of
from tests.detection.drawn import some, write_voc
from tests.factories import Cli, blobs, make_task, write_parquet

MODEL = "random:test_resnet"
SAID = "there is no test: val is scored in its place"


def photos(root: Path, each: int = 6) -> Path:
    """train/ and val/ of two classes, and an image that is in no class."""
    for number, part in enumerate(("train", "val")):
        for label, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for i, image in enumerate(blobs(label, each, number, size=32)):
                (root / part / name / f"{i}.png").write_bytes(image)
    shutil.copy(root / "train" / "cat" / "0.png", root / "stray.png")
    return root


def test_a_run_warns_and_its_result_keeps_it(tmp_path: Path, cache: Path, cli: Cli) -> None:
    task = f"imagefolder:{photos(tmp_path / 'photos')}"
    options = ["--protocol", "knn", "--cache", cache, "--results", tmp_path / "results"]
    ran = cli("run", MODEL, "--task", task, *options)
    assert ran.code == 0
    (line,) = [text for text in ran.err.splitlines() if text.startswith("warning: ")]
    name = load_task(task, cache).name
    assert line == (f"warning: {name}: {SAID}; left out: images beside the parts (1: stray.png).")
    (file,) = (tmp_path / "results").rglob("*.json")
    assert read_result(file).warnings == [
        SAID, "left out: images beside the parts (1: stray.png)"
    ]  # fmt: skip
    assert line in cli("run", MODEL, "--task", task, *options).err  # the result was there
    (tmp_path / "photos" / "stray.png").unlink()
    ran = cli("run", MODEL, "--task", f"{task}?train=train&test=val", *options, "--strict")
    assert (ran.code, "warning" in ran.err) == (0, False)


def test_settings_are_chosen_on_the_users_own_validation(tmp_path: Path, cache: Path) -> None:
    """Beside a test it is held out instead of a part that is drawn, then trained on."""
    root = photos(tmp_path / "photos", each=8)
    (root / "stray.png").unlink()
    for label, name in enumerate(("cat", "dog")):
        (root / "test" / name).mkdir(parents=True)
        for i, image in enumerate(blobs(label, 5, 7, size=32)):
            (root / "test" / name / f"{i}.png").write_bytes(image)
    results = tmp_path / "results"
    (result,) = evaluate(MODEL, f"imagefolder:{root}", ["knn"], cache=cache, results=results)
    assert result.task.counts == {"classes": 2, "train": 32, "test": 10}
    assert result.warnings == [
        "val is what settings are chosen on, and trained on with train in the end"
    ]
    # 16 of the 32 images are left to choose among: k of 20 and more are not tried.
    assert "k [20, 50, 100, 200] left out: only 16 images to choose among" in result.notes


def test_strict_refuses_and_writes_nothing(tmp_path: Path, cache: Path, cli: Cli) -> None:
    task = f"imagefolder:{photos(tmp_path / 'photos')}"
    results = tmp_path / "results"
    ran = cli("run", MODEL, "--task", task, "--strict", "--cache", cache, "--results", results)
    assert ran.code == 2
    assert f"{SAID}; left out: images beside the parts (1: stray.png) (--strict)" in ran.err
    assert not list(results.rglob("*.json"))
    with pytest.raises(BadInput, match="--strict"):
        evaluate(MODEL, task, ["knn"], cache=cache, results=results, strict=True)
    sheet = tmp_path / "sheet.png"
    for strict, code in (((), 0), (("--strict",), 2)):
        ran = cli("check-task", task, "--cache", cache, "--sheet", sheet, *strict)
        assert ran.code == code
        assert f"- {SAID}\n" in ran.out
        assert ("--strict" in ran.err) == bool(code)


def test_what_check_task_knows_a_run_says(tmp_path: Path, cache: Path) -> None:
    """One image under two labels, 'Cat' and 'cat', and a class that test alone has."""
    images = [image for label in range(3) for image in blobs(label, 4, 0, size=8)]
    names = ["cat", "Cat", "dog"]
    labels = [0] * 4 + [1] * 4
    train, train_labels = [*images[:8], images[0]], [*labels, 1]
    write_parquet(tmp_path / "x" / "train-0.parquet", train, train_labels, names)
    write_parquet(tmp_path / "x" / "test-0.parquet", images[8:] + images[:1], [2] * 4 + [0], names)
    said = warnings_of(load_task(f"parquet:{tmp_path / 'x'}", cache))
    assert said == (
        "3 images under two labels (the bytes are equal): one label is always wrong; fewshot "
        "leaves them out",
        "1 class ('dog') without a training image, though in test",
        "classes that differ only by case, spaces or accents' form: 'cat' and 'Cat': are they one?",
    )


def test_labels_that_differ_by_a_space_or_by_case_are_said(tmp_path: Path, cache: Path) -> None:
    lines = ["image,label"]
    for label, name in enumerate(("cat", "cat ", "Dog", "dog")):
        for i, image in enumerate(blobs(label, 4, 0, size=8)):
            (tmp_path / f"{label}-{i}.png").write_bytes(image)
            lines.append(f"{label}-{i}.png,{name}")
    table = tmp_path / "all.csv"
    table.write_text("\n".join(lines))
    (said,) = warnings_of(load_task(f"csv:{table}", cache))
    assert said.endswith("'Dog' and 'dog'; 'cat' and 'cat ': are they one?")
    root = write_voc(tmp_path / "voc", some())
    file = root / "Annotations" / "a.xml"
    file.write_text(file.read_text().replace(">ant<", ">Bee<"))
    said = warnings_of(load_task(f"voc:{root}", cache))[-1]
    assert said.endswith("accents' form: 'Bee' and 'bee': are they one?")


def test_declared_data_are_not_warned_of(tmp_path: Path, cache: Path) -> None:
    make_task(tmp_path / "eurosat", classes=10, train=2, test=2)
    assert warnings_of(load_task("eurosat", cache, tmp_path)) == ()
    assert warnings_of(load_task("digits", cache)) == ()


def test_results_without_warnings_are_as_before(tmp_path: Path, cache: Path) -> None:
    make_task(tmp_path / "x", classes=3, train=8, test=4)
    (result,) = evaluate(
        MODEL, f"parquet:{tmp_path / 'x'}", ["knn"], cache=cache, results=tmp_path / "results"
    )
    assert result.warnings == []
    (file,) = (tmp_path / "results").rglob("*.json")
    assert '"warnings":' not in file.read_text()


def test_every_image_that_cannot_be_read_is_named(tmp_path: Path, cache: Path, cli: Cli) -> None:
    """A truncated file, an empty one, a web page, nonsense and 196 megapixels at once, by both
    commands."""
    bomb = io.BytesIO()
    Image.new("1", (14_000, 14_000)).save(bomb, "PNG")
    root = photos(tmp_path / "photos")
    whole = (root / "train" / "cat" / "1.png").read_bytes()
    for file, content in (
        ("train/cat/1.png", whole[: len(whole) // 2]), ("train/dog/2.png", b""),
        ("val/cat/3.png", b"<!DOCTYPE html>"), ("val/dog/4.png", b"nonsense"),
        ("val/dog/5.png", bomb.getvalue()),
    ):  # fmt: skip
        (root / file).write_bytes(content)
    task = f"imagefolder:{root}?train=train&test=val"
    ran = cli(
        "run", MODEL, "--task", task, "--protocol", "knn", "--cache", cache,
        "--results", tmp_path / "results",
    )  # fmt: skip
    assert ran.code == 2
    assert "5 images cannot be read: " in ran.err
    checked = cli("check-task", task, "--cache", cache, "--sheet", tmp_path / "s.png", "--strict")
    assert checked.code == 2
    assert "5 images cannot be read, so that nothing is scored" in checked.err
    for file, why in (
        ("train/cat/1.png", "truncated"), ("train/dog/2.png", "it is empty"),
        ("val/cat/3.png", "it is a web page"), ("val/dog/4.png", "it is in no image format"),
        ("val/dog/5.png", "exceeds limit"),
    ):  # fmt: skip
        for text in (ran.err, checked.out):
            (place,) = {t for t in text.replace("; ", "\n").splitlines() if file in t}
            assert why in place

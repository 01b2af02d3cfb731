"""Task files, and images that a table lists: what is read, what is found again, what is refused."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.data.task_file import TaskFile, read_task_file
from eval.data.validation import held_out
from tests.factories import blobs, make_task, refusal, write_parquet

MINIMAL = 'name = "mine"\nsource = "parquet:photos"\n'
FULL = """
name = "my-photos_1.0"
source = "parquet:photos?image=image&label=label"
title = "Photographs of kinds"
domain = "kinds"
licence = "CC0-1.0"
citation = "nobody, 2026"
home = "https://example.org/kinds"
note = "made up"
classes = ["kind 2", "kind 0", "kind 1"]
train = 18
test = 9
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_task(tmp_path / "photos", classes=3, train=6, test=3)


def write_images(folder: Path, classes: Mapping[str, int], seed: int = 0) -> list[tuple[str, str]]:
    """Image files without class folders; (file name, class) of each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for label, (name, count) in enumerate(classes.items()):
        for i, content in enumerate(blobs(label, count, seed, size=6)):
            file = f"{label}-{i}.png"
            (folder / file).write_bytes(content)
            rows.append((file, name))
    return rows


def write_csv(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], encoding: str = "utf-8"
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def names_of(data: TaskData, part: str) -> list[str]:
    """The files of a part, sorted."""
    split = getattr(data, part)
    return sorted(split.source.files[row] for row in split.rows)


# --------------------------------------------------------------------------- what a file says


def test_reads_every_key(tmp_path: Path) -> None:
    found = read_task_file(write(tmp_path / "t.toml", FULL))
    assert found.model_dump() == {
        "name": "my-photos_1.0",
        "source": "parquet:photos?image=image&label=label",
        "title": "Photographs of kinds",
        "domain": "kinds",
        "licence": "CC0-1.0",
        "citation": "nobody, 2026",
        "home": "https://example.org/kinds",
        "note": "made up",
        "classes": ["kind 2", "kind 0", "kind 1"],
        "train": 18,
        "test": 9,
    }


def test_two_keys_are_enough(tmp_path: Path) -> None:
    found = read_task_file(write(tmp_path / "t.toml", MINIMAL))
    assert (found.title, found.domain, found.classes, found.train) == ("", "own", None, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('licence_ = "x"\n' + MINIMAL, "unknown key 'licence_'; did you mean 'licence'"),
        (MINIMAL + "zzz = 1\n", "unknown key 'zzz'; known: name, source, title"),
        ('source = "parquet:photos"\n', "lacks 'name'; it needs name and source"),
        ('name = "mine"\n', "lacks 'source'; it needs name and source"),
        ('name = 5\nsource = "parquet:photos"\n', "name = 5: input should be a valid string"),
        (MINIMAL + "title = 1\n", "title = 1: input should be a valid string"),
        (MINIMAL + 'classes = "a"\n', "classes = 'a': input should be a valid list"),
        (MINIMAL + 'classes = ["a", 2]\n', "classes.1 = 2: input should be a valid string"),
        (MINIMAL + "train = 0\n", "train = 0: input should be greater than or equal to 1"),
        (MINIMAL + "train = true\n", "train = True: input should be a valid integer"),
        (MINIMAL + 'test = "9"\n', "test = '9': input should be a valid integer"),
        (MINIMAL + "test = 9.0\n", "test = 9.0: input should be a valid integer"),
        ("name = mine\n", "is not valid TOML: Invalid value (at line 1"),
        (MINIMAL + 'name = "again"\n', "is not valid TOML: Cannot overwrite a value"),
        (
            'name = "mine"\nsource = "csv:C:\\photos\\all.csv"\n',
            "; write a path with '\\' in single quotes: source = 'csv:C:\\photos\\all.csv'",
        ),
    ],
)
def test_refuses_a_wrong_key_or_value(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "t.toml", text)
    found = refusal(read_task_file, path)
    assert said in found
    assert repr(str(path)) in found


@pytest.mark.parametrize("name", ["", "My", "a b", "-a", ".a", "a/b", "a" * 65, "é", "a\\n"])
def test_refuses_a_name_that_is_no_file_name(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "t.toml", MINIMAL.replace("mine", name))
    assert "use up to 64 of a-z, 0-9" in refusal(read_task_file, path)


@pytest.mark.parametrize("name", ["eurosat", "mini"])
def test_refuses_the_name_of_a_declared_task_or_suite(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "t.toml", MINIMAL.replace("mine", name))
    kind = {"eurosat": "a declared task", "mini": "a suite"}[name]
    assert f"is that of {kind}; choose another" in refusal(read_task_file, path)


@pytest.mark.parametrize("source", ["eurosat", "other.toml", "sub/other.toml"])
def test_refuses_a_source_that_is_no_data(tmp_path: Path, source: str) -> None:
    path = write(tmp_path / "t.toml", MINIMAL.replace("parquet:photos", source))
    said = refusal(read_task_file, path)
    assert f"source = {source!r} is not data of your own" in said
    assert "csv:FILE" in said


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("photos", "unknown task 'photos'"),
        ("folder:photos", "unknown prefix 'folder'"),
        ("parquet:photos?labell=x", "unknown option 'labell'; did you mean 'label'"),
        ("imagefolder:", "nothing behind the prefix"),
    ],
)
def test_refuses_a_source_that_is_no_task_string(tmp_path: Path, source: str, said: str) -> None:
    path = write(tmp_path / "t.toml", MINIMAL.replace("parquet:photos", source))
    assert said in refusal(read_task_file, path)


def test_refuses_what_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refusal(read_task_file, tmp_path / "gone.toml")
    (tmp_path / "folder.toml").mkdir()
    assert "cannot be read: it is not a regular file" in refusal(
        read_task_file, tmp_path / "folder.toml"
    )
    (tmp_path / "latin.toml").write_bytes(MINIMAL.encode() + b'title = "caf\xe9"\n')
    assert "is not valid TOML: 'utf-8' codec" in refusal(read_task_file, tmp_path / "latin.toml")


text_keys = st.sampled_from([k for k in TaskFile.model_fields if k not in ("name", "source")])
toml_values = st.sampled_from(['"text"', '""', "1", "0", "-1", "1.5", "true", "[]", '["a"]', "{}"])


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(text_keys, toml_values, max_size=4))
def test_any_values_are_read_or_refused_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    write(path, MINIMAL + "".join(f"{k} = {v}\n" for k, v in values.items()))
    counts, lists = ("train", "test"), ("classes",)
    legal = all(
        v == "1" if k in counts else v in ("[]", '["a"]') if k in lists else v in ('"text"', '""')
        for k, v in values.items()
    )
    if legal:
        assert read_task_file(path).name == "mine"
    else:
        assert str(path) in refusal(read_task_file, path)


# --------------------------------------------------------------------------- what it loads


def test_names_the_result_and_is_found_again(photos: Path, tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "t.toml", FULL)
    found = load_task(str(path), cache)
    plain = load_task(f"parquet:{photos}", cache)
    assert found.name == "my-photos_1.0"
    assert found.where == str(path.resolve())
    assert found.split_hash == plain.split_hash == load_task(found.where, cache).split_hash
    assert found.classes == ("kind 0", "kind 1", "kind 2")  # the data's order, not the file's
    task = found.declared
    assert task is not None
    assert (task.title, task.domain, task.licence) == ("Photographs of kinds", "kinds", "CC0-1.0")
    assert (task.citation, task.home, task.note) == (
        "nobody, 2026",
        "https://example.org/kinds",
        "made up",
    )
    assert (task.classes, task.images, task.train, task.test) == (3, 27, 18, 9)
    assert not found.subset


def test_the_name_is_the_title_where_there_is_none(
    photos: Path, tmp_path: Path, cache: Path
) -> None:
    found = load_task(str(write(tmp_path / "t.toml", MINIMAL)), cache)
    assert found.declared is not None
    assert found.declared.title == "mine"


@pytest.mark.parametrize("source", ["data/photos", "./data/photos", "data/../data/photos", "~/p"])
def test_paths_are_seen_from_the_file(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    home = tmp_path / "home"
    make_task((home / "p") if source.startswith("~") else tmp_path / "at" / "data" / "photos", 3, 4)
    monkeypatch.setenv("HOME", str(home))
    path = write(tmp_path / "at" / "t.toml", f'name = "mine"\nsource = "parquet:{source}"\n')
    monkeypatch.chdir(cache.parent)
    for text in (str(path), os.path.relpath(path)):
        assert len(load_task(text, cache).train) == 12


def test_an_absolute_path_stays(photos: Path, tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "away" / "t.toml", MINIMAL.replace("photos", str(photos)))
    assert len(load_task(str(path), cache).train) == 18


def test_the_file_itself_may_lie_at_home(
    photos: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "t.toml", MINIMAL)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_task("~/t.toml", cache).where == str((tmp_path / "t.toml").resolve())


def test_every_kind_of_source(tmp_path: Path, cache: Path) -> None:
    """A folder of classes with a question mark in its name, and a table with options."""
    folder = tmp_path / "what? photos"
    for label, kind in enumerate(("cat", "dog")):
        (folder / kind).mkdir(parents=True)
        for i, content in enumerate(blobs(label, 4, 0, size=6)):
            (folder / kind / f"{i}.png").write_bytes(content)
    rows = write_images(tmp_path / "listed", {"cat": 4, "dog": 4})
    write_csv(tmp_path / "listed" / "all.csv", ["file", "kind"], rows)
    for source in ("imagefolder:what? photos", "csv:listed/all.csv?image=file&label=kind"):
        path = write(tmp_path / "t.toml", f'name = "mine"\nsource = "{source}"\n')
        found = load_task(str(path), cache)
        assert found.classes == ("cat", "dog")
        assert (len(found.train), len(found.test)) == (6, 2)
        assert "70 % of each class to train" in found.notes[0]


def test_the_seed_reaches_the_split(tmp_path: Path, cache: Path) -> None:
    rows = write_images(tmp_path / "listed", {"cat": 12, "dog": 12})
    write_csv(tmp_path / "listed" / "all.csv", ["image", "label"], rows)
    path = write(tmp_path / "t.toml", 'name = "mine"\nsource = "csv:listed/all.csv"\n')
    first, second = (load_task(str(path), cache, seed=seed) for seed in (0, 1))
    assert first.split_hash != second.split_hash
    assert "seed 1" in second.notes[0]


def test_a_limit_works_as_for_any_task(photos: Path, tmp_path: Path, cache: Path) -> None:
    found = load_task(str(write(tmp_path / "t.toml", FULL)), cache, limit=6)
    assert (len(found.train), len(found.test), found.name) == (6, 6, "my-photos_1.0")
    assert found.subset


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"kind 2", ', "", "classes differ from those of the data in 'kind 2'"),
        ('"kind 2"', '"Kind 2"', "classes differ from those of the data in 'Kind 2', 'kind 2'"),
        ("train = 18", "train = 19", "train = 19, but the data have 18 images there"),
        ("test = 9", "test = 8", "test = 8, but the data have 9 images there"),
    ],
)
def test_refuses_data_unlike_what_was_said(
    photos: Path, tmp_path: Path, cache: Path, old: str, new: str, said: str
) -> None:
    path = write(tmp_path / "t.toml", FULL.replace(old, new))
    found = refusal(load_task, str(path), cache)
    assert said in found
    assert repr(str(path)) in found


def test_data_that_have_grown_are_refused(photos: Path, tmp_path: Path, cache: Path) -> None:
    path = str(write(tmp_path / "t.toml", FULL))
    load_task(path, cache)
    images = blobs(0, 4, 9) + blobs(1, 4, 9)
    write_parquet(photos / "test-00000-of-00001.parquet", images, [0] * 4 + [1] * 4)
    assert "test = 9, but the data have 8" in refusal(load_task, path, cache)


def test_missing_data_are_named(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "t.toml", MINIMAL)
    said = refusal(load_task, str(path), cache)
    assert str(tmp_path.resolve() / "photos") in said
    assert "does not exist" in said


# --------------------------------------------------------------------------- csv:


def test_a_table_with_its_own_split(tmp_path: Path, cache: Path) -> None:
    rows = write_images(tmp_path, {"dog": 6, "cat": 6})
    parts = ["Train", "training", "train", "test", "TESTING", "val"] * 2
    listed = [(f, kind, part) for (f, kind), part in zip(rows, parts, strict=True)]
    path = write_csv(tmp_path / "all.csv", ["image", "label", "part"], listed)
    found = load_task(f"csv:{path}?split=part", cache)
    assert found.classes == ("cat", "dog")
    chosen_on = ["0-5.png", "1-5.png"]
    ours = [f"{c}-{i}.png" for c in range(2) for i in range(3)]
    assert names_of(found, "train") == sorted([*ours, *chosen_on])
    assert names_of(found, "test") == ["0-3.png", "0-4.png", "1-3.png", "1-4.png"]
    held = found.train.rows[held_out(found, 0.2, 0)]
    assert sorted(found.train.source.files[row] for row in held) == chosen_on  # type: ignore[attr-defined]
    assert found.notes == ()
    assert found.inventory.said[0].startswith("val is what settings are chosen on, and trained on")
    assert found.name == f"csv-all-{found.split_hash[:8]}"
    kinds = [found.classes[i] for i in found.train.labels]
    files = [found.train.source.files[row] for row in found.train.rows]  # type: ignore[attr-defined]
    assert dict(zip(files, kinds, strict=True)) == {f: k for f, k in rows if f in files}
    again = load_task(found.where, cache)
    assert dataclasses.asdict(again)["notes"] == found.notes
    assert (again.split_hash, again.name) == (found.split_hash, found.name)


@pytest.mark.parametrize("query", ["", "?group=bird"])
def test_a_table_is_found_again_by_where(tmp_path: Path, cache: Path, query: str) -> None:
    """Also from a folder whose name has signs that mean something in an address."""
    folder = tmp_path / "a & b = c"
    rows = write_images(folder, {"dog": 9, "cat": 9})
    listed = [(f, kind, f"bird {i // 3}") for i, (f, kind) in enumerate(rows)]
    path = write_csv(folder / "all.csv", ["image", "label", "bird"], listed)
    found = load_task(f"csv:{path}{query}", cache)
    again = load_task(found.where, cache)
    assert (again.split_hash, again.where) == (found.split_hash, found.where)


def test_without_columns_for_it_seventy_percent_of_each_class_train(
    tmp_path: Path, cache: Path
) -> None:
    rows = write_images(tmp_path, {"dog": 20, "cat": 10})
    found = load_task(f"csv:{write_csv(tmp_path / 'all.csv', ['image', 'label'], rows)}", cache)
    assert np.bincount(found.train.labels).tolist() == [7, 14]  # cat, dog
    assert np.bincount(found.test.labels).tolist() == [3, 6]
    assert found.notes == ("split here: 70 % of each class to train, seed 0",)


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path, cache: Path) -> None:
    rows = write_images(tmp_path, {"dog": 9, "cat": 9})
    one, other = (
        load_task(f"csv:{write_csv(tmp_path / name, ['image', 'label'], order)}", cache)
        for name, order in (("one.csv", rows), ("other.csv", rows[::-1]))
    )
    assert one.split_hash == other.split_hash


@settings(max_examples=25, deadline=None)
@given(groups=st.lists(st.integers(0, 8), min_size=16, max_size=16), seed=st.integers(0, 3))
def test_no_group_on_both_sides(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int], seed: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "groups"
    rows = write_images(folder, {"dog": 8, "cat": 8}) if not folder.exists() else [
        (f"{label}-{i}.png", name) for label, name in enumerate(("dog", "cat")) for i in range(8)
    ]  # fmt: skip
    listed = [(f, kind, f"g{g}") for (f, kind), g in zip(rows, groups, strict=True)]
    path = write_csv(folder / "all.csv", ["image", "label", "patient"], listed)
    group_of = {f: g for f, _, g in listed}
    try:
        found = load_task(f"csv:{path}?group=patient", folder / "cache", seed=seed)
    except Exception as error:  # too few groups to give both sides both classes
        why = ("at least two classes", "is empty", "no image is left to test on")
        assert any(part in str(error) for part in why)  # noqa: PT017
        return
    sides = [{group_of[f] for f in names_of(found, part)} for part in ("train", "test")]
    assert not sides[0] & sides[1]
    assert len(found.train) + len(found.test) == 16
    (note,) = found.notes
    assert note.startswith("split here: whole groups, 70 % of each class to train as near as they")
    assert f"seed {seed}; it is {100 * len(found.train) / 16:.0f} % of the images, " in note


def test_a_group_that_is_most_of_its_class(tmp_path: Path, cache: Path) -> None:
    """Its 32 images of 40 are nearer to 70 % than the eight others."""
    rows = write_images(tmp_path, {"dog": 40, "cat": 40})
    sizes = ["a"] * 32 + ["b"] * 4 + ["c"] * 4
    listed = [(f, kind, f"{kind} {g}") for (f, kind), g in zip(rows, [*sizes, *sizes], strict=True)]
    path = write_csv(tmp_path / "all.csv", ["image", "label", "patient"], listed)
    for seed in range(3):
        task = load_task(f"csv:{path}?group=patient", cache, seed=seed)
        train = np.bincount(task.train.labels)
        assert set(train.tolist()) <= {32, 36}
        low, high = 100 * train.min() / 40, 100 * train.max() / 40
        assert f"it is {100 * train.sum() / 80:.0f} % of the images, {low:.0f} to" in task.notes[0]
        assert task.notes[0].endswith(f" to {high:.0f} % of a class")


def test_classes_of_one_group_alone(tmp_path: Path, cache: Path) -> None:
    rows = write_images(tmp_path, {"dog": 4, "cat": 4})
    path = write_csv(
        tmp_path / "all.csv", ["image", "label", "patient"], [(*r, r[1]) for r in rows]
    )
    said = refusal(load_task, f"csv:{path}?group=patient", cache)
    assert "no image is left to test on: every class has one image, or one group, alone" in said


def test_a_table_may_begin_with_a_byte_order_mark(tmp_path: Path, cache: Path) -> None:
    rows = write_images(tmp_path, {"hund": 4, "kätzchen": 4})
    path = write_csv(tmp_path / "all.csv", ["image", "label"], rows, encoding="utf-8-sig")
    assert load_task(f"csv:{path}", cache).classes == ("hund", "kätzchen")


def test_images_may_lie_anywhere(tmp_path: Path, cache: Path) -> None:
    rows = write_images(tmp_path / "photos", {"dog": 4, "cat": 4})
    mixed = [
        (str(tmp_path / "photos" / f) if i % 2 else f"../photos/{f}", kind)
        for i, (f, kind) in enumerate(rows)
    ]
    path = write_csv(tmp_path / "lists" / "all.csv", ["image", "label"], mixed)
    found = load_task(f"csv:{path}", cache)
    assert len(found.train) + len(found.test) == 8
    row, content = next(found.train.source.images(np.sort(found.train.rows)))
    assert content == (path.parent / mixed[row][0]).read_bytes()
    assert mixed[row][0] in found.train.source.describe(row)


def test_missing_images_are_named(tmp_path: Path, cache: Path) -> None:
    rows = write_images(tmp_path, {"dog": 4, "cat": 4})
    (tmp_path / "1-2.png").unlink()
    (tmp_path / "1-3.png").unlink()
    path = write_csv(tmp_path / "all.csv", ["image", "label"], rows)
    said = refusal(load_task, f"csv:{path}", cache)
    assert f"2 of 8 images are missing, the first is {str(tmp_path / '1-2.png')!r}" in said


def test_an_image_changed_after_the_scan_is_seen(tmp_path: Path, cache: Path) -> None:
    path = write_csv(
        tmp_path / "all.csv", ["image", "label"], write_images(tmp_path, {"dog": 4, "cat": 4})
    )
    before = load_task(f"csv:{path}", cache).split_hash
    (tmp_path / "0-0.png").write_bytes(blobs(5, 1, 5, size=7)[0])
    assert load_task(f"csv:{path}", cache).split_hash != before


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?image=file", "has no image column 'file'; its columns are image, label, part"),
        ("?label=kind", "has no label column 'kind'"),
        ("?group=patient", "has no group column 'patient'"),
        ("?split=fold", "has no split column 'fold'"),
        ("?labell=x", "unknown option 'labell'; did you mean 'label'"),
        ("?group=", "option 'group' is empty"),
        ("?label=part", "the train split is empty|at least two classes|label"),
        ("?split=label", "its split column holds 'cat', 'dog'; use 'train' and 'test'"),
    ],
)
def test_refuses_columns_that_are_not_there(
    tmp_path: Path, cache: Path, query: str, said: str
) -> None:
    rows = [(f, k, "train") for f, k in write_images(tmp_path, {"dog": 4, "cat": 4})]
    path = write_csv(tmp_path / "all.csv", ["image", "label", "part"], rows)
    found = refusal(load_task, f"csv:{path}{query}", cache)
    assert any(part in found for part in said.split("|"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no rows"),
        (b"image,label\n", "has no rows"),
        (
            b"image,label\n0-0.png,dog\n0-1.png,\n",
            "unlabelled: 1 of 2 rows (label ''), the first is on line 3",
        ),
        (b"image,label\n0-0.png,nan\n0-1.png,a\n", "unlabelled: 1 of 2 rows (label 'nan')"),
        (b"image,label\n0-0.png,-1\n0-1.png,3\n", "unlabelled: 1 of 2 rows (label '-1')"),
        (b"image,label\n0-0.png\n", "unlabelled: all 1 rows (label '')"),
        (
            b"image,label\n0-0.png,apple, red\n",
            "line 2 of {} has 3 fields where the header has 2; put quotes around a text that holds "
            'a separator, as in "apple, red"',
        ),
        (
            b'image,label,label\n0-0.png,"apple","red"\n',
            "has 2 columns called 'label'; rename all but one",
        ),
        (
            b"image,label\n0-0.png,dog\n./0-0.png,cat\n",
            "1 image under two labels, such as '0-0.png' under 'dog' and 'cat'; give each image "
            "one label, or, where they have several, name the column as labels=COLUMN",
        ),
        (
            b"image,label\n0-0.png,dog\n0-1.png,cat\n0-2.png,cat|dog\n",
            "label 'cat|dog' names several classes; give each image one label, or, where",
        ),
        (b"image,label\n,dog\n", "has no image"),
        (b"image,label\n0-0.png,caf\xe9\n", "is not valid CSV in UTF-8"),
        (b"image|label\n0-0.png|dog\n", "has no image column 'image'; its columns are image|label"),
        (b"image,label\n0-0.png,dog\n0-1.png,dog\n", "at least two classes"),
    ],
)
def test_refuses_a_table_that_is_none(
    tmp_path: Path, cache: Path, content: bytes, said: str
) -> None:
    write_images(tmp_path, {"dog": 4, "cat": 4})
    (tmp_path / "all.csv").write_bytes(content)
    file = tmp_path / "all.csv"
    assert said.format(repr(str(file))) in refusal(load_task, f"csv:{file}", cache)


@pytest.mark.parametrize("mark", [";", "\t", ","])
def test_other_separators_and_blank_lines(mark: str, tmp_path: Path, cache: Path) -> None:
    rows = write_images(tmp_path, {"dog": 4, "cat": 4})
    lines = [mark.join(row) for row in [("image", "label"), *rows]]
    (tmp_path / "all.csv").write_text("\r\n".join([lines[0], "", *lines[1:], ""]))
    task = load_task(f"csv:{tmp_path / 'all.csv'}", cache)
    assert (task.classes, len(task.train) + len(task.test)) == (("cat", "dog"), 8)
    assert (task.inventory.found, task.inventory.taken) == (8, 8)


@pytest.mark.parametrize(("train", "scored"), [("train", "val"), ("seg_train", "seg_valid")])
def test_a_validation_is_scored_where_there_is_no_test(
    train: str, scored: str, tmp_path: Path, cache: Path
) -> None:
    rows = write_images(tmp_path, {"dog": 6, "cat": 6})
    parts = [train, train, train, scored, scored, "spare"] * 2
    listed = [(f, kind, part) for (f, kind), part in zip(rows, parts, strict=True)]
    path = write_csv(tmp_path / "all.csv", ["image", "label", "part"], listed)
    task = load_task(f"csv:{path}?split=part", cache)
    assert (len(task.train), len(task.test)) == (6, 4)
    assert task.inventory.warnings() == (
        f"there is no test: {scored} is scored in its place",
        "left out: of spare (2: 0-5.png, ..)",
    )
    assert (task.inventory.found, task.inventory.taken) == (12, 10)
    own = load_task(f"csv:{path}?split=part&train={train}&test=spare", cache)
    assert (len(own.train), len(own.test)) == (6, 2)
    assert load_task(own.where, cache).split_hash == own.split_hash


def test_a_value_that_could_be_train_is_not_left_out_in_silence(
    tmp_path: Path, cache: Path
) -> None:  # fmt: skip
    rows = write_images(tmp_path, {"dog": 6, "cat": 6})
    parts = ["train_0", "train_1", "test_0"] * 4
    listed = [(f, kind, part) for (f, kind), part in zip(rows, parts, strict=True)]
    path = write_csv(tmp_path / "all.csv", ["image", "label", "part"], listed)
    task = load_task(f"csv:{path}?split=part", cache)
    assert task.inventory.warnings() == ("left out: of train_1 (4: 0-1.png, ..)",)
    own = load_task(f"csv:{path}?split=part&train=train_0&test=test_0", cache)
    assert (own.split_hash, own.inventory.warnings()) == (task.split_hash, ())


def test_a_column_as_typed(tmp_path: Path, cache: Path) -> None:
    """'+' is no space, and a file may have a '?' in its name."""
    rows = write_images(tmp_path, {"dog": 4, "cat": 4})
    for column in ("C++", "a b", "50%", "é"):
        path = write_csv(tmp_path / "what?.csv", ["image", column], rows)
        task = load_task(f"csv:{path}?label={column}", cache)
        assert task.classes == ("cat", "dog")
        assert load_task(task.where, cache).where == task.where
    write_csv(tmp_path / "what?", ["image", "label"], rows)
    assert load_task(f"csv:{tmp_path / 'what?'}", cache).split_hash == task.split_hash


def test_paths_of_windows(tmp_path: Path, cache: Path) -> None:
    rows = write_images(tmp_path / "photos", {"dog": 4, "cat": 4})
    for mark in ("/", "\\"):
        listed = [(f"photos{mark}{f}", kind) for f, kind in rows]
        path = write_csv(tmp_path / "all.csv", ["image", "label"], listed)
        task = load_task(f"csv:{path}", cache)
        assert len(task.train) + len(task.test) == 8


def as_a_snapshot(folder: Path, blobs: Path) -> Path:
    """The files of a folder as the Hub's cache, DVC and git-annex keep them: links to blobs."""
    blobs.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(blobs / str(number))
        file.symlink_to(blobs / str(number))
    return folder


@pytest.mark.parametrize("options", ["label=label", "labels=label", "instance=label&role=side"])
def test_images_lie_beside_the_link_of_a_table(options: str, tmp_path: Path, cache: Path) -> None:
    sides = ["query", "gallery", "gallery", "query"] * 2
    rows = write_images(tmp_path / "set", {"dog": 4, "cat": 4})
    listed = [(*row, side) for row, side in zip(rows, sides, strict=True)]
    path = write_csv(tmp_path / "set" / "all.csv", ["image", "label", "side"], listed)
    plain = load_task(f"csv:{path}?{options}", cache)
    as_a_snapshot(path.parent, tmp_path / "blobs")
    task = load_task(f"csv:{path}?{options}", cache)
    assert task.split_hash == plain.split_hash
    assert task.where.startswith(f"csv:{path}?")
    assert len(list(task.train.source.images(np.sort(task.train.rows)))) == len(task.train)
    assert load_task(task.where, cache).split_hash == plain.split_hash


def test_paths_of_a_task_file_count_from_its_link(photos: Path, cache: Path) -> None:
    path = write(photos.parent / "mine.toml", MINIMAL)
    plain = load_task(str(path), cache)
    (photos.parent / "kept").mkdir()
    path.rename(photos.parent / "kept" / "0123")
    path.symlink_to(photos.parent / "kept" / "0123")
    task = load_task(str(path), cache)
    assert (task.split_hash, task.where) == (plain.split_hash, str(path))
    assert load_task(task.where, cache).split_hash == plain.split_hash


def test_a_row_listed_twice_is_said(tmp_path: Path, cache: Path) -> None:
    rows = write_images(tmp_path, {"dog": 4, "cat": 4})
    path = write_csv(tmp_path / "all.csv", ["image", "label"], [*rows, rows[0]])
    found = load_task(f"csv:{path}", cache)
    assert len(found.train) + len(found.test) == 9
    assert found.inventory.said == ("1 image listed more than once: each row counts",)


def test_refuses_a_table_that_is_not_there(tmp_path: Path, cache: Path) -> None:
    said = refusal(load_task, f"csv:{tmp_path / 'gone.csv'}", cache)
    assert "cannot be read: No such file" in said

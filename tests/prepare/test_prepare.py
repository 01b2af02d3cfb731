"""From an official download to data that a run accepts: every set, every refusal, the command."""

from __future__ import annotations

import dataclasses
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eval.data.load import load_task
from eval.data.manifest import MANIFEST, Manifest, read_manifest
from eval.data.split_rules import members
from eval.data.task_data import Split
from eval.prepare.layouts import LAYOUTS
from eval.prepare.prepare import prepare, report
from eval.tasks.registry import TASKS, TRANSFER12
from tests.factories import Cli, refusal
from tests.prepare.official import Made
from tests.prepare.small import declare, make, plain_split


def pictures(split: Split) -> dict[bytes, int]:
    """Bytes of each image of a loaded split, with its label."""
    by_row = dict(split.source.images(np.sort(split.rows)))
    return {by_row[row]: label for row, label in zip(split.rows.tolist(), split.labels.tolist(),
                                                     strict=True)}  # fmt: skip


def parts_of(made: Made, rule: str) -> dict[str, str]:
    if rule == "official":
        return dict(zip(made.names, made.parts, strict=True))
    return dict(plain_split(made.names, made.labels))


@pytest.mark.parametrize("name", TRANSFER12)
def test_every_set_of_the_suite(
    name: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(name, tmp_path / "in")
    task = declare(name, made, monkeypatch)
    done = prepare(name, tmp_path / "in", tmp_path / "out")
    assert (done.folder, done.fresh) == (tmp_path / "out" / name, True)
    assert read_manifest(done.folder) == done.manifest
    assert not done.manifest.partial
    for rule in task.splits:
        loaded = load_task(f"{name}@{rule.name}", cache, tmp_path / "out")
        frozen = done.manifest.splits[rule.name]
        assert loaded.split_hash == frozen.split_hash
        assert (loaded.classes, loaded.subset, loaded.split) == (made.classes, False, rule.name)
        found = {"train": pictures(loaded.train), "test": pictures(loaded.test)}
        if rule.rule == "groups":
            side = {}
            for part, seen in found.items():
                for n, group in zip(made.names, made.groups, strict=True):
                    if made.data[n] in seen:
                        assert side.setdefault(group, part) == part
            assert len(found["train"]) + len(found["test"]) == task.images
            continue
        parts = parts_of(made, rule.rule)
        assert frozen.members == members(
            (part, n.rpartition(".")[0]) for n, part in parts.items() if part in found
        )
        label = dict(zip(made.names, made.labels, strict=True))
        for part, seen in found.items():
            ours = [n for n, p in parts.items() if p == part]
            assert frozen.parts[part].images == len(ours) == len(seen)
            counts = Counter(label[n] for n in ours)
            assert frozen.parts[part].per_class == [counts[c] for c in range(task.classes)]
            if name != "svhn":  # whose pixels stand in arrays
                assert seen == {made.data[n]: label[n] for n in ours}
                continue
            for data, found_label in seen.items():
                pixels = np.asarray(Image.open(io.BytesIO(data)))
                (same,) = (n for n in ours if made.data[n] == pixels.tobytes())
                assert label[same] == found_label
    default = load_task(name, cache, tmp_path / "out")
    assert default.split == task.splits[0].name == done.manifest.default


@pytest.mark.parametrize("name", ["voc0712", "coco2017"])
def test_detection_sets(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(name, tmp_path / "in")
    declare(name, made, monkeypatch)
    done = prepare(name, tmp_path / "in", tmp_path / "out")
    flag = {"voc0712": "difficult", "coco2017": "iscrowd"}[name]
    for part, facts in done.manifest.splits["study"].parts.items():
        (file,) = done.folder.glob(f"{part}-*.parquet")
        rows = pq.read_table(file).to_pylist()
        expected = [n for n, p in zip(made.names, made.parts, strict=True) if p == part]
        assert sorted(r["image"]["path"] for r in rows) == sorted(expected)
        assert facts.images == len(expected)
        categories: Counter[int] = Counter()
        for row in rows:
            boxes = made.boxes.get(row["image"]["path"], ())
            objects = row["objects"]
            assert row["image"]["bytes"] == made.data[row["image"]["path"]]
            assert objects["category"] == [b.category for b in boxes]
            assert objects["bbox"] == [[b.x, b.y, b.width, b.height] for b in boxes]
            assert objects[flag] == [b.crowd or b.difficult for b in boxes]
            categories.update(objects["category"])
        assert facts.per_class == [categories[c] for c in range(len(made.classes))]
    before = done.manifest.splits["study"].split_hash
    item = next(n for n, p in zip(made.names, made.parts, strict=True)
                if p == "train" and made.boxes.get(n))  # fmt: skip
    listing = LAYOUTS[name]

    def moved(*args: Any) -> Any:
        found = listing(*args)
        items = tuple(
            dataclasses.replace(i, boxes=(dataclasses.replace(i.boxes[0], x=i.boxes[0].x + 1),
                                          *i.boxes[1:])) if i.name == item and i.boxes else i
            for i in found.items
        )  # fmt: skip
        return dataclasses.replace(found, items=items)

    monkeypatch.setitem(LAYOUTS, name, moved)
    again = prepare(name, tmp_path / "in", tmp_path / "moved")
    assert again.manifest.splits["study"].split_hash != before  # a moved box is other data


def test_what_is_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare("eurosat", make("eurosat", tmp_path / "in"), monkeypatch)
    first = prepare("eurosat", tmp_path / "in", tmp_path / "out")
    times = {f: f.stat().st_mtime_ns for f in first.folder.iterdir()}
    again = prepare("eurosat", tmp_path / "in", tmp_path / "out")
    assert (again.manifest, again.fresh) == (first.manifest, False)
    assert {f: f.stat().st_mtime_ns for f in first.folder.iterdir()} == times
    assert report(again)[0].startswith(f"{first.folder} is prepared already")
    assert not (first.folder / ".prepare").exists()


def test_processes_and_containers_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make("eurosat", tmp_path / "in")
    declare("eurosat", made, monkeypatch)
    for n in made.names:
        file = tmp_path / "tree" / "2750" / n
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(made.data[n])
    one = prepare("eurosat", tmp_path / "in", tmp_path / "a").manifest
    two = prepare("eurosat", tmp_path / "in", tmp_path / "b", processes=2, decode=True).manifest
    tree = prepare("eurosat", tmp_path / "tree", tmp_path / "c").manifest
    assert one.splits == two.splits == tree.splits
    assert one.files == two.files


# --------------------------------------------------------------------------- what is not whole


def test_missing_images_are_named(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = ("Forest/Forest_3.jpg", "River/River_11.jpg")
    whole = make("eurosat", tmp_path / "whole")
    made = make("eurosat", tmp_path / "in", without=gone)
    declare("eurosat", made, monkeypatch)
    message = refusal(lambda: prepare("eurosat", tmp_path / "in", tmp_path / "out"))
    assert "2 of the 110 images listed are not there (Forest/Forest_3.jpg, River" in message
    assert "complete it, or give --partial" in message
    assert not (tmp_path / "out").exists()

    done = prepare("eurosat", tmp_path / "in", tmp_path / "out", partial=True)
    assert (done.manifest.partial, done.manifest.missing) == (True, list(gone))
    assert "class Forest: 10 images, official 11" in report(done)
    task = load_task("eurosat", cache, tmp_path / "out")
    assert (task.subset, task.split) == (True, "study")
    assert task.notes == ("2 images are missing of the official set",)
    # who is there is where it would be in the whole set
    parts = plain_split(whole.names, whole.labels)
    for part, split in (("train", task.train), ("test", task.test)):
        ours = {made.data[n] for n, p in parts.items() if p == part and n not in gone}
        assert set(pictures(split)) == ours


def test_partial_of_a_whole_set_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare("eurosat", make("eurosat", tmp_path / "in"), monkeypatch)
    assert not prepare("eurosat", tmp_path / "in", tmp_path / "o", partial=True).manifest.partial


def test_a_set_whose_list_is_its_folders_may_be_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make("sketch", tmp_path / "in")
    task = declare("sketch", made, monkeypatch)
    monkeypatch.setitem(TASKS, "sketch", dataclasses.replace(task, images=task.images + 3,
                                                             per_class=()))  # fmt: skip
    message = refusal(lambda: prepare("sketch", tmp_path / "in", tmp_path / "out"))
    assert f"{task.images} images are there, 3 fewer than the {task.images + 3}" in message
    assert prepare("sketch", tmp_path / "in", tmp_path / "out", partial=True).manifest.partial


def corrupted(made: Made, folder: Path, cut: dict[str, bytes]) -> None:
    for n in made.names:
        file = folder / "2750" / n
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(cut.get(n, made.data[n]))


def test_unreadable_images_are_named(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make("eurosat", tmp_path / "zip")
    declare("eurosat", made, monkeypatch)
    cut = made.data["SeaLake/SeaLake_1.jpg"][:-9]
    bad = {"Forest/Forest_2.jpg": b"<html>404", "SeaLake/SeaLake_1.jpg": cut}
    corrupted(made, tmp_path / "in", bad)
    message = refusal(lambda: prepare("eurosat", tmp_path / "in", tmp_path / "out"))
    assert "2 images of 'eurosat' cannot be read: " in message
    assert "Forest/Forest_2.jpg (" in message
    assert "SeaLake/SeaLake_1.jpg (" in message
    done = prepare("eurosat", tmp_path / "in", tmp_path / "out", partial=True)
    assert set(done.manifest.unreadable) == set(bad)
    assert done.manifest.partial
    assert len(load_task("eurosat", cache, tmp_path / "out").train) == sum(
        p == "train" and n not in bad for n, p in plain_split(made.names, made.labels).items()
    )


def test_duplicates_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("eurosat", tmp_path / "zip")
    declare("eurosat", made, monkeypatch)
    parts = plain_split(made.names, made.labels)
    train = [n for n, p in parts.items() if p == "train"]
    test = [n for n, p in parts.items() if p == "test"]
    same = {train[1]: made.data[train[0]], test[0]: made.data[train[0]],
            test[2]: made.data[test[1]]}  # fmt: skip
    corrupted(made, tmp_path / "in", same)
    done = prepare("eurosat", tmp_path / "in", tmp_path / "out")
    told = {where: [set(g) for g in groups] for where, groups in done.manifest.duplicates.items()}
    assert told == {"train and test": [{train[0], train[1], test[0]}],
                    "within test": [{test[1], test[2]}]}  # fmt: skip
    assert any(line.startswith("1 pictures stand") or
               "train and test, byte for byte" in line for line in report(done))  # fmt: skip


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"per_class": (10,) * 10, "images": 100}, "class 'AnnualCrop' has 11, not 10"),
        ({"per_class": (), "images": 100}, "110 images, not 100"),
    ],
)
def test_another_version_is_refused(
    change: dict[str, Any], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = declare("eurosat", make("eurosat", tmp_path / "in"), monkeypatch)
    monkeypatch.setitem(TASKS, "eurosat", dataclasses.replace(task, **change))
    for partial in (False, True):
        message = refusal(
            lambda p=partial: prepare("eurosat", tmp_path / "in", tmp_path / "out", partial=p)
        )
        assert "holds another version of 'eurosat'" in message
        assert why in message


def test_other_names_than_the_frozen_ones_are_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make("eurosat", tmp_path / "in")
    task = declare("eurosat", made, monkeypatch)
    right = members((p, n[:-4]) for n, p in plain_split(made.names, made.labels).items())
    for frozen in ("0" * 64, right):
        rule = dataclasses.replace(task.splits[0], members=frozen)
        monkeypatch.setitem(TASKS, "eurosat", dataclasses.replace(task, splits=(rule,)))
        if frozen != right:
            message = refusal(lambda: prepare("eurosat", tmp_path / "in", tmp_path / "out"))
            assert "bear other names than the official ones" in message
    done = prepare("eurosat", tmp_path / "in", tmp_path / "out")
    assert load_task("eurosat", cache, tmp_path / "out").split == "study"
    forged = done.manifest.splits["study"].model_copy(update={"members": "1" * 64})
    manifest = done.manifest.model_copy(update={"splits": {"study": forged}})
    (done.folder / MANIFEST).write_text(manifest.model_dump_json())
    assert "has other images in train and test than split 'study'" in refusal(
        lambda: load_task("eurosat", cache, tmp_path / "out")
    )


def test_a_whole_set_of_other_counts_is_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prepared for one declaration, read under another."""
    task = declare("dtd", make("dtd", tmp_path / "in"), monkeypatch)
    prepare("dtd", tmp_path / "in", tmp_path / "out")
    rule = dataclasses.replace(task.splits[0], train=task.splits[0].train + 1)
    monkeypatch.setitem(TASKS, "dtd", dataclasses.replace(task, splits=(rule,)))
    assert "another version of the set" in refusal(
        lambda: load_task("dtd", cache, tmp_path / "out")
    )


# --------------------------------------------------------------------------- the command


def test_the_command(
    cli: Cli, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRANSFERZOO_DATA", raising=False)  # with it no --data is proposed
    made = make("isic2018", tmp_path / "in")
    declare("isic2018", made, monkeypatch)
    out = tmp_path / "out"
    base = ["prepare", "isic2018", "--out", out]
    ran = cli(*base, "--source", tmp_path / "in", "--processes", "2")
    assert (ran.code, ran.err) == (0, "")
    assert "split clean (default): " in ran.out
    assert "split study: " in ran.out
    assert f"All of it is in {out / 'isic2018' / MANIFEST}" in ran.out
    assert ran.out.splitlines()[-1] == f"transfer-eval run MODEL --task isic2018 --data {out}"
    manifest = Manifest.model_validate_json((out / "isic2018" / MANIFEST).read_text())

    again = cli(*base, "--json")  # nothing to do: it is there
    assert again.code == 0
    assert again.json["splits"] == json.loads(manifest.model_dump_json())["splits"]

    listed = cli("list", "tasks", "--json", "--data", out).json
    here = {row["task"]: row["here"] for row in listed}
    assert (here["isic2018"], here["eurosat"], here["digits"]) == ("whole", "no", "embedded")

    run = ["run", "random:test_resnet", "--protocol", "knn", "--img-size", "32", "--data", out,
           "--cache", cache, "--results", tmp_path / "r", "--precision", "fp32"]  # fmt: skip
    for more in (["--task", "isic2018"], ["--task", "isic2018@study"],
                 ["--suite", "transfer12", "--split", "study"]):  # fmt: skip
        ran = cli(*run, *more)
        assert ran.code == 0, ran.err
    assert ran.err.count("not here: ") == 11
    assert "not here: kaokore: not under" in ran.err
    board = cli("leaderboard", "--results", tmp_path / "r", "--json").json
    assert [t["tasks"] for t in board] == [["isic2018", "isic2018@study"]]
    assert [t["subset_tasks"] for t in board] == [[]]
    files = sorted(p.name for p in (tmp_path / "r").rglob("*.json"))
    assert files == ["isic2018.knn@precision=fp32.json", "isic2018__study.knn@precision=fp32.json"]
    for file in (tmp_path / "r").rglob("*.json"):
        ran = cli("verify", file, "--cache", cache)
        assert (ran.code, ran.out.splitlines()[0]) == (0, "equal"), ran.out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["eurosatt", "--source", "IN"], "unknown task 'eurosatt'; did you mean 'eurosat'?"),
        (["bccd", "--source", "IN"], "task 'bccd' has no official download that is known"),
        (["digits", "--source", "IN"], "task 'digits' has no official download that is known"),
        (["eurosat", "--source", "NO"], "does not exist"),
        (["eurosat"], "is not prepared yet; say where the download lies with --source DIR (Euro"),
        (["eurosat", "--source", "IN", "--processes", "0"], "--processes must be at least 1"),
        (["dtd", "--source", "IN"], "eurosat"),  # says what the download seems to be
    ],
)
def test_mistakes(arguments: list[str], why: str, cli: Cli, tmp_path: Path) -> None:
    make("eurosat", tmp_path / "in")
    places = {"IN": tmp_path / "in", "NO": tmp_path / "no"}
    ran = cli("prepare", *[places.get(a, a) for a in arguments], "--out", tmp_path / "out")
    assert ran.code == 2
    assert why in ran.err
    assert ran.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_suite_of_which_nothing_is_here(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    ran = cli("run", "random:test_resnet", "--suite", "transfer12", "--data", tmp_path / "data")
    assert ran.code == 2
    assert "none of the tasks of suite transfer12 is here" in ran.err
    ran = cli("run", "random:test_resnet", "--suite", "transfer12", "--data", tmp_path / "none")
    assert ran.code == 2
    assert "none' does not exist or is not a directory" in ran.err

"""Several labels an image: the same sets from every source, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eval.data.labels.label_data import MultiLabelData, held_out_labels, labels_of
from eval.data.load import load_task
from tests.factories import Cli, blobs, refusal
from tests.hub import LoopbackHub

NAMES = ["cat", "dog", "mat"]
SETS = [(), ("cat",), ("dog", "mat"), ("cat", "dog"), ("mat",)]


def rows(part: str, count: int) -> list[tuple[bytes, tuple[str, ...]]]:
    """Images with their labels."""
    images = blobs(len(part), count, seed=3)
    return [(image, SETS[i % len(SETS)]) for i, image in enumerate(images)]


def parquet(folder: Path, columns: dict[str, Any], names: list[str] | None = None) -> str:
    """A set whose further columns are made of each row's labels."""
    folder.mkdir()
    for part, count in (("train", 15), ("test", 10)):
        both = rows(part, count)
        table = pa.table(
            {"image": [{"bytes": image, "path": None} for image, _ in both]}
            | {name: [of(labels) for _, labels in both] for name, of in columns.items()}
        )
        if names:
            feature = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "Sequence"}
            info = {"info": {"features": {next(iter(columns)): feature}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
        pq.write_table(table, folder / f"{part}.parquet")
    return f"parquet:{folder}"


def csv(folder: Path, header: str, line: Any) -> str:
    folder.mkdir()
    lines = [header]
    for part, count in (("train", 15), ("test", 10)):
        for i, (image, labels) in enumerate(rows(part, count)):
            (folder / f"{part}{i}.png").write_bytes(image)
            lines.append(line(f"{part}{i}.png", labels, part))
    (folder / "all.csv").write_text("\n".join(lines) + "\n")
    return f"csv:{folder / 'all.csv'}"


def loaded(text: str, cache: Path) -> MultiLabelData:
    task = load_task(text, cache)
    assert isinstance(task, MultiLabelData)
    assert task.kind == "multilabel"
    return task


def test_every_source_has_the_same_labels(tmp_path: Path, cache: Path) -> None:
    texts = [
        parquet(tmp_path / "lists", {"tags": list}) + "?labels=tags",
        parquet(tmp_path / "numbers", {"tags": lambda x: [NAMES.index(n) for n in x]}, NAMES)
        + "?labels=tags",
        parquet(tmp_path / "text", {"tags": "|".join}) + "?labels=tags",
        parquet(tmp_path / "semi", {"tags": ";".join}) + "?labels=tags&separator=%3B",
        parquet(tmp_path / "none", {"tags": lambda x: "|".join(x) or "No Finding"})
        + "?labels=tags&none=No Finding",
        parquet(tmp_path / "inner", {"objects": lambda x: [{"category": n} for n in x]})
        + "?labels=objects.category",
        parquet(tmp_path / "each", {n: lambda x, n=n: int(n in x) for n in NAMES})
        + "?labels=cat,dog,mat",
        csv(tmp_path / "c1", "image,tags,split", lambda f, x, s: f'{f},{"|".join(x)},{s}')
        + "?labels=tags&split=split",
        csv(tmp_path / "c2", "image;cat;dog;mat;split",
            lambda f, x, s: ";".join([f, *(str(n in x) for n in NAMES), s]))
        + "?labels=cat,dog,mat&split=split",
    ]  # fmt: skip
    tasks = [loaded(text, cache) for text in texts]
    assert {task.classes for task in tasks} == {("cat", "dog", "mat")}
    assert len({task.split_hash for task in tasks}) == 1
    assert (len(tasks[0].train), len(tasks[0].test)) == (15, 10)
    known = dict(rows("test", 10))
    for task in tasks:
        for row, (_, image) in enumerate(task.test.source.images(np.sort(task.test.rows))):
            place = int(np.flatnonzero(task.test.rows == np.sort(task.test.rows)[row])[0])
            have = tuple(n for n, yes in zip(NAMES, task.test.several[place], strict=True) if yes)
            assert have == tuple(sorted(known[image]))
        again = loaded(task.where, cache)
        assert again.split_hash == task.split_hash


def test_one_label_each_inside_a_struct(tmp_path: Path, cache: Path) -> None:
    each = {"has": lambda x: {name: int(name in x) for name in NAMES}}
    task = loaded(parquet(tmp_path / "inner", each) + "?labels=has.cat,has.mat", cache)
    plain = loaded(parquet(tmp_path / "plain", {"tags": list}) + "?labels=tags", cache)
    assert task.classes == ("has.cat", "has.mat")
    columns = [plain.classes.index(name) for name in ("cat", "mat")]
    assert (task.test.several == plain.test.several[:, columns]).all()


def test_the_second_load_reads_no_image(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = parquet(tmp_path / "x", {"tags": list}) + "?labels=tags"
    first = loaded(text, cache)
    monkeypatch.setattr("eval.data.labels.stored._looked_at", None)
    np.testing.assert_array_equal(loaded(text, cache).train.several, first.train.several)


def long_table(folder: Path) -> str:
    """One row an image and label, as Open Images and others have it."""
    return csv(folder, "image,tag,split,patient",
               lambda f, x, s: "\n".join(f"{f},{n},{s},p{f[-5]}" for n in x or ("none",))
               )  # fmt: skip


def test_rows_of_one_image_are_united(tmp_path: Path, cache: Path) -> None:
    wide = csv(tmp_path / "w", "image,tag,split", lambda f, x, s: f"{f},{'|'.join(x)},{s}")
    plain = loaded(f"{wide}?labels=tag&split=split", cache)
    long = long_table(tmp_path / "x")
    said = refusal(load_task, f"{long}?label=tag&split=split", cache)
    assert "name the column as labels=COLUMN" in said
    task = loaded(f"{long}?labels=tag&none=none&split=split", cache)
    assert task.split_hash == plain.split_hash
    assert task.notes == (
        "10 images listed more than once: the labels of all rows of an image are its",
    )
    assert (task.inventory.found, task.inventory.warnings()) == (35, ())
    assert loaded(task.where, cache).split_hash == task.split_hash
    drawn = loaded(f"{long}?labels=tag&none=none", cache)
    assert drawn.split_hash == loaded(f"{wide}?labels=tag", cache).split_hash
    grouped = loaded(f"{long}?labels=tag&none=none&group=patient", cache)
    assert len(grouped.train) + len(grouped.test) == 25
    columns = csv(
        tmp_path / "c",
        "image,cat,dog,mat,split",
        lambda f, x, s: "\n".join(
            ",".join([f, *(str(int(n == name)) for name in NAMES), s]) for n in x or ("none",)
        ),
    )
    several = loaded(f"{columns}?labels=cat,dog,mat&split=split", cache)
    assert several.split_hash == plain.split_hash
    assert several.inventory.warnings() == task.notes  # such a table has one row an image


@pytest.mark.parametrize(
    ("column", "other", "said"),
    [
        ("split", "test", "image 'a.png' stands in two parts, 'train' and 'test'; write one split"),
        ("split", "extra", "stands in two parts, 'train' and 'extra'; write one split in all its"),
        ("split", "Training", ""),
        ("group", "p2", "image 'a.png' stands in two groups, 'train' and 'p2'; write one group"),
    ],
)
def test_rows_of_one_image_in_two_parts(
    column: str, other: str, said: str, tmp_path: Path, cache: Path
) -> None:
    files = "aabcde"
    for file, image in zip(sorted({*files}), blobs(0, 5, seed=1), strict=True):
        (tmp_path / f"{file}.png").write_bytes(image)
    sides = ["train", other, "train", "test", "test", "train"]
    lines = [f"./{f}.png,{['cat', 'dog'][i % 2]},{side}"
             for i, (f, side) in enumerate(zip(files, sides, strict=True))]  # fmt: skip
    (tmp_path / "all.csv").write_text("\n".join(["image,tag,where", *lines]))
    text = f"csv:{tmp_path / 'all.csv'}?labels=tag&{column}=where"
    if said:
        assert said in refusal(load_task, text, cache)
        return
    assert len(loaded(text, cache).train) == 3


def test_from_the_hub(tmp_path: Path, cache: Path, hub: LoopbackHub) -> None:
    local = parquet(tmp_path / "x", {"tags": list})
    files = {f"data/{p.name}": p.read_bytes() for p in (tmp_path / "x").glob("*.parquet")}
    hub.add_dataset("org/tagged", files)
    task = loaded("hub:org/tagged?labels=tags", cache)
    assert task.split_hash == loaded(f"{local}?labels=tags", cache).split_hash


def test_nih_s_own_table(tmp_path: Path, cache: Path) -> None:
    """Data_Entry_2017.csv as it is: findings with | between, patients, "No Finding" for none."""
    header = "Image Index,Finding Labels,Follow-up #,Patient ID"
    text = csv(tmp_path / "x", header,
               lambda f, x, s: f'{f},{"|".join(x) or "No Finding"},0,{int(f[-5]) // 2}{s}'
               )  # fmt: skip
    task = loaded(
        f"{text}?image=Image Index&labels=Finding Labels&none=No Finding&group=Patient ID", cache
    )
    assert task.classes == ("cat", "dog", "mat")
    assert (~task.train.several.any(1)).sum() + (~task.test.several.any(1)).sum() == 5
    assert loaded(task.where, cache).split_hash == task.split_hash


def test_parts_are_drawn_by_images_or_groups(tmp_path: Path, cache: Path) -> None:
    text = csv(tmp_path / "x", "image,tags,patient",
               lambda f, x, s: f'{f},{"|".join(x)},p{int(f[-5]) // 2}{s}')  # fmt: skip
    task = loaded(f"{text}?labels=tags", cache)
    assert len(task.train) in (17, 18)
    grouped = loaded(f"{text}?labels=tags&group=patient", cache)
    assert grouped.split_hash != task.split_hash
    assert 10 <= len(grouped.train) <= 20
    held = held_out_labels(task, 0.2, 0)
    assert 3 <= held.sum() <= 4


def test_a_validation_part_is_chosen_on(tmp_path: Path, cache: Path) -> None:
    def line(file: str, labels: tuple[str, ...], part: str) -> str:
        side = "val" if part == "train" and file[-5] in "13" else part
        return f"{file},{'|'.join(labels)},{side}"

    text = csv(tmp_path / "x", "image,tags,split", line)
    task = loaded(f"{text}?labels=tags&split=split", cache)
    held = held_out_labels(task, 0.5, 0)
    sources = [task.train.source.describe(int(row))[-5] for row in task.train.rows[held]]
    assert set(sources) == {"1", "3"}
    assert held.sum() == 4


@pytest.mark.parametrize("options", ["", "&train=train&test=test&validation={}"])
def test_a_validation_part_of_every_source(
    options: str, tmp_path: Path, cache: Path, hub: LoopbackHub
) -> None:
    """Held out to choose on, and trained on with train: the same task from all."""

    def line(file: str, labels: tuple[str, ...], part: str) -> str:
        side = "val" if part == "train" and int(file[5:-4]) % 3 == 1 else part
        return f"{file},{'|'.join(labels)},{side}"

    listed = csv(tmp_path / "c", "image,tags,split", line)
    text = parquet(tmp_path / "x", {"tags": list})
    whole = pq.read_table(tmp_path / "x" / "train.parquet")
    inside = np.arange(15) % 3 == 1
    for part, mask in (("train", ~inside), ("val", inside)):
        pq.write_table(whole.filter(pa.array(mask)), tmp_path / "x" / f"{part}.parquet")
    files = {f"data/{p.name}": p.read_bytes() for p in (tmp_path / "x").glob("*.parquet")}
    hub.add_dataset("org/held", files)
    tasks = [loaded(f"{where}?labels=tags{options.format(name)}", cache) for where, name in
             ((text, "val"), ("hub:org/held", "validation"))]  # fmt: skip
    tasks.append(loaded(f"{listed}?labels=tags&split=split{options.format('val')}", cache))
    said = " is what settings are chosen on, and trained on with train in the end"
    for task in tasks:
        assert (len(task.train), len(task.test)) == (15, 10)
        assert held_out_labels(task, 0.5, 0).sum() == 5
        assert task.split_hash == tasks[0].split_hash
        assert loaded(task.where, cache).split_hash == task.split_hash
        warnings = task.inventory.warnings()
        assert [w.partition(" ")[2] for w in warnings] == ([] if options else [said[1:]])
        order = np.argsort(task.train.rows)
        known = dict(rows("train", 15))
        read = task.train.source.images(task.train.rows[order])
        for (_, image), several in zip(read, task.train.several[order], strict=True):
            have = tuple(n for n, yes in zip(NAMES, several, strict=True) if yes)
            assert have == tuple(sorted(known[image]))
    alone = loaded(f"{text}?labels=tags&train=train&test=test", cache)
    assert (len(alone.train), alone.validation) == (10, None)


def test_one_label_an_image_is_several_too(task_dir: Path, cache: Path) -> None:
    task = load_task(f"parquet:{task_dir}", cache)
    train, test = labels_of(task)
    assert train.sum(1).tolist() == [1] * len(task.train)
    np.testing.assert_array_equal(test.argmax(1), task.test.labels)


# --------------------------------------------------------------------------- what is refused


def test_bad_labels(tmp_path: Path, cache: Path) -> None:
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"tags": list}, "labels=kinds", "has no label column 'kinds'"),
        ({"tags": lambda x: None}, "labels=tags", "row 0 of a0/train.parquet has no labels"),
        ({"tags": lambda x: "cat||dog"}, "labels=tags", "labels 'cat||dog' have an empty one"),
        ({"tags": lambda x: 0.5}, "labels=tags", "labels 0.5 are no list of names or numbers"),
        ({"tags": lambda x: ["cat"]}, "labels=tags", "1 label; at least two are needed"),
        ({"tags": lambda x: ["cat", "dog"]}, "labels=tags",
         "no label of train is on some images and not on others"),
        ({"cat": lambda x: 2, "dog": lambda x: 1}, "labels=cat,dog",
         "column 'cat' holds '2'; of several columns each is one label, 1 or 0"),
        ({"tags": list}, "none=x", "none= is about several labels an image"),
    ]  # fmt: skip
    for number, (columns, options, words) in enumerate(cases):
        text = parquet(tmp_path / f"a{number}", columns)
        sentence = refusal(load_task, f"{text}?{options}", cache)
        assert words.replace("a0", f"a{number}") in sentence
    declared = parquet(tmp_path / "b", {"tags": lambda x: [7]}, NAMES)
    assert "label 7 is none of the 3 that the source declares" in refusal(
        load_task, f"{declared}?labels=tags", cache
    )


CHEXPERT = "{}: column 'dog' holds -1 beside 0, which may be no or 'uncertain'; write 1 or 0 in"


def test_minus_one_beside_zero_is_refused(tmp_path: Path, cache: Path) -> None:
    """CheXpert: 1, 0, and -1 for "uncertain", which is not no."""

    def uncertain(labels: tuple[str, ...], name: str) -> int:
        return -1 if labels == ("mat",) and name == "dog" else int(name in labels)

    text = parquet(tmp_path / "x", {n: lambda x, n=n: uncertain(x, n) for n in NAMES})
    sentence = refusal(load_task, f"{text}?labels=cat,dog,mat", cache)
    assert CHEXPERT.format("row 4 of x/train.parquet") in sentence
    for number, form in enumerate(("-1", "-1.0")):

        def line(
            file: str, labels: tuple[str, ...], part: str, form: str = form
        ) -> str:  # fmt: skip
            values = [str(uncertain(labels, name)) for name in NAMES]
            return ",".join([file, *values, part]).replace("-1", form)

        text = csv(tmp_path / str(number), "image,cat,dog,mat,split", line)
        sentence = refusal(load_task, f"{text}?labels=cat,dog,mat&split=split", cache)
        assert CHEXPERT.format("image 'train4.png'") in sentence


def test_minus_one_and_zero_in_two_files_of_a_part(tmp_path: Path, cache: Path) -> None:
    text = parquet(tmp_path / "x", {n: lambda x, n=n: int(n in x) for n in NAMES})
    whole = pq.read_table(tmp_path / "x" / "train.parquet")
    minus = pa.array([-1 if value == 0 else 1 for value in whole["dog"].to_pylist()])
    other = whole.set_column(whole.column_names.index("dog"), "dog", minus)
    (tmp_path / "x" / "train.parquet").unlink()
    for number, table in enumerate((whole, other)):
        pq.write_table(table, tmp_path / "x" / f"train-{number}.parquet")
    sentence = refusal(load_task, f"{text}?labels=cat,dog,mat", cache)
    assert CHEXPERT.format("row 0 of x/train-1.parquet") in sentence


def test_the_notation_of_voc_is_taken_and_said(
    tmp_path: Path, cache: Path, hub: LoopbackHub
) -> None:
    voc: dict[str, Any] = {n: lambda x, n=n: 1 if n in x else -1 for n in NAMES}
    plain = loaded(parquet(tmp_path / "p", {"tags": list}) + "?labels=tags", cache)
    text = parquet(tmp_path / "x", voc)
    files = {f"data/{p.name}": p.read_bytes() for p in (tmp_path / "x").glob("*.parquet")}
    hub.add_dataset("org/voc", files)
    listed = csv(tmp_path / "c", "image,cat,dog,mat,split",
                 lambda f, x, s: ",".join([f, *(str(voc[n](x)) for n in NAMES), s])
                 )  # fmt: skip
    said = ("-1 is taken as no, and 1 as yes, in 'cat', 'dog', 'mat'",)
    for where in (text, "hub:org/voc", f"{listed}?split=split"):
        mark = "&" if "?" in where else "?"
        for _ in range(2):  # the second from the memo
            task = loaded(f"{where}{mark}labels=cat,dog,mat", cache)
            assert task.split_hash == plain.split_hash
            assert task.inventory.warnings() == said


def test_lists_without_the_option_say_what_would_work(tmp_path: Path, cache: Path) -> None:
    text = parquet(tmp_path / "x", {"label": list})
    assert "where they have several, name the column as labels=COLUMN" in refusal(
        load_task, text, cache
    )
    joined = parquet(tmp_path / "y", {"label": lambda x: "|".join(x) or "none"})
    sentence = refusal(load_task, joined, cache)
    assert "'cat|dog' names several classes" in sentence
    assert "labels=COLUMN" in sentence


def test_check_task_counts_images_of_each_label(tmp_path: Path, cli: Cli) -> None:
    text = parquet(tmp_path / "x", {"tags": list}) + "?labels=tags"
    line = ("check-task", text, "--sheet", str(tmp_path / "x.png"), "--cache", str(tmp_path / "c"))
    found = cli(*line, "--json").json
    assert [c["train"] for c in found["classes"]] == [6, 6, 6]
    assert found["fewshot"] is None
    assert "3 classes, 15 training and 10 test images" in cli(*line).out

"""Queries and a gallery: the same task from every source, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eval.data.instances.instance_data import InstanceData
from eval.data.load import load_task
from tests.factories import Cli, blobs, refusal
from tests.hub import LoopbackHub

# (what it shows, its role); "moose" is asked for in vain, "elk" is asked for by nobody
ROWS = [
    *[(name, "gallery") for name in ("arch", "arch", "bell", "cone", "elk", "elk")],
    *[(name, "query") for name in ("arch", "bell", "bell", "moose", "cone", "moose")],
    ("arch", "later"),
]
Row = tuple[bytes, str, str]


def rows(which: Callable[[str], bool] = lambda role: True) -> list[Row]:
    images = blobs(3, len(ROWS), seed=7)
    every = [(image, *row) for image, row in zip(images, ROWS, strict=True)]
    return [row for row in every if which(row[2])]


def parquet(file: Path, found: list[Row], **columns: list[Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = [{"bytes": image, "path": None} for image, _, _ in found]
    table = {"image": pixels, "thing": [r[1] for r in found], "role": [r[2] for r in found]}
    pq.write_table(pa.table(table | columns), file)


def csv(folder: Path, found: list[Row], header: str = "image,thing,role") -> str:
    folder.mkdir()
    lines = [header]
    for i, (image, thing, role) in enumerate(found):
        (folder / f"{i}.png").write_bytes(image)
        lines.append(f"{i}.png,{thing},{role}")
    (folder / "all.csv").write_text("\n".join(lines) + "\n")
    return f"csv:{folder / 'all.csv'}"


def loaded(text: str, cache: Path) -> InstanceData:
    task = load_task(text, cache)
    assert isinstance(task, InstanceData)
    assert task.kind == "instances"
    return task


def images_of(task: InstanceData) -> dict[str, list[tuple[bytes, str]]]:
    """Both parts as (image, instance), read from the source."""
    found = {}
    for part in (task.train, task.test):
        order = np.argsort(part.rows)
        read = part.source.images(part.rows[order])
        names = [task.classes[label] for label in part.labels[order].tolist()]
        pairs = zip((data for _, data in read), names, strict=True)
        found[part.name] = sorted(pairs)
    return found


def test_every_source_is_the_same_task(tmp_path: Path, cache: Path) -> None:
    parquet(tmp_path / "one" / "all.parquet", rows())
    backwards = rows()[::-1]
    parquet(tmp_path / "two" / "a-00000.parquet", backwards[:4])
    parquet(tmp_path / "two" / "b-00000.parquet", backwards[4:])
    for part in ("gallery", "query"):
        parquet(tmp_path / "parts" / f"{part}.parquet", rows(lambda r, p=part: r == p))
    parquet(tmp_path / "usual" / "train.parquet", rows(lambda r: r == "gallery"))
    parquet(tmp_path / "usual" / "test.parquet", rows(lambda r: r == "query"))
    other = [(i, t, {"gallery": "INDEX", "query": "Queries"}.get(r, r)) for i, t, r in rows()]
    odd = [(i, t, {"gallery": "0", "query": "1", "later": "2"}[r]) for i, t, r in rows()]
    texts = [
        f"parquet:{tmp_path / 'one'}?instance=thing&role=role",
        f"parquet:{tmp_path / 'two'}?instance=thing&role=role",
        f"parquet:{tmp_path / 'parts'}?instance=thing&train=gallery&test=query",
        f"parquet:{tmp_path / 'usual'}?instance=thing",
        csv(tmp_path / "c1", rows()) + "?instance=thing&role=role",
        csv(tmp_path / "c2", other) + "?instance=thing&role=role",
        csv(tmp_path / "c3", odd) + "?instance=thing&role=role&train=0&test=1",
    ]
    tasks = [loaded(text, cache) for text in texts]
    gallery = sorted((i, t) for i, t, r in rows() if r == "gallery")
    asked = sorted((i, t) for i, t, r in rows() if r == "query" and t != "moose")
    for task in tasks:
        assert task.classes == ("arch", "bell", "cone", "elk")
        assert images_of(task) == {"train": gallery, "test": asked}
        assert task.lost == ("moose", "moose")
        assert task.notes == (
            "2 of 6 queries have no image of their instance in the gallery and are left out: "
            "'moose'",
        )
        assert loaded(task.where, cache).split_hash == task.split_hash
    assert len({task.split_hash for task in tasks}) == 1
    assert any("of role later (1: row 12)" in w for w in tasks[0].inventory.warnings())


def test_from_the_hub(tmp_path: Path, cache: Path, hub: LoopbackHub) -> None:
    parquet(tmp_path / "x" / "train.parquet", rows()[:5])
    parquet(tmp_path / "x" / "test.parquet", rows()[5:])
    parquet(tmp_path / "y" / "gallery.parquet", rows(lambda r: r == "gallery"))
    parquet(tmp_path / "y" / "query.parquet", rows(lambda r: r == "query"))
    for name in ("x", "y"):
        files = {f"data/{p.name}": p.read_bytes() for p in (tmp_path / name).glob("*.parquet")}
        readme = b"""---
configs:
- config_name: default
  data_files:
  - split: gallery
    path: data/gallery.parquet
  - split: query
    path: data/query.parquet
---
"""
        hub.add_dataset(f"org/{name}", files | ({"README.md": readme} if name == "y" else {}))
    own = loaded(f"parquet:{tmp_path / 'x'}?instance=thing&role=role", cache)
    for text in (
        "hub:org/x?instance=thing&role=role",
        "hub:org/y?instance=thing&train=gallery&test=query",
    ):
        task = loaded(text, cache)
        assert task.split_hash == own.split_hash
        assert loaded(task.where, cache).split_hash == own.split_hash


def test_the_second_load_reads_no_image(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = csv(tmp_path / "x", rows()) + "?instance=thing&role=role"
    first = loaded(text, cache)
    monkeypatch.setattr("eval.data.sources.image_hash", None)
    assert loaded(text, cache).split_hash == first.split_hash


def test_a_limit_keeps_matches(tmp_path: Path, cache: Path) -> None:
    text = csv(tmp_path / "x", rows()) + "?instance=thing&role=role"
    whole = loaded(text, cache)
    few = load_task(text, cache, limit=3)
    assert (len(few.train), len(few.test), few.limit) == (3, 3, 3)
    assert set(few.test.labels) <= set(few.train.labels)
    np.testing.assert_array_equal(few.test.keys, whole.test.keys[:3])
    assert load_task(text, cache, limit=50).split_hash == whole.split_hash
    assert "one instance is left in the gallery" in refusal(load_task, text, cache, None, 1)


def test_what_is_refused(tmp_path: Path, cache: Path) -> None:
    def table(name: str, found: list[Row]) -> str:
        return csv(tmp_path / name, found) + "?instance=thing&role=role"

    image = blobs(0, 8, seed=1)
    alone = [(image[i], f"q{i}", "query") for i in range(3)]
    alone += [(image[3 + i], f"g{i}", "gallery") for i in range(3)]
    sentence = refusal(load_task, table("a", alone), cache)
    assert "none of the 3 queries has an image of its instance in the gallery" in sentence
    assert "queries show 'q0', 'q1', 'q2', the gallery 'g0', 'g1', 'g2'" in sentence
    one = [(image[0], "x", "query"), (image[1], "x", "gallery"), (image[2], "x", "gallery")]
    assert "all 2 images of the gallery show 'x'" in refusal(load_task, table("b", one), cache)
    roles = [(image[0], "x", "yes"), (image[1], "y", "gallery")]
    sentence = refusal(load_task, table("c", roles), cache)
    assert "its role column 'role' holds 'gallery', 'yes'; use 'query' and 'gallery'" in sentence
    bare = [(image[0], "x", "query"), (image[1], "", "gallery"), (image[2], "x", "gallery")]
    assert "line 3 of" in refusal(load_task, table("d", bare), cache)
    text = csv(tmp_path / "e", rows())
    for options, words in (
        ("instance=thing", "name the column that says query or gallery: role=.."),
        ("role=role", "role= is about queries and a gallery; name the column"),
        ("instance=thing&role=role&labels=thing", "labels= does not go with instance="),
        ("instance=kind&role=role", "has no instance column 'kind'; its columns are image, thing"),
    ):
        assert words in refusal(load_task, f"{text}?{options}", cache)
    parquet(tmp_path / "f" / "all.parquet", rows(), thing=[None] * len(ROWS))
    text = f"parquet:{tmp_path / 'f'}?instance=thing"
    assert "unlabelled: all 13 images" in refusal(load_task, f"{text}&role=role", cache)
    assert "has no train-*.parquet" in refusal(load_task, text, cache)
    assert "has no column 'side'" in refusal(load_task, f"{text}&role=side", cache)
    (tmp_path / "g").mkdir()
    empty = f"parquet:{tmp_path / 'g'}?instance=thing&role=role"
    assert "holds no Parquet file" in refusal(load_task, empty, cache)


def test_the_same_images_as_classes_are_another_task(task_dir: Path, cache: Path) -> None:
    classes = load_task(f"parquet:{task_dir}", cache)
    instances = loaded(f"parquet:{task_dir}?instance=label", cache)
    np.testing.assert_array_equal(instances.train.labels, classes.train.labels)
    assert instances.split_hash != classes.split_hash
    assert instances.name != classes.name


def test_an_image_of_two_instances_is_warned_of(tmp_path: Path, cache: Path) -> None:
    found = [*rows(), (rows()[0][0], "bell", "gallery")]
    task = loaded(csv(tmp_path / "x", found) + "?instance=thing&role=role", cache)
    assert task.ambiguous == 2


def test_check_task_looks_at_it(tmp_path: Path, cli: Cli) -> None:
    text = csv(tmp_path / "x", rows()) + "?instance=thing&role=role"
    line = ("check-task", text, "--sheet", str(tmp_path / "x.png"), "--cache", str(tmp_path / "c"))
    ran = cli(*line)
    assert "4 classes, 6 training and 4 test images" in ran.out
    assert "2 of 6 queries have no image of their instance in the gallery" in ran.out
    assert "fewshot" not in ran.out
    assert cli(*line, "--json").json["fewshot"] is None

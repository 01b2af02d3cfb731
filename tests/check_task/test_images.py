"""Looking a data set over: what is counted, what is warned of, and the contact sheet."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from eval import protocols
from eval.check_task.contact_sheet import contact_sheet
from eval.check_task.facts import Check
from eval.check_task.images import as_json, check, render
from eval.common.errors import UserError
from eval.data.load import load_task
from eval.data.task_data import TaskData
from eval.features.bank import FeatureBank
from eval.protocols.episodes import Pool, able, refusals
from eval.settings.protocols import Fewshot
from eval.training.context import Context
from tests.factories import Cli, blobs, make_task, refusal, write_parquet

PAPER, EMPTY, CROSS = (0xEC, 0xEC, 0xEF), (0xCF, 0xCF, 0xD6), (0xDC, 0x26, 0x26)
Rows = Sequence[tuple[bytes, int]]


def picture(
    size: tuple[int, int] = (40, 40),
    mode: str = "RGB",
    kind: str = "PNG",
    seed: int = 0,
    **more: Any,
) -> bytes:
    """One image file of noise."""
    width, height = size
    pixels = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 16)
    elif mode != "RGB":
        image = image.convert(mode)
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def task_of(
    folder: Path, train: Rows, test: Rows, names: Sequence[str] = ("cat", "dog"), cached: str = "c"
) -> TaskData:
    """A data set in Parquet of these images and labels."""
    for part, rows in (("train", train), ("test", test)):
        images, labels = [b for b, _ in rows], [label for _, label in rows]
        write_parquet(folder / f"{part}-0.parquet", images, labels, list(names))
    return load_task(f"parquet:{folder}", folder / cached)


def plain(sizes: Mapping[str, tuple[int, int]], seed: int = 0) -> tuple[Rows, Rows]:
    """Train and test with that many different images of each class."""
    train, test = [], []
    for label, (a, b) in enumerate(sizes.values()):
        images = blobs(label, a + b, seed, size=33)
        train += [(image, label) for image in images[:a]]
        test += [(image, label) for image in images[a:]]
    return train, test


def sized(folder: Path, sizes: Mapping[str, tuple[int, int]]) -> TaskData:
    return task_of(folder, *plain(sizes), names=list(sizes))


def warned(found: Check, part: str) -> str:
    """The one warning that says so."""
    (text,) = [w for w in found.warnings if part in w]
    return text


# --------------------------------------------------------------------------- a set in order


def test_a_set_in_order_gives_no_warning(tmp_path: Path) -> None:
    data = sized(tmp_path, {f"kind {c}": (25, 12) for c in "abcde"})
    found = check(data)
    assert found.warnings == ()
    assert (found.task, found.where, found.split_hash) == (data.name, data.where, data.split_hash)
    assert (found.train, found.test, len(found.classes)) == (125, 60, 5)
    assert {(c.train, c.test) for c in found.classes} == {(25, 12)}
    assert found.images.modes == {"RGB": 185}
    assert found.images.formats == {"PNG": 185}
    assert not any(c.groups for c in found.copies)
    assert found.fewshot.most_shots == 37 - 15
    assert found.fewshot.classes == {1: 5, 5: 5, 20: 5}
    assert found.fewshot.refused == {}
    assert [(p.protocol, p.works, p.findings) for p in found.probes] == [
        ("knn", True, ()),
        ("linear", True, ()),
        ("linear-sgd", True, ()),
        ("finetune", True, ()),
    ]


def test_balance_counts_each_class_of_each_part(tmp_path: Path) -> None:
    found = check(sized(tmp_path, {"a": (3, 1), "b": (7, 2), "c": (5, 11)}))
    assert [(c.name, c.train, c.test) for c in found.classes] == [
        ("a", 3, 1),
        ("b", 7, 2),
        ("c", 5, 11),
    ]


# --------------------------------------------------------------------------- images


def test_sizes_modes_and_formats(tmp_path: Path) -> None:
    kinds = [
        picture((20, 50), "RGB", "JPEG"),
        picture((30, 60), "L"),
        picture((31, 61), "1"),
        picture((40, 70), "RGBA"),
        picture((50, 80), "P", "GIF"),
        picture((60, 90), "CMYK", "JPEG"),
        picture((70, 100), "I;16"),
    ]
    train = [(b, i % 2) for i, b in enumerate(kinds)]
    found = check(task_of(tmp_path, train, [(picture(seed=i), i % 2) for i in range(2)]))
    images = found.images
    assert images.width is not None
    assert images.height is not None
    assert (images.width.least, images.width.median, images.width.most) == (20, 40, 70)
    assert (images.height.least, images.height.median, images.height.most) == (40, 61, 100)
    assert images.formats == {"PNG": 6, "JPEG": 2, "GIF": 1}
    assert images.modes == {"RGB": 3, "L": 1, "1": 1, "RGBA": 1, "P": 1, "CMYK": 1, "I;16": 1}
    assert images.small == 3
    assert "3 images with a side under 32 px" in warned(found, "under 32 px")
    assert "grey images (3) and colour images (6)" in warned(found, "grey images")
    assert warned(found, "transparency").startswith("1 image with")
    assert warned(found, "CMYK").startswith("1 image in CMYK")
    assert warned(found, "8 bits") == (
        "1 image with more than 8 bits: values 0 to 4080 of train are read as 0 for black and "
        "4095 for white; ?range=LOW,HIGH says it otherwise"
    )


def test_a_truncated_image_is_found(tmp_path: Path) -> None:
    """Its header is sound: what `run` could not decode is named before."""
    train, test = plain({"cat": (6, 3), "dog": (6, 3)})
    whole = picture((200, 200), kind="JPEG")
    found = check(task_of(tmp_path, [*train, (whole[:2000], 0), (whole, 1)], test))
    (named,) = found.images.named
    assert named.startswith(f"row 12 of {tmp_path.name}/train-0.parquet (train): ")
    assert "truncated" in named
    assert sum(found.images.modes.values()) == 19


def test_what_was_found_is_shown(tmp_path: Path, cache: Path) -> None:
    for part in ("train", "test", "val"):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "x" / part / name).mkdir(parents=True)
            for i, image in enumerate(blobs(label, 12, len(part), size=33)):
                (tmp_path / "x" / part / name / f"{i}.png").write_bytes(image)
    (tmp_path / "x" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "x" / "train" / "lone.png").write_bytes(b"x")
    found = check(load_task(f"imagefolder:{tmp_path / 'x'}", cache))
    text = render(found)
    assert "- 74 files found: 72 taken, 2 left out\n" in text
    assert "- left out: hidden, or left behind by a program (1: Thumbs.db)\n" in text
    assert as_json(found)["inventory"]["found"] == 74
    assert [w for w in found.warnings if "lone" in w or "val" in w] == [
        "val is what settings are chosen on, and trained on with train in the end",
        "left out: images beside the class folders (1: train/lone.png)",
    ]


def test_images_turned_by_exif_are_counted(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    rows = [(picture((20 + i, 60), "RGB", "JPEG", exif=turned), i % 2) for i in range(3)]
    upright = [(picture((20 + i, 60), "RGB", "JPEG"), i % 2) for i in range(2)]
    found = check(task_of(tmp_path, rows, upright))
    assert found.images.turned == 3
    assert found.images.width is not None
    assert found.images.width.most == 22  # as stored
    assert "turned by EXIF: 3" in render(found)


def test_unreadable_images_are_named_with_the_reason(tmp_path: Path) -> None:
    odd = [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid 1", "it is a Git LFS pointer"),
        (b" <!DOCTYPE html><title>Not found", "it is a web page"),
        (b"nothing at all", "it is in no image format that Pillow knows"),
    ]
    train, test = plain({"cat": (6, 3), "dog": (6, 3)})
    train = [*train, *((b, 0) for b, _ in odd)]
    found = check(task_of(tmp_path, train, [*test, (b"\x89PNG\r\n\x1a\n" + b"\0" * 30, 1)]))
    assert found.images.unreadable == 5
    assert len(found.images.named) == 5
    for i, (_, why) in enumerate(odd):
        place = f"row {12 + i} of {tmp_path.name}/train-0.parquet (train): {why}"
        assert any(n.startswith(place) for n in found.images.named)
    assert any(n.startswith("row 6 of") and "(test)" in n for n in found.images.named)
    assert "0x" not in " ".join(found.images.named)
    assert "5 images cannot be read, so that nothing is scored" in found.warnings[0]
    assert found.images.modes == {"RGB": 18}


def test_twenty_unreadable_images_are_named_and_all_counted(tmp_path: Path) -> None:
    train, test = plain({"cat": (3, 2), "dog": (3, 2)})
    found = check(task_of(tmp_path, [*train, *((b"%d" % i, i % 2) for i in range(30))], test))
    assert (found.images.unreadable, len(found.images.named)) == (30, 20)
    assert "and 10 more that cannot be read" in render(found)


def test_nothing_but_unreadable_images(tmp_path: Path) -> None:
    rows = [[(b"%s%d" % (part, i), i % 2) for i in range(4)] for part in (b"a", b"b")]
    found = check(task_of(tmp_path, *rows))
    assert (found.images.width, found.images.unreadable) == (None, 8)
    assert "no image could be read" in render(found)
    contact_sheet(task_of(tmp_path, *rows), tmp_path / "s.png")


def test_what_tells_the_class_beside_the_picture(tmp_path: Path) -> None:
    """Cats from one camera, dogs from another: the size alone is enough."""
    rows = [
        [(picture((40 + 8 * (i % 2), 40), seed=i), i % 2) for i in range(first, first + 40)]
        for first in (0, 100)
    ]
    found = check(task_of(tmp_path, *rows))
    assert (found.images.told, found.images.guessed) == (1.0, 0.5)
    assert "alone tell the class of 100% of the test images" in warned(found, "alone tell")


def test_sizes_that_no_two_images_share_tell_nothing(tmp_path: Path) -> None:
    rows = [
        [(picture((33 + i, 40), seed=i), i % 2) for i in range(first, first + 20)]
        for first in (0, 20)
    ]
    found = check(task_of(tmp_path, *rows))
    assert found.images.told == found.images.guessed == 0.5
    assert found.warnings == ()


# --------------------------------------------------------------------------- copies


def test_copies_are_shown_by_kind(tmp_path: Path) -> None:
    train, test = plain({"cat": (12, 12), "dog": (12, 12)})
    a, b, c, d = (picture(seed=i) for i in range(4))
    more_train = [(a, 0), (a, 0), (b, 0), (c, 0), (c, 1)]
    more_test = [(b, 0), (d, 1), (d, 1), (d, 1)]
    data = task_of(tmp_path, [*train, *more_train], [*test, *more_test])
    found = check(data)
    by_kind = {k.kind: k for k in found.copies}
    assert {k: (v.groups, v.images) for k, v in by_kind.items()} == {
        "within train": (2, 4),
        "within test": (1, 3),
        "across train and test": (1, 2),
        "under two labels": (1, 2),
    }
    where = tmp_path.name
    assert by_kind["across train and test"].shown == (
        (
            f"row 26 of {where}/train-0.parquet (train, 'cat')",
            f"row 24 of {where}/test-0.parquet (test, 'cat')",
        ),
    )
    assert by_kind["under two labels"].shown == (
        (
            f"row 27 of {where}/train-0.parquet (train, 'cat')",
            f"row 28 of {where}/train-0.parquet (train, 'dog')",
        ),
    )
    assert warned(found, "also in train").startswith("1 of 28 test images")
    assert warned(found, "two labels").startswith("2 images under two labels")
    assert by_kind["across train and test"].shown[0][0] in render(found)


def test_few_of_many_copies_are_shown(tmp_path: Path) -> None:
    train, test = plain({"cat": (3, 3), "dog": (3, 3)})
    groups = [(picture(seed=i), 0) for i in range(15) for _ in range(2)]
    large = [(picture(seed=99), 0)] * 50 + [(picture(seed=99), 1)]
    found = check(task_of(tmp_path, [*train, *groups, *large], [*test, large[0]]))
    by_kind = {k.kind: k for k in found.copies}
    assert (by_kind["within train"].groups, len(by_kind["within train"].shown)) == (16, 10)
    first = by_kind["within train"].shown[0]  # the largest group
    assert (len(first), first[-1]) == (5, "and 47 more")
    for kind in ("across train and test", "under two labels"):  # both sides are among the places
        text = " ".join(by_kind[kind].shown[0])
        assert "(test, 'cat')" in text
        assert "(train, 'dog')" in text
    assert "(10 of 16)" in render(found)


contents = st.integers(0, 5)
rows_of = st.lists(st.tuples(contents, st.integers(0, 2)), min_size=2, max_size=14).filter(
    lambda rows: len({label for _, label in rows}) > 1
)


@settings(max_examples=40, deadline=None)
@given(train=rows_of, test=rows_of)
def test_counts_of_copies_are_right(
    tmp_path_factory: pytest.TempPathFactory,
    train: list[tuple[int, int]],
    test: list[tuple[int, int]],
) -> None:
    folder = tmp_path_factory.mktemp("copies")
    parts = [[(picture((33, 33), seed=p), label) for p, label in part] for part in (train, test)]
    data = task_of(folder, *parts, names=["a", "b", "c"])
    found = check(data, Fewshot(n_way=2, queries=1))
    expected = {k: [0, 0] for k in ("within train", "within test", "across", "under")}
    for p in range(6):
        a, b = ([label for q, label in part if q == p] for part in (train, test))
        for kind, is_so, n in (
            ("within train", len(a) > 1, len(a)),
            ("within test", len(b) > 1, len(b)),
            ("across", bool(a and b), len(a + b)),
            ("under", len(set(a + b)) > 1, len(a + b)),
        ):
            expected[kind][0] += is_so
            expected[kind][1] += n * is_so
    assert [[c.groups, c.images] for c in found.copies] == list(expected.values())
    json.dumps(as_json(found))
    assert render(found).splitlines()
    assert found.fewshot.different == len(Pool.of(data).rows)


# --------------------------------------------------------------------------- protocols


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 12), min_size=2, max_size=6),
    n_way=st.integers(2, 5),
    queries=st.integers(1, 6),
)
def test_the_most_shots_are_the_most_that_can_be_drawn(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], n_way: int, queries: int
) -> None:
    folder = tmp_path_factory.mktemp("shots")
    rows: list[Rows] = [
        [(b"%d-%d" % (c, i), c) for c, n in enumerate(sizes) for i in range(n) if (i == 0) == first]
        for first in (False, True)
    ]
    data = task_of(folder, *rows, names=[str(c) for c in range(len(sizes))])
    found = check(data, Fewshot(n_way=n_way, queries=queries)).fewshot
    served = [k for k in range(1, 13) if not refusals(Pool.of(data), Fewshot((k,), n_way, queries))]
    assert found.most_shots == max(served, default=0)
    assert bool(found.why_not) == (not served)
    for k, classes in found.classes.items():
        assert classes == able(Pool.of(data), k + queries)
        assert (k in found.refused) == (classes < n_way)


def test_a_set_too_small_for_episodes_says_why(tmp_path: Path) -> None:
    found = check(sized(tmp_path, {"a": (20, 10), "b": (20, 10), "c": (4, 4)}))
    assert found.fewshot.most_shots == 0
    assert "1-shot needs 5 classes of 1 + 15 different images; only 2" in found.fewshot.why_not
    text = render(found)
    assert "fewshot no 1-shot needs 5 classes" in " ".join(text.split())
    assert text.count("1-shot needs 5 classes") == 1


def test_shots_that_cannot_be_drawn_are_said(tmp_path: Path) -> None:
    found = check(sized(tmp_path, dict.fromkeys("abcde", (18, 6))))
    assert (found.fewshot.most_shots, list(found.fewshot.refused)) == (9, [20])
    assert (
        "fewshot yes, but up to 9-shot (5-way, 15 queries); classes at 1/5/20 shots: 5/5/0"
        in " ".join(render(found).split())
    )


def scored(data: TaskData, protocol: str) -> Any:
    """What a protocol does with the set, on made-up features."""
    n = len(data.train)
    features = torch.randn(n + len(data.test), 8, generator=torch.Generator().manual_seed(0))
    bank: Any = SimpleNamespace(
        features=features,
        train=(features[:n], torch.from_numpy(data.train.labels)),
        test=(features[n:], torch.from_numpy(data.test.labels)),
    )
    assert set(vars(bank)) <= set(dir(FeatureBank)) | set(FeatureBank.__annotations__)
    known = protocols.PROTOCOLS[protocol]
    given: Any = SimpleNamespace(features=bank, task=data, seed=0)
    assert set(vars(given)) <= set(dir(Context)) | set(Context.__annotations__)
    return known.load()(given, known.settings())


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_what_a_probe_cannot_do_is_what_it_refuses(tmp_path: Path, protocol: str) -> None:
    data = sized(tmp_path, {"a": (1, 2), "b": (1, 2)})
    (found,) = (p for p in check(data).probes if p.protocol == protocol)
    assert not found.works
    assert found.findings == (refusal(scored, data, protocol),)
    assert f"{protocol}: task" in render(check(data))


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_a_class_of_one_image_is_held_out_whole(tmp_path: Path, protocol: str) -> None:
    data = sized(tmp_path, {"a": (10, 3), "b": (10, 3), "single": (1, 3)})
    (found,) = (p for p in check(data).probes if p.protocol == protocol)
    assert found.works
    assert "class 'single' is in the validation part alone" in found.findings[0]
    assert set(np.unique(scored(data, protocol).predictions)) <= {0, 1, 2}


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_a_class_of_test_that_train_lacks_is_never_answered(tmp_path: Path, protocol: str) -> None:
    data = sized(tmp_path, {"a": (10, 3), "b": (10, 3), "new": (0, 4)})
    found = check(data)
    (probe,) = (p for p in found.probes if p.protocol == protocol)
    assert probe.works
    assert "class 'new' is without a training image: 4 test images" in probe.findings[0]
    assert 2 not in scored(data, protocol).predictions
    assert "1 class ('new') without a training image" in warned(found, "though in test")
    assert f"{protocol}: class 'new'" in render(found)


# --------------------------------------------------------------------------- warnings


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"a": (45, 10), "b": (4, 10)}, "strong imbalance: 'a' has 45 training images, 'b' 4"),
        ({"a": (9, 10), "b": (9, 9)}, "1 class ('b') with fewer than 10 test images"),
        ({"a": (9, 10), "b": (4, 10)}, "1 class ('b') with fewer than 5 training images"),
        ({"a": (9, 10), "b": (9, 10), "c": (0, 0)}, "1 class ('c') without any image"),
        ({"a": (9, 10), "b": (9, 10), "c": (9, 0)}, "1 class ('c') without a test image"),
        ({"a": (9, 10), "b": (9, 10), "c": (0, 9)}, "1 class ('c') without a training image"),
        (dict.fromkeys("abcdef", (1, 1)), "6 classes for 6 training images: is the label column"),
        (
            dict.fromkeys("abcdefg", (1, 1)),
            "'d', 'e' and 2 more) with fewer than 5",
        ),
    ],
)
def test_counts_that_deserve_a_warning(
    tmp_path: Path, sizes: dict[str, tuple[int, int]], said: str
) -> None:
    assert any(said in w for w in check(sized(tmp_path, sizes)).warnings)


def test_a_folder_without_an_image_is_named_once(tmp_path: Path) -> None:
    for name in ("ash", "beech", "birch"):
        (tmp_path / "leaves" / name).mkdir(parents=True)
        for i in range(4 * (name != "birch")):
            picture = Image.new("RGB", (32, 32), (40 * i, 90, 10 * len(name)))
            picture.save(tmp_path / "leaves" / name / f"{i}.png")
    warnings = check(load_task(f"imagefolder:{tmp_path / 'leaves'}", tmp_path / "cache")).warnings
    assert [w for w in warnings if "birch" in w] == ["1 class folder without an image ('birch')"]


def test_ten_times_as_many_are_no_strong_imbalance(tmp_path: Path) -> None:
    found = check(sized(tmp_path, {"a": (50, 10), "b": (5, 10)}))
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["Dog", "dog "], "'Dog' and 'dog '"),
        (["sea lion", "sea_lion"], "'sea lion' and 'sea_lion'"),
        (["caf\u00e9", "cafe\u0301"], "are they one?"),
        (["Sea  Lion", "sea-lion", "cat"], "'Sea  Lion' and 'sea-lion'"),
        (["1", "2"], "the class names are numbers ('1', '2')"),
        (["-1", "1"], "the class names are numbers"),
        (["0.25", "0.5"], "decimal numbers ('0.25', '0.5'): are they measurements?"),
        (["a.jpg", "cat"], "look like paths ('a.jpg')"),
        (["/data/cat", "dog"], "look like paths ('/data/cat')"),
        (["C:\\cat", "dog"], "look like paths"),
        (["class 0", "class 1"], "the source declares none"),
    ],
)
def test_names_that_deserve_a_warning(tmp_path: Path, names: list[str], said: str) -> None:
    found = check(sized(tmp_path, dict.fromkeys(names, (12, 10))))
    assert len(found.warnings) == 1
    assert said in found.warnings[0]


@pytest.mark.parametrize(
    "names", [["cat", "dog"], ["Greek/alpha", "Greek/beta"], ["type 1", "type 2"], ["v1.5", "No."]]
)
def test_names_that_are_fine(tmp_path: Path, names: list[str]) -> None:
    assert check(sized(tmp_path, dict.fromkeys(names, (12, 10)))).warnings == ()


def test_labels_without_names_are_said_to_be(tmp_path: Path) -> None:
    train, test = plain({"a": (12, 10), "b": (12, 10)})
    for part, rows in (("train", train), ("test", test)):
        write_parquet(tmp_path / f"{part}-0.parquet", [b for b, _ in rows], [c for _, c in rows])
    found = check(load_task(f"parquet:{tmp_path}", tmp_path / "cache"))
    assert found.warnings == ("the classes have numbers for names: the source declares none",)


# --------------------------------------------------------------------------- words


def test_a_terminal_gets_tables(tmp_path: Path) -> None:
    found = check(sized(tmp_path, {"many": (9, 10), "few": (5, 11)}))
    lines = render(found).splitlines()
    assert lines[0] == f"{found.task}: 2 classes, 14 training and 21 test images"
    assert "class  train  test" in lines
    assert lines.index("many       9    10") < lines.index("few        5    11")
    assert "- train: 5 to 9 images a class, median 7" in lines
    assert lines[-2:] == ["Warnings", "none"]
    assert not any(line != line.rstrip() for line in lines)


def test_markdown_shows_foreign_text_as_it_is(tmp_path: Path) -> None:
    found = check(sized(tmp_path, {"a|b": (9, 10), "<script>*x*": (9, 9)}))
    text = render(found, markdown=True)
    assert text.startswith("## ")
    assert "| class " in text
    assert "<script" not in text
    assert "a&#124;b" in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in table} <= {4, 5}


@pytest.mark.parametrize("markdown", [False, True])
def test_names_cannot_move_the_cursor(tmp_path: Path, markdown: bool) -> None:
    names = ["\x1b[31mred", "two\nlines", "bell\x07", "dog "]
    folder = tmp_path / "\x1b[2Jcleared"
    text = render(check(sized(folder, dict.fromkeys(names, (4, 2)))), markdown=markdown)
    assert "\\x1b" in text.replace("&#92;", "\\")
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "dog " in text
    text.encode()


def test_of_many_classes_both_ends_are_printed(tmp_path: Path) -> None:
    sizes = {f"kind {i:02}": (2 + i % 3, 1) for i in range(30)}
    found = check(sized(tmp_path, sizes))
    text = render(found)
    assert sum(line.startswith("kind ") for line in text.splitlines()) == 24
    assert "6 classes between the largest and the smallest are in --json only" in text
    assert len(as_json(found)["classes"]) == 30


def test_json_holds_everything(tmp_path: Path) -> None:
    found = check(sized(tmp_path, {"a": (4, 2), "b": (4, 2)}))
    tree = json.loads(json.dumps(as_json(found)))
    assert set(tree) == {f.name for f in dataclasses.fields(Check)}
    assert tree["classes"][0] == {"name": "a", "train": 4, "test": 2}
    assert tree["fewshot"]["classes"] == {"1": 0, "5": 0, "20": 0}
    assert tree["images"]["modes"] == {"RGB": 12}
    assert tree["warnings"] == list(found.warnings)


def test_the_notes_of_the_data_are_passed_on(tmp_path: Path, cache: Path) -> None:
    for label, kind in enumerate(("cat", "dog")):
        (tmp_path / "own" / kind).mkdir(parents=True)
        for i, content in enumerate(blobs(label, 6, 0, size=33)):
            (tmp_path / "own" / kind / f"{i}.png").write_bytes(content)
    found = check(load_task(f"imagefolder:{tmp_path / 'own'}", cache))
    assert "70 % of each class to train" in found.notes[0]
    assert found.notes[0] in render(found)


# --------------------------------------------------------------------------- contact sheet


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def tiles(path: Path, tile: int) -> list[list[np.ndarray]]:
    """The tiles of each row of the sheet, found by the paper around them."""
    sheet = pixels_of(path)
    height, width = sheet.shape[:2]
    bottom, right = height - 12 - 4, width - 12  # margin and gap
    rows: list[list[np.ndarray]] = []
    y = bottom - tile
    while y > 60:
        row, x = [], right - tile
        for i in range(8):
            row.insert(0, sheet[y : y + tile, x : x + tile])
            x -= tile + 4 + (16 if i == 1 else 0)
        rows.insert(0, row)
        y -= tile + 4
    return rows


def is_bare(tile: np.ndarray) -> bool:
    return bool((tile == PAPER).all())


def test_a_row_a_class_train_then_test(tmp_path: Path) -> None:
    colours = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    rows: list[Rows] = []
    for count in (9, 3):  # test images are darker
        rows.append(
            [
                (flat(tuple(v * count // 9 for v in c), 48 + i), label)
                for label, c in enumerate(colours.values())
                for i in range(count)
            ]
        )
    data = task_of(tmp_path, *rows, names=list(colours))
    path = contact_sheet(data, tmp_path / "new" / "sheet.png", tile=96)
    found = tiles(path, 96)
    assert len(found) == 3
    for row, colour in zip(found, colours.values(), strict=True):
        for i, tile in enumerate(row):
            expected = [v * (9 if i < 6 else 3) // 9 for v in colour]
            assert tile[48, 48].tolist() == expected


def flat(colour: Sequence[int], side: int = 48) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), tuple(colour)).save(out, "PNG")
    return out.getvalue()


def test_images_keep_their_shape_and_are_turned_as_models_see_them(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # stored lying, shown upright
    lying = io.BytesIO()
    Image.new("RGB", (100, 50), (255, 0, 0)).save(lying, "JPEG", exif=turned, quality=95)
    out = io.BytesIO()
    Image.new("RGB", (400, 100), (0, 255, 0)).save(out, "PNG")
    rows = [(lying.getvalue(), 0), (out.getvalue(), 1)]
    data = task_of(tmp_path, rows, [(flat((1, 2, 3)), 0), (flat((1, 2, 4)), 1)])
    (upright, *rest), (wide, *_) = tiles(contact_sheet(data, tmp_path / "s.png"), 96)
    assert upright[48, 48].tolist() == pytest.approx([254, 0, 0], abs=3)
    assert upright[0, 48].tolist() == pytest.approx([254, 0, 0], abs=3)  # to the upper edge
    assert upright[48, 10].tolist() == list(EMPTY)
    assert wide[48, 0].tolist() == wide[48, 95].tolist() == [0, 255, 0]
    covered = (wide == (0, 255, 0)).all(2).sum(0)
    assert set(covered.tolist()) == {24}
    assert all(is_bare(t) for t in rest[:5])  # no further images


def test_small_images_are_enlarged_by_whole_pixels(tmp_path: Path) -> None:
    board = np.indices((10, 10)).sum(0) % 2 * 255
    out = io.BytesIO()
    Image.fromarray(board.astype(np.uint8)).save(out, "PNG")
    train = [(out.getvalue(), 0), (flat((9, 9, 9)), 1)]
    data = task_of(tmp_path, train, [(flat((1, 2, 3)), 0), (flat((4, 5, 6)), 1)])
    first = tiles(contact_sheet(data, tmp_path / "s.png"), 96)[0][0]
    inner = first[3:93, 3:93, 0]
    assert (inner == board.repeat(9, 0).repeat(9, 1)).all()
    assert first[0, 0].tolist() == list(EMPTY)


def test_unreadable_images_are_crossed_out(tmp_path: Path) -> None:
    whole = picture((64, 64), "RGB", "JPEG")
    rows = [(b"no image", 0), (whole[: len(whole) // 3], 1)]
    data = task_of(tmp_path, rows, [(flat((1, 2, 3)), 0), (flat((4, 5, 6)), 1)])
    assert check(data).images.unreadable == 2
    found = tiles(contact_sheet(data, tmp_path / "s.png"), 96)
    for row in found:
        assert row[0][48, 48].tolist() == list(CROSS)
        assert row[0][48, 5].tolist() == list(EMPTY)


def test_the_same_data_give_the_same_sheet(tmp_path: Path) -> None:
    """Wherever they lie, and in whatever order."""
    train, test = plain({"cat": (20, 5), "dog": (20, 5)})
    one = task_of(tmp_path / "one", train, test)
    other = task_of(tmp_path / "other", train[::-1], test[::-1])
    other = dataclasses.replace(other, name=one.name)
    first = contact_sheet(one, tmp_path / "1.png").read_bytes()
    assert contact_sheet(other, tmp_path / "2.png").read_bytes() == first
    assert contact_sheet(one, tmp_path / "3.png", seed=1).read_bytes() != first


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 30), seed=st.integers(0, 40))
def test_no_image_is_shown_twice(
    tmp_path_factory: pytest.TempPathFactory, count: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("sheet")
    rows = [(flat((i, 100, label)), label) for label in range(2) for i in range(count)]
    data = task_of(folder, rows, [(flat((1, 2, 3)), 0), (flat((4, 5, 6)), 1)])
    for row in tiles(contact_sheet(data, folder / "s.png", tile=24, seed=seed), 24):
        shown = [tuple(t[12, 12]) for t in row[:6] if not is_bare(t)]
        assert len(shown) == len(set(shown)) == min(count, 6)


def test_of_many_classes_some_are_chosen_evenly(tmp_path: Path) -> None:
    rows = [(flat((label, 50, 50)), label) for label in range(100)]
    data = task_of(tmp_path, rows, rows, names=[f"kind {i}" for i in range(100)])
    found = tiles(contact_sheet(data, tmp_path / "s.png", most_classes=12, tile=32), 32)
    labels = [int(row[0][16, 16, 0]) for row in found]
    assert len(labels) == 12
    assert (labels[0], labels[-1]) == (0, 99)
    assert set(np.diff(labels).tolist()) == {9}
    all_of_them = contact_sheet(data, tmp_path / "all.png", most_classes=100, tile=32)
    assert len(tiles(all_of_them, 32)) == 100


ODD_NAMES = ["日本語 の 花", "أسد", "\x1b[31m", "two\nlines", "\u202eabc", "🦁", "\u0301", " "]


@pytest.mark.parametrize("freetype", [True, False])
def test_any_name_can_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, freetype: bool
) -> None:
    known = features.check
    monkeypatch.setattr(
        "PIL.features.check", lambda name: freetype if name == "freetype2" else known(name)
    )
    names = [*ODD_NAMES, "x" * 500, "many words " * 40]
    data = sized(tmp_path, dict.fromkeys(names, (2, 1)))
    odd = dataclasses.replace(data, name="\n日" * 300, classes=(*names[1:], "\udcff lone"))
    for task in (data, odd):
        path = contact_sheet(task, tmp_path / "s.png")
        assert pixels_of(path).shape[1] < 1200


def test_long_names_are_cut_and_stay_left_of_the_tiles(tmp_path: Path) -> None:
    rows = [(flat((label, 50, 50)), label) for label in range(2)]
    wide = [task_of(tmp_path / n, rows, rows, names=[n * 90, "b"]) for n in ("W", "Wi ")]
    for data in wide:
        path = contact_sheet(data, tmp_path / "s.png")
        first = tiles(path, 96)[0][0]
        assert (first == (0, 50, 50)).all()
        sheet = pixels_of(path)
        left = sheet.shape[1] - 12 - 8 * 96 - 6 * 4 - 20  # of the first tile
        assert (sheet[:, :12] == PAPER).all()
        assert (sheet[-220:, left - 12 : left] == PAPER).all()
        assert (sheet[-220:, 12 : left - 12] != PAPER).any()  # the name


def test_images_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is dropped before the next is decoded, and those not shown are never asked for."""
    data = sized(tmp_path, {"cat": (60, 9), "dog": (60, 9)})
    asked: list[int] = []
    images = type(data.train.source).images

    def counted(self: Any, rows: np.ndarray) -> Any:
        asked.append(len(rows))
        assert (np.diff(rows) > 0).all()
        return images(self, rows)

    monkeypatch.setattr(type(data.train.source), "images", counted)
    contact_sheet(data, tmp_path / "s.png")
    assert asked == [12, 4]


@pytest.mark.parametrize("name", ["sheet.jpg", "sheet", "sheet.png.tmp"])
def test_a_sheet_is_a_png(tmp_path: Path, name: str) -> None:
    data = sized(tmp_path, {"cat": (2, 1), "dog": (2, 1)})
    assert "name it FILE.png" in refusal(contact_sheet, data, tmp_path / name)


def test_a_sheet_that_cannot_be_written_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    data = sized(tmp_path, {"cat": (2, 1), "dog": (2, 1)})
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "file" / "s.png", tmp_path / "folder.png", Path("/proc/none/s.png")):
        assert f"contact sheet {str(path)!r} cannot be written" in refusal(
            contact_sheet, data, path
        )
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_failed_sheet_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = sized(tmp_path, {"cat": (2, 1), "dog": (2, 1)})
    path = contact_sheet(data, tmp_path / "s.png")
    old = path.read_bytes()

    def full(self: Image.Image, *_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", full)
    with pytest.raises(UserError, match="No space left"):
        contact_sheet(data, path)
    assert path.read_bytes() == old
    assert sorted(f.name for f in tmp_path.glob("*.p*g*")) == ["s.png"]


# --------------------------------------------------------------------------- the command


def test_the_command_prints_the_check_and_names_the_sheet(
    tmp_path: Path, cache: Path, cli: Cli
) -> None:
    make_task(tmp_path / "photos", classes=5, train=12, test=10)
    file = tmp_path / "t.toml"
    file.write_text('name = "mine"\nsource = "parquet:photos"\n')
    sheet = tmp_path / "s.png"
    ran = cli("check-task", file, "--sheet", sheet, "--cache", cache)
    assert (ran.code, ran.err) == (0, "")
    assert "mine: 5 classes, 60 training and 50 test images" in ran.out
    assert str(sheet) in ran.out
    assert len(tiles(sheet, 96)) == 5
    as_data = cli("check-task", file, "--sheet", sheet, "--cache", cache, "--json").json
    assert as_data["task"] == "mine"
    assert as_data["sheet"] == str(sheet)


def test_the_command_on_real_data(real_data: Path, tmp_path: Path, cache: Path, cli: Cli) -> None:
    """X-rays: 1-bit, grey and transparent images are all there somewhere in the real sets."""
    for name, modes in (("chestx", {"RGB": 229, "RGBA": 2}), ("omniglot", {"1": 5000})):
        sheet = tmp_path / f"{name}.png"
        task = f"parquet:{real_data / name}"
        found = cli("check-task", task, "--sheet", sheet, "--cache", cache, "--json").json
        assert found["images"]["modes"] == modes
        assert len(tiles(sheet, 96)) == min(24, len(found["classes"]))

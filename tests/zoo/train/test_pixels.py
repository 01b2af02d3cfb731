"""Any images as one file of decoded pixels."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eval.common import images
from eval.common.errors import UserError
from eval.training import pixel_store
from tests.factories import blobs, png, refusal, write_parquet
from tests.hub import LoopbackHub
from zoo.train.pixels import PixelStore, PretrainingData, open_data

PX = 12


def opened(where: Path | str, cache: Path, need: bool = True, **options: Any) -> PretrainingData:
    return open_data(str(where), PX, cache, need_labels=need, progress=False, **options)


def refused(where: Path | str, cache: Path, need: bool = True, **options: Any) -> str:
    return refusal(lambda: opened(where, cache, need, **options))


def pillow(data: bytes, px: int = PX) -> np.ndarray:
    """[px, px, 3] by Pillow alone."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize((px, px), Image.Resampling.BICUBIC))


def picture(seed: int, width: int = 30, height: int = 20) -> bytes:
    return png(np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8))


def folder_of(root: Path, tree: dict[str, bytes]) -> Path:
    for name, data in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def check(store: PixelStore, data: list[bytes], labels: list[int] | None) -> None:
    assert store.pixels.dtype == np.uint8
    assert not store.pixels.flags.writeable
    np.testing.assert_array_equal(store.pixels, np.stack([pillow(d) for d in data]))
    sizes = [Image.open(io.BytesIO(d)).size for d in data]
    np.testing.assert_allclose(store.aspect, [w / h for w, h in sizes], rtol=1e-6)
    assert (None if store.labels is None else store.labels.tolist()) == labels
    assert len(store) == len(data)


class Made(NamedTuple):
    """Images on disk, and what is expected of them."""

    root: Path
    train: list[bytes]
    train_labels: list[int] | None
    validation: list[bytes]
    classes: tuple[str, ...]


TRAIN = [picture(i, 20 + 3 * i) for i in range(8)]
VALIDATION = [picture(50 + i) for i in range(3)]
LABELS = [1, 0, 1, 1, 0, 0, 1, 0]
NAMES = ["dog", "cat"]  # not sorted: a ClassLabel's order counts


def make_parquet(root: Path, validation: str = "validation") -> Made:
    write_parquet(root / "train-00000-of-00002.parquet", TRAIN[:5], LABELS[:5], NAMES)
    write_parquet(root / "train-00001-of-00002.parquet", TRAIN[5:], LABELS[5:], NAMES)
    write_parquet(root / f"{validation}-00000-of-00001.parquet", VALIDATION, [0, 1, 1], NAMES)
    return Made(root, TRAIN, LABELS, VALIDATION, ("dog", "cat"))


def make_folders(root: Path, validation: str = "val") -> Made:
    tree = {f"train/{c}/{i}.png": TRAIN[4 * k + i] for k, c in enumerate("ab") for i in range(4)}
    tree |= {f"{validation}/a/x.png": VALIDATION[0], f"{validation}/b/x.png": VALIDATION[1]}
    tree |= {f"{validation}/b/y.PNG": VALIDATION[2], "train/a/notes.txt": b"", "test/c/x.png": b""}
    return Made(
        folder_of(root, tree), TRAIN, [0] * 4 + [1] * 4, VALIDATION, ("a", "b")
    )  # fmt: skip


def make_flat(root: Path) -> Made:
    folder_of(root, {f"{i}.png": d for i, d in enumerate(TRAIN)} | {"a.txt": b"", ".b.png": b""})
    return Made(root, TRAIN, None, [], ())


def make_unlabelled_parquet(root: Path) -> Made:
    root.mkdir(parents=True)
    for part, data in (("train", TRAIN), ("val", VALIDATION)):  # binary, no struct, no names
        pq.write_table(pa.table({"image": data}), root / f"{part}.parquet")
    return Made(root, TRAIN, None, VALIDATION, ())


# --------------------------------------------------------------------------- every form of source


@pytest.mark.parametrize(
    "make",
    [
        make_parquet,
        lambda root: make_parquet(root, "val"),
        lambda root: make_parquet(root, "valid"),
        make_folders,
        lambda root: make_folders(root, "validation"),
        make_flat,
        make_unlabelled_parquet,
    ],
)
def test_every_form_gives_the_pixels_of_pillow(
    make: Callable[[Path], Made], tmp_path: Path, cache: Path
) -> None:
    made = make(tmp_path / "photos")
    data = opened(made.root, cache, need=made.train_labels is not None)
    check(data.train, made.train, made.train_labels)
    assert data.train.classes == made.classes
    assert data.train.where == "photos"
    if not made.validation:
        assert data.validation is None
        return
    assert data.validation is not None
    check(data.validation, made.validation, [0, 1, 1] if made.train_labels else None)
    assert data.validation.classes == made.classes


def test_class_folders_without_split(tmp_path: Path, cache: Path) -> None:
    # A class may be called train where it lies among others.
    tree = {f"{c}/{i}.png": d for c in ("train", "bus") for i, d in enumerate(blobs(len(c), 6, 0))}
    data = opened(folder_of(tmp_path / "cars", tree), cache)
    assert data.train.classes == ("bus", "train")
    assert data.train.labels is not None
    assert np.bincount(data.train.labels).tolist() == [5, 5]
    assert data.validation is not None
    assert data.validation.labels is not None
    assert data.validation.labels.tolist() == [0, 1]


def test_an_image_of_the_right_size_is_stored_as_it_is(tmp_path: Path, cache: Path) -> None:
    exact = np.random.RandomState(0).randint(0, 256, (PX, PX, 3), np.uint8)
    data = opened(folder_of(tmp_path / "x", {"a.png": png(exact)}), cache, need=False)
    np.testing.assert_array_equal(data.train.pixels[0], exact)


def test_labels_that_are_strings_numbers_or_missing(tmp_path: Path, cache: Path) -> None:
    def labels(values: list[Any], need: bool = True) -> tuple[list[int], tuple[str, ...]]:
        write_parquet(tmp_path / "x" / "train.parquet", TRAIN, values)
        write_parquet(tmp_path / "x" / "valid.parquet", VALIDATION, [values[0]] * 3)
        data = opened(tmp_path / "x", cache, need)
        assert data.train.labels is not None
        assert data.validation is not None
        assert data.validation.labels is not None
        assert set(data.validation.labels.tolist()) == {data.train.labels[0]}
        return data.train.labels.tolist(), data.train.classes

    assert labels(list("cabbaccc")) == ([2, 0, 1, 1, 0, 2, 2, 2], ("a", "b", "c"))
    assert labels(["b", None, "a", *"bbbbb"])[0] == [1, -1, 0, 1, 1, 1, 1, 1]
    assert labels([2, 0, -1, None, 0, 2, 2, 2]) == (
        [2, 0, -1, -1, 0, 2, 2, 2],
        ("class 0", "class 1", "class 2"),
    )
    assert labels([-1] * 8, need=False) == ([-1] * 8, ())


def test_declared_names_of_the_validation_part_number_it(tmp_path: Path, cache: Path) -> None:
    made = make_parquet(tmp_path / "x")
    file = made.root / "validation-00000-of-00001.parquet"
    write_parquet(file, VALIDATION, [0, 1, 1], NAMES[::-1])
    validation = opened(made.root, cache).validation
    assert validation is not None
    assert validation.labels is not None
    assert [validation.classes[i] for i in validation.labels] == ["cat", "dog", "dog"]


def test_without_need_a_missing_label_column_is_no_label(tmp_path: Path, cache: Path) -> None:
    made = make_parquet(tmp_path / "x")
    assert opened(made.root, cache, need=False, label="species").train.labels is None
    assert opened(made.root, cache, need=False).train.labels is not None


def test_real_images(real_data: Path, cache: Path) -> None:
    folder = real_data / "tiny_imagenet"
    limited = open_data(str(folder), 64, cache, need_labels=True, limit=300, progress=False).train
    assert (limited.pixels.shape, len(limited.classes)) == ((300, 64, 64, 3), 100)
    assert limited.labels is not None
    assert np.bincount(limited.labels).tolist() == [3] * 100
    stored = {
        image.tobytes(): label for image, label in zip(limited.pixels, limited.labels, strict=True)
    }
    rows = pq.read_table(folder / "train-00000-of-00001.parquet").slice(0, 3000).to_pylist()
    decoded = {np.asarray(images.decode(r["image"]["bytes"])).tobytes(): r["label"] for r in rows}
    both = stored.keys() & decoded.keys()
    assert len(both) > 10  # some 30 of the 300 lie in a tenth of the rows
    assert all(stored[key] == decoded[key] for key in both)


# --------------------------------------------------------------------------- the Hub


@pytest.fixture
def repo(request: pytest.FixtureRequest) -> str:
    """A repository name of this test's own: the Hub and its cache live as long as the session."""
    return f"pixels/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"


def upload(root: Path) -> dict[str, bytes | str | Path | None]:
    return {f"data/{p.name}": p.read_bytes() for p in root.iterdir()}


def test_a_hub_data_set_is_the_same_as_its_files(
    hub: LoopbackHub, repo: str, cache: Path, tmp_path: Path
) -> None:
    made = make_parquet(tmp_path / "x")
    local = opened(made.root, cache)
    first = hub.add_dataset(repo, upload(made.root))
    data = opened(f"hub:{repo}", cache)
    check(data.train, TRAIN, LABELS)
    assert data.train.where == f"hub:{repo}@{first}"
    assert data.train.fingerprint == local.train.fingerprint
    assert data.validation is not None
    assert local.validation is not None
    assert data.validation.fingerprint == local.validation.fingerprint

    write_parquet(made.root / "train-00000-of-00002.parquet", TRAIN[:4], LABELS[:4], NAMES)
    second = hub.add_dataset(repo, upload(made.root))
    assert len(opened(f"hub:{repo}", cache).train) == 7
    assert second != first
    assert len(opened(data.train.where, cache).train) == 8  # pinned


def test_a_hub_data_set_with_other_columns(hub: LoopbackHub, repo: str, cache: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": d, "path": None} for d in TRAIN], kind)
    table = pa.table({"img": cells, "y": pa.array(LABELS)})
    features = {"img": {"_type": "Image"}, "y": {"_type": "Value", "dtype": "int64"}}
    info = json.dumps({"info": {"features": features}})
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"huggingface": info}), out)
    sha = hub.add_dataset(repo, {"train.parquet": out.getvalue()})
    text = f"hub:{repo}?image=img&label=y"
    data = opened(text, cache)
    assert data.train.where == f"hub:{repo}@{sha}?image=img&label=y"
    assert data.validation is not None
    assert len(data.train) + len(data.validation) == 8
    assert opened(f"hub:{repo}", cache, image="img", label="y").train.where == data.train.where

    unlabelled = opened(f"hub:{repo}?image=img", cache, need=False)
    check(unlabelled.train, TRAIN, None)
    assert "has no image column 'image'; did you mean 'img'?" in refused(f"hub:{repo}", cache)
    assert "objective needs labels" in refused(f"hub:{repo}?image=img", cache)
    assert "has no split 'all'; it has train" in refused(f"{text}&train=all", cache)
    assert "option 'test' has no effect" in refused(f"{text}&test=train", cache)
    assert "unknown option 'img'" in refused(f"hub:{repo}?img=x", cache)


def test_hub_data_sets_that_cannot_be_had(hub: LoopbackHub, repo: str, cache: Path) -> None:
    assert f"the Hub has no dataset '{repo}'" in refused(f"hub:{repo}", cache)
    hub.add_dataset(f"{repo}-b", {"README.md": "# no data"})
    assert f"data set '{repo}-b' does not load" in refused(f"hub:{repo}-b", cache)
    hub.add_dataset(f"{repo}-c", {"train.parquet": b"x"}, gated=True)
    assert "is gated" in refused(f"hub:{repo}-c", cache)
    assert "has no revision 'v9'" in refused(f"hub:{repo}-c@v9", cache)


# --------------------------------------------------------------------------- built once, trusted


def broken_decode(*_: object) -> Any:
    raise AssertionError("an image was decoded again")


def test_the_second_call_decodes_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_folders(tmp_path / "x")
    first = opened(made.root, cache)
    with monkeypatch.context() as patch:
        patch.setattr(pixel_store, "decode", broken_decode)
        check(opened(made.root, cache).train, made.train, made.train_labels)
        assert opened(made.root, cache).train.fingerprint == first.train.fingerprint
    target = made.root / "train/a/1.png"
    target.write_bytes(VALIDATION[0])
    again = opened(made.root, cache)
    check(again.train, [TRAIN[0], VALIDATION[0], *TRAIN[2:]], made.train_labels)
    assert again.train.fingerprint != first.train.fingerprint
    assert open_data(str(made.root), 7, cache, need_labels=True).train.pixels.shape[1] == 7


def test_an_interrupted_build_is_not_trusted(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_flat(tmp_path / "x")
    monkeypatch.setattr(pixel_store, "CHUNK_IMAGES", 1)
    count = [0]

    def dies(data: bytes, _: object) -> Image.Image:
        count[0] += 1
        if count[0] == 6:
            raise KeyboardInterrupt
        return images.decode(data)

    with monkeypatch.context() as patch:
        patch.setattr(pixel_store, "decode", dies)
        with pytest.raises(KeyboardInterrupt):
            opened(made.root, cache, need=False)
    assert list((cache / "pixels").iterdir()) == []
    check(opened(made.root, cache, need=False).train, TRAIN, None)

    # Killed outright: its temporary folder stays until the next build of the same store.
    (store,) = (cache / "pixels").iterdir()
    left = store.with_name(f".{store.name}.abc.tmp")
    store.rename(left)
    (left / "pixels.npy").write_bytes(b"half")
    check(opened(made.root, cache, need=False).train, TRAIN, None)
    assert list((cache / "pixels").iterdir()) == [store]


@pytest.mark.parametrize("name", ["pixels.npy", "images.npz"])
def test_a_damaged_store_is_built_again(name: str, tmp_path: Path, cache: Path) -> None:
    made = make_flat(tmp_path / "x")
    opened(made.root, cache, need=False)
    (store,) = (cache / "pixels").iterdir()
    for damage in (lambda f: os.truncate(f, f.stat().st_size - 50), lambda f: f.unlink()):
        damage(store / name)
        check(opened(made.root, cache, need=False).train, TRAIN, None)


def test_two_at_once_build_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_flat(tmp_path / "x")
    built = []
    build = pixel_store._build

    def counted(*arguments: Any) -> None:
        built.append(1)
        build(*arguments)

    monkeypatch.setattr(pixel_store, "_build", counted)
    stores: list[PretrainingData] = []
    threads = [
        threading.Thread(target=lambda: stores.append(opened(made.root, cache, need=False)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(stores), len(built)) == (3, 1)


def test_the_fingerprint_is_of_the_content(tmp_path: Path, cache: Path) -> None:
    one, two = make_parquet(tmp_path / "one"), make_parquet(tmp_path / "two")
    first = opened(one.root, cache).train
    assert opened(two.root, cache).train.fingerprint == first.fingerprint
    labels = [0, *LABELS[1:5]]
    write_parquet(two.root / "train-00000-of-00002.parquet", TRAIN[:5], labels, NAMES)
    assert opened(two.root, cache).train.fingerprint != first.fingerprint
    without = opened(one.root, cache, need=False, label="none").train
    assert without.fingerprint != first.fingerprint


def test_a_full_disk(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_flat(tmp_path / "x")
    with monkeypatch.context() as patch:
        patch.setattr(pixel_store.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
        message = refused(made.root, cache, need=False)
    assert "7,712 bytes are needed for the decoded pixels of 8 images but only 1,000" in message
    assert f"{cache}; set TRANSFERZOO_CACHE" in message

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pixel_store.np, "savez", full)
        message = refused(made.root, cache, need=False)
    assert "no space is left for 3,456 bytes of decoded pixels" in message
    assert "TRANSFERZOO_CACHE" in message
    assert list((cache / "pixels").iterdir()) == []
    cache_file = folder_of(tmp_path, {"file": b""}) / "file"
    assert "cannot be kept in" in refused(made.root, cache_file, need=False)


# --------------------------------------------------------------------------- parts of the data


def test_the_held_out_part(tmp_path: Path, cache: Path) -> None:
    data = {c: blobs(c, 20, 0) for c in range(3)}
    data[2] = data[2][:1] * 19 + data[2][1:2]  # copies stay on one side
    rows = [(d, c) for c in range(3) for d in data[c]] + [(picture(1), 3), (picture(2), -1)]

    def parts(order: np.ndarray, name: str, **options: Any) -> tuple[PixelStore, PixelStore]:
        root = tmp_path / name
        chosen = [rows[i] for i in order]
        write_parquet(root / "train.parquet", [d for d, _ in chosen], [c for _, c in chosen])
        found = opened(root, cache, **options)
        assert found.validation is not None
        return found.train, found.validation

    def content(store: PixelStore) -> set[bytes]:
        return {image.tobytes() for image in store.pixels}

    train, held = parts(np.arange(len(rows)), "a")
    assert train.labels is not None
    assert held.labels is not None
    assert len(train) + len(held) == len(rows)
    assert np.bincount(held.labels, minlength=4).tolist()[:2] == [2, 2]
    assert set(held.labels.tolist()) == {0, 1, 2}  # class 3 has one image: it stays in train
    assert (train.labels == -1).sum() == 1
    assert not content(train) & content(held)
    assert content(train) | content(held) == {pillow(d).tobytes() for d, _ in rows}
    again = parts(np.random.RandomState(3).permutation(len(rows)), "b")[1]
    assert content(again) == content(held)  # another order of the rows, the same part
    limited = parts(np.arange(len(rows)), "a", limit=9)
    assert limited[1].fingerprint == held.fingerprint
    assert limited[0].labels is not None
    assert content(limited[0]) <= content(train)


def test_the_held_out_part_has_a_bound(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.train.pixels.HELD_OUT_MOST", 5)
    images = [d for c in range(8) for d in blobs(c, 6, 0)]
    write_parquet(tmp_path / "x/train.parquet", images, [c for c in range(8) for _ in range(6)])
    data = opened(tmp_path / "x", cache)
    assert data.validation is not None
    assert (len(data.train), len(data.validation)) == (43, 5)


def test_the_limit_is_balanced(tmp_path: Path, cache: Path) -> None:
    labels = [0] * 12 + [1] * 3 + [2] * 6 + [-1] * 5
    images = [d for i in range(26) for d in blobs(i, 1, 0)]
    write_parquet(tmp_path / "x/train.parquet", images, labels)
    write_parquet(tmp_path / "x/val.parquet", VALIDATION, [0, 1, 1])

    def counts(limit: int) -> list[int]:
        data = opened(tmp_path / "x", cache, limit=limit)
        assert data.validation is not None
        assert len(data.validation) == 3
        assert data.train.labels is not None
        kept = [pillow(d).tobytes() for d in images]
        place = [kept.index(p.tobytes()) for p in data.train.pixels]
        assert place == sorted(place)
        assert [labels[i] for i in place] == data.train.labels.tolist()
        return np.bincount(data.train.labels + 1, minlength=4).tolist()

    assert counts(6) == [0, 2, 2, 2]
    assert counts(13) == [0, 5, 3, 5]
    assert counts(23) == [2, 12, 3, 6]
    assert counts(99) == [5, 12, 3, 6]
    whole = make_flat(tmp_path / "flat")
    limited = opened(whole.root, cache, need=False, limit=5).train
    assert len({image.tobytes() for image in limited.pixels}) == 5
    assert "at least 1, got 0" in refused(whole.root, cache, limit=0)
    message = refused(tmp_path / "x", cache, limit=1)
    assert "has only the class" in message
    assert "among its 1 training images" in message


# --------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"notes.txt": b""}, "holds no images such as .jpg or .png"),
        ({"a/notes.txt": b""}, "holds no image files"),
        ({"a.png": b"", "b/c.png": b""}, "holds both images (a.png) and folders; put every"),
        ({"a.png": b"", "b.png": b""}, "without class folders, but this objective needs labels"),
        ({"a/x.png": TRAIN[0], "a/y.png": TRAIN[1]}, "has only the class 0 among its 1 training"),
        ({"test.parquet": b""}, "has no train-*.parquet or train.parquet; it holds test.parquet"),
        ({"train.parquet": b"PAR1"}, "train.parquet cannot be read as Parquet"),
        (
            {"train/a/x.png": b"", "train/b/x.png": b"", "val/a/x.png": b"", "val/c/x.png": b""},
            "validation has classes that train has not: ['c']",
        ),
        (
            {"train/a/x.png": TRAIN[0], "train/b/x.png": TRAIN[1], "val/a/bad.png": b"no image"},
            "val/a/bad.png cannot be read as an image: it is in no image format",
        ),
    ],
)
def test_folders_refused(tree: dict[str, bytes], why: str, tmp_path: Path, cache: Path) -> None:
    assert why in refused(folder_of(tmp_path / "x", tree), cache)


@pytest.mark.parametrize(
    ("labels", "validation", "names", "why"),
    [
        ([5] * 8, [5] * 3, None, "has only the class 5 among its 8 training images; at least two"),
        ([-1] * 8, [-1] * 3, None, "has no label among its 8 training images"),
        ([0, 1] * 4, [0, 2, 1], None, "label 2 of row 1 of x/val.parquet is none of the 2 classes"),
        (["a", "b"] * 4, ["a", "b", "c"], None, "label 'c' of row 2 of x/val.parquet is none of"),
        ([0, -3] * 4, [0, 1, 1], None, "label -3 of row 1 of x/train.parquet is negative"),
        ([0, 1, 2, 1] * 2, [0, 1, 1], NAMES, "label 2 of row 2 of x/train.parquet is none of the"),
        ([0.5, 1.0] * 4, [0.5] * 3, None, "label 0.5 of row 0 of x/train.parquet is neither a cla"),
        ([0, 10**9] * 4, [0] * 3, None, "label 1000000000 of row 1 of x/train.parquet is neither"),
    ],
)
def test_labels_refused(
    labels: list[Any], validation: list[Any], names: list[str] | None, why: str,
    tmp_path: Path, cache: Path,
) -> None:  # fmt: skip
    write_parquet(tmp_path / "x/train.parquet", TRAIN, labels, names)
    write_parquet(tmp_path / "x/val.parquet", VALIDATION, validation, names)
    assert why in refused(tmp_path / "x", cache)
    assert not (cache / "pixels").exists()  # found before anything is decoded


def test_columns_images_and_places_refused(tmp_path: Path, cache: Path) -> None:
    made = make_parquet(tmp_path / "x")
    message = refused(made.root, cache, label="lable")
    assert "has no label column 'lable'; did you mean 'label'?" in message
    message = refused(made.root, cache, image="photo")
    assert "has no image column 'photo'; its columns are image, label" in message
    assert "of type int64, not encoded images" in refused(made.root, cache, image="label")
    message = refused(make_unlabelled_parquet(tmp_path / "y").root, cache)
    assert "(its columns are image), but this objective needs labels; the objective self" in message
    message = refused(tmp_path / "absent", cache)
    assert "absent' does not exist or is not a folder; give a folder of images" in message
    assert "at least 1 pixel" in refusal(
        lambda: open_data(str(made.root), 0, cache, need_labels=True)
    )
    write_parquet(made.root / "train-00001-of-00002.parquet", [b"bad", *TRAIN[:2]], [0] * 3, NAMES)
    message = refused(made.root, cache)
    assert "row 0 of x/train-00001-of-00002.parquet cannot be read as an image" in message
    write_parquet(made.root / "train-00001-of-00002.parquet", TRAIN[:2], [0] * 2, ["a", "b"])
    assert "declares other class names than the files before it" in refused(made.root, cache)
    write_parquet(tmp_path / "z" / "train.parquet", [], [])
    assert "has an empty train split" in refused(tmp_path / "z", cache)
    dangling = make_flat(tmp_path / "flat").root
    (dangling / "z.png").symlink_to("nowhere")
    assert "an image file cannot be read" in refused(dangling, cache, need=False)


def test_a_damaged_page_is_refused(tmp_path: Path, cache: Path) -> None:
    made = make_parquet(tmp_path / "x")
    file = made.root / "train-00000-of-00002.parquet"
    data = bytearray(file.read_bytes())
    data[4:40] = b"\xff" * 36
    file.write_bytes(data)
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        opened(made.root, cache)

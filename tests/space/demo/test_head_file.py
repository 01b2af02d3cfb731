"""A head on disk: what is written, the three lines that use it, and damaged files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from eval.common.files import sha256_file
from eval.models.names import ZOO_FOLDER, zoo_names
from space.demo.backbones import Shelf
from space.demo.classify import ModelAnswer, classify
from space.demo.examples import example_sets
from space.demo.head_file import (
    MAX_CLASS_NAME,
    USAGE,
    Classifier,
    clean_classes,
    load_head,
    save_head,
)
from space.demo.uploads import read_pictures
from tests.factories import refusal

NAME = zoo_names()[0]
HOSTILE = ("../../etc/passwd", "<script>alert(1)</script>", 'a "quoted" \\ name', "Käse 🧀")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def answered(shelf: Shelf, tmp_path: Path) -> ModelAnswer:
    """The page's answer for a picture that lies in ``tmp_path / "head"``."""
    folder = tmp_path / "head"
    folder.mkdir()
    random = np.random.RandomState(3)
    noise = random.randint(0, 256, (700, 900, 3)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "picture.png")
    queries = read_pictures([folder / "picture.png"], subject="queries", most=1)
    texture = example_sets()["texture"].supports
    supports = [(HOSTILE[i], list(texture[i][1])) for i in range(4)]
    return classify(shelf, [f"zoo:{NAME}"], supports, queries).models[0]


def test_the_three_lines_give_what_the_page_gave(
    answered: ModelAnswer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "head"
    save_head(answered.head, answered.backbone, folder)
    lines = "\n".join(USAGE)
    assert lines in (folder / "README.txt").read_text()
    assert len(USAGE) == 3
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TRANSFERZOO_CACHE", str(tmp_path / "cache"))
    namespace: dict[str, object] = {}
    exec(lines, namespace)
    # one picture at a time: sums in another order than the page's
    (found,) = cast("list[dict[str, float]]", namespace["probabilities"])
    assert found == pytest.approx(dict(answered.queries[0].classes), abs=1e-6)


def test_what_is_written(answered: ModelAnswer, tmp_path: Path) -> None:
    paths = save_head(answered.head, answered.backbone, tmp_path / "out")
    assert [p.name for p in paths] == ["head.safetensors", "head.json", "README.txt"]
    assert sorted((tmp_path / "out").iterdir()) == sorted(paths)  # no file named by a class
    facts = json.loads(paths[1].read_bytes())
    assert facts["model"]["spec"] == f"zoo:{NAME}"
    assert facts["model"]["weights_sha256"] == sha256_file(ZOO_FOLDER / NAME / "model.safetensors")
    assert len(facts["model"]["revision"]) == 40
    assert facts["classes"] == list(HOSTILE)
    assert facts["leave_one_out"]["top1"] == answered.head.loo_top1
    assert str(tmp_path) not in "".join(p.read_text() for p in paths[1:])
    head, same = load_head(tmp_path / "out")
    assert same == facts
    assert torch.equal(head.weight, answered.head.weight)
    assert torch.equal(head.bias, answered.head.bias)
    assert replace(head, weight=head.bias) == replace(  # which pictures were right is not written
        answered.head, weight=head.bias, bias=head.bias, loo_right=()
    )


def test_a_head_without_an_estimate(answered: ModelAnswer, tmp_path: Path) -> None:
    head = replace(answered.head, loo_top1=None, loo_interval=None, temperature=1.0)
    save_head(head, answered.backbone, tmp_path)
    loaded, _ = load_head(tmp_path)
    assert (loaded.loo_top1, loaded.loo_interval) == (None, None)
    assert "no estimate" in (tmp_path / "README.txt").read_text()


def test_other_weights_under_the_same_name(
    answered: ModelAnswer, tmp_path: Path, shelf: Shelf
) -> None:
    save_head(answered.head, replace(answered.backbone, weights_sha256="0" * 64), tmp_path)
    assert "fitted on other weights" in refusal(lambda: Classifier(tmp_path, shelf))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 2),
        ("classes", ["a"]),
        ("classes", ["a", "a", "b", "c"]),
        ("classes", [1, 2, 3, 4]),
        ("classes", None),
        ("temperature", 0),
        ("temperature", float("nan")),
        ("temperature", "warm"),
        ("model", {}),
        ("leave_one_out", None),
    ],
)
def test_damaged_facts(answered: ModelAnswer, tmp_path: Path, key: str, value: object) -> None:
    _, facts, _ = save_head(answered.head, answered.backbone, tmp_path)
    facts.write_text(json.dumps(json.loads(facts.read_bytes()) | {key: value}))
    assert "holds no usable head" in refusal(load_head, tmp_path)


def test_damaged_weights(answered: ModelAnswer, tmp_path: Path) -> None:
    assert "holds no usable head" in refusal(load_head, tmp_path / "nowhere")
    weights, facts, _ = save_head(answered.head, answered.backbone, tmp_path)
    whole = weights.read_bytes()
    tensors = load_file(weights)
    for spoilt in (
        {"weight": tensors["weight"]},
        tensors | {"weight": tensors["weight"][:, 1:].contiguous()},
        tensors | {"bias": tensors["bias"] * float("nan")},
    ):
        save_file(spoilt, weights)
        assert "holds no usable head" in refusal(load_head, tmp_path)
    for data in (b"", whole[:-1], b"\xff" * 100):
        weights.write_bytes(data)
        assert "holds no usable head" in refusal(load_head, tmp_path)
    weights.write_bytes(whole)
    load_head(tmp_path)
    facts.write_text("{" * 9)
    assert "holds no usable head" in refusal(load_head, tmp_path)


def test_class_names() -> None:
    assert clean_classes([" a\nb ", "", "\x00\u202e", "c" * 99]) == (
        "a b",
        "class 2",
        "class 3",
        "c" * MAX_CLASS_NAME,
    )
    for twice in (["a", "a "], ["", "class 1"], ["e\u0301", "\u00e9"]):
        assert "two classes are called" in refusal(clean_classes, twice)


@given(st.lists(st.text(max_size=100), min_size=1, max_size=5, unique=True))
def test_any_class_names_survive_json(names: list[str]) -> None:
    try:
        clean = clean_classes(names)
    except Exception as error:
        if "two classes" in str(error):
            return
        raise
    assert tuple(json.loads(json.dumps(clean, ensure_ascii=False).encode())) == clean
    for name in clean:
        assert 0 < len(name) <= MAX_CLASS_NAME
        assert name.replace("\u200d", "").replace("\u200c", "").replace(" ", "x").isprintable()

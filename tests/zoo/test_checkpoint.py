"""A checkpoint's folder: what may lie in it, what must agree, and which results are its own.

``make_trained`` and ``make_converted`` build whole folders of a few bytes; test_card uses them too.
"""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from eval.models.objectives import parse_objective
from eval.results.names import shelf_path
from eval.results.store import read_result, write_result
from tests.factories import refusal
from tests.zoo.checkpoints import (
    KNN,
    add_result,
    config_of,
    make_converted,
    make_result,
    make_trained,
    recipe_of,
    revision_of,
    write_toml,
    write_weights,
)
from zoo.checkpoint import adopt, contents, read_checkpoint, siblings

NUMBERS = {"dtd": 0.5, "svhn": 0.31, "tiny_imagenet": 0.62, "photos": 0.87}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    folder = make_trained(tmp_path / "zoo" / "tiny.ce_tin100")
    add_result(folder, "dtd", "linear", 0.5)
    return folder


# ------------------------------------------------------------------ what belongs


def test_everything_is_read(trained: Path) -> None:
    for place in ("state/step-1/model.pt", ".gitattributes"):
        (trained / place).parent.mkdir(parents=True, exist_ok=True)
        (trained / place).write_text("x")
    found = read_checkpoint(trained)
    assert (found.name, found.classes, found.px) == ("tiny.ce_tin100", 3, 64)
    assert found.params == 6 + 2 + 6 + 3  # without the running mean
    assert found.objective == parse_objective("ce")
    assert found.weights == {"ce": 1.0}
    assert found.knn == [(4, 9.5), (12, KNN)]
    assert [name for name, _ in found.results] == ["results/dtd.linear.json"]
    assert contents(trained) == (
        "config.json", "log.jsonl", "model.safetensors", "recipe.toml", "results/dtd.linear.json",
    )  # fmt: skip


def test_converted_is_read(tmp_path: Path) -> None:
    found = read_checkpoint(make_converted(tmp_path / "r50.moco"))
    assert found.recipe is None
    assert found.log == ()
    assert found.objective == parse_objective("selfsupcon")
    assert found.source.kind == "moco"


def test_terms_weigh_what_was_asked_else_what_the_recipe_says(tmp_path: Path) -> None:
    recipe = make_trained(tmp_path / "a", "ce+selfsupcon")
    asked = make_trained(tmp_path / "b", "ce+selfsupcon", weights={"selfsupcon": 0.5})
    assert read_checkpoint(recipe).weights == {"ce": 1.0, "selfsupcon": 2.0}
    assert read_checkpoint(asked).weights == {"ce": 1.0, "selfsupcon": 0.5}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(trained: Path, name: str) -> None:
    (trained / name).unlink()
    assert f"has no {name}" in refusal(read_checkpoint, trained)


def test_weights_of_unknown_origin_are_refused(trained: Path) -> None:
    (trained / "recipe.toml").unlink()
    said = refusal(read_checkpoint, trained)
    assert "recipe.toml" in said
    assert "source.toml" in said


def test_no_folder(tmp_path: Path) -> None:
    assert "is not a folder" in refusal(read_checkpoint, tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    assert "is not a folder" in refusal(read_checkpoint, tmp_path / "file")


@pytest.mark.parametrize(
    "place",
    ["notes.txt", ".DS_Store", "results/notes.txt", "results/old/dtd.json", ".eval_results/x.json",
     "more/config.json", "states/x"],
)  # fmt: skip
def test_an_extra_file_is_named(trained: Path, place: str) -> None:
    (trained / place).parent.mkdir(parents=True, exist_ok=True)
    (trained / place).write_text("x")
    said = refusal(contents, trained)
    assert repr(place) in said
    assert "move it away" in said


def test_extra_files_are_counted(trained: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        (trained / name).write_text("x")
    assert "'a.txt' and 2 more" in refusal(contents, trained)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "last.pth", "a.pt", "b.ckpt", "c.pkl", "results/d.pickle",
             "w.pth.tar"],
)  # fmt: skip
def test_a_pickle_is_called_dangerous(trained: Path, name: str) -> None:
    (trained / "a.txt").write_text("x")
    (trained / name).write_bytes(b"x")
    said = refusal(contents, trained)
    assert repr(name) in said
    assert "run code" in said


# ------------------------------------------------------------------ what can be read

CONFIGS = {
    "no JSON": b"{",
    "no text": b"\xff\xfe",
    "a list": b"[]",
    "null": b"null",
    "no pretrained_cfg": b'{"architecture": "resnet18"}',
    "null pretrained_cfg": b'{"architecture": "resnet18", "pretrained_cfg": null}',
    "no architecture": json.dumps({"pretrained_cfg": config_of(0)["pretrained_cfg"]}).encode(),
    "two sizes": json.dumps(
        config_of(0) | {"pretrained_cfg": config_of(0)["pretrained_cfg"] | {"input_size": [3, 8]}}
    ).encode(),
    "a text as size": json.dumps(
        config_of(0) | {"pretrained_cfg": config_of(0)["pretrained_cfg"] | {"input_size": "364"}}
    ).encode(),
    "no mean": json.dumps(
        config_of(0)
        | {"pretrained_cfg": {k: v for k, v in config_of(0)["pretrained_cfg"].items()
                              if k != "mean"}}
    ).encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_an_incomplete_config_is_refused(tmp_path: Path, name: str) -> None:
    folder = make_trained(tmp_path / "x")
    (folder / "config.json").write_bytes(CONFIGS[name])
    said = refusal(read_checkpoint, folder)
    assert "config.json" in said
    assert "pretrained_cfg" in said


@pytest.mark.parametrize("classes", ["many", [3], {}, 1.5, -1])
def test_a_number_of_classes_that_is_none_is_refused(tmp_path: Path, classes: Any) -> None:
    folder = make_trained(tmp_path / "x")
    (folder / "config.json").write_text(json.dumps(config_of(0) | {"num_classes": classes}))
    assert "config.json" in refusal(lambda: read_checkpoint(folder).classes)


HEADERS = {
    "empty": b"",
    "short": b"\1\2",
    "no JSON": struct.pack("<Q", 3) + b"abc",
    "a list": struct.pack("<Q", 2) + b"[]",
    "no shape": struct.pack("<Q", 8) + b'{"a":{}}',
    "cut": struct.pack("<Q", 1 << 60) + b'{"a":{"shape":[1]',
    "null shape": struct.pack("<Q", 20) + b'{"a":{"shape":null}}',
    "text in shape": struct.pack("<Q", 21) + b'{"a":{"shape":["x"]}}',
}


@pytest.mark.parametrize(
    "name",
    list(HEADERS),
)
def test_broken_weights_are_refused(tmp_path: Path, name: str) -> None:
    folder = make_trained(tmp_path / "x")
    (folder / "model.safetensors").write_bytes(HEADERS[name])
    assert "is not a safetensors file" in refusal(read_checkpoint, folder)


@pytest.mark.parametrize(
    "content",
    [
        b"= 3",
        b"\xff",
        b"run = 3",
        b"[run]\nobjective = 3",
        b"",
    ],
)
def test_a_recipe_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = make_trained(tmp_path / "x")
    (folder / "recipe.toml").write_bytes(content)
    (folder / "log.jsonl").unlink()
    assert "recipe.toml" in refusal(read_checkpoint, folder)


def test_a_recipe_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    folder = make_trained(tmp_path / "x")
    write_toml(folder / "recipe.toml", recipe_of("ce") | {"foo": 1})
    assert "unknown key 'foo'" in refusal(read_checkpoint, folder)


def test_an_unknown_objective_is_refused(tmp_path: Path) -> None:
    folder = make_trained(tmp_path / "x")
    recipe = recipe_of("ce")
    write_toml(folder / "recipe.toml", recipe | {"run": recipe["run"] | {"objective": "barlow"}})
    assert "unknown objective 'barlow'" in refusal(read_checkpoint, folder)


@pytest.mark.parametrize(
    "content",
    [
        b"[source",
        b"\xff",
        b"x = 1",
        b"source = 3",
        b"",
    ],
)
def test_a_source_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = make_converted(tmp_path / "x")
    (folder / "source.toml").write_bytes(content)
    assert "source.toml" in refusal(lambda: read_checkpoint(folder).objective)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "not json\n",
        "3\n",
        "[1]\n",
        '"knn_top1"\n',
    ],
)
def test_a_log_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    folder = make_trained(tmp_path / "x")
    (folder / "log.jsonl").write_text(content)
    assert "log.jsonl is not a log" in refusal(lambda: read_checkpoint(folder).knn)


@pytest.mark.parametrize("said", [KNN + 0.1, None])
def test_receipt_and_log_of_different_runs_are_refused(tmp_path: Path, said: Any) -> None:
    folder = make_trained(tmp_path / "x")
    tree = recipe_of("ce", validation_knn_top1=said or 0)
    if said is None:
        del tree["run"]["validation_knn_top1"]
    write_toml(folder / "recipe.toml", tree)
    refused = refusal(read_checkpoint, folder)
    assert str(said) in refused
    assert str(KNN) in refused


def test_a_receipt_whose_log_is_missing_is_refused(tmp_path: Path) -> None:
    folder = make_trained(tmp_path / "x")
    (folder / "log.jsonl").unlink()
    assert f"validation kNN {KNN}" in refusal(read_checkpoint, folder)


# ------------------------------------------------------------------ whose results


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 2}', '{"schema_version": 1}'])
def test_results_that_are_none_are_refused(trained: Path, content: str) -> None:
    (trained / "results/odd.json").write_text(content)
    said = refusal(read_checkpoint, trained)
    assert "odd.json is not a result file" in said


def test_results_of_other_weights_are_refused(trained: Path) -> None:
    add_result(trained, "svhn", "linear", 0.3, model__weights_sha256="c0ffee" * 10)
    said = refusal(read_checkpoint, trained)
    assert "svhn.linear.json was measured on other weights" in said
    assert "c0ffeec0ffee" in said


def test_new_weights_make_old_results_foreign(trained: Path) -> None:
    write_weights(trained / "model.safetensors", 2, 3)
    assert "other weights" in refusal(read_checkpoint, trained)


def test_results_with_another_config_are_refused(trained: Path) -> None:
    config = json.loads((trained / "config.json").read_text())
    config["pretrained_cfg"]["crop_pct"] = 1.0
    (trained / "config.json").write_text(json.dumps(config))
    assert "measured with another config.json" in refusal(read_checkpoint, trained)


@pytest.mark.parametrize("kind", ["zoo", "local-dir"])
def test_only_a_folders_revision_tells_of_its_config(trained: Path, kind: str) -> None:
    sha = "0" * 40  # a commit on the Hub: not comparable
    add_result(trained, "svhn", "linear", 0.3, model__spec="hf-hub:o/n", model__revision=sha)
    assert len(read_checkpoint(trained).results) == 2
    add_result(trained, "svhn", "knn", 0.3, model__spec=f"{kind}:x", model__revision=sha)
    assert "another config.json" in refusal(read_checkpoint, trained)


@pytest.mark.parametrize("asked", [None, "fp32"])
def test_two_results_of_the_same_thing_are_refused(trained: Path, asked: str | None) -> None:
    add_result(trained, "dtd", "linear", 0.9, name="again.json", precision=asked)
    said = refusal(read_checkpoint, trained)
    assert "again.json" in said
    assert "dtd.linear.json" in said
    assert "same thing" in said


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"limit": 5}, {"environment__dtype": "bf16"}, {"model__img_size": 96},
                {"protocol__config": {"validation": 0.3}}, {"task__split_hash": "1" * 64}],
    ids=str,
)  # fmt: skip
def test_results_at_other_settings_are_other_results(trained: Path, changed: Any) -> None:
    add_result(trained, "dtd", "linear", 0.4, name="other.json", **changed)
    assert len(read_checkpoint(trained).results) == 2


# ------------------------------------------------------------------ adopt


def test_adopt_takes_the_matching_results_under_their_names(tmp_path: Path) -> None:
    mine = make_trained(tmp_path / "zoo/tiny.ce_tin100", fill=1)
    other = make_trained(tmp_path / "zoo/tiny.supcon_tin100", "supcon", fill=2)
    shelf = tmp_path / "shelf"
    wanted = [
        make_result(mine, "dtd", "linear", 0.5, task__source=str(tmp_path / "data/dtd")),
        make_result(mine, "dtd", "fewshot", 0.5),
        make_result(mine, "dtd", "linear", 0.5, seed=3),
        make_result(mine, "dtd", "linear", 0.5, model__img_size=96),
    ]
    for result in (*wanted, make_result(other, "svhn", "linear", 0.3)):
        write_result(shelf / shelf_path(result), result)
    (shelf / "notes.json").write_text("{}")
    names = adopt(mine, shelf)
    assert names == [
        "results/dtd.fewshot.json", "results/dtd.linear.json",
        "results/dtd.linear@96px.json", "results/dtd.linear@seed=3.json",
    ]  # fmt: skip
    assert [name for name, _ in read_checkpoint(mine).results] == names
    for path in (mine / "results").iterdir():
        assert str(tmp_path) not in path.read_text()
    taken = read_result(mine / "results/dtd.linear.json")
    assert taken.task.source == "local:dtd"
    assert taken.model.spec == "local-dir:tiny.ce_tin100"
    assert taken.scores == wanted[0].scores
    assert not (other / "results").exists()
    assert adopt(mine, shelf) == names  # again: the same


def test_adopt_without_a_matching_result_is_refused(tmp_path: Path) -> None:
    mine, other = make_trained(tmp_path / "a", fill=1), make_trained(tmp_path / "b", fill=2)
    result = make_result(other, "dtd", "linear", 0.5)
    write_result(tmp_path / "shelf" / shelf_path(result), result)
    assert "no result under" in refusal(adopt, mine, tmp_path / "shelf")
    assert "does not exist" in refusal(adopt, mine, tmp_path / "nowhere")
    assert not (mine / "results").exists()


def test_adopt_keeps_two_data_sets_of_one_name_apart(tmp_path: Path) -> None:
    mine = make_trained(tmp_path / "a")
    for hashed in ("1" * 64, "2" * 64):
        result = make_result(mine, "photos", "linear", 0.5, task__split_hash=hashed)
        path = shelf_path(result, by_hash=hashed[0] == "2")
        write_result(tmp_path / "shelf" / path, result)
    names = adopt(mine, tmp_path / "shelf")
    assert len(set(names)) == 2
    assert len(read_checkpoint(mine).results) == 2


def test_adopt_leaves_results_of_another_config(tmp_path: Path) -> None:
    """A shelf holds both what was measured before config.json was mended and after."""
    mine = make_trained(tmp_path / "a")
    for value, revision in ((0.4, "0" * 40), (0.5, revision_of(mine)), (0.4, "f" * 40)):
        result = make_result(mine, "dtd", "linear", value, model__revision=revision)
        write_result(tmp_path / "shelf" / shelf_path(result), result)
    assert adopt(mine, tmp_path / "shelf") == ["results/dtd.linear.json"]
    (found,) = read_checkpoint(mine).results
    assert found[1].scores[0].value == 0.5


# ------------------------------------------------------------------ siblings


def test_siblings_differ_in_the_objective_alone(tmp_path: Path) -> None:
    joint = make_trained(tmp_path / "tiny.ce_selfsupcon_tin100", "ce+selfsupcon", 1)
    make_trained(tmp_path / "tiny.supcon_tin100", "supcon", 2)
    often = make_trained(tmp_path / "tiny.ce_tin100", "ce", 3)
    probed = recipe_of("ce")
    probed["probe"]["every_epochs"] = 1  # no weight hangs on it
    write_toml(often / "recipe.toml", probed)
    make_trained(tmp_path / "tiny.selfsupcon_other", "selfsupcon", 4, data_fingerprint="e0" * 32)
    make_trained(tmp_path / "tiny.selfsupcon_short", "selfsupcon", 5, images_seen=128)
    longer = make_trained(tmp_path / "tiny.selfsupcon_long", "selfsupcon", 6)
    tree = recipe_of("selfsupcon")
    tree["train"]["epochs"] = 13
    write_toml(longer / "recipe.toml", tree)
    make_converted(tmp_path / "tiny.selfsupcon_moco")
    (tmp_path / "empty").mkdir()
    found = siblings(read_checkpoint(joint))
    assert [c.name for c in found] == [
        "tiny.ce_tin100", "tiny.supcon_tin100", "tiny.ce_selfsupcon_tin100",
    ]  # fmt: skip
    alone = read_checkpoint(tmp_path / "tiny.selfsupcon_moco")
    assert siblings(alone) == [alone]


def test_a_siblings_contradiction_is_named(tmp_path: Path) -> None:
    mine = make_trained(tmp_path / "tiny.ce_tin100", "ce", 1)
    other = make_trained(tmp_path / "tiny.supcon_tin100", "supcon", 2)
    add_result(other, "dtd", "linear", 0.5, model__weights_sha256="0" * 64)
    said = refusal(lambda: siblings(read_checkpoint(mine)))
    assert "tiny.supcon_tin100/results/dtd.linear.json was measured on other weights" in said


def test_a_link_to_a_checkpoint_is_no_second_sibling(tmp_path: Path) -> None:
    mine = make_trained(tmp_path / "tiny.ce_tin100")
    (tmp_path / "latest").symlink_to(mine, target_is_directory=True)
    assert [c.name for c in siblings(read_checkpoint(mine))] == ["tiny.ce_tin100"]


def test_folders_are_read_the_same_wherever_they_lie(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "elsewhere" / trained.name)
    a, b = read_checkpoint(trained), read_checkpoint(tmp_path / "elsewhere" / trained.name)
    assert (a.config, a.weights_sha256, a.recipe, a.run, a.log) == (
        b.config, b.weights_sha256, b.recipe, b.run, b.log,
    )  # fmt: skip

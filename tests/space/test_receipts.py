"""Receipts: the file behind a cell, and the command that makes it again."""

from __future__ import annotations

import json
import re
import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.cli.parser import build_parser
from eval.protocols import PROTOCOLS
from eval.results.schema import Result
from eval.results.store import write_result
from eval.settings.protocols import Fewshot
from eval.tasks.registry import TASKS
from space.receipts import command, receipt
from tests.factories import make_result, refusal
from tests.space.shelves import CARDS, part, shipped


def parsed(text: str) -> Namespace:
    """As a shell and then eval's own parser read the line."""
    words = shlex.split(text)
    assert words[:2] == ["transfer-eval", "run"]
    return build_parser().parse_args(words[1:])


def check_command(result: Result) -> Namespace:
    args = parsed(command(result))
    assert args.models == [result.model.spec]
    known = result.task.name in TASKS
    elsewhere = result.task.source.startswith("local:")  # a folder of the reader's goes there
    source = "imagefolder:DIR" if elsewhere else result.task.source
    assert args.task == [result.task.name if known else source]
    assert args.protocol == [result.protocol.name]
    assert args.seed == result.seed
    assert args.limit == result.limit
    assert args.img_size == result.model.img_size
    assert args.precision == (result.precision or "auto")
    read = result.readout
    assert args.pool == ([read.pool] if read else None)
    assert args.layer == ([read.layer] if read else None)
    config = result.protocol.config
    assert args.shots == (list(config["shots"]) if "shots" in config else None)
    for name in ("n_way", "queries", "episodes"):
        if name in config:
            assert (getattr(args, name) or getattr(Fewshot(), name)) == config[name]
    assert (args.data is not None) == (known and not TASKS[result.task.name].embedded)
    return args


def test_the_command_of_every_shipped_result() -> None:
    assert len(shipped()) > 100
    for _, result in shipped():
        check_command(result)


FEW = {"shots": [5], "n_way": 10, "queries": 7, "episodes": 50, "c": 1.0}


@pytest.mark.parametrize(
    "result",
    [
        make_result(seed=2**32 - 1),
        make_result(limit=10),
        make_result(precision="bf16-channels_last"),
        part(make_result(), "model", img_size=64),
        make_result(protocol="fewshot", config=FEW),
        make_result(protocol="fewshot", config={"shots": [1, 5, 20]} | vars(Fewshot(shots=()))
                    | {"shots": [1, 5, 20]}),
        make_result("local-dir:/home/me/my model; rm -rf ~", "photos"),
        make_result("hf-hub:org/name@main", "mini_digits"),
        part(make_result(task="photos"), "task", source="imagefolder:/tmp/a b'c\"d $HOME"),
        part(make_result(task="photos"), "task", source="local:photos"),
        part(make_result(task="photos"), "task", source="hub:o/n?image=i&label=l"),
        make_result("<script>`id`$(id)&&|", "photos"),
        make_result(protocol="knn", config=vars(PROTOCOLS["knn"].settings())),
        make_result(readout={"pool": "cls+mean", "layer": "last-4"}),
    ],
)  # fmt: skip
def test_the_command_of_odd_results(result: Result) -> None:
    check_command(result)


def test_an_embedded_task_needs_no_data() -> None:
    (name, *_) = [t.name for t in TASKS.values() if t.embedded]
    assert "--data" not in command(make_result(task=name))


def test_defaults_are_not_spelled_out() -> None:
    config = {"shots": [1, 5, 20], "n_way": 5, "queries": 15, "episodes": 600, "c": 1.0}
    assert command(make_result(protocol="fewshot", config=config)) == (
        "transfer-eval run random:resnet18 --task dtd --protocol fewshot --data DATA --shots 1 5 20"
    )


@pytest.mark.parametrize("protocol", ["linear-sgd", "finetune"])
def test_what_was_done_before_there_was_a_setting_is_spelled_out(protocol: str) -> None:
    now = json.loads(json.dumps(vars(PROTOCOLS[protocol].settings(epochs=7))))
    then = {k: v for k, v in now.items() if k != "crops_from"}
    settings = f" --set {protocol}.epochs=7"
    assert command(make_result(protocol=protocol, config=now)).endswith(settings)
    old = command(make_result(protocol=protocol, config=then))
    assert old.endswith(f"{settings} --set {protocol}.crops_from=reduced")


def test_readout_and_grid_are_spelled_out() -> None:
    config = json.loads(json.dumps(vars(PROTOCOLS["knn"].settings(ks=(10, 20)))))
    read = {"pool": "cls", "layer": "blocks.3"}
    assert command(make_result(protocol="knn", config=config, readout=read)).endswith(
        " --set 'knn.ks=[10, 20]' --pool cls --layer blocks.3"
    )


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_no_name_breaks_out_of_the_command(name: str) -> None:
    result = part(make_result(f"local-dir:{name}", "photos"), "task", source=f"imagefolder:{name}")
    words = shlex.split(command(result))
    assert words[2] == f"local-dir:{name}"
    assert words[4] == f"imagefolder:{name}"


# --------------------------------------------------------------------------- the file


def test_the_content_is_the_file_without_what_is_an_image_each() -> None:
    for path, result in shipped()[::7]:
        found = receipt(CARDS, str(path.relative_to(CARDS)))
        raw = json.loads(path.read_bytes())
        assert raw.pop("samples")
        assert bool(raw.pop("confidence", "")) == (result.protocol.name == "linear")
        assert found.content == raw
        assert found.title == (f"{result.model.id} on {result.task.name}, {result.protocol.name}")
        for part_of in ("config", "versions", "seed", "weights_sha256", "split_hash", "seconds",
                        "created"):  # fmt: skip
            assert f'"{part_of}"' in json.dumps(found.content)
        assert found.command == command(result)


def shelf(tmp_path: Path) -> Path:
    root = tmp_path / "shelf"
    write_result(root / "m" / "r" / "a.json", make_result())
    return root


def test_a_receipt_of_a_shelf(tmp_path: Path) -> None:
    assert receipt(shelf(tmp_path), "m/r/a.json").content["seed"] == 0


@pytest.mark.parametrize(
    "path", ["../secret.json", "m/../../secret.json", "link.json", "out/secret.json"]
)
def test_nothing_outside_of_the_shelf_is_shown(tmp_path: Path, path: str) -> None:
    root = shelf(tmp_path)
    write_result(tmp_path / "secret.json", make_result("secret"))
    (root / "link.json").symlink_to(tmp_path / "secret.json")
    (root / "out").symlink_to(tmp_path)
    assert (root / path).is_file()
    assert "outside" in refusal(receipt, root, path)
    assert "outside" in refusal(receipt, root, str(tmp_path / "secret.json"))


def test_a_link_within_the_shelf_is_no_escape(tmp_path: Path) -> None:
    root = shelf(tmp_path)
    (root / "link.json").symlink_to(root / "m" / "r" / "a.json")
    assert receipt(root, "link.json").content["seed"] == 0
    (tmp_path / "alias").symlink_to(root)
    assert receipt(tmp_path / "alias", "m/r/a.json").content["seed"] == 0


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"schema_version": 1}', "\x00", "1" * 5000])
def test_a_vanished_or_broken_file_is_one_sentence(tmp_path: Path, text: str | None) -> None:
    root = shelf(tmp_path)
    file = root / "m" / "r" / "a.json"
    file.unlink()
    if text is not None:
        file.write_text(text)
    assert re.search("gone or was changed", refusal(receipt, root, "m/r/a.json"))


def test_a_folder_is_no_receipt(tmp_path: Path) -> None:
    for path in ("m", ""):
        assert "gone or was changed" in refusal(receipt, shelf(tmp_path), path)


@pytest.mark.parametrize("shots", [5, None, []])
def test_a_foreign_form_of_shots(shots: Any) -> None:
    args = parsed(command(make_result(protocol="fewshot", config={"shots": shots})))
    assert args.shots is None  # the protocol's own

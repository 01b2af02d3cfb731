"""A readout from the command line to the board: what is asked for is part of the result's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.results.names import shelf_path
from eval.results.store import read_result
from eval.run.plan import Request, plan
from eval.settings.protocols import Knn
from eval.settings.readout import readouts
from tests.factories import Cli, Ran

VIT = "random:test_vit"


def run(cli: Cli, task_dir: Path, *more: str) -> Ran:
    return cli("run", *what(task_dir), *more)


def what(task_dir: Path) -> tuple[str, ...]:
    cache = str(task_dir.parent / "cache")
    return (VIT, "--task", f"parquet:{task_dir}", "--img-size", "64", "--cache", cache)


def files(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        p.name.partition(".knn")[2]: json.loads(p.read_text())
        for p in sorted(folder.rglob("*.knn*.json"))
    }


def test_each_readout_is_a_result_and_a_table(cli: Cli, task_dir: Path, tmp_path: Path) -> None:
    asked = (
        "--protocol", "knn", "--pool", "default", "mean", "--layer", "features", "last-2", "auto",
        "--results", str(tmp_path / "results"), "--json",
    )  # fmt: skip
    first = json.loads(run(cli, task_dir, *asked).out)
    assert first["scored"] == 6
    found = files(tmp_path / "results")
    assert set(found) == {
        f"{how}.json"
        for how in ("", "@layer=last-2", "@layer=auto", "@pool=mean", "@pool=mean,layer=last-2",
                    "@pool=mean,layer=auto")
    }  # fmt: skip
    assert "readout" not in found[".json"]
    assert found["@pool=mean,layer=last-2.json"]["readout"] == {
        "pool": "mean", "layer": "last-2",
    }  # fmt: skip
    told = found["@pool=mean,layer=auto.json"]["details"]["readout"]
    assert told["layer"] in told["layer_validation"]
    for path in (tmp_path / "results").rglob("*.json"):
        assert path.as_posix().endswith(shelf_path(read_result(path)))
    assert {b["setting"] for b in first["boards"]} == {
        "", "layer=last-2", "layer=auto", "pool=mean", "pool=mean, layer=last-2",
        "pool=mean, layer=auto",
    }  # fmt: skip
    again = json.loads(run(cli, task_dir, *asked).out)
    assert (again["scored"], again["reused"]) == (0, 6)
    assert again["boards"] == first["boards"]


def test_a_default_result_is_the_same_beside_others(
    cli: Cli, task_dir: Path, tmp_path: Path
) -> None:
    outs = []
    for name, more in (("alone", ()), ("beside", ("--pool", "default", "cls+mean"))):
        run(cli, task_dir, "--protocol", "knn", "--results", str(tmp_path / name), *more,
            "--cache", str(tmp_path / f"cache-{name}"))  # fmt: skip
        outs.append(files(tmp_path / name)[".json"])
    for out in outs:
        del out["created"], out["seconds"]
    assert outs[0] == outs[1]


def test_verify_reads_what_was_read(cli: Cli, task_dir: Path, tmp_path: Path) -> None:
    run(cli, task_dir, "--protocol", "knn", "--layer", "auto", "--pool", "mean",
        "--results", str(tmp_path / "results"))  # fmt: skip
    [path] = (tmp_path / "results").rglob("*layer=auto.json")
    assert cli("verify", str(path)).out.startswith("equal")
    held = json.loads(path.read_text())
    held["readout"]["layer"] = "blocks.0"
    path.write_text(json.dumps(held))
    assert cli("verify", str(path)).out.startswith("differs")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--protocol", "finetune", "--pool", "cls"), "trains the network with the pooling it has"),
        (("--pool", "max"), "pool must be one of"),
        (("--layer", "last-0"), "is not last-N"),
        (("--layer", "blocks.77"), "has no layer 'blocks.77'; its layers are blocks.0"),
        (("--preset", "dinov2-linaer"), "did you mean 'dinov2-linear'"),
        (("--preset", "dinov2-knn", "--pool", "cls"), "leave --pool and --layer out"),
    ],
)
def test_mistakes_are_one_sentence(
    more: tuple[str, ...], words: str, cli: Cli, task_dir: Path, tmp_path: Path
) -> None:
    ran = run(cli, task_dir, "--results", str(tmp_path / "results"), *more)
    assert ran.code == 2
    assert words in ran.err
    assert not list((tmp_path / "results").rglob("*.json"))


def test_a_preset_is_its_settings(cli: Cli, task_dir: Path, tmp_path: Path) -> None:
    run(cli, task_dir, "--preset", "dinov2-knn", "--results", str(tmp_path / "results"))
    [path] = (tmp_path / "results").rglob("*.json")
    config = read_result(path).protocol.config
    assert path.name.endswith("knn@ks=10+20+100+200,pool=cls.json")
    assert (config["ks"], config["temperature"]) == ([10, 20, 100, 200], 0.07)
    listed = {row["preset"]: row for row in json.loads(cli("list", "presets", "--json").out)}
    rates = listed["dinov2-linear"]["settings"].partition("linear-sgd.lrs=")[2]
    assert json.loads(rates.partition("]")[0] + "]")[-1] == 0.05  # 0.1 x 128 / 256


def test_plan_knows_the_bank_of_all_readouts(
    cli: Cli, task_dir: Path, tmp_path: Path, cache: Path
) -> None:
    asked = ("--protocol", "knn", "--pool", "cls", "mean", "--results", str(tmp_path / "results"))
    [before] = json.loads(cli("plan", *what(task_dir), *asked, "--json").out)
    assert before["images"] == 168
    assert before["megabytes"] == pytest.approx(168 * (2 * 64 * 4 + 8) / 1e6)
    run(cli, task_dir, *asked)
    request = Request(
        [VIT], [f"parquet:{task_dir}"], {"knn": Knn()}, cache, tmp_path / "results", img_size=64,
        readouts=readouts(["cls", "mean", "cls+mean"]),
    )  # fmt: skip
    assert [c.done for c in plan(request)] == [True, True, False]

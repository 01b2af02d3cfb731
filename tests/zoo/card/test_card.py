"""Model cards: every number from a file, the same bytes from the same files, a person's text kept.

Golden files are written anew with TRANSFERZOO_REGENERATE_GOLDEN=1.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from markdown_it import MarkdownIt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from eval.common.errors import UserError
from eval.common.files import sha256_file
from eval.models.names import ZOO_FOLDER, zoo_names
from eval.models.objectives import STUDY, TERMS, parse_objective
from tests.factories import refusal
from tests.zoo.checkpoints import (
    KNN,
    add_result,
    config_of,
    log_of,
    make_converted,
    make_result,
    make_trained,
    recipe_of,
    write_log,
    write_toml,
    write_weights,
)
from zoo.__main__ import main
from zoo.card.card import BEGIN, END, out_of_step, render, repo_named, write
from zoo.card.curve import draw, drawn_from
from zoo.checkpoint import CURVE, read_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
REGENERATE = os.environ.get("TRANSFERZOO_REGENERATE_GOLDEN") == "1"
ROOT = Path(__file__).parents[3]
NAMES = zoo_names()
CE, JOINT, SELF = "tiny.ce_tin100", "tiny.ce_selfsupcon_tin100", "tiny.selfsupcon_tin100"
MOCO = "resnet50.moco"
MADE = (CE, JOINT, SELF, MOCO)

TITLES = {
    "Linear evaluation on cached features": ("linear", "top1"),
    "Few-shot, 5-way 5-shot": ("fewshot", "top1_5shot"),
    "Few-shot, 5-way 1-shot": ("fewshot", "top1_1shot"),
    "Few-shot, 5-way 20-shot": ("fewshot", "top1_20shot"),
    "k nearest neighbours": ("knn", "top1"),
}


def make_family(parent: Path, names: tuple[str, ...] = MADE) -> Path:
    """Three siblings, one without classifier, and a converted checkpoint, with results."""
    for name in names:
        if name == CE:
            folder = make_trained(parent / CE, "ce", 1, device="cpu (Größe 1|2)")
            add_result(folder, "dtd", "linear", 0.501)
            add_result(folder, "svhn", "linear", 0.312)
            add_result(folder, "tiny_imagenet", "linear", 0.623)
            add_result(folder, "photos", "linear", 0.877)
            add_result(folder, "dtd", "fewshot", 0.454)
            add_result(folder, "dtd", "knn", 0.389)
            add_result(folder, "dtd", "linear", 0.4417, seed=1)
            add_result(folder, "dtd", "linear", 0.533, model__img_size=96,
                       name="dtd.linear@96px.json")  # fmt: skip
        elif name == JOINT:
            folder = make_trained(parent / JOINT, "ce+selfsupcon", 2)
            add_result(folder, "dtd", "linear", 0.634)
            add_result(folder, "tiny_imagenet", "linear", 0.555)
            add_result(folder, "photos", "linear", 0.899)
            add_result(folder, "dtd", "fewshot", 0.612)
        elif name == SELF:
            folder = make_trained(parent / SELF, "selfsupcon", 3)
            add_result(folder, "dtd", "linear", 0.401)
            add_result(folder, "photos", "linear", 0.745)
        else:
            folder = make_converted(parent / MOCO)
            add_result(folder, "svhn", "linear", 0.713, model__spec="hf-hub:org/moco@" + "0" * 40,
                       model__revision="0" * 40)  # fmt: skip
    return parent


@pytest.fixture
def family(tmp_path: Path) -> Path:
    return make_family(tmp_path / "zoo")


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """One checkpoint, two results, its card written."""
    folder = make_trained(tmp_path / "one" / CE)
    add_result(folder, "dtd", "linear", 0.501)
    add_result(folder, "svhn", "linear", 0.312)
    write(folder)
    return folder


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def head_of(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def inside(card: str) -> str:
    return card.partition(BEGIN)[2].partition(END)[0]


def texts(files: dict[str, bytes]) -> str:
    """All that is generated, but for the picture."""
    return "\n".join(v.decode() for k, v in files.items() if k != CURVE)


def board(card: str) -> dict[str, list[list[str]]]:
    """Title -> the cells of the table below it, header first, bold taken off."""
    found: dict[str, list[list[str]]] = {}
    for title in TITLES:
        # in brackets: a setting, and of which chance the intervals speak
        told = rf"{re.escape(title)}(?: \([^)]*\))*"
        for head in re.finditer(rf"(?:\*\*{told}\*\*|<summary>{told}</summary>)\n", card):
            lines = card[head.end() :].lstrip("\n").split("\n\n")[0].splitlines()
            cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
            found[title] = [
                [re.sub(r"^\*\*(.*)\*\*$", r"\1", c) for c in row]
                for i, row in enumerate(cells) if i != 1
            ]  # fmt: skip
    return found


def metrics(card: str) -> int:
    """How many numbers model-index has."""
    return sum(len(entry["metrics"]) for entry in head_of(card)["model-index"][0]["results"])


def percent(score: dict[str, Any]) -> str:
    half = (score["ci_high"] - score["ci_low"]) / 2
    return f"{100 * score['value']:.1f} ±{100 * half:.1f}"


# ------------------------------------------------------------------ golden files


@pytest.mark.parametrize("name", MADE)
def test_golden(family: Path, name: str) -> None:
    files = {k: v for k, v in render(family / name).items() if k != CURVE}
    if REGENERATE:
        shutil.rmtree(GOLDEN / name, ignore_errors=True)
        for place, content in files.items():
            path = GOLDEN / name / place.removeprefix(".eval_results/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    golden = {
        (p.name if p.name == "README.md" else f".eval_results/{p.name}"): p.read_bytes()
        for p in (GOLDEN / name).glob("*")
    }
    assert files.keys() == golden.keys()
    for place, content in files.items():
        assert content == golden[place], (
            f"{name}/{place} is not what tests/zoo/golden has; if the change is meant, run "
            "TRANSFERZOO_REGENERATE_GOLDEN=1 pytest tests/zoo/card/test_card.py -k golden and look "
            "at the difference"
        )


def test_order_of_files_and_folders_changes_nothing(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {name: render(family / name) for name in MADE}
    assert {name: render(family / name) for name in MADE} == wanted
    again = make_family(tmp_path / "again", MADE[::-1])
    for method in ("glob", "rglob"):
        original = getattr(Path, method)
        monkeypatch.setattr(
            Path, method, lambda self, p, original=original: list(original(self, p))[::-1]
        )
    assert {name: render(again / name) for name in MADE[::-1]} == wanted


_RENDER = """
import hashlib, sys
from pathlib import Path
from zoo.card.card import render
for folder in sys.argv[1:]:
    for name, content in sorted(render(Path(folder)).items()):
        print(Path(folder).name, name, hashlib.sha256(content).hexdigest())
"""


def digests(folders: list[Path], **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _RENDER, *map(str, folders)],
        env={**os.environ, **env}, cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.slow
def test_seed_of_hashes_and_time_zone_change_nothing(family: Path) -> None:
    here = [
        f"{name} {place} {hashlib.sha256(content).hexdigest()}"
        for name in MADE
        for place, content in sorted(render(family / name).items())
    ]
    folders = [family / name for name in MADE]
    for seed, zone in (("1", "Asia/Kolkata"), ("77", "America/Lima")):
        done = digests(folders, PYTHONHASHSEED=seed, TZ=zone, LC_ALL="C.UTF-8")
        assert done.stdout.splitlines() == here, done.stderr


@pytest.mark.slow
def test_a_locale_that_is_not_utf8_changes_nothing(family: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    folders = [family / CE]
    done = digests(folders, **plain)
    assert done.stdout == digests(folders, LC_ALL="C.UTF-8").stdout, done.stderr[-300:]


# ------------------------------------------------------------------ what a card has


def test_metadata(family: Path) -> None:
    for name, kind, objective in (
        (CE, "image-classification", "ce"),
        (JOINT, "image-classification", "ce+selfsupcon"),
        (SELF, "image-feature-extraction", "selfsupcon"),
        (MOCO, "image-feature-extraction", "selfsupcon"),
    ):
        head = head_of(render(family / name)["README.md"].decode())
        assert head["library_name"] == "timm"
        assert head["pipeline_tag"] == kind
        assert {kind, f"objective:{objective}", "arxiv:2103.13517"} <= set(head["tags"])
        assert (head.get("license") == "other") == (name != MOCO)  # unknown there: not invented
        assert head.get("datasets") == (None if name == MOCO else ["zh-plus/tiny-imagenet"])


def test_a_head_decides_the_snippets(family: Path) -> None:
    with_head, without = (render(family / n)["README.md"].decode() for n in (CE, SELF))
    assert with_head.count("```python") == 2
    assert "Classes, the 3 of Tiny-ImageNet (`label_names`" in with_head
    assert without.count("```python") == 1
    assert "It has no classifier" in without


def test_the_formula_has_the_terms_and_weights(family: Path) -> None:
    card = render(family / JOINT)["README.md"].decode()
    (line,) = re.findall(r"^\*\*Objective\*\*.*$", card, re.MULTILINE)
    assert TERMS["ce"].formula in line
    assert "2 * ( " + TERMS["selfsupcon"].formula + " )" in line
    assert TERMS["supcon"].formula not in line
    assert "t = 0.07" in line
    assert TERMS["selfsupcon"].formula not in render(family / CE)["README.md"].decode()


def test_a_converted_card_says_where_it_comes_from(family: Path) -> None:
    card = render(family / MOCO)["README.md"].decode()
    for text in ("## Where it comes from", "moco_v2_800ep_pretrain.pth.tar", "ab" * 32,
                 "3 tensors used, 2 dropped", "not known to the tool", "71.3 ±2.1"):  # fmt: skip
        assert text in card
    assert CURVE not in card
    assert "One training run" not in card


def test_results_at_other_settings_stand_apart(family: Path) -> None:
    """In model-index and .eval_results with their setting, never in the tables."""
    files = render(family / CE)
    assert {".eval_results/transferzoo.yaml", ".eval_results/transferzoo.seed-1.yaml"} < {
        re.sub(r"seed.+1\.", "seed-1.", name) for name in files
    }
    tables = board(files["README.md"].decode())
    dtd = [row for row in tables["Linear evaluation on cached features"] if row[0] == "dtd*"]
    assert [row[1:2] for row in dtd] == [["50.1 ±2.1"]]
    entries = head_of(files["README.md"].decode())["model-index"][0]["results"]
    configs = sorted(e["dataset"]["config"] for e in entries if e["dataset"]["type"] == "dtd")
    assert configs == ["fewshot", "knn", "linear", "linear, img_size=96", "linear, seed=1"]


def test_a_missing_siblings_result_is_a_dash_and_leaves_the_mean(family: Path) -> None:
    table = board(render(family / CE)["README.md"].decode())["Linear evaluation on cached features"]
    assert table[0] == ["data set", "CE", "SelfSupCon", "CE+SelfSupCon"]
    rows = {row[0]: row[1:] for row in table[1:]}
    assert rows["svhn*"] == ["31.2 ±2.1", "-", "-"]
    assert rows["photos"] == ["87.7 ±2.1", "74.5 ±2.1", "89.9 ±2.1"]
    # of dtd and photos: svhn is not common, tiny_imagenet is what they were trained on
    assert rows["mean of 2 without tiny_imagenet"] == [
        f"{100 * np.mean(pair):.1f}" for pair in ((0.501, 0.877), (0.401, 0.745), (0.634, 0.899))
    ]


def test_the_mean_leaves_out_the_training_data(family: Path) -> None:
    add_result(family / SELF, "tiny_imagenet", "linear", 0.2)
    table = board(render(family / CE)["README.md"].decode())["Linear evaluation on cached features"]
    assert table[-1] == ["mean of 2 without tiny_imagenet", "68.9", "57.3", "76.6"]


def test_a_sibling_measured_on_other_weights_is_refused_by_name(family: Path) -> None:
    write_weights(family / SELF / "model.safetensors", 8, 0)
    said = refusal(render, family / CE)
    assert SELF in said
    assert "other weights" in said


def test_without_results_there_is_no_number(tmp_path: Path) -> None:
    folder = make_trained(tmp_path / CE)
    files = render(folder)
    card = files["README.md"].decode()
    assert "None measured yet" in card
    assert "model-index" not in card
    assert "±" not in card
    assert board(card) == {}
    assert not [name for name in files if name.startswith(".eval_results")]


def test_siblings_alone_make_no_table(family: Path) -> None:
    shutil.rmtree(family / CE / "results")
    card = render(family / CE)["README.md"].decode()
    assert "None measured yet" in card
    assert "±" not in card


# ------------------------------------------------------------------ numbers come and go with files


@pytest.mark.parametrize("name", ["dtd.linear.json", "dtd.fewshot.json", "svhn.linear.json",
                                  "dtd.knn.json", "photos.linear.json",
                                  "dtd.linear@seed=1.json"])  # fmt: skip
def test_without_its_file_a_result_vanishes_everywhere(family: Path, name: str) -> None:
    folder = family / CE
    write(folder)
    gone = json.loads((folder / "results" / name).read_text())
    marks = {f"{100 * s['value']:.2f}".rstrip("0") for s in gone["scores"]}
    if "@" not in name and "mean" not in name:
        marks |= {percent(s) for s in gone["scores"] if s["name"].startswith("top1")}
    before = texts(render(folder))
    assert all(mark in before for mark in marks)
    assert f"results/{name}" in before
    count = metrics(before)
    (folder / "results" / name).unlink()
    for sibling in (JOINT, SELF):  # their own values must not be taken for ours
        shutil.rmtree(family / sibling)
    write(folder)
    after = texts({p: (folder / p).read_bytes() for p in render(folder)})
    assert out_of_step(folder) == []
    assert f"results/{name}" not in after
    assert metrics(after) == count - len(gone["scores"])
    assert [mark for mark in marks if mark in after] == []


def test_without_any_file_every_number_vanishes_from_a_written_card(single: Path) -> None:
    assert "model-index" in card_of(single)
    assert (single / ".eval_results/transferzoo.yaml").is_file()
    shutil.rmtree(single / "results")
    done = write(single)
    assert done.removed == (".eval_results/transferzoo.yaml",)
    assert not (single / ".eval_results/transferzoo.yaml").exists()
    card = card_of(single)
    assert "model-index" not in card
    assert "50.1" not in card


def test_a_changed_score_changes_the_card(single: Path) -> None:
    path = single / "results/dtd.linear.json"
    path.write_text(path.read_text().replace("0.501", "0.777"))
    assert out_of_step(single) == ["README.md", ".eval_results/transferzoo.yaml"]
    write(single)
    assert out_of_step(single) == []
    card = card_of(single)
    assert board(card)["Linear evaluation on cached features"][1][1].startswith("77.7 ±")
    assert "value: 77.7\n" in card
    assert "50.1" not in card
    assert "value: 77.7\n" in (single / ".eval_results/transferzoo.yaml").read_text()


def test_a_siblings_new_score_changes_the_card(family: Path) -> None:
    write(family / CE)
    add_result(family / SELF, "svhn", "linear", 0.123)
    assert out_of_step(family / CE) == ["README.md"]
    assert "12.3 ±2.1" in render(family / CE)["README.md"].decode()


def test_a_stale_setting_is_removed_and_other_peoples_files_stay(family: Path) -> None:
    folder = family / CE
    write(folder)
    theirs = folder / ".eval_results/someone.yaml"
    theirs.write_text("- value: 1\n")
    (folder / "results/dtd.linear@seed=1.json").unlink()
    stale = out_of_step(folder)
    assert [name for name in stale if name.startswith(".eval_results")] != []
    done = write(folder)
    assert len(done.removed) == 1
    assert "seed" in done.removed[0]
    assert theirs.read_text() == "- value: 1\n"
    assert out_of_step(folder) == []


def test_every_number_names_its_own_file(family: Path) -> None:
    folder = family / CE
    write(folder)
    entries = ModelCard.load(folder / "README.md").data.eval_results
    for entry in entries:
        result = json.loads((folder / "results" / entry.source_url.rsplit("/", 1)[1]).read_text())
        assert entry.metric_name.split()[0] == result["protocol"]["name"]
        values = [round(100 * s["value"], 2) for s in result["scores"]]
        assert entry.metric_value in values


# ------------------------------------------------------------------ the cards that ship

COLUMNS = {
    parse_objective(o).shown: next(n for n in NAMES if f".{parse_objective(o).slug}_tin" in n)
    for o in STUDY
}


def measured(name: str) -> dict[str, dict[str, Any]]:
    """File name -> content of a shipped checkpoint's results."""
    return {p.name: json.loads(p.read_text()) for p in (ZOO_FOLDER / name / "results").iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_shipped_card_is_in_step(name: str) -> None:
    assert out_of_step(ZOO_FOLDER / name) == []


@pytest.mark.parametrize("name", NAMES)
def test_shipped_card_has_every_score_in_its_model_index(name: str) -> None:
    card = ModelCard.load(ZOO_FOLDER / name / "README.md")
    assert isinstance(card.data, ModelCardData)
    assert card.data.eval_results is not None
    assert card.data.library_name == "timm"
    assert card.data.license
    assert card.data.model_name == name
    for score in card.data.eval_results:
        boxes = score.metric_name.startswith("detection ")
        assert score.task_type == ("object-detection" if boxes else "image-classification")
    found = {
        (e.source_url.rsplit("/", 1)[1], e.metric_name): e.metric_value
        for e in card.data.eval_results
        if e.source_url
    }
    wanted = {}
    for file, result in measured(name).items():
        for score in result["scores"]:
            said, value = f"{result['protocol']['name']} {score['name']}", score["value"]
            if score["name"] == "nll":  # a loss is no percentage
                wanted[file, f"{said}, nats"] = round(value, 4)
            else:
                wanted[file, f"{said}, %"] = round(100 * value, 2)
    assert len(card.data.eval_results) == len(wanted)
    assert found == wanted
    for entry in card.data.eval_results:
        assert f"/{name}/blob/main/results/" in (entry.source_url or "")
        result = measured(name)[(entry.source_url or "").rsplit("/", 1)[1]]
        assert entry.dataset_type == result["task"]["name"]
        assert ("(subset)" in entry.dataset_name) == result["task"]["subset"]


@pytest.mark.parametrize("name", NAMES)
def test_shipped_cards_hub_results_parse(name: str) -> None:
    entries = [
        entry for path in sorted((ZOO_FOLDER / name / ".eval_results").iterdir())
        for entry in huggingface_hub.parse_eval_result_entries(yaml.safe_load(path.read_text()))
    ]  # fmt: skip
    found = {e.task_id: e.value for e in entries}
    assert len(found) == len(entries)
    assert found == {
        f"{r['task']['name']}_{r['protocol']['name']}_{s['name']}": round(100 * s["value"], 2)
        for r in measured(name).values()
        for s in r["scores"]
        if re.fullmatch(r"top1(_\d+shot)?|(voc07_)?ap(50|75)?", s["name"])
    }
    assert {e.dataset_id for e in entries} == {"transferzoo/results"}


@pytest.mark.parametrize("name", NAMES)
def test_shipped_tables_can_be_worked_out_from_the_files(name: str) -> None:
    card = card_of(ZOO_FOLDER / name)
    tables = board(card)
    assert set(tables) == set(TITLES) - {"k nearest neighbours"}
    assert card.count("± 95 % over another sample of the data set") == len(tables)
    shown = {title: measured(COLUMNS[title]) for title in COLUMNS}
    for title, (protocol, score) in ((t, TITLES[t]) for t in tables):
        header, *rows = tables[title]
        assert header[1:] == list(COLUMNS)
        assert f"**{next(c for c in COLUMNS if COLUMNS[c] == name)}**" in card
        values: dict[str, list[float]] = {}
        for row in rows:
            task = row[0].rstrip("*")
            if task.startswith("mean of"):
                continue
            for label, cell in zip(header[1:], row[1:], strict=True):
                result = shown[label][f"{task}.{protocol}.json"]
                (found,) = (s for s in result["scores"] if s["name"] == score)
                assert cell == percent(found), (title, task, label)
                assert row[0].endswith("*") == result["task"]["subset"]
                values.setdefault(task, []).append(found["value"])
        assert set(values) == {
            r["task"]["name"]
            for r in shown[next(c for c in COLUMNS if COLUMNS[c] == name)].values()
            if r["protocol"]["name"] == protocol and score in [s["name"] for s in r["scores"]]
        }
        values.pop("tiny_imagenet")
        means = np.mean(list(values.values()), axis=0)
        assert rows[-1] == [
            f"mean of {len(values)} without tiny_imagenet", *(f"{100 * m:.1f}" for m in means)
        ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_shipped_comparisons_can_be_worked_out_from_the_files(name: str) -> None:
    said = re.findall(
        r"^- (linear|fewshot) (\w+): "
        r"(?:(\S+) is better than (\S+) on (\d+) of (\d+) tasks"
        r"( \([^)]*\))?, worse on (\d+)( \([^)]*\))?, undecided on (\d+)|no difference between "
        r"(\S+) and (\S+) is shown on any of (\d+) tasks) "
        r"\(paired tests, Holm-corrected p &#60; 0.05; "
        r"over another sample of the data set\); mean difference (\S+) points",
        card_of(ZOO_FOLDER / name), re.MULTILINE,
    )  # fmt: skip
    paired = any(t in name for t in (".ce_tin", ".ce_self", ".supcon_"))
    assert len(said) == (2 if paired else 0)
    for protocol, score, a1, b1, won, n1, won_in, lost, lost_in, open_, a2, b2, n2, mean in said:
        a, b = COLUMNS[a1 or a2], COLUMNS[b1 or b2]
        assert a == name
        differences = {}
        mine, theirs = measured(a), measured(b)
        for file, result in mine.items():
            both = [
                [s["value"] for s in r["scores"] if s["name"] == score]
                for r in (result, theirs[file])
            ]
            transfer = result["task"]["name"] != "tiny_imagenet"  # which they were pretrained on
            if result["protocol"]["name"] == protocol and all(both) and transfer:
                differences[result["task"]["name"]] = both[0][0] - both[1][0]
        assert int(n1 or n2) == len(differences)
        assert float(mean) == pytest.approx(100 * np.mean(list(differences.values())), abs=0.051)
        if n1:
            assert int(won) + int(lost) + int(open_) == int(n1)
            for count, listed, sign in ((won, won_in, 1), (lost, lost_in, -1)):
                tasks = re.findall(r"\w+", listed)
                assert len(tasks) == int(count)
                assert all(differences[task] * sign > 0 for task in tasks)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_card_says_what_the_receipt_says(name: str) -> None:
    card, found = card_of(ZOO_FOLDER / name), read_checkpoint(ZOO_FOLDER / name)
    run = found.run
    assert sha256_file(ZOO_FOLDER / name / "model.safetensors") in card
    for text in (
        f"{run.images:,} images of {run.classes} classes",
        f"{run.images_seen:,} images seen",
        f"peak rate {run.learning_rate:g}",
        f"{run.validation_knn_top1:.1f} % (epoch 12)",
        f"![Loss terms and validation kNN while training]({CURVE})",
        "ImageNet terms", "@inproceedings{islam2021broad", "## Intended use and limits",
    ):  # fmt: skip
        assert text in card
    assert drawn_from(ZOO_FOLDER / name / CURVE, ZOO_FOLDER / name / "log.jsonl")
    assert ("the labels were not used" in card) == (not found.objective.needs_labels)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", NAMES)
def test_shipped_snippets_are_valid(name: str) -> None:
    from eval.cli.parser import build_parser as eval_parser
    from zoo.__main__ import build_parser as zoo_parser

    card = card_of(ZOO_FOLDER / name)
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == (2 if read_checkpoint(ZOO_FOLDER / name).classes else 1)
    for block in blocks:
        compile(block, name, "exec")
        assert f'"hf-hub:transferzoo/{name}"' in block
    (commands,) = re.findall(r"```bash\n(.*?)```", card, re.DOTALL)
    for line in commands.splitlines():
        program, *rest = shlex.split(line)
        assert program == "transfer-eval"
        assert eval_parser().parse_args(rest).command == "run"
    (again,) = re.findall(r"`(transfer-zoo pretrain [^`]*)`", card)
    args = zoo_parser().parse_args(shlex.split(again)[1:])
    assert args.objective == read_checkpoint(ZOO_FOLDER / name).run.objective


def test_shipped_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(n for n in NAMES if ".ce_tin" in n)
    pixels = np.random.RandomState(0).randint(0, 256, (70, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.jpg")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", card_of(ZOO_FOLDER / name), re.DOTALL):
        local = block.replace(f"hf-hub:transferzoo/{name}", f"local-dir:{ZOO_FOLDER / name}")
        assert local != block
        exec(local, scope)  # our own committed text
    assert scope["features"].shape == (1, 256)
    assert scope["probabilities"].shape == (1, 100)
    assert float(scope["probabilities"].sum()) == pytest.approx(1, abs=1e-4)


# ------------------------------------------------------------------ edited by hand


def edit(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / "README.md"
    path.write_text(change(card_of(folder)), encoding="utf-8")


def with_head(folder: Path, **more: Any) -> None:
    """Set keys of the metadata."""

    def change(text: str) -> str:
        head, body = re.fullmatch(r"---\n(.*?)---\n(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
        return "---\n" + yaml.safe_dump(yaml.safe_load(head) | more) + "---\n" + body

    edit(folder, change)


def test_writing_again_changes_nothing(single: Path) -> None:
    assert write(single).changed == ()
    assert out_of_step(single) == []


def test_text_outside_the_markers_stays(single: Path) -> None:
    before, after = "Greetings from ümlaut.\n\n", "\n## My notes\n\n--- \n{{ 7*7 }} 5 > 3\n"
    edit(single, lambda text: text.replace(BEGIN, before + BEGIN) + after)
    for _ in range(2):
        write(single)
        card = card_of(single)
        assert card.count(before + BEGIN) == 1
        assert card.endswith(f"{END}\n{after}")
    assert write(single).changed == ()


def test_text_inside_the_markers_is_written_anew(single: Path) -> None:
    original = card_of(single)
    edit(single, lambda text: text.replace("50.1 ±2.1", "99.9 ±0.1").replace(END, f"Best!\n{END}"))
    assert out_of_step(single) == ["README.md"]
    write(single)
    assert card_of(single) == original


def test_metadata_of_a_person_stay(single: Path) -> None:
    head = head_of(card_of(single))
    foreign = {
        "task": {"type": "image-classification"},
        "dataset": {"type": "imagenet-1k", "name": "ImageNet"},
        "metrics": [{"type": "accuracy", "value": 12.5}],
        "source": {"name": "Somebody", "url": "https://example.org"},
    }
    index = head["model-index"]
    index[0]["results"].append(foreign)
    with_head(
        single, language=["en"], base_model="org/base", **{"model-index": index},
        tags=[*head["tags"], "my-tag"], datasets=[*head["datasets"], "org/more"],
    )  # fmt: skip
    for _ in range(2):
        write(single)
        now = head_of(card_of(single))
        assert now["language"] == ["en"]
        assert now["base_model"] == "org/base"
        assert now["tags"] == [*head["tags"], "my-tag"]
        assert now["datasets"] == [*head["datasets"], "org/more"]
        assert now["model-index"][0]["results"] == index[0]["results"]
    assert write(single).changed == ()
    ModelCard.load(single / "README.md")


def test_results_from_elsewhere_stay_where_we_have_none(tmp_path: Path) -> None:
    folder = make_trained(tmp_path / CE)
    theirs = {
        "task": {"type": "image-classification"},
        "dataset": {"type": "imagenet-1k", "name": "ImageNet"},
        "metrics": [{"type": "accuracy", "value": 12.5}],
    }
    write(folder)
    with_head(folder, **{"model-index": [{"name": "mine", "results": [theirs]}]})
    for _ in range(2):
        write(folder)
        index = head_of(card_of(folder))["model-index"]
        assert index == [{"name": "mine", "results": [theirs]}]


def test_scores_of_ours_that_were_edited_are_put_right(single: Path) -> None:
    index = head_of(card_of(single))["model-index"]
    wanted = json.loads(json.dumps(index))
    index[0]["results"][0]["metrics"][0]["value"] = 99.9
    with_head(single, **{"model-index": index})
    write(single)
    assert head_of(card_of(single))["model-index"] == wanted


def test_a_stale_objective_tag_is_replaced(single: Path) -> None:
    tags = head_of(card_of(single))["tags"]
    with_head(single, tags=["objective:supcon", *tags[:-1], "mine"])
    write(single)
    assert head_of(card_of(single))["tags"] == [*tags, "mine"]


def test_tags_of_one_word_stay(single: Path) -> None:
    tags = head_of(card_of(single))["tags"]
    with_head(single, tags="mine", datasets="org/more")
    write(single)
    head = head_of(card_of(single))
    assert head["tags"] == [*tags, "mine"]
    assert head["datasets"] == ["zh-plus/tiny-imagenet", "org/more"]


@pytest.mark.parametrize(
    "index",
    ["text", ["text"], [{"name": "x", "results": "text"}], [{"name": "x", "results": ["text"]}],
     [{"results": [{"source": "text"}]}], 3],
    ids=str,
)  # fmt: skip
def test_a_model_index_that_is_none_is_no_traceback(single: Path, index: Any) -> None:
    with_head(single, **{"model-index": index})
    try:
        write(single)
    except UserError as error:
        said = str(error)
    else:
        ModelCard.load(single / "README.md")
        return
    assert "README.md" in said


def test_a_card_without_markers_stays_whole_below(single: Path) -> None:
    written = "---\nlicense: mit\nlanguage: en\n---\n# My model\n\nIt is | good.\n"
    (single / "README.md").write_text(written)
    for _ in range(2):
        write(single)
        card = card_of(single)
        assert card.endswith(f"{END}\n# My model\n\nIt is | good.\n")
        assert head_of(card)["language"] == "en"
        assert card.count("# My model") == 1


def test_a_card_without_metadata_stays_whole_below(single: Path) -> None:
    (single / "README.md").write_text("Just text\n---\nmore\n")
    write(single)
    write(single)
    assert card_of(single).endswith(f"{END}\nJust text\n---\nmore\n")


MARKERS = {
    "begin alone": f"a\n{BEGIN}\nb\n",
    "end alone": f"a\n{END}\nb\n",
    "two begin": f"{BEGIN}\n{BEGIN}\n{END}\n",
    "two end": f"{BEGIN}\n{END}\n{END}\n",
    "twice": f"{BEGIN}\n{END}\n" * 2,
    "wrong way round": f"{END}\nx\n{BEGIN}\n",
}


@pytest.mark.parametrize("name", MARKERS)
def test_broken_markers_are_refused(single: Path, name: str) -> None:
    (single / "README.md").write_text(MARKERS[name])
    assert "markers" in refusal(write, single)
    assert card_of(single) == MARKERS[name]


@pytest.mark.parametrize("head", ["a: [", "- a\n- b", "just text", "a: 1\na: : 2", "!!python/x 1"])
def test_broken_metadata_is_refused(single: Path, head: str) -> None:
    text = f"---\n{head}\n---\nx\n"
    (single / "README.md").write_text(text)
    said = refusal(write, single)
    assert "README.md" in said
    assert "not YAML" in said
    assert card_of(single) == text


def test_a_card_that_is_no_utf8_is_refused(single: Path) -> None:
    (single / "README.md").write_bytes(b"---\nx: \xff\n---\n")
    assert "not UTF-8" in refusal(write, single)


def test_line_ends_of_windows(single: Path) -> None:
    original = card_of(single)
    edit(single, lambda text: text.replace(BEGIN, "Hi\n" + BEGIN) + "Bye\n")
    raw = (single / "README.md").read_bytes().replace(b"\n", b"\r\n")
    (single / "README.md").write_bytes(raw)
    write(single)
    card = card_of(single)
    assert card == original.replace(BEGIN, "Hi\n" + BEGIN) + "Bye\n"
    assert write(single).changed == ()


def test_a_byte_order_mark(single: Path) -> None:
    """As Windows' editors put in front of UTF-8."""
    original = card_of(single)
    (single / "README.md").write_bytes(b"\xef\xbb\xbf" + original.encode())
    write(single)
    assert card_of(single).removeprefix("\ufeff") == original


# ------------------------------------------------------------------ hostile text

HOSTILE = {
    "pipe": "a|b",
    "quote": "a`b",
    "tag": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "lines": "a\n\n# Owned\n\n<b>x</b>",
    "link": "](javascript:alert(1)) [x](javascript:alert(1))",
    "jinja": "{{ 7*7 }}{% set x = 1 %}{{ cycler }}",
    "marker": f"x {END} {BEGIN}",
    "bold": "**x** *y* \\",
    "underscores": "a __y__ _z_ b",
    "all": "`|</td><script>`\n\n</details>\n```\n[x](javascript:1) {{ 7*7 }}",
}
TAGS = {
    "h1", "h2", "p", "strong", "em", "code", "pre", "ul", "li", "a", "img", "table", "thead",
    "tbody", "tr", "th", "td", "details", "summary",
}  # fmt: skip


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def page_of(card: str) -> _Page:
    body = re.sub(r"\A---\n.*?^---\n", "", card, flags=re.DOTALL | re.MULTILINE)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    page = _Page()
    page.feed(html)
    return page


def check_tame(card: str, harmless: str) -> _Page:
    """The card has the structure of the card in which all foreign text is plain letters."""
    page, plain = page_of(card), page_of(harmless)
    assert {tag for tag, _ in page.tags} <= TAGS
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    for tag, attrs in page.tags:
        assert not [key for key in attrs if key.startswith("on")]
        if tag == "a":
            assert (attrs["href"] or "").startswith("https://")
        if tag == "img":
            assert attrs["src"] == CURVE
    body = card.split("\n---\n", 1)[1]  # in the metadata a marker is a text like any other
    assert body.count(BEGIN) == body.count(END) == 1
    assert "49" not in " ".join(page.words)
    return page


def change_config(folder: Path, **changed: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def change_run(folder: Path, **run: Any) -> None:
    write_toml(folder / "recipe.toml", recipe_of("ce", **run))


def change_source(folder: Path, **source: Any) -> None:
    tree = {
        "kind": "moco", "file": "f.pth", "sha256": "ab" * 32, "objective": "selfsupcon",
        "keys_used": 3, "keys_dropped": 2,
    }  # fmt: skip
    write_toml(folder / "source.toml", {"source": tree | source})


def on_data(folder: Path, text: str) -> None:
    """A data set of a user's that was both trained and measured on, and two more."""
    for member, objective, fill in ((folder, "ce", 1), (folder.parent / JOINT, "ce+selfsupcon", 2)):
        if member != folder:
            make_trained(member, objective, fill)
        write_toml(member / "recipe.toml", recipe_of(objective, data=text))
        for i, task in enumerate((text, "dtd", "svhn")):
            # on the joint one everything is right: a difference that the sentence names
            add_result(member, task, "linear", 0.3 if fill == 1 else 0.9, name=f"{i}.json",
                       task__split_hash=f"{i}" * 64)  # fmt: skip


PLACES: dict[str, Callable[[Path, str], None]] = {
    "data": lambda f, t: change_run(f, data=t),
    "device": lambda f, t: change_run(f, device=t),
    "precision": lambda f, t: change_run(f, precision=t),
    "version": lambda f, t: change_run(f, versions={"torch": t, t: "1"}),
    "architecture": lambda f, t: change_config(f, architecture=t),
    "model_args": lambda f, t: change_config(f, model_args={t: t}),
    "label_names": lambda f, t: change_config(f, label_names=[t]),
    "task": lambda f, t: add_result(f, t, "linear", 0.4, name="odd.json") and None,
    "score": lambda f, t: add_result(
        f, "svhn", "linear", 0.4, name="odd.json",
        scores=[{"name": t, "value": 0.4, "ci_low": 0.3, "ci_high": 0.5, "n": 9}]) and None,
    "data and task": on_data,
    "source kind": lambda f, t: change_source(f, kind=t),
    "source file": lambda f, t: change_source(f, file=t),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_does_nothing(tmp_path: Path, place: str, text: str) -> None:
    def made(where: str, put: str) -> str:
        make = make_converted if place.startswith("source") else make_trained
        folder = make(tmp_path / where / CE)
        (folder / "log.jsonl").unlink(missing_ok=True)  # no picture to draw
        if not place.startswith("source"):
            (folder / "log.jsonl").write_text(json.dumps({"epoch": 1, "knn_top1": KNN}) + "\n")
        PLACES[place](folder, put)
        if (folder / "log.jsonl").exists():
            info = PngInfo()
            digest = sha256_file(folder / "log.jsonl")
            info.add_text("Description", f"log.jsonl sha256 {digest}")
            Image.new("RGB", (1, 1)).save(folder / CURVE, pnginfo=info)
        write(folder)
        card = card_of(folder)
        write(folder)  # what was written can be read
        assert card_of(folder) == card
        return card

    harmless = made("plain", "plain")
    try:
        card = made("hostile", HOSTILE[text])
    except UserError as error:
        said = str(error)
    else:
        check_tame(card, harmless)
        ModelCard(card)
        return
    assert re.search(r"(recipe|source)\.toml|config\.json", said)
    assert "\n" not in said


@pytest.mark.parametrize("text", HOSTILE)
def test_text_where_a_number_or_a_hash_belongs_is_refused(tmp_path: Path, text: str) -> None:
    trained = make_trained(tmp_path / "a" / CE)
    change_config(trained, num_features=HOSTILE[text])
    assert "num_features" in refusal(render, trained)
    for key in ("sha256", "keys_used", "keys_dropped"):
        converted = make_converted(tmp_path / key / CE)
        change_source(converted, **{key: HOSTILE[text]})
        assert f"source.{key}" in refusal(render, converted)


@pytest.mark.parametrize(
    "name",
    [
        "a|b",
        "a`b",
        "<img src=x onerror=alert(1)>",
        '"); print("owned")  #',
        "a\n\n# Owned",
    ],
)
def test_a_hostile_folder_name_does_nothing(tmp_path: Path, name: str) -> None:
    plain = make_trained(tmp_path / "x" / "plain")
    folder = make_trained(tmp_path / "y" / name)
    harmless = render(plain)["README.md"].decode()
    try:
        card = render(folder)["README.md"].decode()
    except UserError:
        return
    check_tame(card, harmless)
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        assert "print" not in compile(block, name, "exec").co_names


# ------------------------------------------------------------------ the learning curve


def test_a_curve_says_what_it_was_drawn_from(single: Path) -> None:
    path, log = single / CURVE, single / "log.jsonl"
    assert drawn_from(path, log)
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert sha256_file(log) in image.info["Description"]
        assert "Software" not in image.info
        assert 600 <= image.width <= 1200
        assert 200 <= image.height <= 600
        assert len(np.unique(np.asarray(image))) > 10  # something is drawn
    assert path.stat().st_size < 100_000
    assert draw(read_checkpoint(single), log) == path.read_bytes()  # draws the same again


def test_a_curve_is_drawn_anew_when_its_log_changes_and_only_then(single: Path) -> None:
    path = single / CURVE
    old = path.read_bytes()
    with Image.open(path) as image:  # as by another matplotlib: other bytes, the same mark
        info = PngInfo()
        info.add_text("Description", image.info["Description"])
        image.resize((300, 100)).save(path, pnginfo=info)
    kept = path.read_bytes()
    assert write(single).changed == ()
    assert path.read_bytes() == kept
    rows = log_of("ce")
    rows[0]["ce"] = 9.0
    write_log(single, rows)
    assert write(single).changed == (CURVE,)
    assert path.read_bytes() not in (kept, old)
    assert drawn_from(path, single / "log.jsonl")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n\0\0\0\1IHDR"])
def test_a_broken_picture_is_drawn_anew(single: Path, content: bytes) -> None:
    (single / CURVE).write_bytes(content)
    assert CURVE in write(single).changed
    assert drawn_from(single / CURVE, single / "log.jsonl")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kept", ["total", "knn_top1"])
def test_a_log_of_one_kind_of_rows_is_drawn(tmp_path: Path, kept: str) -> None:
    folder = make_trained(tmp_path / "x" / CE)
    write_log(folder, [row for row in log_of("ce") if kept in row])
    if kept == "total":
        tree = recipe_of("ce")
        del tree["run"]["validation_knn_top1"]
        write_toml(folder / "recipe.toml", tree)
    card = render(folder)
    with Image.open(io.BytesIO(card[CURVE])) as image:
        assert image.width > 300
    assert ("20-nearest-neighbour" in card["README.md"].decode()) == (kept == "knn_top1")


def test_every_term_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn: list[tuple[str, list[float]]] = []
    plot = Axes.plot

    def spy(self: Any, x: Any, y: Any, *args: Any, **more: Any) -> Any:
        drawn.append((more.get("label", ""), list(y)))
        return plot(self, x, y, *args, **more)

    monkeypatch.setattr(Axes, "plot", spy)
    folder = make_trained(tmp_path / JOINT, "ce+selfsupcon")
    draw(read_checkpoint(folder), folder / "log.jsonl")
    losses = [5.0 / step for step in (20, 40, 60)]
    assert drawn == [("CE", losses), ("SelfSupCon", losses), ("", [9.5, KNN])]


# ------------------------------------------------------------------ the command


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main(["card", *map(str, args)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_command_writes_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_trained(tmp_path / CE)
    add_result(folder, "dtd", "linear", 0.5)
    code, out, err = run(capsys, folder)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"wrote {folder}/README.md", f"wrote {folder}/.eval_results/transferzoo.yaml",
        f"wrote {folder}/{CURVE}",
    ]  # fmt: skip
    assert run(capsys, folder) == (0, f"{folder}/README.md was up to date\n", "")
    shutil.rmtree(folder / "results")
    code, out, _ = run(capsys, folder)
    assert code == 0
    assert f"removed {folder}/.eval_results/transferzoo.yaml: its results are gone" in out


def test_command_takes_results_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from eval.results.names import shelf_path
    from eval.results.store import write_result

    folder = make_trained(tmp_path / CE)
    result = make_result(folder, "dtd", "linear", 0.5)
    write_result(tmp_path / "results" / shelf_path(result), result)
    code, out, _ = run(capsys, folder, "--results", tmp_path / "results")
    assert code == 0
    assert out.startswith("1 results taken over\n")
    assert "50.0 ±2.1" in card_of(folder)


def test_command_remembers_the_repository(single: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert repo_named(card_of(single)) == f"transferzoo/{CE}"
    assert run(capsys, single, "--repo", "me/my-model")[0] == 0
    card = card_of(single)
    assert repo_named(card) == "me/my-model"
    assert f"transferzoo/{CE}" not in card
    assert "transfer-eval run hf-hub:me/my-model" in card
    assert "https://huggingface.co/me/my-model/blob/main/results/dtd.linear.json" in card
    assert "me/my-model" in (single / ".eval_results/transferzoo.yaml").read_text()
    assert run(capsys, single)[1].endswith("was up to date\n")
    assert card_of(single) == card


@pytest.mark.parametrize("repo", ["name", "a/b/c", "a b/c", "-a/b", "a/..", 'a/b"', "a/b--c"])
def test_command_refuses_a_repository_that_is_none(
    single: Path, capsys: pytest.CaptureFixture[str], repo: str
) -> None:
    card = card_of(single)
    code, out, err = run(capsys, single, f"--repo={repo}")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "is not a Hub repository" in err
    assert card_of(single) == card


def refused_folders(tmp_path: Path) -> dict[str, Path]:
    pickled = make_trained(tmp_path / "pickled")
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    foreign = make_trained(tmp_path / "foreign")
    add_result(foreign, "dtd", "linear", 0.5, model__weights_sha256="0" * 64)
    edited = make_trained(tmp_path / "edited")
    (edited / "README.md").write_text(BEGIN)
    empty = tmp_path / "empty"
    empty.mkdir()
    return {
        "is not a folder": tmp_path / "nowhere", "has no config.json": empty,
        "run code": pickled, "other weights": foreign, "markers": edited,
    }  # fmt: skip


def test_command_refuses_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for reason, folder in refused_folders(tmp_path).items():
        code, out, err = run(capsys, folder)
        assert (code, out) == (2, "")
        assert err.startswith("transfer-zoo: ")
        assert err.count("\n") == 1
        assert reason in err
    code, _, err = run(capsys, tmp_path / "nowhere", "--results", tmp_path)
    assert code == 2
    assert err.count("\n") == 1


RECEIPTS = {
    "no run": lambda run: {},
    "no images": lambda run: {k: v for k, v in run.items() if k != "images"},
    "no objective": lambda run: {k: v for k, v in run.items() if k != "objective"},
    "no device": lambda run: {k: v for k, v in run.items() if k != "device"},
    "images in words": lambda run: run | {"images": "many"},
    "a rate in words": lambda run: run | {"learning_rate": "high"},
    "a weight in words": lambda run: run | {"weights": {"ce": "much"}},
    "versions in words": lambda run: run | {"versions": "new"},
}


@pytest.mark.parametrize("name", RECEIPTS)
def test_command_refuses_an_incomplete_receipt_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = make_trained(tmp_path / CE)
    tree = recipe_of("ce")
    del tree["run"]["validation_knn_top1"]
    (folder / "log.jsonl").unlink()
    write_toml(folder / "recipe.toml", tree | {"run": RECEIPTS[name](tree["run"])})
    code, out, err = run(capsys, folder)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "recipe.toml" in err


def test_command_as_a_program(single: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zoo", "card", str(single)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{single}/README.md was up to date\n"


def test_a_folder_may_be_named_from_within(
    single: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(single)
    assert run(capsys, ".") == (0, "README.md was up to date\n", "")


def test_synthetic_configs_are_what_timm_writes() -> None:
    """The made-up folders of these tests have the keys of a shipped one."""
    shipped = json.loads((ZOO_FOLDER / NAMES[0] / "config.json").read_text())
    assert config_of(3).keys() == shipped.keys()
    assert config_of(3)["pretrained_cfg"].keys() <= shipped["pretrained_cfg"].keys()

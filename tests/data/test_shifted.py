"""A head fitted on one set and scored on another: classes matched by name, whatever their order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from eval.common.distributed import Workers
from eval.data.concerns import concerns
from eval.data.labels.label_data import MultiLabelData
from eval.data.load import load_task
from eval.features.encode import encode
from eval.features.precision import Precision
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.protocols import linear
from eval.results.names import portable
from eval.results.store import read_result
from eval.settings.protocols import Linear
from eval.tasks.names import shift_parts
from eval.training.context import Context
from tests.factories import Cli, blobs, make_task, refusal, write_parquet


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """Six classes, kind 0 to kind 5."""
    return make_task(tmp_path / "first")


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """Other images of kinds 4 and 1, in that order, in other words."""
    folder = tmp_path / "second"
    for part, count, seed in (("train", 3, 50), ("test", 10, 60)):
        images = [one for label in (4, 1) for one in blobs(label, count, seed)]
        labels = [place for place in (0, 1) for _ in range(count)]
        write_parquet(folder / f"{part}-0.parquet", images, labels, ["KIND 4", "Kind 1"])
    return folder


def test_test_images_get_train_s_numbers(first: Path, second: Path, cache: Path) -> None:
    own = load_task(f"parquet:{first}", cache)
    other = load_task(f"parquet:{second}", cache)
    task = load_task(f"shift:parquet:{first}=>parquet:{second}", cache)
    assert task.classes == own.classes
    assert task.name == f"{own.name}-on-{other.name}"
    assert task.train.hash == own.train.hash
    known = {h.tobytes(): (4, 1)[label] for h, label in
             zip(other.test.hashes, other.test.labels, strict=True)}  # fmt: skip
    assert [known[h.tobytes()] for h in task.test.hashes] == task.test.labels.tolist()
    assert task.notes[-2:] == (
        f"head fitted on {own.name}, scored on {other.name}; no few-shot, whose episodes would "
        "mix both",
        f"classes of {own.name} that {other.name} has not: 'kind 0', 'kind 2', 'kind 3', 'kind 5'",
    )
    again = load_task(task.where, cache)
    assert (again.split_hash, again.name) == (task.split_hash, task.name)


def test_a_linear_head_of_one_set_answers_the_other(first: Path, second: Path, cache: Path) -> None:
    """As that head does when it is asked by hand."""
    task = load_task(f"shift:parquet:{first}=>parquet:{second}", cache)
    backbone, workers = load(resolve("random:test_resnet", cache, 32)), Workers("cpu")

    def context(of: str) -> Context:
        one = load_task(of, cache)
        bank = encode(backbone, one, cache, workers, Precision()).bank
        return Context(backbone, one, bank, workers, Precision(), cache, 0)

    shifted = context(task.where)
    out = linear.score(shifted, Linear())
    own = context(f"parquet:{first}")
    head = linear.fit_head(own.features, own.task)
    other = context(f"parquet:{second}")
    x, y = other.features.test
    answers = head.probability(x).argmax(1)
    right = float((answers == np.asarray([4, 1])[y.numpy()]).mean())
    assert out.scores[0].value == pytest.approx(right, abs=0.06)


def test_a_mapping_file_says_which_is_which(
    first: Path, second: Path, tmp_path: Path, cache: Path
) -> None:
    mapping = tmp_path / "map.csv"
    mapping.write_text("test,train\nKIND 4,kind 5\n")
    text = f"shift:parquet:{first}=>parquet:{second}&map={mapping}"
    task = load_task(text, cache)
    assert sorted(set(task.test.labels.tolist())) == [1, 5]
    assert load_task(task.where, cache).split_hash == task.split_hash
    for content, words in (
        ("test,train\nKIND 4,kind 9\n", "classes of test are none of train: 'kind 9'"),
        ("test,train\nkind 7,kind 1\n", "the mapping names 'kind 7', which is no class of test"),
        ("a,b\n1,2\n", "has no columns test and train"),
    ):
        mapping.write_text(content)
        assert words in refusal(load_task, text, cache)
    mapping.unlink()
    assert "cannot be read as CSV" in refusal(load_task, text, cache)


def test_sets_of_several_labels(real_data: Path, cache: Path) -> None:
    one = f"parquet:{real_data / 'voc2007'}?labels=objects.category"
    task = load_task(f"shift:{one}=>{one}", cache, limit=40)
    assert isinstance(task, MultiLabelData)
    plain = load_task(one, cache, limit=40)
    assert task.split_hash == plain.split_hash
    np.testing.assert_array_equal(task.test.several, plain.test.several)


def test_what_is_no_shift(first: Path, second: Path, real_data: Path, cache: Path) -> None:
    assert shift_parts("shift:a=>b&map=c.csv") == ("a", "b", "c.csv")
    for text, words in (
        (f"shift:parquet:{first}", "is no shift; use shift:TRAIN=>TEST, or --test-on TEST"),
        (f"shift:parquet:{second}=>parquet:{first}",
         "4 of the 6 classes of test are none of train: 'kind 0', 'kind 2'"),
        (f"shift:parquet:{first}=>bccd", "is a set of classification"),
    ):  # fmt: skip
        assert words in refusal(load_task, text, cache, real_data)


def test_what_either_source_left_out_is_told(first: Path, second: Path, cache: Path) -> None:
    """The set that is scored is looked at as closely as the one that is fitted."""
    for folder, name in ((first, "other"), (second, "more")):
        (test,) = folder.glob("test-*")
        (folder / f"{name}-0.parquet").write_bytes(test.read_bytes())
    task = load_task(f"shift:parquet:{first}=>parquet:{second}", cache)
    one, two = (load_task(f"parquet:{folder}", cache) for folder in (first, second))
    said = concerns(task)
    assert f"left out: of part other of {one.name} (1: other-0.parquet)" in said
    assert f"left out: of part more of {two.name} (1: more-0.parquet)" in said
    assert task.inventory.found == one.inventory.found + two.inventory.found
    left = sum(one.count for one in task.inventory.left_out)
    assert task.inventory.found == task.inventory.taken + left


def test_from_the_command_line(cli: Cli, first: Path, second: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    line = (
        "run", "random:test_resnet", "--task", f"parquet:{first}", "--test-on",
        f"parquet:{second}", "--img-size", "32", "--cache", tmp_path / "cache",
        "--results", results, "--protocol", "knn", "linear", "retrieval", "fewshot",
    )  # fmt: skip
    done = cli(*line, "--json").json
    assert (done["scored"], done["failures"]) == (3, [])
    result = read_result(Path(done["files"][0]))
    assert result.task.counts == {"classes": 6, "train": 96, "test": 20}
    assert str(tmp_path) in result.task.source
    shared = portable(result).task.source
    assert shared == "shift:local:first=>local:second"
    assert cli("verify", done["files"][0]).out.startswith("equal")
    again = cli(*line)
    assert "3 already there" in again.out
    assert "no few-shot, whose episodes would mix both" in again.out
    alone = cli(*line[:-4], "fewshot")
    assert alone.code == 2
    assert "has images of two sets; protocol fewshot cannot score it, knn, linear, " in alone.err
    path = next((second).glob("test-*"))
    pq.write_table(pq.read_table(path).slice(0, 10), path)
    ran = cli(*line)
    assert ran.code == 2
    assert "at least two classes are needed" in ran.err

"""Somebody else's copies of declared data sets: the same splits as from the official download, or a
sentence that says why not."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Image, List, Value
from huggingface_hub import close_session

from eval.common.errors import UserError
from eval.data.load import load_task
from eval.data.locations import HubData, missing
from eval.data.sources import HubSource
from eval.data.split_rules import per_class
from eval.prepare.prepare import prepare
from eval.tasks.declaration import HubCopy, SplitRule, Task
from eval.tasks.registry import TASKS
from tests.factories import blobs, refusal
from tests.hub import LoopbackHub
from tests.prepare.official import DIAGNOSES, Made, make_isic2018

TOKEN = "hf_secretOfTheTest"
NAMES = ("ant hill", "Bee_hive", "Cocoon")
Row = dict[str, Any]


@pytest.fixture
def repo(request: pytest.FixtureRequest) -> str:
    """A repository of this test's own: the Hub and its cache live as long as the session."""
    return "org" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8] + "/copy"


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Task]:
    """Declares a small data set 'nests' of three classes with ten images each."""

    def declaring(copy: HubCopy | None, **facts: Any) -> Task:
        known: dict[str, Any] = {
            "title": "Nests", "domain": "insects", "classes": 3, "images": 30, "licence": "MIT",
            "citation": "Nobody", "names": NAMES, "download": "nests.zip from https://example.org",
            "splits": (SplitRule("study", "per-class", 21, 9),),
        }  # fmt: skip
        task = Task("nests", hub=copy, **(known | facts))
        monkeypatch.setitem(TASKS, "nests", task)
        return task

    return declaring


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def go() -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)

    return go


def nests(seed: int = 0, each: int = 10) -> list[Row]:
    """Ten images a class, in the official order."""
    return [
        {"image": data, "label": label, "id": f"{label}_{n:02d}.png", "nest": f"n{label}{n // 2}"}
        for label in range(3)
        for n, data in enumerate(blobs(label, each, seed))
    ]


def no_copy(why: str) -> str:
    """The sentence for a copy that cannot be used."""
    return (
        f"task 'nests' is not at hand: {why}; get nests.zip from https://example.org, then "
        "`transfer-eval prepare nests --source FOLDER --out DIR` and --data DIR"
    )


def parquet(rows: Sequence[Row], label: Any = None, **columns: Any) -> bytes:
    """A file as ``datasets`` uploads it, with the asked columns of the rows."""
    features = Features(
        {"image": Image(), "label": label or ClassLabel(names=list(NAMES)), **columns}
    )
    table = pa.table(
        {
            name: [{"bytes": r[name], "path": None} if name == "image" else r[name] for r in rows]
            for name in features
        },
        schema=features.arrow_schema,
    )
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def scattered(
    rows: Sequence[Row], parts: Sequence[str] = ("train", "validation", "test"), **how: Any
) -> dict[str, bytes]:
    """The rows in no order, dealt to files of these parts."""
    mixed = list(rows)
    random.Random(3).shuffle(mixed)
    return {
        f"data/{part}-00000-of-00001.parquet": parquet(mixed[i :: len(parts)], **how)
        for i, part in enumerate(parts)
    }


def copy_at(repo: str, revision: str, **facts: Any) -> HubCopy:
    parts = {} if "train" in facts else {"parts": ("train", "validation", "test")}
    return HubCopy(repo, revision, "high", **(parts | facts))


def images(data: Any, part: str) -> set[bytes]:
    split = getattr(data, part)
    return {bytes(h) for h in split.hashes}


def hashed(rows: Sequence[Row]) -> set[bytes]:
    return {hashlib.sha256(row["image"]).digest()[:16] for row in rows}


def training(rows: Sequence[Row]) -> list[Row]:
    """Those of the official list that the study trains on."""
    chosen = per_class([row["label"] for row in rows])
    return [row for row, trains in zip(rows, chosen, strict=True) if trains]


# --------------------------------------------------------------------------- whose split it is


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_isic2018(tmp_path_factory.mktemp("official"), per_class=8)


@pytest.mark.parametrize("split", ["clean", "study"])
def test_a_copy_with_names_gives_the_split_of_the_official_download(
    split: str, hub: LoopbackHub, repo: str, official: Made, cache: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    rows = [
        {"image": official.data[name], "label": label, "image_id": name[:-4], "lesion_id": group}
        for name, label, group in zip(official.names, official.labels, official.groups, strict=True)
    ]
    columns = {"image_id": Value("string"), "lesion_id": Value("string")}
    names = ClassLabel(names=[name.lower() for name in DIAGNOSES])
    sha = hub.add_dataset(repo, scattered(rows, label=names, **columns))
    task = TASKS["isic2018"]
    splits = tuple(dataclasses.replace(s, train=0, test=0, members="") for s in task.splits)
    monkeypatch.setitem(TASKS, "isic2018", dataclasses.replace(
        task, images=len(rows), per_class=(8,) * 7, splits=splits,
        hub=copy_at(repo, sha, name="image_id", group="lesion_id"),
    ))  # fmt: skip
    prepare("isic2018", official.folder, tmp_path / "data")
    ours = load_task(f"isic2018@{split}", cache, tmp_path / "data")
    theirs = load_task(f"isic2018@{split}", cache)
    assert theirs.split_hash == ours.split_hash
    assert theirs.classes == ours.classes == DIAGNOSES
    assert (theirs.split, theirs.notes, theirs.subset) == (split, (), False)
    assert (theirs.where, theirs.revision) == (f"hub:{repo}", sha)
    (row, data), *_ = theirs.test.source.images(theirs.test.rows[:1])
    assert row == theirs.test.rows[0]
    assert hashlib.sha256(data).digest()[:16] == bytes(theirs.test.hashes[0])


def test_the_order_of_a_copys_rows_does_not_matter_where_it_has_names(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path
) -> None:
    rows = nests()
    sha = hub.add_dataset(repo, scattered(rows, id=Value("string")))
    declare(copy_at(repo, sha, name="id"))
    data = load_task("nests", cache)
    train = training(rows)
    assert images(data, "train") == hashed(train)
    assert images(data, "train") | images(data, "test") == hashed(rows)
    assert data.notes == ()
    again = load_task("nests", cache)
    assert again.split_hash == data.split_hash


def test_a_copy_without_names_says_that_it_is_not_the_very_split(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path
) -> None:
    sha = hub.add_dataset(repo, scattered(nests(), id=Value("string")))
    declare(copy_at(repo, sha, name="id"))
    named = load_task("nests", cache)
    declare(copy_at(repo, sha))
    unnamed = load_task("nests", cache)
    assert unnamed.notes == ("split in the row order of this copy, so not the study's very split",)
    assert unnamed.split_hash != named.split_hash
    assert (len(unnamed.train), len(unnamed.test)) == (21, 9)


def test_the_authors_parts(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path
) -> None:
    rows = nests()
    parts = {"train": rows[0::3], "validation": rows[1::3], "test": rows[2::3]}
    files = {f"data/{p}-00000-of-00001.parquet": parquet(r) for p, r in parts.items()}
    sha = hub.add_dataset(repo, files)
    rule = SplitRule("study", "official", 20, 10)
    declare(copy_at(repo, sha, train=("train", "validation"), test=("test",)), splits=(rule,))
    data = load_task("nests", cache)
    assert images(data, "train") == hashed(rows[0::3] + rows[1::3])
    assert images(data, "test") == hashed(rows[2::3])
    assert (data.split, data.notes, data.classes) == ("study", (), NAMES)


@pytest.mark.parametrize("kind", ["parts", "official"])
def test_files_of_a_commit_that_names_no_splits(
    kind: str, hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path
) -> None:
    """Such as refs/convert/parquet of a repository with a script."""
    rows = nests()
    hub.add_dataset(repo, {"README.md": "# nests\n", "copy.py": "raise SystemExit"})
    sha = hub.add_dataset(
        repo,
        {"README.md": None, "copy.py": None,
         "small/train/0000.parquet": parquet(rows[:20], id=Value("string")),
         "small/test/0000.parquet": parquet(rows[20:], id=Value("string"))},
        ref="refs/convert/parquet",
    )  # fmt: skip
    facts = {"files": "small/{part}/*.parquet"}
    if kind == "parts":
        declare(copy_at(repo, sha, parts=("train", "test"), name="id", **facts))
        data = load_task("nests", cache)
        assert images(data, "train") | images(data, "test") == hashed(rows)
    else:
        rule = SplitRule("study", "official", 21, 9)
        copy = copy_at(repo, sha, train=("train",), test=("test",), **facts)
        declare(copy, splits=(dataclasses.replace(rule, train=20, test=10),))
        # the third class alone tests: no split to score, and said so
        assert "all 10 images of test have label 2" in refusal(lambda: load_task("nests", cache))


def test_rows_with_one_finding_of_the_classes(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path
) -> None:
    rows = [row | {"found": [NAMES[row["label"]]]} for row in nests()]
    found: tuple[list[str], ...] = ([NAMES[0], NAMES[1]], [], ["Wasp"], ["Wasp", NAMES[2]])
    others = [
        {"image": data, "id": f"x{n}", "found": found[n]} for n, data in enumerate(blobs(4, 4, 9))
    ]
    mixed = [*rows[:7], *others, *rows[7:]]
    features = {"found": List(Value("string")), "id": Value("string")}
    table = [row | {"label": 0} for row in mixed]
    sha = hub.add_dataset(repo, scattered(table, ("train", "test"), label=Value("int64"),
                                          **features))  # fmt: skip
    facts = {"parts": ("train", "test"), "label": "found", "single_of": NAMES}
    declare(copy_at(repo, sha, name="id", **facts))
    data = load_task("nests", cache)
    train = training(rows)
    assert images(data, "train") == hashed(train)
    assert images(data, "train") | images(data, "test") == hashed(rows)
    assert data.classes == NAMES
    rowed = dict(zip(map(bytes, data.train.hashes), data.train.labels, strict=True))
    assert all(rowed[next(iter(hashed([row])))] == row["label"] for row in train)
    for part in (data.train, data.test):  # rows count those that were kept
        order = part.rows.argsort()
        read = [d for _, d in part.source.images(part.rows[order])]
        assert [hashlib.sha256(d).digest()[:16] for d in read] == [
            bytes(part.hashes[i]) for i in order
        ]


def test_a_label_list_of_numbers_with_names(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path
) -> None:
    """ChestX's kind of copy may hold lists of class numbers instead of words."""
    rows = [row | {"label": [row["label"]]} for row in nests()]
    sha = hub.add_dataset(repo, scattered(rows, label=List(ClassLabel(names=list(NAMES)))))
    declare(copy_at(repo, sha, single_of=NAMES))
    assert "task 'nests' is not at hand" in refusal(lambda: load_task("nests", cache))


def test_groups_by_a_column(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path
) -> None:
    rows = nests()
    sha = hub.add_dataset(repo, scattered(rows, nest=Value("string"), id=Value("string")))
    splits = (SplitRule("clean", "groups"), SplitRule("study", "per-class", 21, 9))
    declare(copy_at(repo, sha, name="id", group="nest"), splits=splits)
    data = load_task("nests", cache)
    nest = {next(iter(hashed([row]))): row["nest"] for row in rows}
    sides = [{nest[h] for h in images(data, part)} for part in ("train", "test")]
    assert not sides[0] & sides[1]
    assert data.split == "clean"
    study = load_task("nests@study", cache)
    assert study.split_hash != data.split_hash
    assert (len(study.train), len(study.test)) == (21, 9)


# --------------------------------------------------------------------------- what is refused


def test_a_copy_without_groups_has_no_split_by_groups(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path
) -> None:
    sha = hub.add_dataset(repo, scattered(nests()))
    splits = (SplitRule("clean", "groups"), SplitRule("study", "per-class", 21, 9))
    declare(copy_at(repo, sha), splits=splits)
    hub.requests.clear()
    assert refusal(lambda: load_task("nests", cache)) == no_copy(
        f"copy '{repo}' of 'nests' does not say which images belong together, so it cannot give "
        "split 'clean'; name the task as nests@study"
    )
    assert not hub.requests
    assert load_task("nests@study", cache).split == "study"


@pytest.mark.parametrize("theirs", [
    ("Ant Hill", "bee hive", "COCOON"), ("ant_hill", "Bee-Hive", "cocoon"), ("0", "1", "2"),
])  # fmt: skip
def test_class_names_may_be_written_otherwise(
    theirs: tuple[str, ...], hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path
) -> None:
    sha = hub.add_dataset(repo, scattered(nests(), label=ClassLabel(names=list(theirs))))
    declare(copy_at(repo, sha))
    assert load_task("nests", cache).classes == NAMES


def test_labels_without_names(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path
) -> None:
    sha = hub.add_dataset(repo, scattered(nests(), label=Value("int64")))
    declare(copy_at(repo, sha))
    assert load_task("nests", cache).classes == NAMES


def test_labels_that_are_words(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path
) -> None:
    rows = [row | {"label": NAMES[row["label"]]} for row in nests()]
    sha = hub.add_dataset(repo, scattered(rows, label=Value("string"), id=Value("string")))
    declare(copy_at(repo, sha, name="id"))
    text = refusal(lambda: load_task("nests", cache))
    assert re.search(r"label '\w+[ _]?\w*' in row 0 of all is outside 0\.\.2", text)


@pytest.mark.parametrize("theirs", [
    ("Cocoon", "Bee_hive", "ant hill"), ("ant hill", "Bee_hive", "Wasp"),
])  # fmt: skip
def test_other_classes_or_another_order_of_them_are_refused(
    theirs: tuple[str, ...], hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path
) -> None:
    sha = hub.add_dataset(repo, scattered(nests(), label=ClassLabel(names=list(theirs))))
    declare(copy_at(repo, sha))
    number, name = (0, "Cocoon") if theirs[0] == "Cocoon" else (2, "Wasp")
    assert refusal(lambda: load_task("nests", cache)) == no_copy(
        f"copy '{repo}' of 'nests' calls class {number} {name!r} where the set has "
        f"{NAMES[number]!r}"
    )


def test_more_classes_are_refused(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path
) -> None:
    sha = hub.add_dataset(repo, scattered(nests(), label=ClassLabel(names=[*NAMES, "Wasp"])))
    declare(copy_at(repo, sha))
    text = refusal(lambda: load_task("nests", cache))
    assert f"copy '{repo}' of 'nests' has 4 classes, not 3; get nests.zip" in text


def test_other_counts_are_refused(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path
) -> None:
    sha = hub.add_dataset(repo, scattered(nests(each=11)))
    declare(copy_at(repo, sha))
    text = refusal(lambda: load_task("nests", cache))
    assert f"copy '{repo}' of 'nests' has 12 images in test, not 9" in text
    declare(copy_at(repo, sha), splits=(SplitRule("study", "per-class"),))
    text = refusal(lambda: load_task("nests", cache))
    assert f"copy '{repo}' of 'nests' has 33 images, not 30" in text


@pytest.mark.parametrize(("facts", "said"), [
    ({"name": "file"}, "has no column 'file'; its columns are image, label"),
    ({"label": "class"}, "has no label column 'class'; its columns are image, label"),
    ({"image": "picture"}, "has no image column 'picture'; its columns are image, label"),
    ({"parts": ("train", "dev")}, "does not load: "),
    ({"config": "big"}, "does not load: "),
    ({"files": "data/{part}.parquet"}, "has no files data/train.parquet, data/"),
])  # fmt: skip
def test_a_copy_of_another_form(
    facts: dict[str, Any], said: str, hub: LoopbackHub, repo: str, declare: Callable[..., Task],
    cache: Path,
) -> None:  # fmt: skip
    sha = hub.add_dataset(repo, scattered(nests()))
    declare(copy_at(repo, sha, **facts))
    text = refusal(lambda: load_task("nests", cache))
    assert said in text
    assert repo in text


def test_a_task_without_a_copy(declare: Callable[..., Task], cache: Path) -> None:
    declare(None)
    assert refusal(lambda: load_task("nests", cache)) == no_copy("no copy on the Hub is known")


def test_a_private_or_gated_copy(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    hub.tokens.add(TOKEN)
    sha = hub.add_dataset(repo, scattered(nests()), private=True)
    declare(copy_at(repo, sha))
    assert refusal(lambda: load_task("nests", cache)) == no_copy(
        f"data set '{repo}': the Hub has no dataset '{repo}', or it is private; check the name, or "
        "log in with `hf auth login`"
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add_dataset(repo, {"x": "x"}, gated=True)
    assert refusal(lambda: load_task("nests", cache)) == no_copy(
        f"data set '{repo}': '{repo}' is gated; accept its terms on its Hub page and log in with "
        "`hf auth login`"
    )
    hub.grant(TOKEN, repo)
    assert len(load_task("nests", cache).train) == 21


def test_a_gated_copy_whose_files_are_named(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    hub.tokens.add(TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    sha = hub.add_dataset(repo, scattered(nests()), gated=True)
    declare(copy_at(repo, sha, files="data/{part}-00000-of-00001.parquet"))
    assert "is gated; accept its terms" in refusal(lambda: load_task("nests", cache))


# --------------------------------------------------------------------------- which commit


def test_a_copy_known_by_seven_digits_must_not_have_moved_on(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path
) -> None:
    sha = hub.add_dataset(repo, scattered(nests()))
    declare(copy_at(repo, sha[:7]))
    assert load_task("nests", cache).revision == sha
    moved = hub.add_dataset(repo, scattered(nests(seed=5)))
    assert refusal(lambda: load_task("nests", cache)) == no_copy(
        f"'{repo}' has moved on to commit {moved[:12]} since it was declared at {sha[:7]}"
    )
    # a result that names its commit finds its data again
    assert load_task("nests", cache, HubData("", sha)).revision == sha


def test_a_copy_known_by_its_whole_commit_may_move_on(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path
) -> None:
    sha = hub.add_dataset(repo, scattered(nests()))
    declare(copy_at(repo, sha))
    first = load_task("nests", cache)
    hub.add_dataset(repo, scattered(nests(seed=5)))
    again = load_task("nests", cache / "new")
    assert (again.split_hash, again.revision) == (first.split_hash, sha)


def of(repo: str, sha: str) -> set[bytes]:
    """The images that are read for a commit."""
    source = HubSource(repo, sha, None, "train+test", "image", "label")
    return {bytes(h) for h in source.scan().hashes}


@pytest.fixture
def two(hub: LoopbackHub, repo: str) -> tuple[str, str]:
    """Two commits of other images, both in the cache of ``datasets``."""
    first, second = (
        hub.add_dataset(repo, scattered(nests(seed=seed), ("train", "test"))) for seed in (0, 5)
    )
    assert of(repo, first) == hashed(nests(seed=0))
    assert of(repo, second) == hashed(nests(seed=5))
    return first, second


def test_offline_the_commit_read_last_is_there(
    repo: str, two: tuple[str, str], offline: Callable[[], None]
) -> None:
    offline()
    assert of(repo, two[1]) == hashed(nests(seed=5))


def test_offline_each_commit_gives_its_own_images(
    repo: str, two: tuple[str, str], offline: Callable[[], None]
) -> None:
    offline()
    assert of(repo, two[0]) == hashed(nests(seed=0))


def test_offline_a_commit_that_was_never_read_is_not_there(
    hub: LoopbackHub, repo: str, two: tuple[str, str], offline: Callable[[], None]
) -> None:
    new = hub.add_dataset(repo, scattered(nests(seed=7), ("train", "test")))
    offline()
    assert repo in refusal(lambda: of(repo, new))


def test_without_a_network_nobody_waits(
    hub: LoopbackHub, repo: str, two: tuple[str, str], sleeps: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    new = hub.add_dataset(repo, scattered(nests(seed=7), ("train", "test")))

    def unplugged(*_: Any, **__: Any) -> None:
        raise OSError(101, "Network is unreachable")

    close_session()  # connections that stand
    monkeypatch.setattr("socket.create_connection", unplugged)
    hub.requests.clear()
    assert of(repo, two[0]) == hashed(nests(seed=0))
    assert repo in refusal(lambda: of(repo, new))
    assert (hub.requests, sleeps) == ([], [])


@pytest.mark.parametrize("many", [1, 999])
def test_a_busy_hub_gives_no_other_commit(
    many: int, hub: LoopbackHub, repo: str, two: tuple[str, str]
) -> None:
    new = hub.add_dataset(repo, scattered(nests(seed=7), ("train", "test")))
    hub.fail_next(many, 503, f"/api/datasets/{repo}")
    try:
        assert of(repo, new) == hashed(nests(seed=7))
    except UserError as why:
        assert repo in str(why)  # noqa: PT017  (either is right)
    hub.clear_faults()
    assert of(repo, new) == hashed(nests(seed=7))


def test_named_files_are_those_of_the_commit(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path,
    offline: Callable[[], None],
) -> None:  # fmt: skip
    def found(sha: str, place: Path) -> set[bytes]:
        declare(copy_at(repo, sha, files="data/{part}-*.parquet"))
        data = load_task("nests", place)
        return {bytes(h) for h in (*data.train.hashes, *data.test.hashes)}

    shas = [hub.add_dataset(repo, scattered(nests(seed=s))) for s in (0, 5)]
    unread = hub.add_dataset(repo, scattered(nests(seed=7)))
    for sha, seed in zip(shas, (0, 5), strict=True):
        assert found(sha, cache) == hashed(nests(seed=seed))
    offline()
    for sha, seed in zip(shas, (0, 5), strict=True):
        assert found(sha, cache / "new") == hashed(nests(seed=seed))
    assert f"download of '{repo}' failed" in refusal(lambda: found(unread, cache))


def test_offline_a_declared_copy_is_read_from_the_cache(
    hub: LoopbackHub, repo: str, declare: Callable[..., Task], cache: Path,
    offline: Callable[[], None],
) -> None:  # fmt: skip
    sha = hub.add_dataset(repo, scattered(nests(), id=Value("string")))
    declare(copy_at(repo, sha, name="id"))
    online = load_task("nests", cache)
    offline()
    hub.requests.clear()
    for place in (cache, cache / "new"):
        again = load_task("nests", place)
        assert (again.split_hash, again.revision) == (online.split_hash, sha)
        (_, data), *_ = again.test.source.images(again.test.rows[:1])
        assert hashlib.sha256(data).digest()[:16] == bytes(again.test.hashes[0])
    assert not hub.requests


def test_what_a_suite_leaves_out_without_data() -> None:
    assert missing("eurosat", None) == ""
    assert missing("digits", None) == ""
    assert missing("isic2018@study", None) == ""
    assert "does not say which images belong together; take --split study" in missing(
        "isic2018", None
    )
    assert missing("chestx", None) == ""  # that copy names the patients
    assert missing("kaokore", None).startswith("kaokore: no copy on the Hub is known; get the")

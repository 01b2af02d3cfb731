"""Publishing a prepared data set: what lands on the Hub and what the clients read of it, what the
terms forbid, and what a fault leaves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from markdown_it import MarkdownIt

from eval.common.files import sha256_file
from eval.data.load import load_task
from eval.data.locations import HubData, data_from
from eval.data.manifest import Manifest, read_manifest, write_manifest
from eval.data.task_data import TaskData
from eval.hub.mirror import Mirrored
from eval.prepare.card import dataset_card, licence_id
from eval.prepare.prepare import prepare
from eval.prepare.publish import TRAILER, publish
from eval.tasks.declaration import Task
from eval.tasks.registry import TASKS
from tests.factories import Cli, let_write, make_task, refusal
from tests.hub import LoopbackHub
from tests.prepare.official import Made, make_isic2018, make_voc0712

TOKEN = "hf_publisherSecretToken0123456789"
OTHER = "hf_somebodyElse9876543210"
READER = "hf_mayOnlyRead5432109876"
TASK = "isic2018"  # photographs of one lesion stay together, or not: two splits


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_isic2018(tmp_path_factory.mktemp("official"), per_class=8)


@pytest.fixture
def small(official: Made, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Task]:
    """Declares the task with the small download's counts, and with what else is asked for."""

    def declare(**facts: object) -> Task:
        splits = tuple(
            dataclasses.replace(s, train=0, test=0, members="") for s in TASKS[TASK].splits
        )
        known = {"images": len(official.names), "per_class": (8,) * 7, "splits": splits}
        task = dataclasses.replace(TASKS[TASK], **(known | facts))  # type: ignore[arg-type]
        monkeypatch.setitem(TASKS, TASK, task)
        return task

    declare()
    return declare


@pytest.fixture(scope="module")
def original(official: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set, prepared once; tests get copies."""
    with pytest.MonkeyPatch.context() as patch:
        splits = tuple(
            dataclasses.replace(s, train=0, test=0, members="") for s in TASKS[TASK].splits
        )
        patch.setitem(TASKS, TASK, dataclasses.replace(
            TASKS[TASK], images=len(official.names), per_class=(8,) * 7, splits=splits
        ))  # fmt: skip
        return prepare(TASK, official.folder, tmp_path_factory.mktemp("prepared")).folder


@pytest.fixture
def folder(original: Path, small: Callable[..., Task], tmp_path: Path) -> Path:
    """A prepared folder of this test's own, DATA/isic2018."""
    ours = tmp_path / "data" / TASK
    ours.mkdir(parents=True)
    for path in original.iterdir():
        (ours / path.name).write_bytes(path.read_bytes())
    return ours


@pytest.fixture
def lab(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, sleeps: list[float]) -> LoopbackHub:
    """A strict Hub where ada is logged in; the organisations of ``owner`` are hers too."""
    people = {TOKEN: "ada", OTHER: "bob", READER: "eve"}
    let_write(hub, monkeypatch, people, strict_auth=True, read_only={READER})
    return hub


@pytest.fixture
def owner(request: pytest.FixtureRequest, lab: LoopbackHub) -> str:
    """A namespace of this test's own: the Hub and its cache live as long as the session."""
    name = "org" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]
    lab.orgs = {"ada": {"lab", name}, "bob": {name}, "eve": {name}}
    return name


@pytest.fixture
def repo(owner: str) -> str:
    return f"{owner}/{TASK}"


def held(hub: LoopbackHub, repo: str) -> dict[str, bytes]:
    files = hub.repos["dataset", repo].head.files
    return {name: blob.read() for name, blob in files.items() if name != ".gitattributes"}


def history(hub: LoopbackHub, repo: str) -> list[str]:
    found = hub.repos["dataset", repo]
    return [commit.sha for commit in found.history(found.head)][::-1]


def manifest_of(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest


def refused(hub: LoopbackHub, folder: Path, repo: str, **how: bool) -> str:
    """The sentence; nothing was made or changed on the Hub."""
    before = {key: found.head.sha for key, found in hub.repos.items()}
    text = refusal(lambda: publish(folder, repo, **how))  # type: ignore[arg-type]
    assert {key: found.head.sha for key, found in hub.repos.items()} == before
    return text


def metadata(readme: str) -> dict[str, object]:
    return yaml.safe_load(readme.split("---\n")[1])


# --------------------------------------------------------------------------- what lands


def test_one_commit_holds_the_folder_and_its_card(
    lab: LoopbackHub, repo: str, folder: Path
) -> None:
    said: list[str] = []
    done = publish(folder, repo, say=said.append)
    there = held(lab, repo)
    readme = there.pop("README.md").decode()
    assert there == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert readme == dataset_card(TASKS[TASK], manifest_of(folder), repo)
    assert len(history(lab, repo)) == 2  # the Hub's own first, and ours
    assert (done.sha, done.url) == (history(lab, repo)[1], f"{lab.url}/datasets/{repo}")
    assert set(done.uploaded) == {*there, "README.md"}
    head = lab.repos["dataset", repo].head
    assert (head.author, TRAILER in head.message) == ("ada", True)
    assert said[0] == f"checking {folder}"
    assert len(said) == 2  # and nothing of names: the repository bears the task's
    assert not lab.repos["dataset", repo].private
    assert not [name for name, data in held(lab, repo).items() if str(folder).encode() in data]


def test_what_is_there_already_is_not_committed_again(
    lab: LoopbackHub, repo: str, folder: Path
) -> None:
    first = publish(folder, repo)
    again = publish(folder, repo)
    assert (again.sha, again.uploaded, again.removed) == (first.sha, (), ())
    assert len(history(lab, repo)) == 2


def test_a_changed_manifest_makes_one_commit_of_what_differs(
    lab: LoopbackHub, repo: str, folder: Path
) -> None:
    publish(folder, repo)
    write_manifest(folder, manifest_of(folder).model_copy(update={"notes": ["a *new* note"]}))
    done = publish(folder, repo)
    assert set(done.uploaded) == {"manifest.json", "README.md"}
    assert len(history(lab, repo)) == 3
    assert b"a &#42;new&#42; note" in held(lab, repo)["README.md"]


def test_a_file_that_the_folder_no_longer_has_goes(
    lab: LoopbackHub, repo: str, folder: Path
) -> None:
    publish(folder, repo)
    old = folder / "test-00000-of-00001.parquet"
    new = old.rename(folder / "test-00000-of-00002.parquet")
    manifest = manifest_of(folder)
    files = {**manifest.files, new.name: manifest.files[old.name]}
    del files[old.name]
    write_manifest(folder, manifest.model_copy(update={"files": files}))
    done = publish(folder, repo)
    assert done.removed == (old.name,)
    assert set(done.uploaded) == {new.name, "manifest.json"}  # the card does not speak of it
    assert len(history(lab, repo)) == 3


def test_a_dry_run_needs_no_token_and_changes_nothing(
    lab: LoopbackHub, repo: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    done = publish(folder, repo, dry_run=True)
    assert (done.sha, done.dry_run) == ("", True)
    assert done.bytes > sum(path.stat().st_size for path in folder.glob("*.parquet"))
    assert ("dataset", repo) not in lab.repos
    assert all(method in ("GET", "HEAD") for method, _ in lab.requests)


def test_another_name_is_said_not_to_be_found_by_data(
    lab: LoopbackHub, owner: str, folder: Path
) -> None:
    said: list[str] = []
    publish(folder, f"{owner}/moles", say=said.append)
    assert f"--data hub:{owner} looks for {owner}/{TASK} and will not find it" in said[-1]
    assert b"give the repository that name first" in held(lab, f"{owner}/moles")["README.md"]


# --------------------------------------------------------------------------- refusals


def test_a_folder_without_a_manifest(lab: LoopbackHub, repo: str, folder: Path) -> None:
    (folder / "manifest.json").unlink()
    assert "has no manifest.json; make a folder" in refused(lab, folder, repo)


def test_files_that_are_not_those_of_the_manifest(
    lab: LoopbackHub, repo: str, folder: Path
) -> None:
    test = folder / "test-00000-of-00001.parquet"
    data = test.read_bytes()
    test.write_bytes(data[:-1] + b"?")
    assert f"{test} is not the file that manifest.json froze" in refused(lab, folder, repo)
    test.unlink()
    assert f"{test} is missing" in refused(lab, folder, repo)
    test.write_bytes(data)
    (folder / "train-more.parquet").write_bytes(data)
    assert "train-more.parquet is not in manifest.json" in refused(lab, folder, repo)


def test_a_manifest_names_files_of_the_folder_alone(
    lab: LoopbackHub, repo: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("mine")
    manifest = manifest_of(folder)
    facts = next(iter(manifest.files.values())).model_copy(
        update={"sha256": sha256_file(tmp_path / "secret")}
    )
    files = {**manifest.files, "../../secret": facts}
    write_manifest(folder, manifest.model_copy(update={"files": files}))
    assert "names '../../secret', which is not a file of ours" in refused(lab, folder, repo)


def test_a_manifest_of_no_known_task(lab: LoopbackHub, repo: str, folder: Path) -> None:
    write_manifest(folder, manifest_of(folder).model_copy(update={"task": "moles"}))
    assert "is about 'moles', which is not a known task" in refused(lab, folder, repo)


def test_images_that_are_not_to_be_published(
    lab: LoopbackHub, repo: str, folder: Path, small: Callable[..., Task]
) -> None:
    small(share="no", share_why="the authors ask not to", home="https://example.org/moles")
    for private in (False, True):
        text = refused(lab, folder, repo, private=private)
        assert text == (
            "task 'isic2018': the authors ask not to, so its images must not be published; the "
            "labels alone are at https://example.org/moles"
        )
    assert not lab.requests  # nobody was even asked


def test_kaokore_is_never_published(lab: LoopbackHub, owner: str, tmp_path: Path) -> None:
    folder = make_task(tmp_path / "kaokore", classes=2, train=2, test=2)
    text = refused(lab, folder, f"{owner}/kaokore", private=True)
    assert "ask not to make a derived data set that includes the images" in text
    assert "https://github.com/rois-codh/kaokore" in text


def test_images_that_only_a_private_repository_may_hold(
    lab: LoopbackHub, repo: str, folder: Path, small: Callable[..., Task]
) -> None:
    small(share="private", share_why="the authors state no licence")
    text = refused(lab, folder, repo)
    assert "the authors state no licence" in text
    assert text.endswith("give --private")
    assert ("dataset", repo) not in lab.repos
    done = publish(folder, repo, private=True)
    assert lab.repos["dataset", repo].private
    readme = held(lab, repo)["README.md"].decode()
    assert "> **Keep this repository private:** the authors state no licence." in readme
    # it is private: that need not be said again
    assert publish(folder, repo).sha == publish(folder, repo, private=True).sha == done.sha
    lab.repos["dataset", repo].private = False
    for private in (False, True):
        text = refused(lab, folder, repo, private=private)
        assert "is public; choose another name" in text
        assert "leave --private out" not in text


def test_a_public_repository_does_not_become_private(
    lab: LoopbackHub, repo: str, folder: Path
) -> None:
    publish(folder, repo)
    assert "is public already; leave --private out" in refused(lab, folder, repo, private=True)


def test_somebody_elses_change_is_not_overwritten(
    lab: LoopbackHub, repo: str, folder: Path
) -> None:
    publish(folder, repo)
    sha = lab.add_dataset(repo, {"README.md": "by hand"})
    text = refused(lab, folder, repo)
    assert "was changed on the Hub by someone else" in text
    assert f"save what should stay, then publish with --replace {sha[:12]}" in text
    done = publish(folder, repo, replace=sha[:12])
    assert done.uploaded == ("README.md",)
    assert f"is at commit {done.sha}, not at --replace" in refusal(
        lambda: publish(folder, repo, replace=sha) if _spoil(folder) else None
    )


def _spoil(folder: Path) -> bool:
    return bool(write_manifest(folder, manifest_of(folder).model_copy(update={"notes": ["x"]})))


def test_a_repository_with_other_content_is_left_alone(
    lab: LoopbackHub, repo: str, folder: Path
) -> None:
    lab.add_dataset(repo, {"data.csv": "1,2\n"})
    assert "was changed on the Hub by someone else" in refused(lab, folder, repo)


def test_a_token_that_may_only_read(
    lab: LoopbackHub, repo: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", READER)
    assert "the token of 'eve' may only read" in refused(lab, folder, repo)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "is not open to 'ada'" in refused(lab, folder, "stranger/isic2018")
    assert "is not a Hub repository" in refused(lab, folder, "isic2018")


# --------------------------------------------------------------------------- a faulty Hub

FAULTS: dict[str, Callable[[LoopbackHub], None]] = {
    "busy": lambda hub: hub.fail_next(2, 503, "/commit/"),
    "busy when uploading": lambda hub: hub.fail_next(2, 503, "PUT"),
    "hung up": lambda hub: hub.drop_next(1, "/commit/"),
    "landed, no answer": lambda hub: hub.land_then_fail(1, None, "/commit/"),
    "landed, 503": lambda hub: hub.land_then_fail(1, 503, "/commit/"),
    "cut": lambda hub: hub.cut_next(1, 20, "/tree/"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_hub_gets_it_once(fault: str, lab: LoopbackHub, repo: str, folder: Path) -> None:
    FAULTS[fault](lab)
    done = publish(folder, repo)
    assert len(history(lab, repo)) == 2
    assert done.sha == history(lab, repo)[1]
    assert len(held(lab, repo)) == 4


def test_a_hub_that_stays_away_leaves_the_old_files(
    lab: LoopbackHub, repo: str, folder: Path
) -> None:
    first = publish(folder, repo)
    _spoil(folder)
    lab.fail_next(99, 503, "/commit/")
    assert "try again later" in refusal(lambda: publish(folder, repo))
    assert lab.repos["dataset", repo].head.sha == first.sha


# --------------------------------------------------------------------------- the card


def card_of(folder: Path, repo: str = "ada/isic2018", **changes: object) -> str:
    return dataset_card(TASKS[TASK], manifest_of(folder).model_copy(update=changes), repo)


def test_the_card_tells_the_hub_what_it_needs(folder: Path) -> None:
    meta = metadata(card_of(folder))
    assert meta == {
        "license": "cc-by-nc-4.0",
        "pretty_name": "ISIC 2018 task 3 (HAM10000)",
        "task_categories": ["image-classification"],
        "size_categories": ["n<1K"],
        "tags": ["transferzoo", "isic2018"],
        "configs": [{
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "train-*.parquet"},
                {"split": "test", "path": "test-*.parquet"},
            ],
        }],
    }  # fmt: skip


@pytest.mark.parametrize(("task", "licence"), [
    ("eurosat", "mit"), ("deepweeds", "cc-by-4.0"), ("isic2018", "cc-by-nc-4.0"),
    ("cropdisease", "cc-by-sa-3.0"), ("chestx", ""), ("dtd", ""), ("sketch", ""), ("svhn", ""),
    ("kaokore", ""), ("omniglot", "mit"), ("coco2017", ""), ("flowers102", ""),
])  # fmt: skip
def test_a_licence_of_the_images_alone_is_named_to_the_hub(task: str, licence: str) -> None:
    assert licence_id(TASKS[task]) == licence


def test_a_licence_without_a_name_is_linked(folder: Path, small: Callable[..., Task]) -> None:
    small(licence="research use", home="https://example.org/")
    meta = metadata(card_of(folder))
    assert meta["license"] == "other"
    assert meta["license_name"] == "isic2018-terms"
    assert meta["license_link"] == "https://example.org/"


def test_the_card_has_the_manifests_numbers(folder: Path) -> None:
    manifest = manifest_of(folder)
    text = card_of(folder)
    for name, split in manifest.splits.items():
        row = next(line for line in text.splitlines() if re.match(rf"\| {name}\b", line))
        for part in split.parts.values():
            assert f" {part.images} |" in row
        assert f"`{split.split_hash[:12]}`" in row
    assert "| clean (these files)" in text
    assert "so every lesion is kept on one side" in text
    assert "`--task isic2018@study` makes it of the same images" in text
    assert "ISIC2018&#95;" not in text  # an underscore within a word is not a mark
    for name, size in manifest.source.items():
        assert f"| {name} | {size:,} |" in text
    assert 'load_dataset("ada/isic2018", revision="main")' in text
    assert "transfer-eval run MODEL --task isic2018 --data hub:ada\n" in text
    assert "Tschandl, Rosendahl, Kittler" in text
    assert text == card_of(folder)


def test_an_incomplete_copy_says_so_first(folder: Path) -> None:
    text = card_of(folder, partial=True, missing=[f"ISIC_{i}.jpg" for i in range(70)],
                   unreadable={"ISIC_99.jpg": "cut off"})  # fmt: skip
    body = text.split("---\n", 2)[2].splitlines()
    assert body[2] == (
        "> **Not complete:** 71 images of the official list are not in it. Numbers on it are not "
        "those of the benchmark."
    )
    assert "<details><summary>70 images of the official list not in the download</summary>" in text
    assert "and 20 more: see manifest.json" in text
    assert "1 image unreadable, so left out: ISIC_99.jpg (cut off)." in text
    assert "it cannot be made of an incomplete copy" in text
    assert metadata(text)["pretty_name"] == "ISIC 2018 task 3 (HAM10000) (incomplete)"


def test_duplicates_are_told(folder: Path) -> None:
    assert "No image stands in it twice, byte for byte." in card_of(folder)
    text = card_of(folder, duplicates={
        "within train": [["a", "b"], ["c", "d"]], "train and test": [["e", "f"]] * 1000,
    })  # fmt: skip
    assert "byte for byte: 2 within train, 1,000 across train and test (" in text


def test_many_classes_are_folded(folder: Path) -> None:
    manifest = manifest_of(folder)
    assert "<details>" not in card_of(folder)
    classes = [f"kind {i}" for i in range(30)]
    text = dataset_card(TASKS[TASK], manifest.model_copy(update={"classes": classes}), "a/b")
    assert "<details><summary>All 30 classes</summary>" in text


def test_what_others_wrote_is_shown_as_it_is(folder: Path, small: Callable[..., Task]) -> None:
    evil = "<script>alert(1)</script> | *x* [y](http://z.example) `q` --- \n# no head"
    shown = " ".join(evil.split())
    manifest = manifest_of(folder)
    classes = [evil, *manifest.classes[1:]]
    text = card_of(
        folder, classes=classes, notes=[evil], missing=[evil], unreadable={evil: evil},
        source={evil: 5}, made_with=evil, created=evil,
        duplicates={evil: [["a", "b"]]},
    )  # fmt: skip
    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(
        text.split("---\n", 2)[2]
    )
    assert "<script>" not in html
    assert "z.example&quot;" not in html
    assert 'href="http://z' not in html
    assert "<h1>no head" not in html
    assert html.count("&lt;script&gt;") == 9
    assert html.count("<h1>") == 1
    rows = [line for line in text.splitlines() if line.startswith("|     0 |")]
    assert len(rows) == 1
    assert rows[0].count("|") == 5
    assert shown not in text  # it is all escaped


def test_a_detection_set_has_its_own_columns(folder: Path, small: Callable[..., Task]) -> None:
    small(kind="detection")
    text = card_of(folder)
    assert metadata(text)["task_categories"] == ["object-detection"]
    assert "| `objects` |" in text
    assert "| `label` |" not in text
    assert "objects in train" in text
    assert "transfer-eval run" not in text  # no protocol scores it


def test_an_unused_part_is_shown(folder: Path) -> None:
    manifest = manifest_of(folder)
    facts = next(iter(manifest.files.values())).model_copy(update={"rows": 5})
    text = card_of(folder, files={**manifest.files, "validation-00000-of-00001.parquet": facts})
    configs = metadata(text)["configs"]
    assert isinstance(configs, list)
    assert [f["split"] for f in configs[0]["data_files"]] == ["train", "validation", "test"]
    assert "The part `validation` (5 images) is the authors'; no split uses it." in text
    assert text.split("---\n", 2)[2].strip().splitlines()[2].startswith("61 images of 7 classes")


# --------------------------------------------------------------------------- what clients read


def test_load_dataset_gives_the_very_files(
    lab: LoopbackHub, repo: str, folder: Path, official: Made, tmp_path: Path
) -> None:
    from datasets import Image, load_dataset

    done = publish(folder, repo)
    for streaming in (False, True):
        data = load_dataset(
            repo, revision=done.sha, streaming=streaming, cache_dir=str(tmp_path / "hf")
        )
        assert sorted(data) == ["test", "train"]
        assert data["train"].features["label"].names == list(official.classes)
        bytes_, labels, groups = {}, {}, {}
        for part in data.values():
            raw = part.cast_column("image", Image(decode=False))
            for row in raw:
                name = official.names[row["position"]]
                bytes_[name] = row["image"]["bytes"]
                labels[name] = row["label"]
                groups[name] = row["group"]
        assert bytes_ == official.data
        assert labels == dict(zip(official.names, official.labels, strict=True))
        assert groups == dict(zip(official.names, official.groups, strict=True))
        assert next(iter(data["train"]))["image"].size == (24, 20)


def same(first: TaskData, second: TaskData) -> None:
    assert first.split_hash == second.split_hash
    assert first.classes == second.classes
    assert (first.split, first.partial, first.notes) == (second.split, second.partial, second.notes)


@pytest.mark.parametrize("split", ["", "@clean", "@study"])
def test_folder_and_mirror_give_the_same_split(
    split: str, lab: LoopbackHub, owner: str, folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    done = publish(folder, f"{owner}/{TASK}")
    here = load_task(TASK + split, tmp_path / "c1", folder.parent)
    there = load_task(TASK + split, tmp_path / "c2", data_from(f"hub:{owner}"))
    same(here, there)
    assert here.split == (split[1:] or "clean")
    assert here.split_hash == manifest_of(folder).splits[here.split].split_hash
    assert (there.where, there.revision) == (f"hub:{owner}/{TASK}", done.sha)
    monkeypatch.setenv("TRANSFERZOO_DATA", str(folder.parent))
    same(here, load_task(TASK + split, tmp_path / "c3", data_from(None)))
    monkeypatch.setenv("TRANSFERZOO_DATA", f"hub:{owner}")
    same(here, load_task(TASK + split, tmp_path / "c4", data_from(None)))
    groups = _groups(there, official_groups(folder))
    assert bool(groups[0] & groups[1]) == (here.split == "study")


def official_groups(folder: Path) -> dict[bytes, str]:
    """Image bytes' sha256 -> lesion."""
    found = {}
    for file in folder.glob("*.parquet"):
        for row in pq.read_table(file).to_pylist():
            found[hashlib.sha256(row["image"]["bytes"]).digest()] = row["group"]
    return found


def _groups(data: TaskData, lesion: dict[bytes, str]) -> list[set[str]]:
    return [
        {
            lesion[hashlib.sha256(image).digest()]
            for _, image in part.source.images(part.rows[part.rows.argsort()])
        }
        for part in (data.train, data.test)
    ]


def test_an_earlier_commit_of_a_mirror(
    lab: LoopbackHub, owner: str, folder: Path, tmp_path: Path
) -> None:
    repo = f"{owner}/{TASK}"
    first = publish(folder, repo)
    _spoil(folder)
    assert publish(folder, repo).sha != first.sha
    data = load_task(TASK, tmp_path / "c", HubData(owner, first.sha))
    assert data.revision == first.sha


def test_offline_what_was_fetched_once_serves(
    lab: LoopbackHub, owner: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = f"{owner}/{TASK}"
    first = publish(folder, repo)
    online = load_task(TASK, tmp_path / "c", HubData(owner))
    lab.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    again = load_task(TASK, tmp_path / "new", HubData(owner, first.sha))
    same(online, again)
    assert again.revision == first.sha
    same(load_task(f"{TASK}@study", tmp_path / "c", HubData(owner, first.sha)),
         load_task(f"{TASK}@study", tmp_path / "c", folder.parent))  # fmt: skip
    assert not lab.requests
    text = refusal(lambda: load_task(TASK, tmp_path / "c", HubData(f"{owner}no")))
    assert "the Hub cannot be reached" in text


def test_offline_main_is_the_commit_it_last_was(
    lab: LoopbackHub, owner: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = publish(folder, f"{owner}/{TASK}")
    online = load_task(TASK, tmp_path / "c", HubData(owner))
    lab.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    again = load_task(TASK, tmp_path / "new", HubData(owner))
    same(online, again)
    assert again.revision == done.sha
    assert not lab.requests


@pytest.mark.slow
@pytest.mark.parametrize("where", ["/api/datasets/", "HEAD", "/resolve/", "/storage/", "/tree/"])
def test_a_busy_hub_is_waited_for_when_reading(
    where: str, lab: LoopbackHub, owner: str, folder: Path, tmp_path: Path
) -> None:
    publish(folder, f"{owner}/{TASK}")
    lab.fail_next(2, 503, where)
    lab.cut_next(1, 1000, "/storage/")
    there = load_task(TASK, tmp_path / "c", HubData(owner))
    here = load_task(TASK, tmp_path / "c", folder.parent)
    assert there.split_hash == here.split_hash
    same(there, here)


def test_a_private_mirror_says_so(
    lab: LoopbackHub, owner: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = f"{owner}/{TASK}"
    publish(folder, repo, private=True)
    monkeypatch.delenv("HF_TOKEN")
    assert refusal(lambda: load_task(TASK, tmp_path / "c", HubData(owner))) == (
        f"task 'isic2018': the Hub has no dataset '{repo}', or it is private; check the name, or "
        "log in with `hf auth login`"
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    there = load_task(TASK, tmp_path / "c", HubData(owner))
    same(there, load_task(TASK, tmp_path / "c", folder.parent))


def test_a_gated_mirror_says_so(
    lab: LoopbackHub, owner: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = f"{owner}/{TASK}"
    publish(folder, repo)
    lab.repos["dataset", repo].gated = "manual"
    for token in (None, OTHER):  # the owner may read it
        monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
        assert refusal(lambda: load_task(TASK, tmp_path / "c", HubData(owner))) == (
            f"task 'isic2018': '{repo}' is gated; accept its terms on its Hub page and log in "
            "with `hf auth login`"
        )
    lab.grant(OTHER, repo)
    there = load_task(TASK, tmp_path / "c", HubData(owner))
    same(there, load_task(TASK, tmp_path / "c", folder.parent))


def test_an_incomplete_set(
    lab: LoopbackHub, repo: str, owner: str, tmp_path: Path, small: Callable[..., Task]
) -> None:
    made = make_isic2018(tmp_path / "source", per_class=8, without={"ISIC_0024307.jpg"})
    done = prepare(TASK, made.folder, tmp_path / "data", partial=True)
    publish(done.folder, repo)
    body = held(lab, repo)["README.md"].decode().split("---\n", 2)[2].splitlines()
    assert body[2].startswith("> **Not complete:** 1 image of the official list is not in it.")
    there = load_task(TASK, tmp_path / "c", HubData(owner))
    same(there, load_task(TASK, tmp_path / "c", tmp_path / "data"))
    assert there.subset
    assert "of the official set" in there.notes[0]
    text = refusal(lambda: load_task(f"{TASK}@study", tmp_path / "c", HubData(owner)))
    assert "lacks images of 'isic2018'" in text


def test_a_detection_set(
    lab: LoopbackHub, owner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import load_dataset

    made = make_voc0712(tmp_path / "source")
    splits = tuple(dataclasses.replace(s, train=0, test=0) for s in TASKS["voc0712"].splits)
    task = dataclasses.replace(TASKS["voc0712"], images=len(made.names), splits=splits)
    monkeypatch.setitem(TASKS, "voc0712", task)
    folder = prepare("voc0712", made.folder, tmp_path / "data").folder
    repo = f"{owner}/voc0712"
    assert "VOC gives no licence to redistribute" in refused(lab, folder, repo)
    sha = publish(folder, repo, private=True).sha
    data = load_dataset(repo, revision=sha, streaming=True)
    rows = {made.names[row["position"]]: row for part in data.values() for row in part}
    assert rows.keys() == made.boxes.keys()
    for name, boxes in made.boxes.items():
        found = rows[name]["objects"]
        assert found["category"] == [box.category for box in boxes]
        assert found["bbox"] == [[b.x, b.y, b.width, b.height] for b in boxes]
        assert found["difficult"] == [box.difficult for box in boxes]
    online = load_task("voc0712", tmp_path / "c", HubData(owner))
    here = load_task("voc0712", tmp_path / "c", tmp_path / "data")
    assert (online.kind, online.revision, online.where) == ("detection", sha, f"hub:{repo}")
    manifest = read_manifest(folder)
    assert manifest is not None
    assert online.split_hash == here.split_hash == manifest.splits["study"].split_hash


def test_the_command_prepares_and_publishes(
    lab: LoopbackHub, repo: str, owner: str, official: Made, small: Callable[..., Task], cli: Cli,
    tmp_path: Path,
) -> None:  # fmt: skip
    what = ("prepare", TASK, "--out", tmp_path / "data", "--push-to", repo)
    dry = cli(*what, "--source", official.folder, "--dry-run")
    assert (dry.code, ("dataset", repo) in lab.repos) == (0, False), dry.err
    done = cli(*what)
    assert done.code == 0, done.err
    assert f"{lab.url}/datasets/{repo}" in done.out
    assert len(history(lab, repo)) == 2
    assert "nothing changed" in cli(*what).out
    small(share="private", share_why="nobody knows the licence")
    other = cli(*what[:-1], f"{owner}/other")
    assert other.code == 2
    assert "nobody knows the licence" in other.err
    assert other.err.count("\n") == 1


def test_a_mirror_that_is_not_what_it_froze_is_refused(
    lab: LoopbackHub, owner: str, folder: Path, tmp_path: Path
) -> None:
    repo = f"{owner}/{TASK}"
    publish(folder, repo)
    frozen = json.loads((folder / "manifest.json").read_bytes())
    frozen["splits"]["clean"]["split_hash"] = "0" * 64
    lab.add_dataset(repo, {"manifest.json": json.dumps(frozen)})
    text = refusal(lambda: load_task(TASK, tmp_path / "c", HubData(owner)))
    assert "is not what its manifest.json froze" in text
    assert "the split hash is" in text


def test_a_run_scores_a_mirror(
    lab: LoopbackHub, owner: str, folder: Path, model_dir: Path, cli: Cli, tmp_path: Path
) -> None:
    done: Mirrored = publish(folder, f"{owner}/{TASK}")
    ran = cli(
        "run", f"local-dir:{model_dir}", "--task", TASK, "--data", f"hub:{owner}",
        "--protocol", "knn", "--precision", "fp32", "--cache", tmp_path / "cache",
        "--results", tmp_path / "results",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (file,) = (tmp_path / "results").rglob("*.json")
    task = json.loads(file.read_bytes())["task"]
    assert (task["source"], task["revision"]) == (f"hub:{owner}/{TASK}", done.sha)
    assert task["split_hash"] == manifest_of(folder).splits["clean"].split_hash

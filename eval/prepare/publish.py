"""A prepared folder -> a data set repository of the Hub, where its terms allow it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from eval.common.errors import BadInput, NotFound
from eval.common.files import sha256_file
from eval.data.manifest import MANIFEST, Manifest, read_manifest
from eval.hub import commits
from eval.hub.mirror import Mirrored, Terms, begin, mirror
from eval.prepare.card import dataset_card
from eval.tasks.declaration import Task
from eval.tasks.registry import TASKS

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TRAILER = "Published-by: transfer-eval"  # in our commits' messages: who changed the repository last
_SHARD = re.compile(r"(train|test|validation)-\d{5}-of-\d{5}\.parquet")


def publish(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    replace: str | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Mirrored:
    """Check the folder, then upload what the repository lacks of it in one commit.

    As ``eval.hub.mirror.mirror`` does it. Raises UserError for a folder that is not what its
    manifest froze, for terms that forbid it, and for whatever the Hub refuses; the repository is
    then as it was.
    """
    from huggingface_hub import HfApi

    manifest = read_manifest(folder)
    if manifest is None:
        raise BadInput(
            f"{folder} has no {MANIFEST}; make a folder to publish with `transfer-eval prepare`"
        )
    task = TASKS.get(manifest.task)
    if task is None:
        raise BadInput(f"{folder / MANIFEST} is about {manifest.task!r}, which is not a known task")
    if task.share == "no":
        raise BadInput(
            f"{_why(task)}, so its images must not be published; the labels alone are at "
            f"{task.home}"
        )
    api = HfApi()
    for_few = task.share == "private"  # then --private is never to be left out
    remote = begin(
        api, repo, "dataset", private=private and not for_few, dry_run=dry_run, replace=replace
    )
    if for_few:
        _check_hidden(api, task, repo, remote is not None, private)
    say(f"checking {folder}")
    _check_files(folder, manifest)
    files: dict[str, bytes | Path] = {name: folder / name for name in sorted(manifest.files)}
    files[MANIFEST] = folder / MANIFEST
    files["README.md"] = dataset_card(task, manifest, repo).encode()
    terms = Terms(
        "dataset", TRAILER, frozenset({".gitattributes"}), title=f"Publish {task.name}",
        mend="save what should stay, then publish",
    )  # fmt: skip
    done = mirror(
        api, repo, files, remote, terms, private=private, dry_run=dry_run, replace=replace, say=say
    )
    owner, _, name = repo.partition("/")
    if name != task.name:
        say(
            f"--data hub:{owner} looks for {owner}/{task.name} and will not find it under the name "
            f"{name!r}; publish it as {owner}/{task.name} to use it by --data"
        )
    return done


def _why(task: Task) -> str:
    return f"task {task.name!r}: {task.share_why or f'its licence is {task.licence!r}'}"


def _check_hidden(api: HfApi, task: Task, repo: str, exists: bool, private: bool) -> None:
    """Raises UserError where others could read images that are not to be handed on."""
    reason = f"{_why(task)}, so its images can go to a private repository alone"
    if not exists and not private:
        raise BadInput(f"{reason}; give --private")
    if exists and not commits.is_private(api, repo, "dataset"):
        raise BadInput(
            f"{reason}, and {repo!r} is public; choose another name, or make it private on the Hub"
        )


def _check_files(folder: Path, manifest: Manifest) -> None:
    """Raises UserError naming a file that is not the one that the manifest froze."""
    cure = "prepare the set again"
    extra = sorted({p.name for p in folder.glob("*.parquet")} - set(manifest.files))
    if extra:
        raise NotFound(f"{folder / extra[0]} is not in {MANIFEST}; remove it, or {cure}")
    for name, facts in sorted(manifest.files.items()):
        path = folder / name
        if not _SHARD.fullmatch(name):
            raise BadInput(
                f"{folder / MANIFEST} names {name!r}, which is not a file of ours; {cure}"
            )
        if not path.is_file():
            raise NotFound(f"{path} is missing; {cure}")
        if sha256_file(path) != facts.sha256:
            raise BadInput(f"{path} is not the file that {MANIFEST} froze; {cure}")
    for part in ("train", "test"):
        if not any(name.startswith(f"{part}-") for name in manifest.files):
            raise BadInput(f"{folder / MANIFEST} names no {part}-*.parquet; {cure}")

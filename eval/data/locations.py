"""Where the data of declared tasks are looked for, and how to get those that are not there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from eval.common.errors import BadInput, UserError
from eval.tasks.declaration import Task
from eval.tasks.names import parse_task
from eval.tasks.registry import TASKS


@dataclass(frozen=True)
class HubData:
    """Data sets of the Hub: OWNER/<task> as `prepare --push-to` makes them, or, without an owner,
    the copies that the declarations name. ``revision`` is a commit, to find one result's data."""

    owner: str = ""
    revision: str = ""


Data = Path | HubData


def data_from(flag: str | None) -> Data | None:
    """``--data`` or the environment variable TRANSFERZOO_DATA: a directory, or hub:OWNER."""
    text = flag or os.environ.get("TRANSFERZOO_DATA")
    if not text:
        return None
    prefix, colon, owner = text.partition(":")
    if prefix == "hub" and colon:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", owner):
            raise BadInput(f"--data {text!r} names no owner on the Hub; use hub:OWNER")
        return HubData(owner)
    return Path(text).expanduser()


def how_to_get(task: Task) -> str:
    """What to do where a declared task's data are missing."""
    if not task.download:
        return f"put train-*.parquet and test-*.parquet into DIR/{task.name} and give --data DIR"
    if task.kind != "classification":
        return _how_to_get_annotated(task)
    client = ", or leave --data out for the copy on the Hub" if task.hub else ""
    return (
        f"get {task.download}, then `transfer-eval prepare {task.name} --source FOLDER --out DIR` "
        f"and --data DIR{client}"
    )


def _how_to_get_annotated(task: Task) -> str:
    if task.preparable:
        prepare = f"`transfer-eval prepare {task.name} --source FOLDER --out DIR` and --data DIR"
        return f"get {task.download}, then {prepare}"
    forms = "voc:FOLDER or coco:FOLDER" if task.kind == "detection" else "masks:FOLDER"
    return (
        f"put the known smaller copy into DIR/{task.name} and give --data DIR, or get "
        f"{task.download} and score it under a name of its own as {forms}"
    )


def missing(text: str, data: Data | None) -> str:
    """Why a suite's task cannot be scored here, in one line; '' where it can."""
    parsed = parse_task(text)
    task = TASKS.get(parsed.value)
    if parsed.kind != "declared" or task is None or task.embedded:
        return ""
    if isinstance(data, Path):
        if any((data / task.name).glob("*.parquet")):
            return ""
        return f"{task.name}: not under {data}; {how_to_get(task)}"
    if isinstance(data, HubData) and data.owner:
        from eval.hub import client

        try:
            client.pin(f"{data.owner}/{task.name}", None, "dataset", f"task {task.name!r}")
        except UserError as error:
            return f"{task.name}: {error}"
        return ""
    if task.hub is None:
        return f"{task.name}: no copy on the Hub is known; {how_to_get(task)}"
    if task.split_named(parsed.split).rule == "groups" and not task.hub.group:
        return (
            f"{task.name}: the copy on the Hub does not say which images belong together; take "
            f"--split study, or {how_to_get(replace(task, hub=None))}"
        )
    return ""


def presence(task: Task, data: Data | None) -> str:
    """Where a task's data are: embedded, whole, subset, damaged, Hub or no. A look, no check."""
    if task.embedded:
        return "embedded"
    if not isinstance(data, Path):
        return "Hub" if task.hub or (data and data.owner) else "no"
    folder = data / task.name
    if not any(folder.glob("*.parquet")):
        return "no"
    from eval.data.manifest import read_manifest

    try:
        manifest = read_manifest(folder)
    except UserError:
        return "damaged"
    return "whole" if manifest and not manifest.partial else "subset"

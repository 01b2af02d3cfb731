"""One rule for a result's name. The files that are out in the world were named by three functions;
they stand here as they were, and the one that took their place agrees with them."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.analysis import ANALYSES
from eval.analysis.finding import Finding, finding_path
from eval.common.text import slug
from eval.models.names import ZOO_FOLDER
from eval.models.resolve import ResolvedModel
from eval.protocols import PROTOCOLS
from eval.results.names import (
    changes,
    differences,
    file_name,
    number_format,
    plain,
    shelf_folder,
    shelf_path,
    shown,
    task_label,
    task_part,
)
from eval.results.schema import Result
from eval.results.store import read_result
from tests.factories import make_result

COMMITTED = sorted(ZOO_FOLDER.glob("*/results/*.json"))
WORDS = ("", "voc-24k", "short:600", "c4", "frozen", "layer1.0", "rbf")
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(0, 10**9),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    str: st.sampled_from(WORDS),
}


def settings_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Settings of which some are the defaults."""

    def values(hint: Any) -> st.SearchStrategy[Any]:
        if typing.get_origin(hint) is tuple:
            return st.lists(VALUES[typing.get_args(hint)[0]], max_size=3).map(tuple)
        return VALUES[hint]

    changed = {
        name: st.one_of(st.just(getattr(kind(), name)), values(hint))
        for name, hint in typing.get_type_hints(kind).items()
    }
    return st.builds(kind, **changed)


def before_of_a_cell(
    task: str, protocol: str, settings: Any, seed: int, limit: int | None, precision: str | None
) -> str:
    """What a run called the file that it was about to write."""
    default = type(settings)()
    changed = {
        f.name: getattr(settings, f.name)
        for f in dataclasses.fields(settings)
        if f.name != "shots" and getattr(settings, f.name) != getattr(default, f.name)
    }
    if seed:
        changed["seed"] = seed
    if limit is not None:
        changed["limit"] = limit
    if precision:
        changed["precision"] = precision
    variant = "@" + ",".join(f"{k}={shown(v)}" for k, v in changed.items()) if changed else ""
    return f"{task}.{protocol}{variant.replace(':', '-')}.json"


def before_of_a_result(result: Result) -> tuple[dict[str, Any], str]:
    """(what differs from the defaults, the file's name) by a result's content, where only a
    precision that the user had chosen was a difference."""
    default = {
        k: list(v) if isinstance(v, tuple) else v
        for k, v in vars(PROTOCOLS[result.protocol.name].settings()).items()
    }
    changed = {
        k: v for k, v in result.protocol.config.items() if k != "shots" and default.get(k) != v
    }
    for name in ("seed", "limit", "precision"):
        if getattr(result, name):
            changed[name] = getattr(result, name)
    text = ",".join(f"{k}={shown(v)}" for k, v in changed.items())
    variant = "@" + re.sub(r"[^A-Za-z0-9._+=,-]+", "-", text) if text else ""
    task = slug(task_label(result.task.name, result.task.split).replace("@", "__"))
    return changed, f"{task}.{slug(result.protocol.name)}{variant}.json"


def named(before: dict[str, Any], result: Result) -> dict[str, Any]:
    """Its differences with the precision that it was computed in, chosen or not, unless fp32."""
    rest = {k: v for k, v in before.items() if k != "precision"}
    computed = number_format(result)
    return rest | ({"precision": computed} if computed != "fp32" else {})


def before_of_a_finding(finding: Finding) -> str:
    """A finding's name behind its tasks and models."""
    default = plain(ANALYSES[finding.analysis].settings())
    asked = finding.config | {"seed": finding.seed or None}
    changed = {k: v for k, v in asked.items() if v != default.get(k)}
    text = ",".join(f"{k}={shown(v)}" for k, v in changed.items())
    variant = "@" + re.sub(r"[^A-Za-z0-9._+=,-]+", "-", text) if text else ""
    if len(variant) > 120:
        variant = f"@{hashlib.sha256(variant.encode()).hexdigest()[:8]}"
    return f"{variant}.json"


@given(
    st.data(), st.sampled_from(list(PROTOCOLS)), st.integers(0, 9),
    st.none() | st.integers(1, 10**6),
    st.sampled_from((None, "fp32", "bf16", "fp32-channels_last")),
)  # fmt: skip
def test_a_result_s_name(
    data: st.DataObject, protocol: str, seed: int, limit: int | None, precision: str | None
) -> None:
    kind = PROTOCOLS[protocol].settings
    settings = data.draw(settings_of(kind))
    asked = {"seed": seed, "limit": limit, "precision": precision}
    changed = differences(plain(settings), kind, **asked)
    name = file_name(task_part("dtd", "clean"), protocol, changed)
    assert name == before_of_a_cell("dtd__clean", protocol, settings, seed, limit, precision)
    used = precision or "fp32"
    result = make_result(protocol=protocol, config=plain(settings), dtype=used, **asked)
    task = result.task.model_copy(update={"split": "clean"})
    result = result.model_copy(update={"task": task})
    before, same = before_of_a_result(result)
    assert (named(before, result), name) == (changes(result), same)
    assert shelf_path(result) == f"random--resnet18/seed0/{name}"


@given(st.data(), st.sampled_from(list(ANALYSES)), st.integers(0, 9), st.none() | st.integers(8))
def test_a_finding_s_name(data: st.DataObject, name: str, seed: int, limit: int | None) -> None:
    config = plain(data.draw(settings_of(ANALYSES[name].settings)))
    result = make_result()
    finding = Finding(
        analysis=name, models=[result.model], tasks=[result.task],
        config=config | {"img_size": None, "limit": limit}, values={}, sentence="",
        environment=result.environment, seed=seed, seconds={}, created=result.created,
    )  # fmt: skip
    path = finding_path(Path("r"), finding)
    assert path.parent == Path("r/analyses", name)
    assert path.name == "dtd.random--resnet18@seed0" + before_of_a_finding(finding)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: f"{p.parts[-3]}/{p.name}")
def test_committed_results_are_named_by_the_rule(path: Path) -> None:
    result = read_result(path)
    changed, name = before_of_a_result(result)
    assert changes(result) == named(changed, result)
    assert Path(shelf_path(result)).name == name == path.name
    settings = PROTOCOLS[result.protocol.name].settings(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in result.protocol.config.items()}
    )
    task = task_label(result.task.name, result.task.split).replace("@", "__")
    asked = (result.seed, result.limit, result.precision)
    assert before_of_a_cell(task, result.protocol.name, settings, *asked) == path.name


def test_there_are_committed_results() -> None:
    assert {read_result(p).protocol.name for p in COMMITTED} >= {"fewshot", "linear"}


@pytest.mark.parametrize(
    ("recorded", "used", "change", "name"),
    [
        (None, "fp32", None, "dtd.knn.json"),
        (None, "fp32-channels_last", None, "dtd.knn.json"),
        ("fp32", "fp32", None, "dtd.knn@precision=fp32.json"),
        ("fp32-channels_last", "fp32-channels_last", None,
         "dtd.knn@precision=fp32-channels_last.json"),
        ("bf16", "bf16-channels_last", "bf16", "dtd.knn@precision=bf16.json"),
        # an earlier version chose bf16 by its stopwatch, and its file keeps its name
        (None, "bf16-channels_last", "bf16", "dtd.knn.json"),
    ],
)  # fmt: skip
def test_unlike_precisions_are_unlike_and_files_keep_their_names(
    recorded: str | None, used: str, change: str | None, name: str
) -> None:
    result = make_result(protocol="knn", precision=recorded, dtype=used)
    assert changes(result) == ({"precision": change} if change else {})
    assert Path(shelf_path(result)).name == name
    apart = Path(shelf_path(result, by_precision=True)).name
    assert apart == f"dtd.knn@precision={change or 'fp32'}.json"


def test_a_model_s_folder_is_the_same_before_and_after_it_was_scored() -> None:
    model = ResolvedModel("hub", "a/b", "hf-hub:a/b@" + "c" * 40, "a/b@v1", "c" * 40, img_size=64)
    info = make_result().model.model_copy(
        update={"id": model.id, "revision": model.revision, "img_size": 64}
    )
    assert shelf_folder(model) == shelf_folder(info) == "a--b@64px/" + "c" * 40


def test_a_second_data_set_of_a_name_and_the_split_that_all_expect() -> None:
    assert task_part("dtd", "") == "dtd"
    assert task_part("dtd", "clean", "0123456789") == "dtd__clean~01234567"
    result = make_result().model_copy(update={"seed": 3})
    part = task_part("dtd", result.task.split, result.task.split_hash)
    assert shelf_path(result, by_hash=True).endswith(f"/{part}.linear@seed=3.json")


@pytest.mark.parametrize("protocol", ["linear-sgd", "finetune"])
def test_a_result_older_than_a_setting_is_of_its_own_kind(protocol: str) -> None:
    """Views were of reduced images before there was the choice, and no file says so."""
    now = plain(PROTOCOLS[protocol].settings())
    then = {k: v for k, v in now.items() if k != "crops_from"}
    old, new = (make_result(protocol=protocol, config=config) for config in (then, now))
    assert changes(old) == {"crops_from": "reduced"}
    assert changes(new) == {}
    assert Path(shelf_path(old)).name == f"dtd.{protocol}@crops_from=reduced.json"
    assert Path(shelf_path(new)).name == f"dtd.{protocol}.json"
    again = make_result(protocol=protocol, config=now | {"crops_from": "reduced"})
    assert changes(again) == changes(old)
    assert shelf_path(again) == shelf_path(old)
    assert changes(make_result(protocol="linear", config={})) == {}

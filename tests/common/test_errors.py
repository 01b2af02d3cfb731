"""A Python user can tell the kinds of errors apart, and catch all of them as UserError."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eval.common.errors import BadInput, Conflict, NotFound, Refused, Unreachable, UserError
from eval.data.load import load_task
from eval.models.names import parse_model
from eval.models.objectives import parse_objective
from eval.models.resolve import resolve
from eval.protocols import protocol_named
from tests.hub import LoopbackHub


def pickled(folder: Path) -> Path:
    (folder / "config.json").write_text('{"architecture": "resnet18"}')
    (folder / "pytorch_model.bin").write_bytes(b"x")
    return folder


CASES: dict[str, tuple[type[UserError], Callable[[Path], object]]] = {
    "a name of ours": (NotFound, lambda _: protocol_named("linaer")),
    "an objective": (NotFound, lambda _: parse_objective("vicreg")),
    "a folder": (NotFound, lambda p: resolve(f"local-dir:{p / 'none'}", p, None)),
    "a value": (BadInput, lambda p: load_task("digits", p, limit=0)),
    "a model string": (BadInput, lambda _: parse_model("zoo:")),
    "pickled weights": (Refused, lambda p: resolve(f"local-dir:{pickled(p)}", p, None)),
}


@pytest.mark.parametrize("name", CASES)
def test_each_kind_is_raised_as_itself(name: str, tmp_path: Path) -> None:
    kind, call = CASES[name]
    with pytest.raises(UserError) as caught:
        call(tmp_path)
    assert type(caught.value) is kind


def test_a_hub_that_does_not_answer_is_unreachable(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Unreachable, match="the Hub cannot be reached"):
        resolve("hf-hub:nobody/nothing", tmp_path, None)


def test_a_run_is_not_overwritten_but_in_conflict(tmp_path: Path) -> None:
    from zoo.train.pretrain import pretrain
    from zoo.train.recipe import load_recipe

    (tmp_path / "model.safetensors").touch()
    with pytest.raises(Conflict, match="already holds a run"):
        pretrain(load_recipe("tiny"), parse_objective("ce"), None, tmp_path)  # type: ignore[arg-type]

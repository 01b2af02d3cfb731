"""The state of a training run: one safetensors file a save, whole or absent, the last two kept."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from eval.common.errors import BadInput, UserError, one_line
from eval.common.files import atomic_file
from zoo.train.learner import Learner

KEPT = 2
_NAME = re.compile(r"step-(\d+)\.safetensors")


@dataclass(frozen=True)
class Saved:
    """A state on disk: its step, and what the run was asked to do."""

    path: Path
    step: int
    asked: dict[str, Any]  # recipe, objective, data: a resumed run must ask for the same
    seconds: float  # of training so far


def states(folder: Path) -> list[Path]:
    """State files, oldest first."""
    found = [(int(m[1]), p) for p in folder.glob("step-*") if (m := _NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found)]


def save_state(
    folder: Path,
    learner: Learner,
    optimiser: torch.optim.Optimizer,
    step: int,
    asked: dict[str, Any],
    seconds: float,
) -> Path:
    """Write the state after ``step`` steps; older ones go once it is on disk.

    Raises UserError when the disk is full, naming the state that is still good.
    """
    tensors = {f"learner.{k}": v for k, v in learner.state_dict().items()}
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": v for k, v in slots.items() if isinstance(v, Tensor)}
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    facts = {"step": step, "asked": asked, "seconds": seconds}
    path = folder / f"step-{step:08d}.safetensors"
    try:
        with atomic_file(path) as file:
            file.write(save(tensors, {"transferzoo": json.dumps(facts)}))
    except OSError as error:
        good = states(folder)
        raise UserError(
            f"the training state cannot be saved in {folder}: {error.strerror or one_line(error)}; "
            + (f"the last good state is {good[-1].name}; " if good else "")
            + "make room and go on with --resume"
        ) from None
    for old in states(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def last_state(folder: Path) -> Saved | None:
    """The newest readable state; a damaged one is passed over. Raises UserError if all are."""
    found = states(folder)
    for path in reversed(found):
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads((file.metadata() or {})["transferzoo"])
            return Saved(path, facts["step"], facts["asked"], facts["seconds"])
        except (SafetensorError, OSError, KeyError, ValueError):
            continue
    if found:
        raise BadInput(f"no state in {folder} can be read; remove it to train from the start")
    return None


def load_state(saved: Saved, learner: Learner, optimiser: torch.optim.Optimizer) -> None:
    """Put the tensors back. Raises UserError when they do not fit the learner."""
    weights: dict[str, Tensor] = {}
    slots: dict[int, dict[str, Tensor]] = {}
    with safe_open(saved.path, "pt") as file:
        for key in list(file.keys()):
            owner, _, rest = key.partition(".")
            if owner == "learner":
                weights[rest] = file.get_tensor(key)
            else:
                index, _, name = rest.partition(".")
                slots.setdefault(int(index), {})[name] = file.get_tensor(key)
    try:
        learner.load_state_dict(weights)
    except RuntimeError as error:
        raise BadInput(f"{saved.path} does not fit this run: {one_line(error)}") from None
    whole = optimiser.state_dict()
    optimiser.load_state_dict({**whole, "state": slots})

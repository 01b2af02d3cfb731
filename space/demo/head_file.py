"""A fitted head as files: weights in safetensors, all else in JSON, and how to use them.

    head.safetensors  weight [W, D], bias [W], float32
    head.json         the backbone (spec, commit, weights' hash, input), classes, temperature, ...
    README.txt        the three lines that use it

Names of classes come from a visitor. They are data in head.json and never part of a path; a page
that shows them must escape them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save

from eval.common.errors import BadInput
from eval.common.files import atomic_file, write_json
from eval.models.backbone import Backbone
from space.demo.backbones import Shelf
from space.demo.classifier import Head, predict
from space.demo.uploads import clean_text, read_pictures

FORMAT = 1
MAX_CLASS_NAME = 60
NORMALISATION = "x / ||x||_2"
_JSON_BYTES = 10**6
_HEAD_BYTES = 64 * 2**20
_PICTURES = 10_000  # a limit against a slip; on one's own machine there is no need for one

USAGE = (
    "from space.demo.head_file import Classifier",
    'classify = Classifier(".")  # the folder of these files; loads the backbone',
    'probabilities = classify(["picture.png"])  # a {class: probability} for each picture',
)


def clean_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Names fit to be shown and stored: one line, no control characters, at most
    ``MAX_CLASS_NAME`` characters; an empty one becomes ``class i``, counted from 1.

    Raises UserError when two are the same.
    """
    clean = tuple(
        clean_text(name, MAX_CLASS_NAME) or f"class {i}" for i, name in enumerate(names, 1)
    )
    for i, name in enumerate(clean):
        if name in clean[:i]:
            raise BadInput(f"two classes are called {name!r}; give each its own name")
    return clean


def save_head(head: Head, backbone: Backbone, folder: Path) -> list[Path]:
    """Write the three files; returns their paths: weights, JSON, README."""
    weights, facts, readme = (
        folder / name for name in ("head.safetensors", "head.json", "README.txt")
    )
    tensors = {"weight": head.weight.contiguous(), "bias": head.bias.contiguous()}
    with atomic_file(weights) as file:
        file.write(save(tensors, {"format": "pt"}))
    resolved = backbone.resolved
    write_json(
        facts,
        {
            "format": FORMAT,
            "model": {
                "spec": resolved.spec,
                "id": resolved.id,
                "revision": resolved.revision,
                "weights_sha256": backbone.weights_sha256,
                "dim": backbone.dim,
                "input": backbone.input_config,
            },
            "classes": list(head.classes),
            "normalisation": NORMALISATION,
            "temperature": head.temperature,
            "leave_one_out": {
                "top1": head.loo_top1,
                "wilson_95": list(head.loo_interval) if head.loo_interval else None,
            },
            "versions": {p: version(p) for p in ("transferzoo", "torch", "timm", "pillow")},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    with atomic_file(readme) as file:
        file.write(_readme(head, backbone).encode())
    return [weights, facts, readme]


def _readme(head: Head, backbone: Backbone) -> str:
    loo = "no estimate of its accuracy (a class has one picture only)"
    if head.loo_top1 is not None and head.loo_interval is not None:
        low, high = head.loo_interval
        loo = (
            f"leave-one-out accuracy {head.loo_top1:.0%} "
            f"(95 % over other pictures of the kind: {low:.0%} to {high:.0%})"
        )
    lines = "\n".join(USAGE)
    return (
        f"A few-shot classifier on the features of {backbone.resolved.spec}\n"
        f"(weights {backbone.weights_sha256[:16]}), {len(head.classes)} classes, {loo}.\n\n"
        f"With the transferzoo package installed, in this folder:\n\n{lines}\n\n"
        "Without it: softmax((weight @ x + bias) / temperature), where x is the backbone's\n"
        f"features scaled as {NORMALISATION}; all numbers are in head.safetensors and head.json.\n"
    )


def load_head(folder: Path) -> tuple[Head, dict[str, Any]]:
    """The head and the content of head.json. Raises UserError when files are missing, damaged
    or do not fit each other."""
    try:
        raw = _limited(folder / "head.json", _JSON_BYTES)
        facts = json.loads(raw)
        tensors = load_tensors(_limited(folder / "head.safetensors", _HEAD_BYTES))
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']!r} is not {FORMAT}")
        classes = facts["classes"]
        if not all(isinstance(name, str) for name in classes) or len(set(classes)) < len(classes):
            raise ValueError("classes are not different names")
        weight, bias = tensors["weight"], tensors["bias"]
        if weight.shape != (len(classes), facts["model"]["dim"]) or bias.shape != (len(classes),):
            raise ValueError("the weights do not fit the classes and the backbone")
        if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
            raise ValueError("the weights are not finite")
        temperature = float(facts["temperature"])
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature {temperature} is not above 0")
        loo = facts["leave_one_out"]
        interval = tuple(loo["wilson_95"]) if loo["wilson_95"] else None
        head = Head(weight, bias, temperature, tuple(classes), loo["top1"], interval)
    except Exception as error:
        what = f"no {error}" if isinstance(error, KeyError) else type(error).__name__
        if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
            what = " ".join(str(error).split())[:200]
        raise BadInput(f"folder {folder.name!r} holds no usable head: {what}") from None
    return head, facts


def _limited(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{path.name} is too large")
    return data


class Classifier:
    """A downloaded head with its backbone: paths of pictures -> probabilities by class."""

    def __init__(self, folder: str | Path, shelf: Shelf | None = None) -> None:
        """Raises UserError when the files are damaged or the backbone is not that of the fit."""
        self.head, self.facts = load_head(Path(folder).resolve())
        self.shelf = shelf or Shelf(models=1)
        self.spec = str(self.facts["model"]["spec"])
        found = self.shelf.get(self.spec).weights_sha256
        if found != self.facts["model"].get("weights_sha256"):
            raise BadInput(
                f"the head was fitted on other weights of {self.spec} than are here "
                f"({found[:12]}); install the version of transferzoo named in head.json"
            )

    def __call__(self, paths: Sequence[str | Path]) -> list[dict[str, float]]:
        """A {class: probability} for each picture, most probable first. Raises UserError for a
        picture that cannot be read."""
        pictures = read_pictures(paths, subject="pictures", most=_PICTURES)
        features = self.shelf.encode(self.spec, [p.image for p in pictures])
        rows = predict(self.head, features).tolist()
        return [
            dict(sorted(zip(self.head.classes, row, strict=True), key=lambda pair: -pair[1]))
            for row in rows
        ]

"""A run's protocol settings: the defaults, ``--set protocol.name=value``, and their bounds."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from eval.common.errors import UserError, did_you_mean
from eval.settings.schedules import schedule_named

# least and most of each number; of a tuple, of its members
_BOUNDS: dict[str, tuple[float, float]] = {
    "n_way": (2, 10_000),
    "queries": (1, 10_000),
    "episodes": (2, 10_000_000),
    "shots": (1, 10_000),
    "c": (1e-12, 1e12),
    "ks": (1, 1_000_000),
    "temperature": (1e-6, 1e6),
    "validation": (0.01, 0.99),
    "lrs": (1e-12, 1e6),
    "batch_sizes": (2, 1_000_000),
    "weight_decays": (0, 1e6),
    "momentum": (0, 0.9999),
    "tune_epochs": (1, 100_000),
    "epochs": (1, 100_000),
    "scale": (1e-3, 1),
    "views": (0, 100_000),
    "subsets": (1, 1000),
    "last": (0, 1000),
    "precise_bn": (0, 100_000),
    "channels": (0, 4096),
    "head": (0, 65_536),
    "iterations": (0, 10_000_000),
    "batch_size": (0, 1_000_000),
    "lr": (0, 1e6),
    "sides": (16, 8192),
    "test_side": (0, 8192),
    "max_side": (0, 16_384),
    "images": (0, 100_000_000),
    "severities": (1, 5),
    "steps": (1, 1_000_000),
    "pictures": (0, 64),
    "prior_steps": (1, 100_000),
    "train_images": (2, 1_000_000),
    "test_images": (2, 1_000_000),
}
_CHOICES = {"neck": ("fpn", "c4"), "norm": ("batch", "frozen"), "kernel": ("linear", "rbf")}
_MAY_BE_EMPTY = ("fractions", "per_class", "sides", "layers", "prior_layers", "corruptions")
_FREE = ("layers", "prior_layers", "corruptions")  # words that whoever uses them checks


def with_assignments(settings: Any, overrides: Sequence[str]) -> Any:
    """A copy with each ``name=value`` changed, the value as in TOML. Raises UserError."""
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text!r} is no setting; write --set name=value")
        settings = with_setting(settings, name.strip(), _value(value), f"--set {text!r}")
    return settings


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text.strip()  # a bare word is a string


def with_setting(settings: Any, name: str, value: Any, what: str) -> Any:
    """A copy with one setting changed. Raises UserError, beginning with ``what``."""
    hints = typing.get_type_hints(type(settings))
    if name not in hints:
        raise UserError(f"{what}: no setting {name!r}" + did_you_mean(
            name, hints, "settings are " + ", ".join(hints)))  # fmt: skip
    kind = hints[name]
    many = typing.get_origin(kind) is tuple
    given = (tuple(value) if isinstance(value, list | tuple) else (value,)) if many else (value,)
    of = typing.get_args(kind)[0] if many else kind
    values = []
    for one in given:
        if of is float and type(one) is int:
            one = float(one)
        if type(one) is not of:
            raise UserError(f"{what}: {name} takes {of.__name__} values, not {one!r}")
        if of is str:
            _check_word(name, one, what)
            values.append(one)
            continue
        low, high = _BOUNDS.get(name, (float("-inf"), float("inf")))
        if of is not bool and not low <= one <= high:
            bound = f"at least {low:g}" if not one >= low else f"at most {high:g}"
            subject = what if what.startswith("--") and " " not in what else f"{what}: {name}"
            raise UserError(f"{subject} must be {bound}, got {one:g}")
        values.append(one)
    if many and not values and name not in _MAY_BE_EMPTY:
        raise UserError(f"{what}: {name} needs at least one value")
    if name == "scale" and (len(values) != 2 or values[0] > values[1]):
        raise UserError(f"{what}: scale takes two values, the smaller first")
    changed: Any = dataclasses.replace(settings, **{name: tuple(values) if many else values[0]})
    if hasattr(changed, "fractions"):
        check_parts(changed.fractions, changed.per_class, changed.subsets)
    return changed


def _check_word(name: str, value: str, what: str) -> None:
    if name == "schedule":
        try:
            schedule_named(value)
        except UserError as why:
            raise UserError(f"{what}: {why}") from None
    elif name not in _FREE and value not in _CHOICES[name]:
        raise UserError(f"{what}: {name} must be one of {', '.join(_CHOICES[name])}, not {value!r}")


def check_parts(fractions: Iterable[float], per_class: Iterable[int], subsets: int) -> None:
    """Raises UserError for numbers that make no part."""
    for share in fractions:
        if not 0 < share <= 1:
            raise UserError(f"--train-fraction must lie above 0 and up to 1, got {share:g}")
    for n in per_class:
        if n < 1:
            raise UserError(f"--train-per-class must be at least 1, got {n}")
    if subsets < 1:
        raise UserError(f"subsets must be at least 1, got {subsets}")

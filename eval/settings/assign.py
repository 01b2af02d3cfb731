"""A run's protocol settings: the defaults, ``--set protocol.name=value``, checked.

What each may be stands at its field (`eval.settings.bounds`).
"""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Sequence
from typing import Any

from eval.common.errors import BadInput, NotFound, UserError, did_you_mean
from eval.settings.bounds import Between, Check, MayBeEmpty, OneOf


def with_assignments(settings: Any, overrides: Sequence[str]) -> Any:
    """A copy with each ``name=value`` changed, the value as in TOML. Raises UserError."""
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            raise BadInput(f"--set {text!r} is not a setting; write --set name=value")
        settings = with_setting(settings, name.strip(), _value(value), f"--set {text!r}")
    return settings


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text.strip()  # a bare word is a string


def with_setting(settings: Any, name: str, value: Any, subject: str) -> Any:
    """A copy with one setting changed. Raises UserError, beginning with ``subject``, for a name, a
    type or a value that its field (`eval.settings.bounds`) does not take."""
    hints = typing.get_type_hints(type(settings), include_extras=True)
    if name not in hints:
        raise NotFound(f"{subject}: no setting {name!r}" + did_you_mean(
            name, hints, "settings are " + ", ".join(hints)))  # fmt: skip
    kind, rules = _kind_and_rules(hints[name])
    many = typing.get_origin(kind) is tuple
    given = (tuple(value) if isinstance(value, list | tuple) else (value,)) if many else (value,)
    of = typing.get_args(kind)[0] if many else kind
    values = tuple(_checked(name, one, of, rules, subject) for one in given)
    if not values and not any(isinstance(rule, MayBeEmpty) for rule in rules):
        raise BadInput(f"{subject}: {name} needs at least one value")
    found = values if many else values[0]
    for rule in rules:
        if isinstance(rule, Check):
            try:
                rule.rule(found)
            except UserError as why:
                raise type(why)(f"{subject}: {why}") from None
    return dataclasses.replace(settings, **{name: found})


def _kind_and_rules(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A field's type, and what else is said of it."""
    if typing.get_origin(hint) is not typing.Annotated:
        return hint, ()
    kind, *rules = typing.get_args(hint)
    return kind, tuple(rules)


def _checked(name: str, value: Any, of: type[Any], rules: tuple[Any, ...], subject: str) -> Any:
    """One value as its type, a whole number as a float where those are asked for."""
    if of is float and type(value) is int:
        value = float(value)
    if type(value) is not of:
        raise BadInput(f"{subject}: {name} takes {of.__name__} values, not {value!r}")
    for rule in rules:
        if isinstance(rule, OneOf) and value not in rule.words:
            words = ", ".join(rule.words)
            raise BadInput(f"{subject}: {name} must be one of {words}, not {value!r}")
        if isinstance(rule, Between) and (fault := rule.fault(value)):
            flag = subject.startswith("--") and " " not in subject
            setting = rule.flag or (subject if flag else f"{subject}: {name}")
            raise BadInput(f"{setting} must {fault}, got {value:g}")
    return value

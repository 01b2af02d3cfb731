"""The protocols that are asked for, with their settings as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from eval.common.errors import BadInput
from eval.protocols import protocol_named
from eval.settings.assign import _value, with_setting
from eval.settings.protocols import Settings

SMALL_GRID = {"lrs": (0.01, 0.001), "batch_sizes": (32,), "weight_decays": (1e-4,)}


def requested(
    names: Sequence[str],
    overrides: Sequence[str],
    preset: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> dict[str, Settings]:
    """Each protocol's settings: the defaults, those of a preset for the protocols it has, then each
    override, ``protocol.name=value``, the value as in TOML.

    Raises UserError for an unknown protocol or name, a value of another type or out of bounds, and
    an override of a protocol that does not run.
    """
    found: dict[str, Settings] = {name: protocol_named(name).settings() for name in names}
    for protocol in found.keys() & preset.keys():
        found[protocol] = replace(found[protocol], **preset[protocol])
    for text in overrides:
        protocol, name, value = _parsed(text)
        if protocol_named(protocol).name not in found:
            raise BadInput(f"--set {text!r}: protocol {protocol!r} is not among {', '.join(found)}")
        found[protocol] = with_setting(found[protocol], name, value, f"--set {text!r}")
    return found


def _parsed(text: str) -> tuple[str, str, Any]:
    key, equals, value = text.partition("=")
    protocol, dot, name = key.strip().partition(".")
    if not (equals and dot and name):
        raise BadInput(f"--set {text!r} is not a setting; write --set finetune.epochs=10")
    return protocol, name, _value(value)

"""An empty data set repository of the loopback Hub, as the address of a store."""

from __future__ import annotations

import pytest

from tests.factories import let_write
from tests.hub import LoopbackHub

TOKEN = "hf_sharedFolderToken0123456789"


def hub_address(hub: LoopbackHub, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """``lab/NAME`` is made anew, and whoever uses the address here may write to it."""
    let_write(hub, monkeypatch, {TOKEN: "ada"})
    hub.repos.pop(("dataset", f"lab/{name}"), None)
    hub.add_dataset(f"lab/{name}", {})
    return f"hf://datasets/lab/{name}"

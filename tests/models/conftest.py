"""Repositories of small models on the loopback Hub."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # it imports timm, and with it the Hub's client, before the Hub has a place
    from tests.models.checkpoints import Files


@pytest.fixture
def repo(request: pytest.FixtureRequest) -> str:
    """A repository name of this test's own: the Hub and its cache live as long as the session."""
    unique = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]  # no name begins another
    return f"org/{unique}-" + re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:60].strip("-")


@pytest.fixture
def files(model_dir: Path) -> Files:
    """What a timm checkpoint's repository holds."""
    return {p.name: p.read_bytes() for p in model_dir.iterdir()}

"""The fake accelerator as a fixture."""

from __future__ import annotations

import pytest

from tests.device.fake_cuda import Cuda, fake_cuda


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """``with cuda():`` code finds a CUDA device, though there is none."""
    return lambda: fake_cuda(monkeypatch)

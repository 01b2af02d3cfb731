"""The fake accelerator as a fixture."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.device.fake_cuda import FakeCuda, fake_cuda

Cuda = Callable[[], AbstractContextManager[FakeCuda]]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """``with cuda():`` code finds a CUDA device, though there is none."""
    return lambda: fake_cuda(monkeypatch)

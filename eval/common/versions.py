"""Which versions of packages are installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def installed(packages: Iterable[str]) -> dict[str, str]:
    """{package: version}, without those that are not installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):  # an extra; a checkout that was only copied
            found[name] = version(name)
    return found

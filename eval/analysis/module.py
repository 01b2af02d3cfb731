"""The module of an analysis: the four functions that each has, and how it is found."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from eval.analysis import Analysis
    from eval.analysis.finding import Finding
    from eval.analysis.study import Study


class Module(Protocol):
    """What the module of an analysis gives."""

    def run(self, study: Study, settings: Any) -> dict[str, Any]:
        """``Finding.values``; raises UserError for models or tasks that it cannot take."""

    def sentence(self, finding: Finding) -> str:
        """What the picture shows, in words."""

    def table(self, finding: Finding) -> tuple[list[str], list[list[str]]]:
        """(header, lines) of text."""

    def figure(self, finding: Finding) -> Figure:
        """The picture."""


def module_of(analysis: Analysis) -> Module:
    """Import the module that bears the analysis's name."""
    return importlib.import_module(f"eval.analysis.{analysis.name}")

"""Object detection from any backbone: data, network, training, metrics, kept models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.detection.saved_model import load_detector

__all__ = ["load_detector"]


def __getattr__(name: str) -> Any:
    """``load_detector`` once it is asked for: the command line imports this without torch."""
    if name == "load_detector":
        from eval.detection.saved_model import load_detector

        return load_detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

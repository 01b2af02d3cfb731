"""Readings to trackio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.common.extras import require
from eval.probe.training_probe import Sink


def trackio_sink(run: Any = None) -> Sink:
    """To a run of trackio; None is the one that ``trackio.init`` began last."""
    require("trackio", "trackio_sink()")
    import trackio

    log = trackio.log if run is None else run.log

    def sink(step: int, values: Mapping[str, float]) -> None:
        log(dict(values), step=step)

    return sink

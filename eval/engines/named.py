"""``--on``: the engine of a name."""

from __future__ import annotations

from eval.common.errors import BadInput
from eval.engines.engine import Engine
from eval.engines.placing import Placing

FORMS = "local:N, slurm, ray or ray://HEAD:PORT"


def engine_named(text: str, placing: Placing) -> Engine:
    """``--on``'s engine. Imports no library of it. Raises UserError for a name that is none."""
    kind, _, rest = text.partition(":")
    if kind == "local" and rest.isascii() and rest.isdigit() and int(rest) > 0:
        from eval.engines.local import Local

        return Local(int(rest))
    if text == "slurm":
        from eval.engines.slurm import Slurm

        return Slurm(placing)
    if text == "ray" or text.startswith("ray://"):
        from eval.engines.ray_cluster import Ray

        return Ray("" if text == "ray" else text, placing)
    raise BadInput(f"--on {text!r} names no engine; use {FORMS}")

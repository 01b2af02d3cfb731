"""What is read off a network as its features: which layers, and how each becomes one vector.

Part of what makes a number, and of a result's name. The default is the vector that the network
itself gives once its classifier is gone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from eval.common.errors import BadInput, did_you_mean

POOLS = ("default", "cls", "mean", "cls+mean", "cls+last-mean")
AUTO = "auto"  # the layer that is best on a part of train
# All patch tokens or places, [T, D] in a row: what an attentive probe takes, and no user names.
TOKENS = "tokens"
OWN = "features"  # the network's own vector, among the names of its layers
_LAST = re.compile(r"last-([1-9]\d{0,3})")


@dataclass(frozen=True)
class Readout:
    """Features of an image: the pooled vectors of some layers, side by side.

    ``pool``: the class token (cls), the mean over patches or places (mean), both, or all layers'
    class tokens and the last one's mean (cls+last-mean); default pools as the network itself does.
    ``layer``: empty for the end of the network, a name or several with + between (as ``analyze``
    names them), ``last-N`` for the last N together, or ``auto``.
    """

    pool: str = "default"
    layer: str = ""

    @property
    def changed(self) -> dict[str, str]:
        """What is not the default, as result names have it."""
        default = asdict(Readout())
        return {k: v for k, v in asdict(self).items() if v != default[k]}

    @property
    def last(self) -> int | None:
        """N of ``last-N``."""
        found = _LAST.fullmatch(self.layer)
        return int(found[1]) if found else None


def readout(pool: str = "default", layer: str = "") -> Readout:
    """A checked readout, two ways of writing the same one made one. Raises UserError."""
    if pool not in POOLS:
        words = ", ".join(POOLS)
        raise BadInput(f"pool must be one of {words}, got {pool!r}" + did_you_mean(pool, POOLS))
    if layer.startswith("last") and not _LAST.fullmatch(layer):
        raise BadInput(f"layer {layer!r} is not last-N with N from 1 to 9999, such as last-4")
    names = layer.split("+") if layer else []
    if len(set(names)) < len(names) or not all(re.fullmatch(r"[\w.-]{1,80}", n) for n in names):
        raise BadInput(
            f"layer {layer!r} must be auto, last-N, or names of layers with + between, each once"
        )
    if len(names) > 1 and (OWN in names or any(n == AUTO or n.startswith("last") for n in names)):
        raise BadInput(f"layer {layer!r} mixes names of layers with other words; give them apart")
    if layer == OWN or (pool != "default" and layer == "last-1"):
        layer = ""
    return Readout(pool, layer)


def readouts(pools: Sequence[str] = (), layers: Sequence[str] = ()) -> tuple[Readout, ...]:
    """Each way of pooling at each layer, once. Raises UserError."""
    found = [readout(p, x) for p in pools or ("default",) for x in layers or ("",)]
    return tuple(dict.fromkeys(found))

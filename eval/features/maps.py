"""Maps of features: what some layers give at each place of an image, from one cached pass.

The whole image is squeezed to the network's input, without a crop, so that a mask and its image
keep to each other. Maps lie side by side in one bank, in half precision: a map of a ResNet-50's
``layer3`` at 224 px takes 0.4 MB an image. They are read some images at a time.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eval.common.distributed import Workers
from eval.common.errors import BadInput, NotFound, Refused
from eval.data.task_data import TaskData
from eval.features.bank import FeatureBank, bank_path
from eval.features.encode import SHARD_BYTES, bank_key, encode, is_cached
from eval.features.precision import Precision
from eval.features.readout import Piece, ReadoutFeatures, layer_names
from eval.models.backbone import Backbone
from eval.models.resolve import stage_facts
from eval.settings.readout import TOKENS

_VERSION = 1  # raise it when what is stored changes
FINE, COARSE = 8, 16  # pixels a place


@dataclass(frozen=True)
class Layout:
    """Where each layer's map stands in a bank's rows."""

    layers: tuple[str, ...]
    grids: tuple[tuple[int, int], ...]  # rows and columns of places
    widths: tuple[int, ...]  # channels

    @property
    def finest(self) -> tuple[int, int]:
        return max(self.grids, key=lambda grid: grid[0] * grid[1])

    @property
    def bytes(self) -> int:
        """Of an image in the bank."""
        return 2 * sum(h * w * d for (h, w), d in zip(self.grids, self.widths, strict=True))

    def split(self, rows: Tensor) -> list[Tensor]:
        """[N, T, D] of each layer from rows [N, values] of the bank, in single precision."""
        sizes = [h * w * d for (h, w), d in zip(self.grids, self.widths, strict=True)]
        parts = rows.split(sizes, dim=1)
        return [
            part.float().unflatten(1, (-1, width))
            for part, width in zip(parts, self.widths, strict=True)
        ]


def default_layers(backbone: Backbone) -> tuple[str, ...]:
    """The last layer; where a place of it is more than 16 pixels wide, also those before it whose
    places are 8 pixels or more: a network that shrinks its maps says where things are earlier."""
    names = layer_names(backbone)
    steps = {f["module"]: float(f.get("reduction", 1)) for f in stage_facts(backbone.net.net)}
    if steps[names[-1]] <= COARSE:
        return names[-1:]
    return tuple(name for name in names if steps[name] >= FINE) or names[-1:]


def mapping(backbone: Backbone, layers: Sequence[str]) -> tuple[Backbone, Layout]:
    """The backbone whose features are the maps of some layers of the whole image, and where they
    stand. Empty: `default_layers`. The network itself is shared.

    Raises UserError for a layer that the network has not or that gives no map, and for a network
    whose way of preparing images is not known.
    """
    from timm.data import create_transform

    who, config = backbone.resolved.id, backbone.input_config
    if "mean" not in config:
        raise BadInput(
            f"{who} prepares images in a way of its own, so that its maps cannot be laid over "
            "them; give backbone() timm's data config (input_size, mean, std) as its transform"
        )
    known = layer_names(backbone)
    for name in layers:
        if name not in known:
            raise NotFound(f"{who} has no layer {name!r}; its layers are {', '.join(known)}")
    names = tuple(dict.fromkeys(layers)) or default_layers(backbone)
    pieces = [Piece(name, TOKENS) for name in names]
    net = ReadoutFeatures(backbone.net, pieces, who).eval()
    with torch.inference_mode():
        device = next((p.device for p in net.parameters()), torch.device("cpu"))
        net(torch.zeros(1, *config["input_size"], device=device))
    channels = {f["module"]: int(f["num_chs"]) for f in stage_facts(backbone.net.net)}
    widths = tuple(channels[name] for name in names)
    grids = tuple(
        _grid(net.widths[piece] // width, config["input_size"], piece.layer, who)
        for piece, width in zip(pieces, widths, strict=True)
    )
    known_to_timm = ("input_size", "interpolation", "mean", "std")
    squeezed: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config.items()
        if name in known_to_timm
    }
    squeezed |= {"crop_pct": 1.0, "crop_mode": "squash"}
    words = ",".join(
        f"{name}={h}x{w}x{d}" for name, (h, w), d in zip(names, grids, widths, strict=True)
    )
    own = "" if backbone.layer == "pooled" else f"{backbone.layer}/"
    mapped = dataclasses.replace(
        backbone,
        net=net,
        transform=create_transform(**squeezed, is_training=False, use_prefetcher=True),
        input_config=config | {"crop_pct": 1.0, "crop_mode": "squash"},
        dim=sum(net.widths.values()),
        layer=f"{own}maps{_VERSION}:{words}",
    )
    return mapped, Layout(names, grids, widths)


def _grid(places: int, size: Sequence[int], layer: str, who: str) -> tuple[int, int]:
    """Rows and columns of so many places of an image of [3, H, W]."""
    rows = round(math.sqrt(places * size[1] / size[2]))
    if rows < 1 or rows * (places // rows) != places:
        raise BadInput(
            f"layer {layer!r} of {who} gives {places} vectors, which are no map of an image of "
            f"{size[2]} x {size[1]} pixels; choose another layer"
        )
    return rows, places // rows


def encode_maps(
    mapped: Backbone,
    task: TaskData,
    cache: Path,
    workers: Workers,
    precision: Precision,
    batch_size: int | None = None,
) -> FeatureBank:
    """The maps of all images, from the cache or computed now by all processes together; `encode`
    says what is raised."""
    return encode(mapped, task, cache, workers, precision, batch_size, half=True).bank


@dataclass(frozen=True)
class MapCost:
    """What maps would take."""

    place: str  # of the bank
    bytes: int  # of it
    cached: bool
    memory: int  # bytes that a protocol holds at once, at most, beside the network


def foreseen(
    mapped: Backbone, layout: Layout, task: TaskData, cache: Path, precision: Precision, memory: int
) -> MapCost:
    """The cost of a task's maps; ``memory`` is that of what is done with them."""
    path = bank_path(cache, bank_key(mapped, task, precision))
    rows = len(task.train) + len(task.test)
    return MapCost(
        str(path), rows * layout.bytes, is_cached(mapped, task, cache, precision),
        memory + SHARD_BYTES,
    )  # fmt: skip


def check_room(cost: MapCost, task: TaskData, cache: Path) -> None:
    """Raises UserError, before anything is encoded, where the disk has no room for the maps or the
    memory none for the work."""
    if not cost.cached:
        there = next(p for p in (cache, *cache.parents) if p.exists())
        free = shutil.disk_usage(there).free
        if 2 * cost.bytes > free:  # shards, then the bank made of them
            raise Refused(
                f"the maps of task {task.name!r} take {2 * cost.bytes / 1e9:.1f} GB in {cache} "
                f"while they are made, and {free / 1e9:.1f} GB are free; name fewer layers, a "
                "smaller --img-size or another --cache"
            )
    left = available_memory()
    if left is not None and cost.memory > left:
        raise Refused(
            f"task {task.name!r} needs about {cost.memory / 1e9:.1f} GB of memory, and "
            f"{left / 1e9:.1f} GB are free; name fewer layers, a smaller --img-size or --limit"
        )


def available_memory() -> int | None:
    """Bytes that can be taken without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(x.split()[1]) for x in lines if x.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None

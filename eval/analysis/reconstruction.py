"""``analyze reconstruction``: how much of an image is still in each layer of a network.

Two ways back to the pixels. For the numbers a small decoder is trained for each layer, on features
of training images, and rebuilds test images (``inversion.Decoder``). For the pictures a few test
images are also inverted one by one: an untrained network is fitted until the model's features of
its output are those of the image (a deep image prior, Ulyanov et al. 2018; used to look into
contrastive features by Zhao et al. 2021).

What is rebuilt is the image as the model sees it, after its own crop and size, averaged down to
``SIDE`` pixels a side; larger maps are averaged down to that as well. Models that see the same
images through other crops have other targets, so each has a floor of its own: the same two numbers
for the mean training image as an answer to everything.

A finding holds small copies of a few test images, as PNGs.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from eval.analysis import Reconstruction
from eval.analysis.finding import Finding
from eval.analysis.layer_maps import LayerMaps
from eval.analysis.layers import LAST, layer_names
from eval.analysis.measures.image_similarity import WINDOW, psnr, ssim
from eval.analysis.measures.inversion import Size, decoded, fit, invert, reduced
from eval.analysis.reconstruction_figure import of_models, side_by_side
from eval.analysis.study import Study, task_key
from eval.common.errors import BadInput
from eval.data.task_data import Split, TaskData
from eval.features.encode import normalised, pixels_of
from eval.metrics.intervals import bootstrap
from eval.models.backbone import Backbone

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 64  # px of a target at most: what a decoder costs grows with its square
MEMORY = 1 << 30  # bytes of maps at a time; a layer with more than that comes alone
BATCH = 32
HALF = 65504.0  # the largest float16
HEIGHT = 10  # maps are kept times the power of two that brings the first batch's largest below 2^10
Pixels = NDArray[np.uint8]


def run(study: Study, settings: Reconstruction) -> dict[str, Any]:
    """Plain data; intervals are [mean, low end, high end] over test images, PSNR is in dB.

    {"models": {model: {task: {"layers": {layer: {"psnr": interval, "ssim": interval}}, "prior":
    {layer: {"psnr", "ssim", "error": one number a picture}}, "decoded" and "inverted": {layer: one
    PNG a picture}, "floor": {"psnr", "ssim"}}}}, "floor", "originals" and "side": those of the
    first model, "train_images", "test_images"}. Raises UserError for layers that a model has not.
    """
    (task,) = study.tasks
    found: dict[str, Any] = {}
    for name, backbone in study.backbones():
        # Nothing here is shared out: one process works, the others wait for what it finds.
        alone = partial(measure, study, backbone, task, settings)
        work = study.workers.together(alone if study.workers.main else _nothing)
        found[name] = study.workers.broadcast(work)
    first = next(iter(found.values()))
    differing = [name for name, one in found.items() if one["view"] != first["view"]]
    if differing:
        study.notes.append(
            f"{', '.join(differing)} and {next(iter(found))} see the images in other crops or "
            "sizes: what they rebuild is not the same, and each has its own floor"
        )
    return {
        "models": {name: {task_key(task): one["values"]} for name, one in found.items()},
        "floor": first["values"]["floor"],
        "originals": first["originals"],
        "train_images": min(settings.train_images, len(task.train)),
        "test_images": min(settings.test_images, len(task.test)),
        "side": max(first["size"]),
    }


def _nothing() -> None:
    """What a process does that only waits."""


@dataclass(frozen=True)
class _Views:
    """Images of one part as the model sees them, in canonical order."""

    pixels: Pixels  # [N, 3, H, W]
    targets: Tensor  # [N, 3, h, w] in 0..1, on the CPU

    @classmethod
    def of(cls, backbone: Backbone, task: TaskData, split: Split, places: Sequence[int]) -> _Views:
        """Raises UserError naming the row of an image that cannot be read."""
        order = np.asarray(places)[np.argsort(split.rows[np.asarray(places)])]
        by_place = {
            int(place): pixels_of(backbone, task, split, row, data)
            for place, (row, data) in zip(
                order, split.source.images(split.rows[order]), strict=True
            )
        }
        pixels = np.stack([by_place[place] for place in places])
        return cls(pixels, torch.cat([
            reduced(torch.from_numpy(part).float() / 255, (SIDE, SIDE))
            for part in np.array_split(pixels, -(-len(pixels) // BATCH))
        ]))  # fmt: skip


def measure(
    study: Study, backbone: Backbone, task: TaskData, settings: Reconstruction
) -> dict[str, Any]:
    """One model: {"values": as ``run`` says, "originals", "size", "view": what it makes of an
    image}."""
    layers, prior_layers = chosen(backbone, settings)
    train = _Views.of(
        backbone, task, task.train, range(min(settings.train_images, len(task.train)))
    )
    test = _Views.of(backbone, task, task.test, range(min(settings.test_images, len(task.test))))
    size: Size = (train.targets.shape[2], train.targets.shape[3])
    if min(size) < WINDOW:
        raise BadInput(
            f"{backbone.resolved.id} sees images of {size[0]} x {size[1]} pixels, and SSIM needs "
            f"{WINDOW}; give a larger --img-size"
        )
    places = of_many_classes(task.test.labels, settings.pictures)
    shown = _Views.of(backbone, task, task.test, places) if places else None
    device = study.workers.device
    backbone.net.to(device).eval()
    maps = LayerMaps(backbone)
    values: dict[str, Any] = {"layers": {}, "prior": {}, "decoded": {}, "inverted": {}}
    with tqdm(
        total=len(layers) + len(prior_layers), unit="layer", leave=False, disable=None
    ) as bar:
        for group in _groups(backbone, maps, layers, len(train.pixels), device):
            begin = time.perf_counter()
            powers = _powers(backbone, maps, train, group, device)
            held = _kept(backbone, maps, train, powers, device)
            study.seconds += time.perf_counter() - begin
            decoders = {}
            for name in group:
                decoders[name] = fit(
                    held.pop(name), train.targets, settings.steps, study.seed, device
                )
                bar.update()
            scores: dict[str, list[Tensor]] = {name: [] for name in group}
            for rows, part in _passes(backbone, maps, test, powers, device):
                for name, decoder in decoders.items():
                    rebuilt, target = decoded(decoder, part[name], device), test.targets[rows]
                    scores[name].append(torch.stack([psnr(rebuilt, target), ssim(rebuilt, target)]))
            for name, parts in scores.items():
                values["layers"][name] = _intervals(torch.cat(parts, 1), study.seed)
            for name in set(group) & set(prior_layers) if shown else ():
                assert shown is not None
                values["decoded"][name] = [
                    picture
                    for _, part in _passes(backbone, maps, shown, {name: powers[name]}, device)
                    for picture in map(data_uri, decoded(decoders[name], part[name], device))
                ]
        values["decoded"] = {n: values["decoded"][n] for n in prior_layers if shown}
        for name in prior_layers if shown else ():
            assert shown is not None
            pictures, facts = _inverted(backbone, maps, shown, name, settings, study.seed, device)
            values["inverted"][name], values["prior"][name] = pictures, facts
            bar.update()
    base = train.targets.mean(0, keepdim=True).expand_as(test.targets)
    values["floor"] = {
        "psnr": round(float(psnr(base, test.targets).mean()), 4),
        "ssim": round(float(ssim(base, test.targets).mean()), 4),
    }
    view = {k: v for k, v in backbone.input_config.items() if k not in ("mean", "std")}
    return {
        "values": values,
        "originals": [data_uri(t) for t in shown.targets] if shown else [],
        "size": size,
        "view": view,
    }


def chosen(backbone: Backbone, settings: Reconstruction) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(layers that are decoded, layers that are also inverted), first to last.

    By itself the second are a middle map, the last map and the pooled features. Raises UserError
    for a layer that is not there.
    """
    names = layer_names(backbone)
    layers = _among(names, settings.layers, f"{backbone.resolved.id} has no layer")
    if settings.prior_layers:
        what = f"{backbone.resolved.id} is not decoded from a layer"
        return layers, _among(layers, settings.prior_layers, what)
    maps = [name for name in layers if name != LAST]
    own = {maps[(len(maps) - 1) // 2], maps[-1], LAST} if maps else {LAST}
    return layers, tuple(name for name in layers if name in own)


def _among(names: Sequence[str], wanted: Sequence[str], what: str) -> tuple[str, ...]:
    for name in wanted:
        if name not in names:
            raise BadInput(f"{what} {name!r}; its layers are {', '.join(names)}")
    return tuple(name for name in names if not wanted or name in wanted)


def of_many_classes(labels: NDArray[np.int64], count: int) -> list[int]:
    """Places of the first ``count`` images: one of each class before a second of any."""
    nth: dict[int, int] = {}
    rounds = []
    for label in labels.tolist():
        rounds.append(nth.get(label, 0))
        nth[label] = rounds[-1] + 1
    return sorted(range(len(rounds)), key=lambda i: (rounds[i], i))[:count]


def _groups(
    backbone: Backbone, maps: LayerMaps, layers: Sequence[str], images: int, device: torch.device
) -> list[list[str]]:
    """Layers whose maps fit into ``MEMORY`` together."""
    blank = torch.zeros(1, *backbone.input_config["input_size"], device=device)
    with torch.inference_mode():
        sizes = {
            name: 2 * images * reduced(one, (SIDE, SIDE)).numel()
            for name, one in maps(blank, layers).items()
        }
    groups: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if size > room:
            groups.append([])
            room = MEMORY
        groups[-1].append(name)
        room -= size
    return groups


def _batches(
    backbone: Backbone, maps: LayerMaps, views: _Views, names: Sequence[str], device: torch.device
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """(rows, {layer: [B, C, h, w] float32}), batch by batch."""
    for begin in range(0, len(views.pixels), BATCH):
        rows = slice(begin, begin + BATCH)
        with torch.inference_mode():
            images = normalised(views.pixels[rows], backbone, str(device))
            found = maps(images, names)
            yield rows, {n: reduced(one.float(), (SIDE, SIDE)) for n, one in found.items()}


def _powers(
    backbone: Backbone, maps: LayerMaps, views: _Views, names: Sequence[str], device: torch.device
) -> dict[str, int]:
    """{layer: power of two its maps are kept times}, so that float16 holds those of any length."""
    _, first = next(_batches(backbone, maps, views, names, device))
    return {n: HEIGHT - int(torch.frexp(one.abs().amax()).exponent) for n, one in first.items()}


def _passes(
    backbone: Backbone,
    maps: LayerMaps,
    views: _Views,
    powers: Mapping[str, int],
    device: torch.device,
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """(rows, {layer: [B, C, h, w] float16 on the CPU}), batch by batch; times 2 to the powers."""
    for rows, found in _batches(backbone, maps, views, list(powers), device):
        yield (
            rows,
            {
                name: (one.cpu().double() * 2.0 ** powers[name]).clamp(-HALF, HALF).half()
                for name, one in found.items()
            },
        )


def _kept(
    backbone: Backbone,
    maps: LayerMaps,
    views: _Views,
    powers: Mapping[str, int],
    device: torch.device,
) -> dict[str, Tensor]:
    """{layer: [N, C, h, w] float16} of all images."""
    held: dict[str, Tensor] = {}
    for rows, part in _passes(backbone, maps, views, powers, device):
        for name, one in part.items():
            if name not in held:  # filled in place: a list of parts would need the room twice
                held[name] = torch.empty(len(views.pixels), *one.shape[1:], dtype=torch.float16)
            held[name][rows] = one
    return held


def _inverted(
    backbone: Backbone,
    maps: LayerMaps,
    views: _Views,
    name: str,
    settings: Reconstruction,
    seed: int,
    device: torch.device,
) -> tuple[list[str], dict[str, list[float]]]:
    """(PNGs, {"psnr", "ssim", "error"} of each)."""
    mean = torch.tensor(backbone.input_config["mean"], device=device).view(1, 3, 1, 1)
    std = torch.tensor(backbone.input_config["std"], device=device).view(1, 3, 1, 1)
    with torch.no_grad():
        wanted = maps(normalised(views.pixels, backbone, str(device)), [name])[name]
    size = (views.pixels.shape[2], views.pixels.shape[3])
    pictures, error = invert(
        lambda images: maps((images - mean) / std, [name])[name],
        wanted, size, settings.prior_steps, seed, device,
    )  # fmt: skip
    small = reduced(pictures, (SIDE, SIDE)).cpu()
    return [data_uri(p) for p in small], {
        "psnr": [round(v, 4) for v in psnr(small, views.targets).tolist()],
        "ssim": [round(v, 4) for v in ssim(small, views.targets).tolist()],
        "error": [float(f"{v:.4g}") for v in error.tolist()],
    }


def _intervals(scores: Tensor, seed: int) -> dict[str, list[float]]:
    """{"psnr", "ssim"} of [2, N]."""
    found = {}
    for name, row in zip(("psnr", "ssim"), scores.double().numpy(), strict=True):
        mean = bootstrap(partial(_weighted, row), len(row), seed)
        found[name] = [round(v, 4) for v in (mean.value, mean.low, mean.high)]
    return found


def _weighted(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """[b] means of [n] values under weights [b, n]."""
    return np.asarray(weights @ values / weights.sum(1))


def data_uri(picture: Tensor) -> str:
    """A PNG of [3, H, W] in 0..1, as a page can show it."""
    pixels = (picture * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


# --------------------------------------------------------------------------------- what it shows


def sentence(finding: Finding) -> str:
    """Which model's end holds most of the image, and what is lost on the way."""
    models = {name: found["layers"] for name, found in of_models(finding).items()}
    maps = {
        name: list(layers)[-2 if list(layers)[-1] == LAST else -1]
        for name, layers in models.items()
        if list(layers) != [LAST]
    }
    best: dict[str, list[str]] = {}  # {model: where it holds most}
    if maps:
        first = max(maps, key=lambda n: models[n][maps[n]]["psnr"][0])
        what = f"the last map ({maps[first]}: {_cell(models[first][maps[first]])})"
        best.setdefault(first, []).append(what)
    ends = [name for name in models if LAST in models[name]]
    if ends:
        first = max(ends, key=lambda n: models[n][LAST]["psnr"][0])
        best.setdefault(first, []).append(f"the pooled features ({_cell(models[first][LAST])})")
    parts = [f"{' and '.join(where)} of {name}" for name, where in best.items()]
    floor = finding.values["floor"]
    text = (
        f"A decoder rebuilds most of the image from {' and from '.join(parts)}; the mean "
        f"image alone has {floor['psnr']:.1f} dB ({floor['ssim']:.2f})"
    )
    lost = {
        name: next(iter(layers.values()))["psnr"][0] - list(layers.values())[-1]["psnr"][0]
        for name, layers in models.items()
        if len(layers) > 1
    }
    if not lost:
        return text + "."
    least, most = min(lost, key=lost.__getitem__), max(lost, key=lost.__getitem__)
    text += f"; from the first layer to the last {least} loses {lost[least]:.1f} dB"
    if least != most:
        text += f", the least, and {most} {lost[most]:.1f} dB, the most"
    return text + "."


def _cell(scores: Mapping[str, Sequence[float]]) -> str:
    return f"{scores['psnr'][0]:.1f} dB, SSIM {scores['ssim'][0]:.2f}"


def table(finding: Finding) -> tuple[list[str], list[list[str]]]:
    """(header, lines): PSNR in dB and SSIM in brackets, a column a layer, the floor at the end."""
    models = of_models(finding)
    layers = list(dict.fromkeys(layer for found in models.values() for layer in found["layers"]))
    layers.sort(key=LAST.__eq__)  # networks of two kinds end in one column
    lines = []
    for name, found in models.items():
        cells = [
            f"{one['psnr'][0]:.1f} ({one['ssim'][0]:.2f})" if one else "-"
            for one in (found["layers"].get(layer) for layer in layers)
        ]
        floor = found["floor"]
        lines.append([name, *cells, f"{floor['psnr']:.1f} ({floor['ssim']:.2f})"])
    return ["model", *(f"{layer} dB (SSIM)" for layer in layers), "mean image"], lines


def figure(finding: Finding) -> Figure:
    """PSNR and SSIM against depth, and the pictures beneath."""
    return side_by_side(finding)

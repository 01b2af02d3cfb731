"""The numbers of transformers' image processors as timm's data config, so that a result states them
as for any other model, and protocols that cut crops of their own can use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from eval.common.errors import BadInput
from eval.models.arguments import MOST_PX, shorten
from eval.models.crop_share import crop_share
from eval.models.formats import ModelFiles
from eval.models.formats.transformers_config import TransformersConfig
from eval.models.formats.transformers_library import processor

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_STEPS = {"do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_convert_rgb"}
_WARP_FROM = 384  # ConvNeXt: images of this side and larger ones are squeezed, not cropped


def data_config(files: ModelFiles, config: TransformersConfig, library: Any) -> dict[str, Any]:
    """timm's data config of the model's processor; ``--img-size`` scales crop and resize alike.

    Raises UserError for steps that are not known here, for numbers that no image can be prepared
    by, and where images end at another size than the network takes.
    """
    who = files.who
    found = processor(files.beside, who)
    other = [k for k, on in found.items() if k.startswith("do_") and on and k not in _STEPS]
    if other:
        raise BadInput(f"the processor of {who} sets {other[0]}, which is not done here")
    resized, crop, squeezed = _sizes(found, who)
    if files.img_size:
        if config.architecture.fixed and files.img_size != _side(library)[0]:
            raise BadInput(
                f"{who} takes images of {_side(library)[0]} px alone; leave --img-size out"
            )
        scale = files.img_size / min(crop)
        resized = tuple(round(side * scale) for side in resized)
        crop = (files.img_size, files.img_size)
    if config.architecture.fixed and crop != _side(library):
        raise BadInput(
            f"the processor of {who} makes images of {crop[0]} x {crop[1]} px, its network takes "
            f"{_side(library)[0]} x {_side(library)[1]} (image_size); make them agree"
        )
    mean, std = _normalisation(found, config.channels, who)
    return {
        "input_size": (config.channels, *crop),
        "interpolation": _interpolation(found, who),
        "mean": mean,
        "std": std,
        "crop_pct": crop_share(crop[0], resized[0]),
        "crop_mode": "squash" if squeezed else "center",
    }


class CropDown:
    """The middle of an image, half pixels rounded down as the library does; torchvision rounds them
    to even."""

    def __init__(self, height: int, width: int) -> None:
        self._height, self._width = height, width

    def __call__(self, image: Image.Image) -> Image.Image:
        left, top = (image.width - self._width) // 2, (image.height - self._height) // 2
        return image.crop((left, top, left + self._width, top + self._height))


def transform(data: Mapping[str, Any]) -> Callable[[Image.Image], Any]:
    """RGB image -> [C, H, W] uint8, as the processor of `data_config` prepares it."""
    from timm.data import create_transform
    from torchvision.transforms import CenterCrop

    made = create_transform(**data, is_training=False, use_prefetcher=True)
    _, height, width = data["input_size"]
    made.transforms = [
        CropDown(height, width) if isinstance(step, CenterCrop) else step
        for step in made.transforms
    ]
    return made


def _sizes(found: Mapping[str, Any], who: str) -> tuple[tuple[int, ...], tuple[int, int], bool]:
    """(what the image is resized to, what is cut out of it, whether its shape is given up)."""
    if not found.get("do_resize", True):
        raise BadInput(
            f"the processor of {who} does not resize (do_resize), so images of a task would have "
            "sizes of their own"
        )
    size = found.get("size")
    size = {"height": size, "width": size} if isinstance(size, int) else dict(size or {})
    size = {key: value for key, value in size.items() if value is not None}
    if "crop_pct" in found and set(size) == {"shortest_edge"}:  # ConvNeXt's
        side = _px(size["shortest_edge"], who)
        share = found.get("crop_pct") or 224 / 256
        if side >= _WARP_FROM:
            return (side, side), (side, side), True
        if not 0.05 <= share <= 1:
            raise BadInput(f"the processor of {who} has crop_pct {shorten(share)}")
        return (int(side / share),), (side, side), False
    if set(size) == {"height", "width"}:
        resized: tuple[int, ...] = (_px(size["height"], who), _px(size["width"], who))
    elif set(size) == {"shortest_edge"}:
        resized = (_px(size["shortest_edge"], who),)
    else:
        raise BadInput(
            f"the processor of {who} resizes to {shorten(size)}; height and width, or the shortest "
            "edge, are known here"
        )
    if not found.get("do_center_crop"):
        if len(resized) == 1:
            raise BadInput(
                f"the processor of {who} resizes the shortest edge and does not crop, so images "
                "of a task would have sizes of their own"
            )
        return resized, (resized[0], resized[1]), True
    crop = found.get("crop_size")
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else dict(crop or {})
    cut = (_px(crop.get("height"), who), _px(crop.get("width"), who))
    if any(c > r for c, r in zip(cut, resized if len(resized) == 2 else resized * 2, strict=True)):
        raise BadInput(
            f"the processor of {who} cuts {cut[0]} x {cut[1]} px out of images resized to "
            f"{' x '.join(map(str, resized))}"
        )
    if len(resized) == 2 and resized[0] * cut[1] != resized[1] * cut[0]:
        raise BadInput(f"the processor of {who} resizes and crops to different shapes")
    return resized, cut, len(resized) == 2


def _px(side: object, who: str) -> int:
    if isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= 2 * MOST_PX:
        raise BadInput(f"the processor of {who} has a size of {shorten(side)} px")
    return side


def _side(library: Any) -> tuple[int, int]:
    size = library.image_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _interpolation(found: Mapping[str, Any], who: str) -> str:
    name = _RESAMPLE.get(int(found.get("resample", 2)))
    if name is None:
        raise BadInput(f"the processor of {who} has resample {shorten(found['resample'])}")
    return name


def _normalisation(
    found: Mapping[str, Any], channels: int, who: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of pixels in 0 to 1, whatever scale the processor's numbers are of."""
    factor = found.get("rescale_factor", 1 / 255) if found.get("do_rescale", True) else 1.0
    scale = 255 * factor if isinstance(factor, int | float) else 0.0
    given: list[Any] = [found.get("image_mean"), found.get("image_std")]
    if not found.get("do_normalize", True):
        given = [0.0, 1.0]
    numbers: list[tuple[float, ...]] = []
    for name, value in zip(("image_mean", "image_std"), given, strict=True):
        many: list[Any] = list(value) if isinstance(value, list | tuple) else [value] * channels
        if len(many) != channels or not all(isinstance(n, int | float) for n in many):
            raise BadInput(f"the processor of {who} has {name} {shorten(value)}")
        numbers.append(tuple(n / scale if scale > 0 else 0.0 for n in many))
    mean, std = numbers
    if min(std) <= 0 or not all(0 <= m <= 1 for m in mean) or max(std) > 1:
        raise BadInput(
            f"the processor of {who} has image_mean {shorten(given[0])}, image_std "
            f"{shorten(given[1])} and rescale_factor {shorten(factor)}, which fit no pixels"
        )
    return mean, std

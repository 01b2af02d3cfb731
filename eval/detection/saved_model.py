"""A trained detector on disk, and back: safetensors weights, a config.json, a README. No pickle."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from eval.common.errors import BadInput, NotFound, UserError, one_line
from eval.common.files import atomic_file, dump_json, read_plain, sha256_file, write_json
from eval.common.images import decode, to_rgb
from eval.data.boxes.objects import BoxPrediction
from eval.detection.inference import Sight, find
from eval.detection.network import Detector, rebuild

VERSION = 1
WEIGHTS, CONFIG, README = "model.safetensors", "config.json", "README.md"
LEAST = 0.05  # score below which nothing is told

_EXAMPLE = """\
from eval.detection import load_detector
detector = load_detector("MODEL_DIR")
[found] = detector.detect(["photo.jpg"])
for box, score, label in zip(found.boxes, found.scores, found.labels):
    print(detector.classes[label], f"{score:.2f}", box.round())
"""


def keep(
    folder: Path,
    detector: Detector,
    classes: Sequence[str],
    *,
    test_side: int,
    max_side: int,
    mean: Sequence[float],
    std: Sequence[float],
    facts: dict[str, Any],
) -> Path:
    """Write the detector to ``folder`` and return it. What it needs to detect again stands in the
    config beside ``facts`` (plain data: model, task, schedule, scores), which stay as they are.

    A folder with a config.json is whole: an older one goes first, the new one comes last.
    """
    config: dict[str, Any] = {
        "detector_version": VERSION,
        "recipe": detector.recipe,
        "classes": list(classes),
        "test_side": test_side,
        "max_side": max_side,
        "mean": [float(v) for v in mean],
        "std": [float(v) for v in std],
        "weights_sha256": "",
    }
    if twice := sorted(config.keys() & facts.keys()):
        raise ValueError(f"facts must not be named as the config's own keys: {', '.join(twice)}")
    (folder / CONFIG).unlink(missing_ok=True)
    with atomic_file(folder / WEIGHTS) as file:
        file.write(save(_state(detector)))
    config["weights_sha256"] = sha256_file(folder / WEIGHTS)
    with atomic_file(folder / README) as file:
        file.write(_readme(len(classes), facts).encode())
    write_json(folder / CONFIG, config | facts)
    return folder


def _state(detector: Detector) -> dict[str, torch.Tensor]:
    """Weights and statistics on the CPU, in float32; counters stay integers. Each is a copy, as
    safetensors wants no two tensors in one memory."""
    state = {}
    for name, tensor in detector.state_dict().items():
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        state[name] = tensor.to("cpu", dtype, copy=True).contiguous()
    return state


def _readme(classes: int, facts: dict[str, Any]) -> str:
    return (
        f"# Object detector\n\nTrained with TransferZoo's `transfer-eval`. It finds {classes} "
        f"{'class' if classes == 1 else 'classes'} of objects; `{CONFIG}` names them. Where "
        "TransferZoo is installed, with `MODEL_DIR` the path of this folder:\n\n"
        f"```python\n{_EXAMPLE}```\n\nBoxes are x1, y1, x2, y2 in pixels of the image. "
        "What is known of it:\n\n"
        f"```json\n{dump_json(facts).decode()}```\n"
    )


@dataclass(frozen=True)
class LoadedDetector:
    """A kept detector in eval mode on its device."""

    detector: Detector
    classes: tuple[str, ...]  # a label is a place in it
    sight: Sight
    config: dict[str, Any] = field(repr=False)  # all of config.json

    def detect(
        self,
        images: Sequence[Image.Image | str | Path],
        least: float = LEAST,
        batch_size: int = 1,
    ) -> list[BoxPrediction]:
        """What is found in each image (Pillow's, or a file) with a score of ``least`` or more, best
        first, boxes in pixels of the upright image. Scores of 0.05 and below are never told.

        A larger ``batch_size`` can be faster on an accelerator, but then images are padded to the
        largest of their batch, which moves boxes and scores a little. Raises UserError for a file
        that cannot be read.
        """
        if isinstance(images, str | Path | Image.Image):
            raise BadInput(f"detect takes a list of images, got {images!r}; use detect([image])")
        _check_least(least)
        if batch_size < 1:
            raise BadInput(f"batch_size must be 1 or more, got {batch_size}")
        order = range(len(images))
        answers = find(
            self.detector, self.sight, lambda i: _upright(images[i]), order, batch_size=batch_size
        )
        return [_from(least, found) for _, found in answers]


def _from(least: float, found: BoxPrediction) -> BoxPrediction:
    n = int((found.scores >= least).sum())  # the best stand first
    return BoxPrediction(found.boxes[:n], found.scores[:n], found.labels[:n])


def _check_least(least: float) -> None:
    if not 0 <= least <= 1:
        raise BadInput(f"the least score must lie between 0 and 1, got {least:g}")


def _upright(image: Image.Image | str | Path) -> Image.Image:
    if isinstance(image, Image.Image):
        turned = image.getexif().get(0x0112, 1) != 1
        return to_rgb(ImageOps.exif_transpose(image) if turned else image)
    try:
        return decode(read_plain(Path(image)))
    except Exception as error:  # Pillow's readers raise errors of many kinds on damaged files
        raise BadInput(f"image {str(image)!r} cannot be read: {one_line(error)}") from None


def load_detector(folder: str | Path, device: str | None = None) -> LoadedDetector:
    """A detector that was kept, ready to detect: on ``device``, else on a CUDA GPU if there is one.

    Raises UserError for a folder that holds none, a damaged one or one of another version.
    """
    folder = Path(folder).expanduser()
    config = _config(folder)
    weights = folder / WEIGHTS
    try:
        whole = sha256_file(weights) == config["weights_sha256"]
        state = load_file(weights) if whole else {}
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{WEIGHTS} in {str(folder)!r} cannot be read: {one_line(error)}") from None
    if not whole:
        raise BadInput(
            f"{WEIGHTS} in {str(folder)!r} is not the file its {CONFIG} was written for (their "
            "sha256 differ); copy the whole folder again"
        )
    try:
        with torch.random.fork_rng(devices=[]):  # the weights are drawn, then overwritten
            detector = rebuild(config["recipe"])
        detector.load_state_dict(state, strict=True)
    except Exception as error:  # a recipe names code of other libraries, which may fail anyhow
        raise BadInput(
            f"the detector in {str(folder)!r} cannot be rebuilt here: {one_line(error)}"
        ) from None
    sight = Sight(
        config["test_side"], config["max_side"], tuple(config["mean"]), tuple(config["std"])
    )
    detector = detector.eval().requires_grad_(False).to(_device(device))
    return LoadedDetector(detector, tuple(config["classes"]), sight, config)


def _device(asked: str | None) -> torch.device:
    if asked is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    from eval.common.distributed import check_device

    check_device(asked)
    return torch.device(asked)


def _config(folder: Path) -> dict[str, Any]:
    """The folder's config.json, checked. Raises UserError."""
    here = str(folder)
    if not folder.is_dir():
        raise NotFound(f"detector folder {here!r} does not exist or is not a directory")
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except FileNotFoundError:
        half = f"; its {WEIGHTS} was not written to the end" if (folder / WEIGHTS).exists() else ""
        raise BadInput(
            f"folder {here!r} holds no detector: it has no {CONFIG}{half}; name the folder that a "
            "detection run kept its model in"
        ) from None
    except OSError as error:
        raise BadInput(f"{CONFIG} in {here!r} cannot be read: {one_line(error)}") from None
    except (ValueError, RecursionError):
        raise BadInput(f"{CONFIG} in {here!r} is damaged: it is not valid JSON") from None
    if not isinstance(config, dict) or "detector_version" not in config:
        raise BadInput(
            f"folder {here!r} holds no detector: its {CONFIG} has no 'detector_version'; name the "
            "folder that a detection run kept its model in"
        )
    if config["detector_version"] != VERSION:
        raise BadInput(
            f"the detector in {here!r} is of version {str(config['detector_version'])[:40]!r}, "
            f"which this TransferZoo does not read (it reads {VERSION}); use the one it was kept by"
        )
    for key, good in _fits(config):
        if not good:
            seen = repr(config[key])[:60] if key in config else "nothing"
            raise BadInput(f"{CONFIG} in {here!r} is damaged: {key!r} cannot be {seen}")
    return config


def _fits(config: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Each key that detecting needs, and whether its value can be one."""

    def numbers(value: Any) -> bool:
        fits = isinstance(value, list) and len(value) == 3
        return fits and all(type(n) in (int, float) for n in value)

    yield "recipe", _plain(config.get("recipe"))
    yield "weights_sha256", isinstance(config.get("weights_sha256"), str)
    names = config.get("classes")
    named = isinstance(names, list) and bool(names) and all(type(n) is str for n in names)
    yield "classes", named and len(config["classes"]) == config["recipe"].get("classes")
    for key in ("test_side", "max_side"):
        yield key, type(config.get(key)) is int and 0 < config[key] <= 1 << 16
    yield "mean", numbers(config.get("mean"))
    yield "std", numbers(config.get("std")) and min(config["std"]) > 0


def _plain(recipe: Any) -> bool:
    """Whether it names an architecture of timm's own and no other files: a folder from elsewhere
    shall make timm neither fetch anything nor open a pickled checkpoint."""
    if not isinstance(recipe, dict) or not isinstance(recipe.get("architecture"), str):
        return False
    args = recipe.get("model_args", {})
    own = re.fullmatch(r"[\w.-]+", recipe["architecture"]) is not None
    return (
        own and isinstance(args, dict) and not args.keys() & {"checkpoint_path", "pretrained_cfg"}
    )


@dataclass
class Detections:
    """What ``transfer-eval detect`` found, as plain data, and what it could not do."""

    images: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # a sentence for each image not read


def detect_pictures(
    model_dir: Path,
    images: Sequence[Path],
    out: Path | None,
    least: float = 0.5,
    device: str | None = None,
) -> Detections:
    """Detect in each image and draw what scores ``least`` or more to ``out``/<stem>.detected.png
    (nothing is drawn where ``out`` is None).

    An image that cannot be read is told at the end and keeps no other from being done. Names that
    collide are numbered, and no input is overwritten; drawings of an earlier run are. Raises
    UserError for a folder that is not a detector and where ``out`` cannot be written.
    """
    from eval.detection.draw import draw

    _check_least(least)
    if not images:
        raise BadInput("no image was named; name at least one image file")
    detector = load_detector(model_dir, device)
    names = _drawings(images, out) if out else [None] * len(images)
    done = Detections()
    for path, name in zip(images, names, strict=True):
        try:
            image = _upright(path)
        except UserError as error:
            done.failures.append(str(error))
            continue
        [found] = detector.detect([image], least)
        if name is not None:
            _write_png(draw(image, found, None, detector.classes, least=least), name)
        objects = [
            {
                "class": detector.classes[label],
                "score": round(float(score), 4),
                "box": [round(float(v), 2) for v in box],
            }
            for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True)
        ]
        drawn = str(name) if name else None
        done.images.append({"image": str(path), "drawn": drawn, "objects": objects})
    return done


def _drawings(images: Sequence[Path], out: Path) -> list[Path]:
    """A file in ``out`` for each image: no two the same, none an input, whatever the case of their
    letters (some file systems see none)."""
    taken = {_seen(image) for image in images}
    names = []
    for image in images:
        for n in count(1):
            name = out / f"{image.stem}.detected{f'-{n}' if n > 1 else ''}.png"
            if _seen(name) not in taken:
                break
        taken.add(_seen(name))
        names.append(name)
    return names


def _seen(path: Path) -> str:
    return str(path.resolve()).casefold()


def _write_png(image: Image.Image, path: Path) -> None:
    try:
        with atomic_file(path) as file:
            image.save(file, "PNG")
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be written: {one_line(error)}") from None

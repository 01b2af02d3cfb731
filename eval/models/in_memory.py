"""A backbone made of a network that lives in this Python process.

A string names its weights; a network in memory is known only by what it holds and does. So its
identity is made of three things: a hash of its state, what its transform says of itself, and a
fingerprint of the features of three fixed pictures. The last tells apart networks with the same
weights and another ``forward``, and transforms that say nothing of themselves, such as a lambda.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from eval.common.errors import BadInput, did_you_mean, one_line
from eval.models.backbone import Backbone, digest_of
from eval.models.multiply_adds import counted
from eval.models.resolve import ResolvedModel

Pool = Literal["avg", "max"]
Transform = Callable[[Image.Image], Any]

PREFIX = "python:"  # of the id: no string that can be loaded
_SIDE = 64  # of the fixed pictures
_FURTHER = ((360, 540), (500, 300))  # height and width of those that tell transforms apart
_PICTURES = 3
# Of a value's largest magnitude. Sums in another order (a batch of one, another processor) change
# deep networks by up to some 1e-5; statistics of a batch, dropout or noise by far more.
_ALIKE = 1e-3
_DIRECTIONS = 8  # on which features are projected for the fingerprint
# Pixels that were divided by a common standard deviation stay below 20; those in 0..255 do not.
_LARGEST_PIXEL = 32.0


class BadTransform(BadInput):
    """What the user's transform makes of an image cannot go into the network."""


def backbone(
    net: nn.Module,
    transform: Transform | Mapping[str, Any],
    name: str,
    *,
    pool: Pool | None = None,
) -> Backbone:
    """A network of your own, ready for ``evaluate``: called ``python:NAME`` on boards.

    Args:
        net: maps images [N, C, H, W] (float32, as the transform gives them) to features [N, D], or
            to maps [N, D, h, w] where ``pool`` is stated. It is copied as it is now, to the CPU, in
            float32 and eval mode: training it further changes neither this backbone nor its score,
            and its own mode, device and gradients stay as they are.
        transform: takes an RGB ``PIL.Image`` to a float tensor [C, H, W], normalised, the same each
            time; or timm's data config, a mapping with ``input_size``, ``mean`` and ``std`` (in
            0..1) and perhaps ``crop_pct``, ``crop_mode`` and ``interpolation``. Protocols that cut
            crops of their own (``linear-sgd``, ``finetune``) need the mapping.
        name: letters, digits and ``. _ + -``.
        pool: ``avg`` or ``max`` over space.

    Raises:
        UserError: in one sentence, where the network returns no such tensor, features that are not
            finite, that depend on the other images of a batch or differ from call to call; where
            the transform returns anything but such a tensor, other results for the same image, or
            values in 0..255.

    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    >>> mine = backbone(net, {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3},
    ...                 name="mine", pool="avg")
    >>> mine.resolved.id, mine.dim, mine.params
    ('python:mine', 8, 224)
    """
    subject = python_id(name)
    check_pool(pool, subject)
    own = _snapshot(net, subject)
    weights = state_sha256(own)
    own = own.float().eval().requires_grad_(False)
    _check_eval_mode(own, subject)
    prepare, facts, images = prepared_transform(transform, subject)
    features = PlainFeatures(own, pool, subject)
    found = _check_features(features, images, subject)
    with torch.inference_mode():
        _, cost = counted(features, images[:1])
    features.num_features = 0  # a task's images may be of another size, and have more
    layer = f"python-{pool or 'as_is'}-{_fingerprint(found)}"
    identity = json.dumps([weights, facts, layer], sort_keys=True)
    spec = PREFIX + name
    return Backbone(
        resolved=ResolvedModel(
            "python", name, spec, spec, hashlib.sha256(identity.encode()).hexdigest()[:40]
        ),
        net=features.eval(),
        transform=prepare,
        input_config=facts,
        dim=found.shape[1],
        params=sum(p.numel() for p in own.parameters()),
        weights_sha256=weights,
        construction=digest_of([layer]),
        layer=layer,
        multiply_adds=cost,
    )


class PlainFeatures(nn.Module):
    """Images [N, C, H, W] -> features [N, D] of a network that promised them; checked each time.

    Raises UserError where it returns something else, or features of another width than before.
    """

    def __init__(self, net: nn.Module, pool: Pool | None, subject: str) -> None:
        super().__init__()
        self.net, self._pool, self._subject = net, pool, subject
        self.num_features = 0  # not known before the first batch

    def forward(self, images: Tensor) -> Tensor:
        found = one_row_each(self.net(images), images, self._pool, self._subject)
        if self.num_features and found.shape[1] != self.num_features:
            raise BadInput(
                f"{self._subject} returns {found.shape[1]} features for one batch and "
                f"{self.num_features} for another; every image needs as many"
            )
        self.num_features = found.shape[1]
        return found


def one_row_each(out: object, images: Tensor, pool: Pool | None, subject: str) -> Tensor:
    """Features [N, D] of what a network returned for N images: these, or maps [N, D, h, w] pooled.

    Raises UserError, beginning with ``subject``, for anything else.
    """
    if not isinstance(out, Tensor):
        raise BadInput(
            f"{subject} returns {_told(out)}; it must return one tensor of features [N, D], so "
            "wrap it in a module whose forward picks that one"
        )
    found = _pooled(out, pool, subject)
    if not found.is_floating_point() or len(found) != len(images) or found.shape[1] == 0:
        raise BadInput(
            f"{subject} returns {_shape(out)} of {out.dtype} for {len(images)} images; it must "
            "return floats [N, D], one row an image"
        )
    return found


def _pooled(out: Tensor, pool: Pool | None, subject: str) -> Tensor:
    if out.ndim == 4 and pool is not None:
        return out.mean((2, 3)) if pool == "avg" else out.amax((2, 3))
    if out.ndim == 4:
        raise BadInput(
            f"{subject} returns maps {_shape(out)}; say how they become one vector an image, with "
            "pool='avg' or pool='max'"
        )
    if out.ndim != 2:
        raise BadInput(
            f"{subject} returns {_shape(out)}; it must return features [N, D], so pick the class "
            "token or the mean in its forward"
        )
    if pool is not None:
        raise BadInput(
            f"{subject} returns {_shape(out)}, which pool={pool!r} has nothing to do with; leave "
            "pool out"
        )
    return out


def state_sha256(net: nn.Module) -> str:
    """sha256 over the names, shapes, types and bytes of a network's parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        if not isinstance(value, Tensor):  # what get_extra_state returns, of any kind
            digest.update(f"{name}{value!r}".encode())
            continue
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        raw = value.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def unwrapped(net: nn.Module) -> nn.Module:
    """The network itself, out of DistributedDataParallel, DataParallel and torch.compile."""
    while True:
        if isinstance(net, nn.parallel.DistributedDataParallel | nn.DataParallel):
            net = net.module
        elif isinstance(inner := getattr(net, "_orig_mod", None), nn.Module):
            net = inner
        else:
            return net


# --------------------------------------------------------------------------- the network


def python_id(name: str) -> str:
    """``python:NAME``. Raises UserError for a name that is not safe in files and on boards."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w.+-]{1,80}", name, re.ASCII):
        raise BadInput(
            f"name {name!r} must be 1 to 80 letters, digits and . _ + -, such as 'mine' or "
            "'moco-v2.800ep'"
        )
    return PREFIX + name


def check_pool(pool: object, subject: str) -> None:
    """Raises UserError for a way of pooling that there is not."""
    if pool not in (None, "avg", "max"):
        raise BadInput(f"{subject}: pool must be 'avg', 'max' or left out, got {pool!r}")


def _snapshot(net: nn.Module, subject: str) -> nn.Module:
    if not isinstance(net, nn.Module):
        raise BadInput(
            f"{subject}: net must be a torch.nn.Module, got a {type(net).__name__}; put a function "
            "into the forward of a module"
        )
    try:
        return copy.deepcopy(unwrapped(net)).cpu()
    except Exception as error:  # whatever a module holds may refuse to be copied
        raise BadInput(
            f"{subject} cannot be copied ({one_line(error, 120)}); give the encoder alone, without "
            "trainer, loader or tensors that are still part of a graph"
        ) from None


def _check_eval_mode(net: nn.Module, subject: str) -> None:
    for name, module in net.named_modules():
        where = f"its {type(module).__name__}" + (f" {name!r}" if name else "")
        if module.training:
            raise BadInput(
                f"{subject}: {where} stays in training mode after eval(); features must not depend "
                "on the batch"
            )
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise BadInput(
                f"{subject}: {where} has no running statistics (track_running_stats=False), so "
                "features depend on the other images of a batch; give it some, or another norm"
            )


def _check_features(features: PlainFeatures, images: Tensor, subject: str) -> Tensor:
    """Features [3, D] of the fixed pictures. Raises UserError for those no score can rest on."""
    before = state_sha256(features.net)
    with torch.inference_mode():
        try:
            found = features(images).double()
            again = features(images).double()
            single = torch.cat([features(one[None]) for one in images]).double()
        except BadInput:
            raise
        except Exception as error:
            raise BadInput(
                f"{subject} does not run on images {_shape(images[0])}, as its transform gives "
                f"them for a picture of {_SIDE} x {_SIDE} pixels: {one_line(error, 160)}"
            ) from None
    if not bool(torch.isfinite(found).all()):
        raise BadInput(f"{subject} gives features that are not finite (NaN or infinite)")
    if state_sha256(features.net) != before:
        raise BadInput(
            f"{subject} changes its own state while it encodes, in eval mode too (moving "
            "statistics?); features must depend on the image alone"
        )
    largest = float(found.abs().max())
    if float((again - found).abs().max()) > _ALIKE * largest:
        raise BadInput(
            f"{subject} gives other features for the same images a second time, in eval mode too "
            "(dropout or noise?)"
        )
    if float((single - found).abs().max()) > _ALIKE * largest:
        raise BadInput(
            f"{subject} gives an image other features beside other images than alone; in eval mode "
            "features must not depend on the batch (a norm over the batch?)"
        )
    return found


def _fingerprint(features: Tensor) -> str:
    """12 hex digits of features [N, D], rounded so that another processor gives the same ones."""
    values = features / features.abs().max().clamp_min(1e-300)
    random = np.random.RandomState(0)
    signs = torch.from_numpy(random.choice([-1.0, 1.0], (values.shape[1], _DIRECTIONS)))
    found = values @ signs
    found = (100 * found / found.abs().max().clamp_min(1e-300)).round().to(torch.int16)
    return hashlib.sha256(found.numpy().astype("<i2").tobytes()).hexdigest()[:12]


# --------------------------------------------------------------------------- the transform


def prepared_transform(
    transform: Transform | Mapping[str, Any], subject: str
) -> tuple[Transform, dict[str, Any], Tensor]:
    """(transform as an encoder uses it, what a result says of it, the fixed pictures [3, C, H, W]
    as they go into the network). Raises UserError, beginning with ``subject``."""
    if isinstance(transform, Mapping):
        from timm.data import create_transform

        config = _timm_config(transform, subject)
        prepare: Transform = create_transform(**config, is_training=False, use_prefetcher=True)
        said = {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}
        pixels = torch.stack([torch.as_tensor(prepare(p)) for p in _pictures()]).float()
        mean, std = (torch.tensor(config[k]).view(1, -1, 1, 1) for k in ("mean", "std"))
        return prepare, said, pixels.sub_(mean * 255).div_(std * 255)
    if not callable(transform):
        raise BadInput(
            f"{subject}: transform must be a function of an image or timm's data config, got a "
            f"{type(transform).__name__}"
        )
    pictures = _pictures()
    checked = CheckedTransform(transform, subject)
    found = [checked(picture) for picture in pictures]
    if not np.array_equal(checked(pictures[0]), found[0]):
        raise BadTransform(
            f"{subject}: its transform gives another result for the same image a second time; "
            "leave random augmentation out"
        )
    facts: dict[str, Any] = {"input_size": list(found[0].shape), "transform": stated(transform)}
    facts["pixels"] = _prepared(transform, subject)
    other = CheckedTransform(transform, subject)(pictures[0].resize((_SIDE // 2, _SIDE)))
    if other.shape != found[0].shape:  # then a task's images decide, which must all be of one size
        facts["resizes"] = False
    return CheckedTransform(transform, subject), facts, torch.from_numpy(np.stack(found))


def _prepared(transform: Transform, subject: str) -> str:
    """What a transform makes of a wide and of a tall picture, larger than most networks' images, as
    hex digits: on the small square ones a squash is a crop, and filters differ little."""
    told = []
    for height, width in _FURTHER:
        picture = _picture(2, height, width, np.random.RandomState(0))
        pixels = torch.from_numpy(CheckedTransform(transform, subject)(picture))
        told.append(_fingerprint(pixels.reshape(1, -1).double()))
    return "-".join(told)


class CheckedTransform:
    """The user's transform, RGB image -> [C, H, W] float32, each result held against the first."""

    def __init__(self, transform: Transform, subject: str) -> None:
        self._transform, self._subject = transform, subject
        self._shape: tuple[int, ...] = ()

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Raises UserError for what is no normalised float image of the usual shape."""
        try:
            out = self._transform(image)
        except Exception as error:
            raise self._bad(f"fails on an RGB image: {one_line(error, 160)}") from None
        if not isinstance(out, Tensor | np.ndarray):
            raise self._bad(
                f"returns a {type(out).__name__}; end it with ToTensor() and Normalize(...), so "
                "that it returns a float tensor [C, H, W]"
            )
        pixels = out.detach().cpu() if isinstance(out, Tensor) else torch.from_numpy(out)
        if not pixels.is_floating_point():
            raise self._bad(
                f"returns {pixels.dtype}, not floats; divide by 255 (ToTensor does) and normalise"
            )
        if pixels.ndim != 3 or (pixels.shape[2] in (1, 3, 4) and pixels.shape[0] > 4):
            raise self._bad(f"returns {_shape(pixels)}; the channels come first: [C, H, W]")
        self._shape = self._shape or tuple(pixels.shape)
        if tuple(pixels.shape) != self._shape:
            raise self._bad(
                f"returns {_shape(pixels)} for one image and {list(self._shape)} for another; let "
                "it resize and crop all to one size"
            )
        if not bool(torch.isfinite(pixels).all()):
            raise self._bad("returns values that are not finite (NaN or infinite)")
        if (largest := float(pixels.abs().max())) > _LARGEST_PIXEL:
            raise self._bad(
                f"returns values up to {largest:g}, as of pixels in 0..255; divide them by 255 "
                "(ToTensor does) and normalise"
            )
        return np.asarray(pixels.float().numpy())

    def _bad(self, what: str) -> BadTransform:
        return BadTransform(f"{self._subject}: its transform {what}")


def stated(transform: Transform) -> str:
    """What a transform says of itself: its text where that has no address in memory (torchvision's
    do), else the name of its type or function. The fingerprint tells the rest."""
    text = " ".join(repr(transform).split())
    if " at 0x" not in text:
        return text
    kind = transform if hasattr(transform, "__qualname__") else type(transform)
    return f"{kind.__module__}.{kind.__qualname__}"


def _timm_config(given: Mapping[str, Any], subject: str) -> dict[str, Any]:
    """timm's data config, complete. Raises UserError for one that cannot be meant so."""
    from timm.data import resolve_data_config
    from timm.models import PretrainedCfg

    known = {field.name for field in dataclasses.fields(PretrainedCfg)}
    for key in given:
        if key not in known:
            raise BadInput(
                f"{subject}: timm's data config has no {key!r}"
                + did_you_mean(str(key), known, "it has input_size, mean, std, crop_pct")
            )
    if missing := [key for key in ("input_size", "mean", "std") if key not in given]:
        raise BadInput(
            f"{subject}: its data config lacks {' and '.join(missing)}; all of input_size, mean "
            "and std must be stated, as another one would silently be another model"
        )
    size = given["input_size"]
    sized = isinstance(size, tuple | list) and len(size) == 3
    if not sized or size[0] != 3 or not all(isinstance(v, int) and v > 0 for v in size):
        raise BadInput(f"{subject}: input_size must be (3, height, width), got {size!r}")
    for key, low in (("mean", True), ("std", False)):
        values = given[key]
        numbers = isinstance(values, tuple | list) and len(values) == 3
        if not numbers or not all(
            isinstance(v, int | float) and (v >= 0 if low else v > 0) and v <= 1 for v in values
        ):
            raise BadInput(f"{subject}: {key} must be three numbers in 0..1, got {values!r}")
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    try:
        return dict(resolve_data_config({}, pretrained_cfg=plain))
    except Exception as error:
        raise BadInput(f"{subject}: timm refuses its data config: {one_line(error)}") from None


def _pictures() -> list[Image.Image]:
    """Three fixed RGB pictures of 64 x 64 pixels with edges, ramps and noise, from black to white.

    >>> [picture.size for picture in _pictures()]
    [(64, 64), (64, 64), (64, 64)]
    """
    random = np.random.RandomState(0)
    return [_picture(number, _SIDE, _SIDE, random) for number in range(1, _PICTURES + 1)]


def _picture(number: int, height: int, width: int, random: np.random.RandomState) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width] / np.array([height - 1, width - 1]).reshape(2, 1, 1)
    waves = [np.sin(2 * np.pi * number * (x * c + y / c)) for c in (1, 2, 3)]
    pixels = 0.5 + 0.3 * np.stack(waves, -1) + 0.2 * random.uniform(-1, 1, (height, width, 3))
    pixels[: 8 * number, :8] = 0
    pixels[:8, -8 * number :] = 1
    return Image.fromarray((255 * np.clip(pixels, 0, 1)).astype(np.uint8))


def _shape(tensor: Tensor) -> str:
    return str([*tensor.shape])


def _told(out: object) -> str:
    if isinstance(out, Mapping):
        return f"a {type(out).__name__} with {', '.join(map(repr, list(out)[:5]))}"
    if isinstance(out, tuple | list):
        return f"a {type(out).__name__} of {len(out)}"
    return f"a {type(out).__name__}"

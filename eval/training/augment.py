"""The study's pretraining augmentations, batched on tensors, each sample with its own draws.

    train = Augmentation(px=64, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    generator = torch.Generator(images.device).manual_seed(0)
    view = strong(images, aspect, train, generator)  # [N, 3, 64, 64]

Islam et al. (ICCV 2021) train cross-entropy with `weak` (random resized crop, flip) and the
contrastive objectives with `strong` (MoCo v2: also colour jitter, grey, Gaussian blur). Both follow
torchvision's per-image transforms, with these differences:

- crop boxes are continuous, not rounded to whole pixels;
- values stay float32 in [0, 1] throughout, where Pillow rounds to 8 bits after every step;
- resizing is antialiased bilinear (as Pillow's);
- blur is a true Gaussian, cut at 4 of the largest sigma.

Crops are `eval.training.resize`'s. Blurs are products with dense per-sample matrices, which at 64
px cost less than a convolution.

Shapes: N images, S stored side, px side of a view.
"""

import functools
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eval.training.resize import empty, parts, resized, taps

_TRIES = 10  # boxes drawn per image before the central fallback, as in torchvision


@dataclass(frozen=True)
class Augmentation:
    """Settings of the transforms; the defaults are the study's."""

    px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_p: float = 0.8
    grey_p: float = 0.2
    blur_p: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    flip_p: float = 0.5
    crop_pct: float = 0.875  # evaluation only

    def __post_init__(self) -> None:
        if not 0 <= self.jitter[3] <= 1 / 6:
            raise ValueError(f"hue jitter must lie in 0..1/6 (see `_hue_`), got {self.jitter[3]}")


@dataclass(frozen=True)
class Crops:
    """A box for each of N images, fractions of its sides; width < 0 mirrors it."""

    left: Tensor  # [N], as are the others; the right edge of a mirrored box
    top: Tensor
    width: Tensor
    height: Tensor

    def of(self, rows: Tensor, device: torch.device | str) -> "Crops":
        """The crops of some of the images, on a device."""
        parts = (self.left, self.top, self.width, self.height)
        return Crops(*(part[rows].to(device) for part in parts))


@torch.no_grad()
def weak(
    images: Tensor, aspect: Tensor | None, settings: Augmentation, generator: torch.Generator
) -> Tensor:
    """Random resized crop, flip, normalise: [N, 3, px, px] float32, channels_last.

    images: [N, 3, S, S] uint8, each squashed to a square; fastest as a view of an NHWC store.
    aspect: [N] original width / height, or None for 1. Boxes are drawn in the original geometry.
    generator: lives on the images' device; its state fixes the result.
    """
    return cut(images, draw_crops(len(images), aspect, settings, generator), settings)


def draw_crops(
    n: int, aspect: Tensor | None, settings: Augmentation, generator: torch.Generator
) -> Crops:
    """The random part of `weak`: a crop, mirrored or not, for each of n images."""
    left, top, width, height = _boxes(n, aspect, settings, generator)
    left, width = _mirrored(left, width, settings.flip_p, generator)
    return Crops(left, top, width, height)


@torch.no_grad()
def cut(images: Tensor, crops: Crops, settings: Augmentation) -> Tensor:
    """The rest of `weak`: crops [N] of images, which lie on the same device."""
    rows = taps(crops.top, crops.height, settings.px, images.shape[-1])
    columns = taps(crops.left, crops.width, settings.px, images.shape[-1])
    out = empty(images, settings.px)
    for part in parts(len(images), images.device):
        x = resized(images[part], rows, columns, part)
        normalise(x, settings, out=out[part])
    return out


@torch.no_grad()
def strong(
    images: Tensor, aspect: Tensor | None, settings: Augmentation, generator: torch.Generator
) -> Tensor:
    """Random resized crop, colour jitter, grey, blur, flip, normalise; shapes as in `weak`.

    The flip is part of the crop: it commutes with all that comes between.
    """
    n = len(images)
    left, top, width, height = _boxes(n, aspect, settings, generator)
    left, width = _mirrored(left, width, settings.flip_p, generator)
    # Each image draws one of the 24 orders of the four colour ops, or none. Sorted by order, the
    # images that share one are a slice: the ops then work in place, on pieces that fit the cache.
    orders = [*itertools.permutations(range(4)), ()]
    order = torch.randint(24, (n,), device=images.device, generator=generator)
    order.masked_fill_(~_chosen(n, settings.jitter_p, images.device, generator), 24)
    rows = order.argsort(stable=True)
    # The one wait for a GPU besides the two selections of rows below.
    sizes = torch.bincount(order, minlength=25).tolist()

    taps_y = taps(top[rows], height[rows], settings.px, images.shape[-1])
    taps_x = taps(left[rows], width[rows], settings.px, images.shape[-1])
    stored = images.permute(0, 2, 3, 1)
    x = torch.empty(n, 3, settings.px, settings.px, device=images.device).transpose(2, 3)
    for part in parts(n, images.device):
        x[part] = resized(
            stored.index_select(0, rows[part]).permute(0, 3, 1, 2), taps_y, taps_x, part
        )

    factors = _factors(n, settings, images.device, generator)
    for piece, factor, steps in zip(x.split(sizes), factors.split(sizes, 1), orders, strict=True):
        if len(piece):
            for op in steps:
                _OPS[op](piece, factor[op])

    grey = _chosen(n, settings.grey_p, images.device, generator)
    x[grey] = _grey(*x[grey].unbind(1)).unsqueeze_(1)

    low, high = settings.blur_sigma
    sigma = torch.rand(n, device=images.device, generator=generator).mul_(high - low).add_(low)
    blur = _chosen(n, settings.blur_p, images.device, generator).nonzero().squeeze(1)
    planes = x.transpose(2, 3)  # contiguous; the blur does not mind
    for part in parts(len(blur), images.device):
        some = blur[part]
        planes.index_copy_(
            0, some, _blurred(planes.index_select(0, some), sigma[some], _radius(high, settings.px))
        )

    back = rows.argsort()
    out = empty(images, settings.px)
    for part in parts(n, images.device):
        normalise(planes.index_select(0, back[part]).transpose(2, 3), settings, out=out[part])
    return out


@torch.no_grad()
def evaluation(images: Tensor, settings: Augmentation) -> Tensor:
    """Both sides resized to floor(px / crop_pct) (timm's "squash"), centre px, normalised.

    images as in `weak`; [N, 3, px, px] float32, channels_last. Nothing is random.
    """
    side = math.floor(settings.px / settings.crop_pct)
    edge = round((side - settings.px) / 2)
    zero = torch.zeros(1, device=images.device)
    index, weights = taps(zero, zero + 1, side, images.shape[-1])
    index = index[:, edge : edge + settings.px].expand(len(images), -1, -1)
    weights = weights[:, edge : edge + settings.px].expand(len(images), -1, -1)
    out = empty(images, settings.px)
    for part in parts(len(images), images.device):
        x = resized(images[part], (index, weights), (index, weights), part)
        normalise(x, settings, out=out[part])
    return out


def _chosen(n: int, p: float, device: torch.device, generator: torch.Generator) -> Tensor:
    """[n] bool, each True with probability p."""
    return torch.rand(n, device=device, generator=generator) < p


def _boxes(
    n: int, aspect: Tensor | None, settings: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Left, top, width, height [n] of crops, as fractions of the image's sides.

    torchvision's RandomResizedCrop.get_params: a box has an area (a fraction of the image's) from
    `scale` and a width / height (in original pixels) log-uniform in `ratio`; the first of ten draws
    that fits is taken, else the largest central box with an allowed ratio.
    """
    device = generator.device
    aspect = torch.ones(n, device=device) if aspect is None else aspect
    draws = torch.rand(n, 2 * _TRIES + 2, device=device, generator=generator)
    low, high = settings.scale
    area = draws[:, :_TRIES] * (high - low) + low
    low, high = map(math.log, settings.ratio)
    ratio = (draws[:, _TRIES:-2] * (high - low) + low).exp_()
    ratio /= aspect[:, None]  # in the stored square a box is narrower by the image's own ratio
    width, height = (area * ratio).sqrt_(), (area / ratio).sqrt_()

    fits = (width <= 1) & (height <= 1)
    tries = torch.arange(_TRIES, device=device)
    first = torch.where(fits, tries, _TRIES).amin(1, keepdim=True)  # argmax may return any tie
    low, high = settings.ratio
    whole = torch.stack([high / aspect, aspect / low]).clamp_(max=1)
    width = torch.cat([width, whole[0, :, None]], 1).gather(1, first).squeeze(1)
    height = torch.cat([height, whole[1, :, None]], 1).gather(1, first).squeeze(1)
    at = torch.where(first < _TRIES, draws[:, -2:], 0.5)
    return (1 - width) * at[:, 0], (1 - height) * at[:, 1], width, height


def _mirrored(
    left: Tensor, width: Tensor, p: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Boxes [n] of which each is mirrored with probability p: from its right edge, width < 0."""
    flip = _chosen(len(left), p, left.device, generator)
    return torch.where(flip, left + width, left), torch.where(flip, -width, width)


def normalise(x: Tensor, settings: Augmentation, out: Tensor) -> None:
    """out = (x - mean) / std for x [N, 3, px, px] in [0, 1], which is overwritten."""
    x.clamp_(0, 1)  # rounding may overshoot by an ulp
    for plane, mean, std in zip(x.unbind(1), settings.mean, settings.std, strict=True):
        plane.sub_(mean).div_(std)
    out.copy_(x)


def _factors(
    n: int, settings: Augmentation, device: torch.device, generator: torch.Generator
) -> Tensor:
    """[4, n] brightness, contrast and saturation factors and hue shifts."""
    draws = torch.rand(4, n, device=device, generator=generator)
    for row, (amount, middle) in enumerate(zip(settings.jitter, (1, 1, 1, 0), strict=True)):
        low = middle - amount if row == 3 else max(0.0, middle - amount)
        draws[row].mul_(middle + amount - low).add_(low)
    return draws


# The colour ops work in place on x [n, 3, H, W] in [0, 1] with one factor [n] for each image.


def _brightness_(x: Tensor, factor: Tensor) -> None:
    """Scale by the factor, >= 0."""
    x.mul_(factor[:, None, None, None]).clamp_(max=1)


def _contrast_(x: Tensor, factor: Tensor) -> None:
    """Blend with the image's mean grey."""
    mean = _grey(*x.mean((2, 3)).unbind(1)) * (1 - factor)
    x.mul_(factor[:, None, None, None]).add_(mean[:, None, None, None]).clamp_(0, 1)


def _saturation_(x: Tensor, factor: Tensor) -> None:
    """Blend with the image's grey."""
    grey = _grey(*x.unbind(1)) * (1 - factor)[:, None, None]
    x.mul_(factor[:, None, None, None]).add_(grey[:, None]).clamp_(0, 1)


def _hue_(x: Tensor, shift: Tensor) -> None:
    """Turn the HSV hue by a shift in turns, |shift| <= 1/6.

    With low and high a pixel's least and greatest value and chroma = high - low, the hue in sixths
    of a turn from red is 1 + (g + b - r - low) / chroma, signed as g - b; and a channel at distance
    d from its own hue is low + chroma * clamp(2 - d, 0, 1). All of it is kept multiplied by chroma:
    nothing is divided, and greys need no care. Distances wrap at 3; that of red need not, since up
    to 4 (hence the bound on the shift) its clamp has the same value unwrapped.
    """
    r, g, b = x.unbind(1)
    low, high = torch.minimum(r, g).minimum(b), torch.maximum(r, g).maximum(b)
    chroma = high - low
    hue = (g + b).sub_(r).sub_(low).add_(chroma).copysign_(g - b)
    hue.addcmul_(chroma, 6 * shift[:, None, None])
    top = high + chroma  # low + 2 chroma
    torch.sub(top, hue.abs(), out=r).clamp_(low, high)
    base = low - chroma  # green and blue lie at 2 and -2; 2 - d is then ||hue -+ 2| - 3| - 1
    for plane, centre in ((g, 2), (b, -2)):
        torch.sub(hue, chroma, alpha=centre, out=plane)
        plane.abs_().sub_(chroma, alpha=3).abs_().add_(base).clamp_(low, high)


_OPS = _brightness_, _contrast_, _saturation_, _hue_


def _grey(r: Tensor, g: Tensor, b: Tensor) -> Tensor:
    """Luma of three planes [...], with torchvision's weights."""
    return (r * 0.2989).add_(g, alpha=0.587).add_(b, alpha=0.114)


def _radius(sigma: float, px: int) -> int:
    """Pixels each side of a blur kernel: 4 of the largest sigma, at most what reflection allows."""
    return min(math.ceil(4 * sigma), px - 1)


def _blurred(x: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """x [n, 3, px, px] under a Gaussian of sigma [n] pixels, 2 radius + 1 wide; reflect padding."""
    n, px = len(x), x.shape[-1]
    offsets = torch.arange(-radius, radius + 1, device=x.device)
    kernel = (offsets / sigma[:, None].clamp(min=1e-6)).square_().mul_(-0.5).exp_()
    kernel /= kernel.sum(1, keepdim=True)
    with torch.autocast(x.device.type, enabled=False):  # whatever the caller trains under
        band = (kernel @ _reflection(px, radius, x.device)).view(n, px, px)
        x = torch.bmm(x.reshape(n, 3 * px, px), band.transpose(1, 2))
        bands = band[:, None].expand(-1, 3, -1, -1).reshape(n * 3, px, px)
        return torch.bmm(bands, x.view(n * 3, px, px)).view(n, 3, px, px)


@functools.lru_cache(maxsize=8)
def _reflection(px: int, radius: int, device: torch.device) -> Tensor:
    """[2 radius + 1, px * px]: for each tap, the matrix that picks pixels of a reflected line."""
    where = torch.arange(px)[None] + torch.arange(-radius, radius + 1)[:, None]
    where = (px - 1 - (px - 1 - where.abs()).abs())[..., None]
    return (where == torch.arange(px)).float().view(2 * radius + 1, px * px).to(device)

"""From features back to pixels: a decoder that many images train, a prior that one image does.

Both are small convolutional networks. Pictures are [B, 3, H, W] in 0..1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

BATCH = 16
DECODER_LR = 3e-3
PRIOR_LR = 1e-2
NOISE = 32  # channels of a prior's input
PRIOR_WIDTHS = (64, 64, 48, 32, 16)  # of a prior's convolutions, from 1/16 of the side to all of it
WARM_UP = 0.1  # of the steps: the rate rises, then falls to nothing

Size = tuple[int, int]  # height, width


def width_at(side: int) -> int:
    """A decoder's channels on a grid with that longer side: fewer on finer ones, so that a
    convolution costs about as much on each."""
    return min(256, max(24, 512 // side))


def grids(size: Size) -> list[Size]:
    """From one place to ``size``, each about twice the last."""
    found = [size]
    while found[-1] != (1, 1):
        height, width = found[-1]
        found.append((-(-height // 2), -(-width // 2)))
    return found[::-1]


class Decoder(nn.Module):
    """[B, C, h, w] maps -> [B, 3, H, W]: what is to be added to the mean picture.

    A 1x1 convolution brings the map to the width of the coarsest grid (``grids``) that has room for
    it, to which it is stretched; transposed convolutions then double the grid up to the picture.
    So networks with maps of one size get one decoder, but for the 1x1 convolution: its input is
    as wide as the layer is, and wider layers have that much more to fit.
    """

    mean: Tensor
    scale: Tensor
    base: Tensor

    def __init__(self, maps: Tensor, base: Tensor) -> None:
        """``maps`` [N, C, h, w] are those it will be trained on, ``base`` [3, H, W] the mean of
        their pictures. Raises ValueError for maps that are larger than the picture."""
        super().__init__()
        size = (base.shape[1], base.shape[2])
        steps = [g for g in grids(size) if g[0] >= maps.shape[2] and g[1] >= maps.shape[3]]
        if not steps:
            raise ValueError(f"maps of {tuple(maps.shape[2:])} for pictures of {size} pixels")
        mean, std = spread(maps)
        # A channel that never changes says nothing, and its rounding must not be blown up.
        told = std > 1e-4 * mean.abs() + 1e-8 * std.amax()
        scale = torch.where(told, 1 / torch.where(told, std, 1.0), 0.0)
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("base", base.clone())
        self.steps = steps
        widths = [width_at(max(g)) for g in steps]
        self.first = nn.Conv2d(maps.shape[1], widths[0], 1)
        layers: list[nn.Conv2d | nn.ConvTranspose2d] = [
            nn.ConvTranspose2d(i, o, 4, 2, 1) for i, o in itertools.pairwise([*widths[:-1], 3])
        ]
        # a map as large as the picture is not doubled
        layers = layers if len(steps) > 1 else [nn.Conv2d(widths[0], 3, 3, padding=1)]
        self.up = nn.ModuleList(layers)
        last = layers[-1]
        assert last.bias is not None
        nn.init.zeros_(last.weight)  # training begins at the mean picture
        nn.init.zeros_(last.bias)

    def forward(self, maps: Tensor) -> Tensor:
        out = self.first((maps.float() - self.mean) * self.scale)
        if out.shape[2:] != self.steps[0]:
            out = functional.interpolate(out, self.steps[0], mode="bilinear", align_corners=False)
        for conv, (height, width) in zip(self.up, [*self.steps[1:], self.steps[-1]], strict=False):
            out = conv(functional.relu(out))[:, :, :height, :width]
        return self.base + out


def spread(maps: Tensor) -> tuple[Tensor, Tensor]:
    """([C], [C]) mean and standard deviation of each channel of [N, C, h, w], in float32."""
    total = torch.zeros(maps.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for part in maps.split(64):  # never all of them in a wide format
        values = part.double()
        total += values.sum((0, 2, 3))
        squares += values.square().sum((0, 2, 3))
    count = maps.numel() // maps.shape[1]
    mean = total / count
    return mean.float(), (squares / count - mean**2).clamp_min(0).sqrt().float()


def fit(
    maps: Tensor, pictures: Tensor, steps: int, seed: int, device: torch.device | str = "cpu"
) -> Decoder:
    """A decoder of [N, C, h, w] maps, trained for [N, 3, H, W] pictures by Adam on the squared
    error. Batches and first weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = Decoder(maps, pictures.mean(0))
    decoder.to(device=device).to(memory_format=torch.channels_last)
    random = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(decoder.parameters())
    order = torch.empty(0, dtype=torch.int64)
    size = min(BATCH, len(maps))
    for step in range(steps):
        if len(order) < size:
            order = torch.randperm(len(maps), generator=random)
        rows, order = order[:size], order[size:]
        given = maps[rows].to(device).contiguous(memory_format=torch.channels_last)
        loss = functional.mse_loss(decoder(given), pictures[rows].to(device))
        _step(optimiser, loss, DECODER_LR, step, steps)
    return decoder.eval()


def _step(
    optimiser: torch.optim.Optimizer, loss: Tensor, peak: float, step: int, steps: int
) -> None:
    """One step whose rate rises for ``WARM_UP`` and then falls along a cosine."""
    done = (step + 1) / (steps + 1)
    if done < WARM_UP:
        rate = peak * done / WARM_UP
    else:
        angle = torch.pi * (done - WARM_UP) / (1 - WARM_UP)
        rate = peak * 0.5 * (1 + float(torch.cos(torch.tensor(angle))))
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    # Only what is optimised gets gradients: the backbone behind a prior does not.
    loss.backward(inputs=[p for group in optimiser.param_groups for p in group["params"]])
    optimiser.step()


class Prior(nn.Module):
    """A picture as an untrained network's answer to fixed noise (Ulyanov et al. 2018).

    Convolutions with instance normalisation, doubled four times; the sigmoid keeps 0..1.
    """

    noise: Tensor

    def __init__(self, size: Size) -> None:
        super().__init__()
        # A small picture has fewer grids, and one place has no spread to normalise by.
        self.steps = [g for g in grids(size) if g != (1, 1)][-len(PRIOR_WIDTHS) :]
        widths = PRIOR_WIDTHS[-len(self.steps) :]
        self.register_buffer("noise", 0.1 * torch.rand(1, NOISE, *self.steps[0]))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(i, o, 3, padding=1), nn.InstanceNorm2d(o, affine=True), nn.LeakyReLU(0.2)
            )
            for i, o in zip((NOISE, *widths[:-1]), widths, strict=True)
        )
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self) -> Tensor:
        """[1, 3, H, W]."""
        out = self.noise
        for block, grid in zip(self.blocks, self.steps, strict=True):
            if out.shape[2:] != grid:
                out = functional.interpolate(out, grid, mode="bilinear", align_corners=False)
            out = block(out)
        return torch.sigmoid(self.last(out))


def invert(
    features: Callable[[Tensor], Tensor],
    wanted: Tensor,
    size: Size,
    steps: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """([P, 3, H, W] pictures, [P] error): pictures whose features are as near to ``wanted``
    [P, ...] as Adam brings them.

    ``features`` maps [P, 3, H, W] to such features, each picture for itself. The error is squared
    and relative: |f(picture) - wanted|^2 / |wanted|^2. Each picture has a prior of its own, drawn
    from the seed and the picture's number.
    """
    priors = [_drawn(size, seed + i).to(device) for i in range(len(wanted))]
    optimiser = torch.optim.Adam([p for prior in priors for p in prior.parameters()])
    for step in range(steps):
        found = features(torch.cat([prior() for prior in priors]))
        _step(optimiser, _relative(found, wanted).sum(), PRIOR_LR, step, steps)
    with torch.no_grad():
        pictures = torch.cat([prior() for prior in priors])
        return pictures, _relative(features(pictures), wanted)


def _drawn(size: Size, seed: int) -> Prior:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Prior(size)


def _relative(found: Tensor, wanted: Tensor) -> Tensor:
    # Scaled first: squares of tiny or huge features leave the range of float32.
    largest = wanted.abs().flatten(1).amax(1)
    exponent = torch.frexp(largest).exponent.clamp(-126, 126)
    power = torch.ldexp(torch.ones_like(largest), -exponent)
    power = power.view(-1, *[1] * (wanted.ndim - 1))
    near, goal = found * power, wanted * power
    length = goal.square().flatten(1).sum(1)
    return (near - goal).square().flatten(1).sum(1) / torch.where(length > 0, length, 1.0)


def decoded(decoder: Decoder, maps: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """[B, 3, H, W] in 0..1 of [B, C, h, w], on the CPU."""
    with torch.inference_mode():
        return decoder(maps.to(device)).clamp(0, 1).cpu()


def reduced(pictures: Tensor, size: Sequence[int]) -> Tensor:
    """[B, C, H, W] -> at most ``size`` places, each the mean of those it covers."""
    wanted = (min(pictures.shape[2], size[0]), min(pictures.shape[3], size[1]))
    if tuple(pictures.shape[2:]) == wanted:
        return pictures
    return functional.adaptive_avg_pool2d(pictures, wanted)

"""Grids of probes on maps against torch's own layers, losses and AdamW, one probe at a time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eval.solvers.attentive import rate
from eval.solvers.dense import DenseProbes, enlarging

GRIDS, WIDTHS, CELLS, CLASSES = [(3, 4), (2, 2)], [5, 7], (6, 8), 3
FINEST = (3, 4)
POINTS = list(itertools.product((1e-2, 1e-1), (0.0, 0.3)))


def data(batches: int, images: int = 4, seed: int = 0) -> list[tuple[list[Tensor], Tensor]]:
    """(maps, labels [B, Y, X, 4 samples] with void as -1) a batch."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(batches):
        maps = [
            torch.randn(images, h * w, d, generator=generator)
            for (h, w), d in zip(GRIDS, WIDTHS, strict=True)
        ]
        labels = torch.randint(-1, CLASSES, (images, *CELLS, 4), generator=generator)
        found.append((maps, labels))
    return found


def counts_of(labels: Tensor) -> Tensor:
    return torch.stack([(labels == c).sum(3) for c in range(CLASSES)], dim=3).float()


class Plain(nn.Module):
    """Features are enlarged to the finest map and put side by side; one 1 x 1 convolution answers,
    and its logits are enlarged to the cells."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(sum(WIDTHS), CLASSES, 1)
        nn.init.zeros_(self.layer.weight)
        assert self.layer.bias is not None
        nn.init.zeros_(self.layer.bias)

    def forward(self, maps: list[Tensor]) -> Tensor:
        large = [
            F.interpolate(x.transpose(1, 2).unflatten(2, grid), size=FINEST, mode="bilinear")
            for x, grid in zip(maps, GRIDS, strict=True)
        ]
        z = self.layer(torch.cat(large, 1))
        return F.interpolate(z, size=CELLS, mode="bilinear")  # [B, C, Y, X]


def trained(lr: float, decay: float, batches: list) -> Plain:
    net = Plain()
    adam = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=decay)
    for step, (maps, labels) in enumerate(batches):
        for group in adam.param_groups:
            group["lr"] = lr * rate(step, len(batches))
        adam.zero_grad()
        z = net(maps)
        each = z[..., None].expand(*z.shape, 4)
        F.cross_entropy(each, labels, ignore_index=-1).backward()
        adam.step()
    return net


@pytest.mark.parametrize("budget", [64 << 20, 1])
def test_torch_s_own_layers_learn_the_same(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.solvers.dense._BUDGET", budget)
    batches = data(6)
    lrs, decays = zip(*POINTS, strict=True)
    probes = DenseProbes(GRIDS, WIDTHS, CELLS, CLASSES, lrs, decays, len(batches))
    for maps, labels in batches:
        probes.step(maps, counts_of(labels))
    maps = data(1, seed=9)[0][0]
    answers = probes.answers(maps)  # [B, Y, X, G, C]
    for probe, (lr, decay) in enumerate(POINTS):
        plain = trained(lr, decay, batches)
        weight, bias = (p.detach() for p in plain.layer.parameters())
        weights, own = probes.parameters(probe)
        torch.testing.assert_close(torch.cat(weights, 1), weight[..., 0, 0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(own, bias, atol=1e-5, rtol=1e-4)
        logits = plain(maps).detach()
        torch.testing.assert_close(
            answers[..., probe, :].permute(0, 3, 1, 2), logits, atol=1e-5, rtol=1e-4
        )
        torch.testing.assert_close(
            probes.enlarged(maps, CELLS, probe), logits, atol=1e-5, rtol=1e-4
        )
    assert not any(probes.diverged)


@pytest.mark.parametrize(("small", "large"), [(2, 7), (7, 7), (14, 56), (5, 3)])
def test_enlarging_is_torch_s(small: int, large: int) -> None:
    x = torch.randn(1, 1, small, small)
    matrix = enlarging(small, large)
    known = F.interpolate(x, size=(large, large), mode="bilinear", align_corners=False)
    torch.testing.assert_close(matrix @ x[0, 0] @ matrix.t(), known[0, 0])


def test_a_probe_that_diverges_stays_at_zero_and_spoils_no_other() -> None:
    batches = data(5)
    both = DenseProbes(GRIDS, WIDTHS, CELLS, CLASSES, (1e-2, 1e30), (0.0, 0.0), 5)
    alone = DenseProbes(GRIDS, WIDTHS, CELLS, CLASSES, (1e-2,), (0.0,), 5)
    for maps, labels in batches:
        large = [1e10 * x for x in maps]
        both.step(large, counts_of(labels))
        alone.step(large, counts_of(labels))
    assert both.diverged == [False, True]
    weights, _ = both.parameters(1)
    assert all((w == 0).all() for w in weights)
    for one, other in zip(both.parameters(0)[0], alone.parameters(0)[0], strict=True):
        torch.testing.assert_close(one, other)


def test_a_batch_without_a_label_teaches_nothing() -> None:
    probes = DenseProbes(GRIDS, WIDTHS, CELLS, CLASSES, (0.1,), (0.0,), 2)
    maps, _ = data(1)[0]
    probes.step(maps, torch.zeros(4, *CELLS, CLASSES))
    assert all((w == 0).all() for w in probes.parameters(0)[0])
    assert probes.done == 1


def test_rates_and_decays_must_pair() -> None:
    with pytest.raises(ValueError, match="got 2 and 1"):
        DenseProbes(GRIDS, WIDTHS, CELLS, CLASSES, (0.1, 0.2), (0.0,), 1)
    assert np.isfinite(rate(0, 1))

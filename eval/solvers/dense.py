"""A grid of linear probes on maps of features, trained by AdamW in one pass.

A probe gives each place of each map logits by one matrix a map (and one bias); they are enlarged
bilinearly to the finest map, added up, and enlarged from there to a grid of cells. As enlarging is
linear, that is what the same probe gives on features that are enlarged to the finest map and put
side by side (mmsegmentation's ``resize_concat``), without ever making these: a map of 7 x 7 meets
the matrix at 49 places, not at 784. Both enlargements are one matrix a side and map, made once.

The loss is the mean cross-entropy over labelled samples of the cells. Samples of one cell share its
logits, so it takes one softmax a cell, however many there are. All probes of the grid meet the
features in one product. Gradients are written out: nothing of a cell is kept but its softmax.

Shapes: B images, T = h w places of a map, D its channels, G probes, C classes, Y x X cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eval.solvers.attentive import rate

Grid = tuple[int, int]  # rows, columns
_BUDGET = 64 << 20  # bytes of the logits of some images at once


def enlarging(small: int, large: int) -> Tensor:
    """[large, small] what ``F.interpolate`` does to one side, bilinearly (align_corners=False)."""
    return F.interpolate(torch.eye(small)[None], size=large, mode="linear")[0].t().contiguous()


def _bilinear(z: Tensor, size: Grid) -> Tensor:
    return F.interpolate(z, size=size, mode="bilinear", align_corners=False)


class DenseProbes:
    """G probes that start at zero, one rate and weight decay each, for a number of steps."""

    def __init__(
        self,
        grids: Sequence[Grid],
        widths: Sequence[int],
        cells: Grid,
        classes: int,
        lrs: Sequence[float],
        weight_decays: Sequence[float],
        steps: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """``grids`` and ``widths`` are those of the maps."""
        if len(lrs) != len(weight_decays) or not lrs:
            raise ValueError(
                f"need a rate and a weight decay for each probe: got {len(lrs)} and "
                f"{len(weight_decays)}"
            )
        self.grids, self.cells, self.classes = tuple(grids), cells, classes
        rows, columns = zip(*grids, strict=True)
        self.finest: Grid = (max(rows), max(columns))
        self.count, self.steps, self.done = len(lrs), steps, 0
        self.diverged = [False] * self.count
        self._lrs = tuple(lrs)
        self._up = [
            tuple(
                (enlarging(fine, large) @ enlarging(small, fine)).to(device)
                for small, fine, large in zip(g, self.finest, cells, strict=True)
            )
            for g in grids
        ]
        self._weights = [  # of each probe a matrix [C, D] a map, and a bias [C]
            [nn.Parameter(torch.zeros(classes, width, device=device)) for width in widths]
            for _ in lrs
        ]
        self._bias = [nn.Parameter(torch.zeros(classes, device=device)) for _ in lrs]
        self._adam = torch.optim.AdamW([
            {"params": [*own, bias], "lr": lr, "weight_decay": decay}
            for own, bias, lr, decay in zip(
                self._weights, self._bias, lrs, weight_decays, strict=True
            )
        ])  # fmt: skip

    @torch.no_grad()
    def step(self, maps: Sequence[Tensor], counts: Tensor) -> None:
        """One step of every probe. ``maps`` are [B, T, D] each; ``counts`` [B, Y, X, C] labelled
        samples of each class in each cell. A batch without any counts as a step without gradient.
        """
        total = counts.sum().clamp_min(1.0)
        part = rate(self.done, self.steps)
        for group, lr in zip(self._adam.param_groups, self._lrs, strict=True):
            group["lr"] = part * lr
        weights = self._stacked()
        gradients = [torch.zeros_like(w) for w in weights]  # [G C, D]
        of_bias = torch.zeros(self.count * self.classes, device=counts.device)
        losses = torch.zeros(self.count, device=counts.device)
        for some in self._pieces(len(counts)):
            here = [m[some] for m in maps]
            z = self._enlarged(here, weights)
            losses += self._cross_entropy(z, counts[some]) / total  # z holds its gradient then
            z = z.div_(total).flatten(3)  # [B, Y, X, G C]
            of_bias += z.sum((0, 1, 2))
            for gradient, x, (up, across) in zip(gradients, here, self._up, strict=True):
                gradient += self._shrunk(z, up, across).t() @ x.reshape(-1, x.shape[2])
        for probe in (~losses.isfinite()).nonzero().flatten().tolist():
            self.diverged[probe] = True
        self._hand_out(gradients, of_bias)
        self._adam.step()
        self.done += 1

    @staticmethod
    def _cross_entropy(z: Tensor, counts: Tensor) -> Tensor:
        """[G] summed losses of logits [B, Y, X, G, C]; their gradient takes the place of ``z``."""
        labelled = counts.sum(3)  # [B, Y, X]
        peak = z.logsumexp(4)  # [B, Y, X, G]
        losses = (peak * labelled[..., None]).sum((0, 1, 2))
        losses -= torch.einsum("byxgc,byxc->g", z, counts)
        z.sub_(peak[..., None]).exp_().mul_(labelled[..., None, None]).sub_(counts[..., None, :])
        return losses

    @torch.no_grad()
    def answers(self, maps: Sequence[Tensor]) -> Tensor:
        """[B, Y, X, G, C] logits of maps [B, T, D] each."""
        return self._enlarged(maps, self._stacked())

    @torch.no_grad()
    def enlarged(self, maps: Sequence[Tensor], size: Grid, probe: int = 0) -> Tensor:
        """[B, C, rows, columns] of one probe: as `answers`, at ``size`` in place of the cells."""
        total = self._bias[probe][None, :, None, None]
        for x, weight, grid in zip(maps, self._weights[probe], self.grids, strict=True):
            z = (x @ weight.t()).transpose(1, 2).unflatten(2, grid)
            total = total + _bilinear(z, self.finest)
        return _bilinear(total, size)

    def parameters(self, probe: int) -> tuple[list[Tensor], Tensor]:
        """Copies of a probe's matrices, [C, D] each, and its bias [C]."""
        return [w.detach().clone() for w in self._weights[probe]], self._bias[
            probe
        ].detach().clone()

    def _pieces(self, images: int) -> list[slice]:
        """Some images at a time, so that their logits stay within the budget."""
        each = 4 * self.count * self.classes * self.cells[0] * self.cells[1]
        size = max(1, _BUDGET // each)
        return [slice(begin, begin + size) for begin in range(0, images, size)]

    def _stacked(self) -> list[Tensor]:
        """[G C, D] a map."""
        return [torch.cat(of_map) for of_map in zip(*self._weights, strict=True)]

    def _enlarged(self, maps: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
        total: Tensor | None = None
        for x, weight, grid, (up, across) in zip(maps, weights, self.grids, self._up, strict=True):
            z = (x @ weight.t()).unflatten(1, grid)  # [B, h, w, G C]
            z = up @ z.flatten(2)  # [B, Y, w G C]
            z = across @ z.unflatten(2, (grid[1], -1))  # [B, Y, X, G C]
            total = z if total is None else total.add_(z)
        assert total is not None
        total += torch.cat(list(self._bias))
        return total.unflatten(3, (self.count, self.classes))

    def _shrunk(self, z: Tensor, up: Tensor, across: Tensor) -> Tensor:
        """[B T, G C] of [B, Y, X, G C]: the transpose of enlarging."""
        small = across.t() @ z  # [B, Y, w, G C]
        small = up.t() @ small.flatten(2)  # [B, h, w G C]
        return small.reshape(-1, z.shape[3])

    def _hand_out(self, gradients: Sequence[Tensor], of_bias: Tensor) -> None:
        for probe, (own, bias) in enumerate(zip(self._weights, self._bias, strict=True)):
            here = slice(probe * self.classes, (probe + 1) * self.classes)
            for weight, gradient in zip(own, gradients, strict=True):
                weight.grad = gradient[here]
            bias.grad = of_bias[here]
            if self.diverged[probe]:  # at zero, where it stays: no number of it is broken
                for value in (*own, bias):
                    value.grad = None
                    value.zero_()

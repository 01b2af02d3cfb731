"""Ranking a gallery for each query by cosine similarity: exact, in blocks of queries.

Shapes: N gallery rows, M queries, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from eval.solvers.knn import nearest

_BUDGET = 128 << 20  # bytes of similarities and places of a block


def ranked(gallery: Tensor, queries: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(which queries, [m, N] the gallery's rows for each, nearest first). Equal similarities are
    ordered by row."""
    size = max(1, _BUDGET // (12 * len(gallery)))
    for begin in range(0, len(queries), size):
        some = slice(begin, begin + size)
        yield some, nearest(gallery, queries[some], len(gallery))[1]


def average_precision(relevant: Tensor, counted: Tensor | None = None) -> Tensor:
    """[m] mean over the relevant places of a ranking of the precision up to each; 0 where none is.

    ``relevant`` [m, N] bool, nearest first; ``counted`` [m, N] False for rows that are no part of
    a query's gallery.
    """
    if counted is not None:
        relevant = relevant & counted
    found = relevant.cumsum(1)
    place = torch.arange(1, relevant.shape[1] + 1, device=relevant.device)
    met = place if counted is None else counted.cumsum(1)
    precision = found.double() / met.clamp_min(1)
    total = found[:, -1]
    return (precision * relevant).sum(1) / total.clamp_min(1)


def recalled(relevant: Tensor, ks: Sequence[int], counted: Tensor | None = None) -> Tensor:
    """[m, len(ks)] whether one of the first k of a ranking is relevant; arguments as above."""
    if counted is None:
        counted = torch.ones_like(relevant)
    relevant = relevant & counted
    place = counted.cumsum(1)
    never = torch.iinfo(place.dtype).max
    first = torch.where(relevant, place, never).amin(1)  # [m]
    return first[:, None] <= torch.tensor(list(ks), device=relevant.device)

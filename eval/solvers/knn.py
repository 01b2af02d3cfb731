"""Cosine k-nearest-neighbour classification for every k from one neighbour search.

    similarity, index = nearest(bank, queries, k=200)
    scores = vote(similarity, labels[index], (1, 5, 20, 200), n_classes, temperature=0.07)
    predictions = predict(scores)  # [4, M]

Shapes: N bank rows, M queries, D features, C classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_TILE = 1024  # rows of a similarity tile; see `nearest`


def nearest(
    bank: Tensor, queries: Tensor, k: int, chunk_bytes: int = 256 * 2**20
) -> tuple[Tensor, Tensor]:
    """Cosine similarity [M, k] and bank index [M, k] of the k nearest rows, nearest first.

    Equal similarities are ordered by bank index, also where they straddle rank k. A block of
    similarities takes at most `chunk_bytes` (never less than one tile, 4 MiB); a normalised copy of
    the bank is kept only if that fits in as many bytes again. The answer does not depend on
    `chunk_bytes`: products are always formed in the same zero-padded square tiles, since a matrix
    product may round differently when its shape changes. Zero vectors have similarity 0 to all.
    """
    if bank.ndim != 2 or queries.ndim != 2 or bank.shape[1] != queries.shape[1]:
        raise ValueError(
            f"need bank [N, D] and queries [M, D], got {[*bank.shape]} and {[*queries.shape]}"
        )
    n, m = len(bank), len(queries)
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} neighbours asked of a bank of {n} rows; k must be in 1..{n}")
    dtype = torch.float64 if bank.dtype == torch.float64 else torch.float32
    size = torch.finfo(dtype).bits // 8
    query_tile, bank_tile = _tile(m), _tile(n)
    tiles_held = max(1, chunk_bytes // (size * query_tile * bank_tile))
    keep = _unit(bank.to(dtype)) if n * bank.shape[1] * size <= chunk_bytes else None

    similarity = torch.empty(m, k, dtype=dtype, device=bank.device)
    index = torch.empty(m, k, dtype=torch.long, device=bank.device)
    for top in range(0, m, query_tile):
        rows = _padded(_unit(queries[top : top + query_tile].to(dtype)), query_tile)
        rows_here = min(query_tile, m - top)
        best: tuple[Tensor, Tensor] | None = None
        for first in range(0, n, tiles_held * bank_tile):
            last = min(n, first + tiles_held * bank_tile)
            tiles = []
            for left in range(first, last, bank_tile):
                right = min(left + bank_tile, n)
                part = _unit(bank[left:right].to(dtype)) if keep is None else keep[left:right]
                tiles.append(rows @ _padded(part, bank_tile).t())
            block = torch.cat(tiles, 1) if len(tiles) > 1 else tiles[0]
            del tiles
            found, where = _top(block[:rows_here, : last - first], k)
            where += first
            if best is not None:
                # Bank indices in `best` are all lower, so position order is index order.
                found, where = torch.cat([best[0], found], 1), torch.cat([best[1], where], 1)
                order = found.argsort(dim=1, descending=True, stable=True)[:, :k]
                found, where = found.gather(1, order), where.gather(1, order)
            best = found, where
        assert best is not None
        similarity[top : top + rows_here], index[top : top + rows_here] = best
    return similarity, index


def vote(
    similarity: Tensor,
    neighbour_labels: Tensor,
    ks: Sequence[int],
    n_classes: int,
    temperature: float | None,
) -> Tensor:
    """Class scores [len(ks), M, C] of the first k neighbours, for every k in `ks`.

    similarity, neighbour_labels: [M, K_max], nearest first. With a temperature a neighbour weighs
    `exp(similarity / temperature)` (Wu et al. 2018; DINO uses 0.07). With None each counts 1, and a
    class also gets a fraction below 1/2, larger the nearer its nearest neighbour: tied majorities
    then go to the class met first, and `scores.floor()` are the plain counts.
    """
    if similarity.shape != neighbour_labels.shape or similarity.ndim != 2:
        raise ValueError(
            f"similarity {[*similarity.shape]} and labels {[*neighbour_labels.shape]} must both be "
            "[M, K_max]"
        )
    m, k_max = similarity.shape
    if not ks or min(ks) < 1 or max(ks) > k_max:
        raise ValueError(f"ks must lie in 1..{k_max} (the neighbours given), got {list(ks)}")
    if temperature is not None and not temperature >= 1 / 80:
        raise ValueError(
            f"temperature {temperature} overflows float32 weights exp(1 / T); use at least 0.0125"
        )
    # float64 sums: on a GPU the order of additions varies, and must not show in float32.
    totals = torch.zeros(m, n_classes, dtype=torch.float64, device=similarity.device)
    weights = (
        torch.ones_like(totals[:, :1]).expand(m, k_max)
        if temperature is None
        else (similarity.double() / temperature).exp()
    )  # [M, K_max]
    ranks = torch.arange(k_max, device=similarity.device).expand(m, k_max)
    met = torch.full((m, n_classes), k_max, device=similarity.device)  # rank each class is met at
    met.scatter_reduce_(1, neighbour_labels, ranks, "amin")

    scores = torch.empty(len(ks), m, n_classes, device=similarity.device)
    done = 0
    for k, place in sorted((k, place) for place, k in enumerate(ks)):
        totals.scatter_add_(1, neighbour_labels[:, done:k], weights[:, done:k])
        done = k
        scores[place] = totals
        if temperature is None:
            scores[place] += torch.where(met < k, 0.5 * (1 - (met + 1) / (k_max + 1)), 0.0)
    return scores


def predict_without(
    bank: Tensor,
    queries: Tensor,
    similarity: Tensor,
    index: Tensor,
    labels: Tensor,
    groups: Tensor,
    n_groups: int,
    k: int,
    n_classes: int,
    temperature: float | None,
) -> Tensor:
    """Predicted labels [G, M] of the k nearest rows outside of each group of the bank's rows.

    similarity, index [M, L] are `nearest`'s, L above k by what a group may take away. Queries to
    which that leaves fewer than k are searched again. labels, groups: [N], groups in 0..G-1; where
    fewer than k rows are outside of a group, all of them vote. Exactly what `nearest` and `vote`
    say without these rows, but for the last bits of similarities searched in a smaller bank. Raises
    ValueError for a group that holds all rows.
    """
    answers = torch.empty(n_groups, len(queries), dtype=torch.long, device=queries.device)
    for g in range(n_groups):
        outside = groups != g  # [N]
        rest = int(outside.sum())
        least = min(k, rest)
        if least == 0:
            raise ValueError(f"group {g} holds all {len(bank)} rows of the bank; none could vote")
        kept = outside[index]  # [M, L]
        place = kept.cumsum(1)
        short = place[:, -1] < least
        first = kept & (place <= least)
        full = ~short
        near = similarity[full][first[full]].view(-1, least)
        own = labels[index[full][first[full]]].view(-1, least)
        answers[g, full] = predict(vote(near, own, [least], n_classes, temperature)[0])
        if bool(short.any()):
            found, where = nearest(bank[outside], queries[short], least)
            own = labels[outside][where]
            answers[g, short] = predict(vote(found, own, [least], n_classes, temperature)[0])
    return answers


def predict(scores: Tensor) -> Tensor:
    """The best class [...] of scores [..., C].

    Exact ties go to the lowest class; `vote` has already settled tied majorities by the nearest
    neighbour, so this concerns only weighted votes equal to the last bit.
    """
    # argmax promises nothing about ties, hence the explicit lowest index.
    classes = torch.arange(scores.shape[-1], device=scores.device)
    best = scores.amax(-1, keepdim=True)
    return torch.where(scores == best, classes, scores.shape[-1]).amin(-1)


def _tile(rows: int) -> int:
    """Tile height for that many rows: a power of two from 64 to 1024."""
    return min(_TILE, max(64, 1 << (rows - 1).bit_length())) if rows else 64


def _unit(x: Tensor) -> Tensor:
    """Rows scaled to length 1; zero rows stay zero."""
    scale = x.abs().amax(1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return F.normalize(x / scale, dim=1)  # scaled first: squares of huge features overflow


def _padded(x: Tensor, rows: int) -> Tensor:
    """x [R, D] with zero rows appended up to `rows`."""
    return x if len(x) == rows else F.pad(x, (0, 0, 0, rows - len(x)))


def _top(block: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The min(k, columns) largest of each row, descending, equal values by lower column."""
    columns = block.shape[1]
    if k >= columns:
        found, where = block.sort(dim=1, descending=True, stable=True)
        return found, where
    # One more than asked tells whether equal values straddle the cut; topk picks among them freely.
    found, where = block.topk(k + 1, dim=1, sorted=True)
    cut = (found[:, k - 1] == found[:, k]).nonzero().view(-1)
    found, where = found[:, :k], where[:, :k]
    if len(cut):
        full, full_where = block[cut].sort(dim=1, descending=True, stable=True)
        found, where = found.contiguous(), where.contiguous()
        found[cut], where[cut] = full[:, :k], full_where[:, :k]
    by_column = where.argsort(dim=1)
    found, where = found.gather(1, by_column), where.gather(1, by_column)
    order = found.argsort(dim=1, descending=True, stable=True)
    return found.gather(1, order), where.gather(1, order)

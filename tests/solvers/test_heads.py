"""A grid of heads in one pass against as many separate torch.nn runs."""

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from eval.solvers.heads import Heads, initial

GRID = list(itertools.product((0.1, 0.01), (16, 5), (0.0, 1e-2, 1e-4)))  # lr, batch size, decay
LRS = [lr for lr, _, _ in GRID]
SIZES = [size for _, size, _ in GRID]
DECAYS = [decay for _, _, decay in GRID]


def rows(n: int, d: int, classes: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features [n, d] of several scales and means, labels [n]."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=dtype)
    labels = torch.randint(classes, (n,), generator=g)
    x[:, 0] += labels
    return x * torch.logspace(-1, 1, d, dtype=dtype) + torch.arange(d), labels


def start(d: int, classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    weight, bias = initial(d, classes, torch.Generator().manual_seed(1))
    return weight.to(dtype), bias.to(dtype)


def orders(n: int, epochs: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(2)
    return [torch.randperm(n, generator=g) for _ in range(epochs)]


def naive(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    epochs: Sequence[Tensor],
    point: tuple[float, int, float],
    rate: Sequence[float],
) -> nn.Sequential:
    """What a user would write."""
    lr, size, decay = point
    net = nn.Sequential(
        nn.BatchNorm1d(x.shape[1], affine=False), nn.Linear(x.shape[1], len(bias))
    ).to(x.dtype)
    with torch.no_grad():
        net[1].weight.copy_(weight)
        net[1].bias.copy_(bias)
    optimiser = torch.optim.SGD(net.parameters(), lr, momentum=0.9, weight_decay=decay)
    net.train()
    for order, factor in zip(epochs, rate, strict=True):
        for group in optimiser.param_groups:
            group["lr"] = lr * factor
        for batch in order.split(size):
            if len(batch) > 1:
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
                optimiser.step()
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("n", "d", "classes"),
    [
        (64, 8, 3),  # whole batches of 16, a last one of 4 for 5
        (81, 7, 4),  # a last batch of one image for both
        (33, 15, 2),  # one for 16 alone
        (12, 1, 5),  # fewer rows than a batch; one feature
        (2, 3, 2),
        (1111, 5, 3),  # more rows than a block
    ],
)
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-9), (torch.float32, 2e-3)])
def test_equals_separate_runs(
    n: int, d: int, classes: int, dtype: torch.dtype, within: float
) -> None:
    x, y = rows(n, d, classes, dtype)
    weight, bias = start(d, classes, dtype)
    epochs, rate = orders(n, 4), (1.0, 1.0, 0.1, 0.01)
    heads = Heads(weight, bias, SIZES, DECAYS)
    for order, factor in zip(epochs, rate, strict=True):
        heads.train_epoch(x, y, order, [lr * factor for lr in LRS])
    assert heads.diverged == [False] * len(GRID)
    unseen, labels = rows(50, d, classes, dtype, seed=5)
    correct = heads.correct(unseen, labels)
    for head, point in enumerate(GRID):
        net = naive(x, y, weight, bias, epochs, point, rate)
        own = heads.parameters(head)
        for ours, theirs in zip(own, (net[1].weight, net[1].bias), strict=True):
            assert (ours - theirs).abs().max() <= within * max(1, float(theirs.abs().max()))
        for ours, theirs in zip(
            heads.statistics(head), (net[0].running_mean, net[0].running_var), strict=True
        ):
            assert torch.allclose(ours, theirs, rtol=max(within * 1e-2, 1e-12), atol=within * 1e-2)
        expected = net(unseen)
        ours = heads.logits(unseen, head)
        assert (ours - expected).abs().max() <= within * max(1, float(expected.abs().max()))
        if dtype == torch.float64:
            assert correct[head] == int((expected.argmax(1) == labels).sum())
        assert correct[head] == int((ours.argmax(1) == labels).sum())


def test_starts_as_torchs_linear_layer_does() -> None:
    torch.manual_seed(3)
    layer = nn.Linear(11, 4)
    weight, bias = initial(11, 4, torch.Generator().manual_seed(3))
    assert torch.equal(weight, layer.weight)
    assert torch.equal(bias, layer.bias)


def test_rows_that_are_not_in_the_order_count_nothing() -> None:
    x, y = rows(40, 6, 3, torch.float64)
    some = torch.arange(0, 40, 2)
    g = torch.Generator().manual_seed(0)
    order = torch.randperm(20, generator=g)
    whole = Heads(*start(6, 3, x.dtype), [8, 3], [0.0, 0.1])
    part = Heads(*start(6, 3, x.dtype), [8, 3], [0.0, 0.1])
    whole.train_epoch(x, y, some[order], [0.1, 0.1])
    part.train_epoch(x[some], y[some], order, [0.1, 0.1])
    for head in range(2):
        assert torch.equal(whole.logits(x, head), part.logits(x, head))


def test_one_head_goes_on_alone_as_it_would_with_the_others() -> None:
    x, y = rows(50, 6, 3, torch.float64)
    first, second = orders(50, 2)
    heads = Heads(*start(6, 3, x.dtype), SIZES, DECAYS)
    heads.train_epoch(x, y, first, LRS)
    for head in (0, 4, 11):
        alone = heads.only(head)
        before = heads.logits(x, head)
        alone.train_epoch(x, y, second, [LRS[head]])
        assert torch.equal(heads.logits(x, head), before)
        together = Heads(*start(6, 3, x.dtype), SIZES, DECAYS)
        for order in (first, second):
            together.train_epoch(x, y, order, LRS)
        assert torch.allclose(alone.logits(x, 0), together.logits(x, head), atol=1e-11, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_head_that_diverges_is_frozen_and_the_others_do_not_notice(dtype: torch.dtype) -> None:
    x, y = rows(60, 6, 3, dtype)
    epochs = orders(60, 6)
    wild = Heads(*start(6, 3, dtype), [8, 8, 8], [0.0, 1e3, 1e-4])
    calm = Heads(*start(6, 3, dtype), [8, 8, 8], [0.0, 0.0, 1e-4])
    for order in epochs:
        wild.train_epoch(x, y, order, [0.1, 1e4, 0.1])
        calm.train_epoch(x, y, order, [0.1, 0.0, 0.1])
    assert wild.diverged == [False, True, False]
    assert all(t.count_nonzero() == 0 for t in wild.parameters(1))
    for head in (0, 2):
        assert torch.equal(wild.logits(x, head), calm.logits(x, head))
    assert wild.only(1).diverged == [True]


def test_a_head_whose_rate_is_not_finite_diverges_alone() -> None:
    x, y = rows(20, 4, 2, torch.float32)
    heads = Heads(*start(4, 2, x.dtype), [8, 8], [0.0, 0.0])
    for order in orders(20, 2):
        heads.train_epoch(x, y, order, [math.inf, 0.1])
    assert heads.diverged == [True, False]
    assert heads.logits(x, 1).isfinite().all()


def test_features_that_never_vary_do_no_harm() -> None:
    x, y = rows(30, 4, 2, torch.float64)
    x[:, 2] = 7.0
    weight, bias = start(4, 2, x.dtype)
    heads = Heads(weight, bias, [8], [0.0])
    epochs = orders(30, 3)
    for order in epochs:
        heads.train_epoch(x, y, order, [0.1])
    net = naive(x, y, weight, bias, epochs, (0.1, 8, 0.0), (1.0, 1.0, 1.0))
    assert torch.allclose(heads.logits(x, 0), net(x), atol=1e-9)


def test_what_cannot_be_trained_is_refused() -> None:
    weight, bias = start(4, 2, torch.float32)
    x, y = rows(8, 4, 2, torch.float32)
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        Heads(weight, bias, [8, 1], [0.0, 0.0])
    with pytest.raises(ValueError, match="got 2 and 1"):
        Heads(weight, bias, [8, 8], [0.0])
    with pytest.raises(ValueError, match="got 0 and 0"):
        Heads(weight, bias, [], [])
    heads = Heads(weight, bias, [8], [0.0])
    with pytest.raises(ValueError, match="at least 2 rows to train on, got 1"):
        heads.train_epoch(x, y, torch.tensor([3]), [0.1])
    with pytest.raises(ValueError, match="1 learning rates, got 2"):
        heads.train_epoch(x, y, torch.arange(8), [0.1, 0.1])

"""A grid of attentive probes in one pass against as many runs of torch's own attention."""

from __future__ import annotations

import itertools

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from eval.solvers.attentive import AttentiveProbes, initial, most_heads, rate
from tests.solvers.naive_attention import NaiveProbe

WIDTH, HEADS, CLASSES, STEPS = 24, 4, 5, 12
GRID = list(itertools.product((1e-3, 1e-2), (0.0, 0.3)))  # rate, decay


def batches(count: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(7, 9, WIDTH, generator=g, dtype=torch.float64),
            torch.randint(CLASSES, (7,), generator=g),
        )
        for _ in range(count)
    ]


def start(width: int = WIDTH, classes: int = CLASSES) -> dict[str, Tensor]:
    drawn = initial(width, classes, torch.Generator().manual_seed(1))
    return {name: value.double() for name, value in drawn.items()}


def test_each_probe_is_torchs_attention_trained_alone() -> None:
    lrs, decays = zip(*GRID, strict=True)
    probes = AttentiveProbes(start(), HEADS, lrs, decays, STEPS)
    for tokens, labels in batches():
        probes.step(tokens, labels)
    unseen = batches(STEPS + 1)[-1][0]
    ours = probes.logits(unseen)
    for at, (lr, decay) in enumerate(GRID):
        naive = NaiveProbe(start(), HEADS).fit(batches(), lr, decay)
        torch.testing.assert_close(ours[:, at], naive(unseen), rtol=1e-7, atol=1e-8)
        found = probes.parameters(at)
        key = naive.attention.in_proj_weight.data[WIDTH : 2 * WIDTH]
        torch.testing.assert_close(found["key"], key, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(found["query"], naive.query.data, rtol=1e-7, atol=1e-8)
        assert not torch.allclose(found["key"], start()["key"], atol=1e-4)


def test_it_finds_the_token_that_tells() -> None:
    """Of 16 tokens one, marked in two channels, has the class; the others hold other classes."""
    g = torch.Generator().manual_seed(0)
    count, width, classes = 600, 16, 4
    answers = torch.randint(classes, (count, 16), generator=g)
    tokens = 0.3 * torch.randn(count, 16, width, generator=g)
    tokens += 2 * torch.nn.functional.one_hot(answers, width)
    place = torch.randint(16, (count,), generator=g)
    tokens[torch.arange(count), place, -2:] += 3
    labels = answers[torch.arange(count), place]
    drawn = initial(width, classes, torch.Generator().manual_seed(1))
    probes = AttentiveProbes(drawn, 4, (1e-2,), (0.01,), steps=20 * 8)
    for epoch in range(20):
        order = torch.randperm(400, generator=torch.Generator().manual_seed(epoch))
        for some in order.split(50):
            probes.step(tokens[some], labels[some])
    right = (probes.logits(tokens[400:])[:, 0].argmax(1) == labels[400:]).float().mean()
    mean = tokens.mean(1).numpy()
    plain = LogisticRegression(max_iter=1000).fit(mean[:400], labels[:400])
    assert right > 0.9
    assert plain.score(mean[400:], labels[400:]) < 0.6


def test_a_probe_that_diverges_leaves_the_others_alone() -> None:
    [tokens, labels] = batches(1)[0]
    both = AttentiveProbes(start(), HEADS, (1e-2, 1e200), (0.0, 0.0), STEPS)
    alone = AttentiveProbes(start(), HEADS, (1e-2,), (0.0,), STEPS)
    for _ in range(STEPS):
        both.step(tokens, labels)
        alone.step(tokens, labels)
    assert both.diverged == [False, True]
    torch.testing.assert_close(both.logits(tokens)[:, 0], alone.logits(tokens)[:, 0])


def test_the_rate_rises_then_falls_to_nothing() -> None:
    found = [rate(step, 100) for step in range(100)]
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[5] == 1.0
    assert all(a > b for a, b in itertools.pairwise(found[5:]))
    assert found[-1] < 1e-3
    assert rate(0, 1) == 1.0


@pytest.mark.parametrize(
    ("width", "asked", "heads"),
    [(384, 12, 12), (512, 12, 8), (768, 12, 12), (64, 12, 8), (7, 12, 7), (13, 12, 1)],
)
def test_as_many_heads_as_divide_the_width(width: int, asked: int, heads: int) -> None:
    assert most_heads(width, asked) == heads


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="5 heads do not divide a width of 24"):
        AttentiveProbes(start(), 5, (0.1,), (0.0,), 1)
    with pytest.raises(ValueError, match="got 2 and 1"):
        AttentiveProbes(start(), 4, (0.1, 0.2), (0.0,), 1)

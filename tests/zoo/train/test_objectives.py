"""The study's losses against loops over its formulas, and what is enqueued when."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import SupConLoss
from torch import Tensor, nn

from eval.models.objectives import OBJECTIVES, STUDY, parse_objective
from zoo.train.objectives import (
    Contrastive,
    ContrastiveOptions,
    CrossEntropy,
    Joint,
    NegativesOnlySupCon,
    Objective,
    ProjectedCrossEntropy,
    ProjectorOptions,
    SelfSupCon,
    StrongCrossEntropy,
    SupCon,
    build,
    classifier_projector,
    info_nce,
    projection_head,
    same_class,
    sup_con,
)

Vector = list[float]
DIM, CLASSES = 5, 3
CLOSE = {"rel": 1e-9, "abs": 1e-10}
CLOSE_SUP = {"rel": 1e-7, "abs": 1e-10}  # |P| + 1e-5 is formed in float32


# ---------------------------------------------------------------- the formulas, in loops


def dot(a: Vector, b: Vector) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def unit(vector: Vector) -> Vector:
    length = math.sqrt(dot(vector, vector))
    return [x / length for x in vector]


def head_by_hand(head: nn.Module, rows: Tensor) -> list[Vector]:
    """norm(g(h)) with g = linear, then relu and linear as often as there are more of them."""
    linear = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    found = []
    for row in rows.tolist():
        for i, layer in enumerate(linear):
            if i > 0:
                row = [max(x, 0.0) for x in row]
            weight, bias = layer.weight.tolist(), layer.bias.tolist()
            row = [dot(w, row) + b for w, b in zip(weight, bias, strict=True)]
        found.append(unit(row))
    return found


def info_nce_by_hand(
    queries: list[Vector],
    keys: list[Vector],
    queue: list[Vector],
    temperature: float,
    counts: Callable[[int, int], bool] = lambda i, j: True,
) -> float:
    losses = []
    for i, (q, k) in enumerate(zip(queries, keys, strict=True)):
        own = math.exp(dot(q, k) / temperature)
        others = [math.exp(dot(q, u) / temperature) for j, u in enumerate(queue) if counts(i, j)]
        losses.append(-math.log(own / (own + math.fsum(others))))
    return math.fsum(losses) / len(losses)


def sup_con_by_hand(
    queries: list[Vector], queue: list[Vector], positives: list[list[int]], temperature: float
) -> float:
    losses = []
    for q, chosen in zip(queries, positives, strict=True):
        everyone = math.fsum(math.exp(dot(q, u) / temperature) for u in queue)
        logs = [math.log(math.exp(dot(q, queue[p]) / temperature) / everyone) for p in chosen]
        losses.append(-math.fsum(logs) / (len(chosen) + 1e-5))
    return math.fsum(losses) / len(losses)


def cross_entropy_by_hand(head: nn.Linear, features: Tensor, labels: list[int]) -> float:
    losses = []
    weight, bias = head.weight.tolist(), head.bias.tolist()
    for h, y in zip(features.tolist(), labels, strict=True):
        if y >= 0:
            scores = [dot(w, h) + b for w, b in zip(weight, bias, strict=True)]
            losses.append(-math.log(math.exp(scores[y]) / math.fsum(map(math.exp, scores))))
    return math.fsum(losses) / len(losses) if losses else 0.0


class RingByHand:
    """A queue as lists."""

    def __init__(self, objective: Contrastive) -> None:
        self.keys: list[Vector] = objective.queue.keys.tolist()
        self.labels = [-1] * len(self.keys)
        self.next = 0

    def enqueue(self, keys: list[Vector], labels: list[int]) -> list[int]:
        slots = []
        for key, label in zip(keys, labels, strict=True):
            self.keys[self.next], self.labels[self.next] = key, label
            slots.append(self.next)
            self.next = (self.next + 1) % len(self.keys)
        return slots


# ---------------------------------------------------------------- made-up batches


def units(random: torch.Generator, n: int, dim: int) -> Tensor:
    return nn.functional.normalize(torch.randn(n, dim, generator=random, dtype=torch.float64))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(seed: int, n: int = 4, labels: list[int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Features, key features and labels (-1 among them)."""
    random = generator(seed)
    features, keys = torch.randn(2, n, DIM, generator=random, dtype=torch.float64)
    drawn = torch.randint(-1, CLASSES, (n,), generator=random)
    return features, keys, drawn if labels is None else torch.tensor(labels)


def made(name: str, seed: int = 0, weights: Any = None, **options: Any) -> Any:
    """The objective in float64, small, its key heads apart from its heads."""
    torch.manual_seed(seed)
    settings = {"temperature": 0.3, "queue": 10, "head_dim": 4, **options}
    objective = build(name, DIM, CLASSES, ContrastiveOptions(**settings), weights).double()
    for part in contrastive(objective):
        for parameter in part.key_head.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return objective


def contrastive(objective: Objective) -> list[Contrastive]:
    return [m for m in objective.modules() if isinstance(m, Contrastive)]


def keys_of(objective: Contrastive, key_features: Tensor) -> Tensor:
    with torch.no_grad():
        return nn.functional.normalize(objective.key_head(key_features))


sizes = st.integers(1, 7)
temperatures = st.floats(0.05, 3.0)
seeds = st.integers(0, 2**31)


# ---------------------------------------------------------------- pure losses


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, sizes, temperatures, seeds)
def test_info_nce_is_its_formula(n: int, k: int, d: int, temperature: float, seed: int) -> None:
    random = generator(seed)
    q, key, queue = units(random, n, d), units(random, n, d), units(random, k, d)
    expected = info_nce_by_hand(q.tolist(), key.tolist(), queue.tolist(), temperature)
    assert info_nce(q, key, queue, temperature).item() == pytest.approx(expected, **CLOSE)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, sizes, temperatures, seeds)
def test_info_nce_counts_the_chosen_negatives_alone(
    n: int, k: int, d: int, temperature: float, seed: int
) -> None:
    random = generator(seed)
    q, key, queue = units(random, n, d), units(random, n, d), units(random, k, d)
    mask = torch.rand(n, k, generator=random) < 0.5
    expected = info_nce_by_hand(
        q.tolist(), key.tolist(), queue.tolist(), temperature, lambda i, j: bool(mask[i, j])
    )
    assert info_nce(q, key, queue, temperature, mask).item() == pytest.approx(expected, **CLOSE)


def test_info_nce_without_any_negative_is_nothing() -> None:
    q, key, queue = (units(generator(i), 3, 4).requires_grad_(i == 0) for i in range(3))
    loss = info_nce(q, key, queue, 0.1, torch.zeros(3, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert q.grad is not None
    assert q.grad.abs().max() == 0


def test_info_nce_of_equal_vectors_is_the_log_of_their_number() -> None:
    same = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    loss = info_nce(same, same, same.expand(9, 2), 0.07)
    assert loss.item() == pytest.approx(math.log(10), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, sizes, temperatures, seeds, st.integers(1, 4))
def test_sup_con_is_its_formula(
    n: int, k: int, d: int, temperature: float, seed: int, classes: int
) -> None:
    """Queries with and without a positive, slots with and without a label."""
    random = generator(seed)
    q, queue = units(random, n, d), units(random, k, d)
    labels = torch.randint(-1, classes, (n,), generator=random)
    slots = torch.randint(-1, classes, (k,), generator=random)
    positives = [
        [j for j, other in enumerate(slots.tolist()) if label == other and label != -1]
        for label in labels.tolist()
    ]
    expected = sup_con_by_hand(q.tolist(), queue.tolist(), positives, temperature)
    found = sup_con(q, queue, same_class(labels, slots), temperature)
    assert found.item() == pytest.approx(expected, **CLOSE_SUP)


def test_sup_con_of_a_query_without_positive_is_nothing() -> None:
    q, queue = units(generator(0), 1, 4), units(generator(1), 6, 4)
    assert sup_con(q, queue, torch.zeros(1, 6, dtype=torch.bool), 0.1).item() == 0


@pytest.mark.parametrize("loss", ["info_nce", "sup_con"])
def test_a_sharp_temperature_stays_finite(loss: str) -> None:
    q, queue = units(generator(0), 3, 4).float(), units(generator(1), 6, 4).float()
    positives = torch.eye(3, 6, dtype=torch.bool)
    found = (
        info_nce(q, -q, queue, 1e-3) if loss == "info_nce" else sup_con(q, queue, positives, 1e-3)
    )
    assert found.isfinite()
    assert found > 100


def test_same_class_is_an_equal_label() -> None:
    found = same_class(torch.tensor([0, 2, -1]), torch.tensor([2, -1, 0, 0]))
    assert found.int().tolist() == [[0, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_sup_con_is_that_of_pytorch_metric_learning(temperature: float) -> None:
    """Theirs takes a reference set: ours is the queue, its labels the reference labels.

    Their denominator holds all pairs that are positive or negative, hence the whole reference
    set, since no query is in it; slots under -1 differ from all labels and so are negatives in
    both. Their mean leaves out losses of 0, so every query has a positive here. What is left is
    the 1e-5 beside the number of positives, at least 1: a share of 1e-5 of the loss.
    """
    random = generator(5)
    q, queue = units(random, 8, 6), units(random, 20, 6)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
    slots = torch.tensor([0] * 6 + [1] + [2] * 5 + [3] * 3 + [-1] * 5)
    theirs = SupConLoss(temperature=temperature)(q, labels, ref_emb=queue, ref_labels=slots)
    ours = sup_con(q, queue, same_class(labels, slots), temperature)
    assert ours.item() == pytest.approx(theirs.item(), rel=1.1e-5)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("masked", [False, True])
def test_info_nce_s_gradient_is_right(masked: bool) -> None:
    random = generator(2)
    q, key, queue = (units(random, n, 4).requires_grad_() for n in (3, 3, 5))
    mask = torch.rand(3, 5, generator=random) < 0.5 if masked else None
    assert torch.autograd.gradcheck(lambda *x: info_nce(*x, 0.2, mask), (q, key, queue))


def test_sup_con_s_gradient_is_right() -> None:
    random = generator(2)
    q, queue = (units(random, n, 4).requires_grad_() for n in (3, 5))
    positives = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]).bool()
    assert torch.autograd.gradcheck(lambda *x: sup_con(*x, positives, 0.2), (q, queue))


@pytest.mark.parametrize("name", [*STUDY, "ce+supcon+selfsupcon"])
def test_a_module_s_gradient_is_right(name: str) -> None:
    """With respect to the features and to every parameter that is trained, queue half full."""
    objective = made(name, weights={"selfsupcon": 0.5})
    objective(*batch(1, 5))
    objective.state_dict()  # enqueues
    features, keys, labels = batch(2, 4, [0, -1, 1, 0])
    trained = {n: p for n, p in objective.named_parameters() if p.requires_grad}

    def loss(x: Tensor, *parameters: Tensor) -> Tensor:
        fresh = copy.deepcopy(objective)  # each call meets the same queue
        named = dict(zip(trained, parameters, strict=True))
        return torch.func.functional_call(fresh, named, (x, keys, labels))["total"]

    inputs = (features.requires_grad_(), *(p.detach().requires_grad_() for p in trained.values()))
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)


# ---------------------------------------------------------------- modules, several steps


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(4, 11), temperatures, seeds, st.booleans(), st.integers(1, 3))
def test_self_sup_con_is_its_formula(
    n: int, k: int, temperature: float, seed: int, only: bool, depth: int
) -> None:
    """Against the queue before the batch, from the random start until it has wrapped around."""
    objective = made(
        "selfsupcon",
        seed,
        temperature=temperature,
        queue=k,
        head_depth=depth,
        same_class_negatives_only=only,
    )
    ring = RingByHand(objective)
    for step in range(4):
        features, key_features, drawn = batch(seed + step, n)
        labels = drawn.tolist()
        q = head_by_hand(objective.head, features)
        keys = head_by_hand(objective.key_head, key_features)
        before = list(ring.labels)
        expected = info_nce_by_hand(
            q,
            keys,
            ring.keys,
            temperature,
            (lambda i, j, y=labels, u=before: -1 != y[i] == u[j]) if only else lambda i, j: True,
        )
        ring.enqueue(keys, labels)
        terms = objective(features, key_features, drawn)
        assert terms["total"].item() == pytest.approx(expected, **CLOSE)
        assert terms["selfsupcon"].item() == terms["total"].item()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(4, 11), temperatures, seeds, st.integers(1, 3))
def test_sup_con_module_is_its_formula(
    n: int, k: int, temperature: float, seed: int, depth: int
) -> None:
    """Against the queue after the batch; a query without label has its own key alone."""
    objective = made("supcon", seed, temperature=temperature, queue=k, head_depth=depth)
    ring = RingByHand(objective)
    for step in range(4):
        features, key_features, drawn = batch(seed + step, n)
        labels = drawn.tolist()
        slots = ring.enqueue(head_by_hand(objective.key_head, key_features), labels)
        positives = [
            [slots[i]] if y == -1 else [j for j, other in enumerate(ring.labels) if other == y]
            for i, y in enumerate(labels)
        ]
        q = head_by_hand(objective.head, features)
        expected = sup_con_by_hand(q, ring.keys, positives, temperature)
        terms = objective(features, key_features, drawn)
        assert terms["total"].item() == pytest.approx(expected, **CLOSE_SUP)
        assert terms["supcon"].item() == terms["total"].item()


@pytest.mark.parametrize("kind", [CrossEntropy, StrongCrossEntropy])
@pytest.mark.parametrize("labels", [[0, 1, 2, 1], [2, -1, -1, 0], [-1, 1, -1, -1]])
def test_cross_entropy_is_its_formula(kind: type[CrossEntropy], labels: list[int]) -> None:
    """Images without label are left out of the mean."""
    torch.manual_seed(0)
    objective = kind(DIM, CLASSES).double()
    features, _, given_labels = batch(3, 4, labels)
    terms = objective(features, None, given_labels)
    expected = cross_entropy_by_hand(objective.head, features, labels)
    assert terms["ce"].item() == terms["total"].item() == pytest.approx(expected, **CLOSE)


def test_cross_entropy_of_a_batch_without_labels_is_nothing() -> None:
    objective = made("ce")
    features, _, labels = batch(3, 4, [-1] * 4)
    loss = objective(features.requires_grad_(), None, labels)["total"]
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None
    assert features.grad.abs().max() == 0


def batch_norm_by_hand(rows: list[Vector]) -> list[Vector]:
    """Each column less its mean, over its deviation; scale and shift are still 1 and 0."""
    columns = []
    for column in zip(*rows, strict=True):
        mean = math.fsum(column) / len(column)
        variance = math.fsum((x - mean) ** 2 for x in column) / len(column)
        columns.append([(x - mean) / math.sqrt(variance + 1e-5) for x in column])
    return [list(row) for row in zip(*columns, strict=True)]


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("labels", [[0, 1, 2, 1], [2, -1, -1, 0]])
def test_projected_cross_entropy_is_its_formula(layers: int, labels: list[int]) -> None:
    """Unit length; linear, batch norm, GELU; bottleneck; cosine softmax at the temperature."""
    torch.manual_seed(1)
    options = ProjectorOptions(layers, hidden_dim=6, bottleneck_dim=4, temperature=0.2)
    objective = ProjectedCrossEntropy(DIM, CLASSES, options).double()
    features, _, given_labels = batch(3, 4, labels)
    terms = objective(features, None, given_labels)

    linear = [x for x in objective.projector if isinstance(x, nn.Linear)]
    assert len(linear) == layers + 1
    rows = [unit(row) for row in features.tolist()]
    for layer in linear[:-1]:
        weight, bias = layer.weight.tolist(), layer.bias.tolist()
        rows = [[dot(w, r) + b for w, b in zip(weight, bias, strict=True)] for r in rows]
        rows = batch_norm_by_hand(rows)
        rows = [[x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in r] for r in rows]
    assert linear[-1].bias is None
    rows = [unit([dot(w, r) for w in linear[-1].weight.tolist()]) for r in rows]
    classes = [unit(w) for w in objective.classes.weight.tolist()]
    losses = []
    for row, y in zip(rows, labels, strict=True):
        if y >= 0:
            scores = [dot(w, row) / 0.2 for w in classes]
            losses.append(-math.log(math.exp(scores[y]) / math.fsum(map(math.exp, scores))))
    expected = math.fsum(losses) / len(losses)
    assert terms["ce-mlp"].item() == terms["total"].item() == pytest.approx(expected, **CLOSE)


def test_a_projector_begins_as_t_rex_s() -> None:
    torch.manual_seed(0)
    linear = [x for x in classifier_projector(512, ProjectorOptions()) if isinstance(x, nn.Linear)]
    assert [tuple(x.weight.shape) for x in linear] == [(2048, 512), (256, 2048)]
    for layer in linear:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert layer.weight.abs().max() < 2
    assert linear[0].bias.abs().max() == 0


def test_nscl_is_its_formula() -> None:
    """Keys of the query's own class are no negatives; those without a label are."""
    objective = made("nscl")
    ring = RingByHand(objective.queue and objective)
    for step in range(4):
        features, key_features, labels = batch(step, 4, [0, 1, -1, 1])
        queries = head_by_hand(objective.head, features)
        keys = head_by_hand(objective.key_head, key_features)
        given_labels = labels.tolist()
        seen = list(ring.labels)

        def counts(i: int, j: int, own: list[int] = given_labels, held: list[int] = seen) -> bool:
            return own[i] < 0 or own[i] != held[j]

        expected = info_nce_by_hand(queries, keys, ring.keys, 0.3, counts)
        terms = objective(features, key_features, labels)
        assert terms["nscl"].item() == terms["total"].item() == pytest.approx(expected, **CLOSE)
        ring.enqueue(keys, given_labels)


@pytest.mark.parametrize(
    "name", ["ce+selfsupcon", "supcon+selfsupcon", "ce+supcon", "ce-mlp+selfsupcon"]
)
def test_a_joint_loss_is_the_weighted_sum_of_its_parts_alone(name: str) -> None:
    """Each part with the same heads and queue, on its own, over steps that fill the queue."""
    first, second = name.split("+")
    joint = made(name, weights={first: 0.7, second: 2.5})
    alone = {term: made(term, seed=9) for term in (first, second)}
    for term, part in alone.items():
        part.load_state_dict(joint.parts[term].state_dict())
    for step in range(4):
        inputs = batch(step)
        losses = {term: part(*inputs)["total"].item() for term, part in alone.items()}
        terms = {term: loss.item() for term, loss in joint(*inputs).items()}
        total = 0.7 * losses[first] + 2.5 * losses[second]
        assert terms == pytest.approx({**losses, "total": total}, rel=1e-12)


def test_a_joint_gradient_is_the_weighted_sum_of_its_parts_alone() -> None:
    joint = made("ce+selfsupcon", weights={"selfsupcon": 2.5})
    parts = copy.deepcopy(joint.parts)
    features, keys, labels = batch(0)
    found = torch.autograd.grad(
        joint(features.requires_grad_(), keys, labels)["total"], features, retain_graph=True
    )[0]
    ce, own = (
        torch.autograd.grad(parts[t](features, keys, labels)["total"], features)[0]
        for t in ("ce", "selfsupcon")
    )
    torch.testing.assert_close(found, ce + 2.5 * own, rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------- what is enqueued when


def test_self_sup_con_s_keys_are_in_the_queue_for_the_next_batch() -> None:
    objective = made("selfsupcon")
    start = objective.queue.keys.clone()
    (_, first, a), (_, second, b) = batches = batch(1), batch(2)
    for inputs in batches:
        objective(*inputs)
    expected = torch.cat([keys_of(objective, first), start[4:]])
    torch.testing.assert_close(objective.queue.keys, expected)
    objective.enqueue_waiting()
    expected = torch.cat([keys_of(objective, first), keys_of(objective, second), start[8:]])
    torch.testing.assert_close(objective.queue.keys, expected)
    assert objective.queue.labels.tolist() == [*a.tolist(), *b.tolist(), -1, -1]


def test_self_sup_con_enqueues_a_batch_once() -> None:
    objective = made("selfsupcon")
    objective(*batch(1))
    objective.enqueue_waiting()
    objective.enqueue_waiting()
    assert objective.queue.state.tolist() == [4, 4]


def test_self_sup_con_s_own_key_is_no_negative() -> None:
    """An own key at the query and a queue at its opposite: nothing is left to lose."""
    objective = made("selfsupcon", temperature=0.02)
    objective.key_head.move_towards(objective.head, 0.0)
    features, _, labels = batch(1, 1)
    objective.queue.keys.copy_(-keys_of(objective, features).expand(10, -1))
    assert objective(features, features, labels)["total"].item() < 1e-12


def test_self_sup_con_keeps_same_class_keys_as_negatives() -> None:
    objective, blind = made("selfsupcon"), made("selfsupcon")
    for step in range(3):
        features, keys, _ = batch(step)
        same = objective(features, keys, torch.zeros(4, dtype=torch.long))["total"].item()
        assert same == blind(features, keys, None)["total"].item()


def test_same_class_negatives_only_leaves_an_empty_queue_out() -> None:
    objective = made("selfsupcon", same_class_negatives_only=True)
    assert objective(*batch(1, 4, [0, 1, 2, 0]))["total"].item() == 0


def test_sup_con_s_own_key_is_its_only_positive_in_an_empty_queue() -> None:
    objective = made("supcon", queue=1)
    features, key_features, _ = batch(1, 1)
    loss = objective(features, key_features, torch.tensor([0]))["total"].item()
    assert loss == pytest.approx(0, abs=1e-12)  # one slot, the own key: log(1)
    torch.testing.assert_close(objective.queue.keys, keys_of(objective, key_features))


def test_sup_con_s_keys_are_in_the_queue_at_once_with_their_labels() -> None:
    objective = made("supcon")
    _, key_features, labels = inputs = batch(1)
    objective(*inputs)
    torch.testing.assert_close(objective.queue.keys[:4], keys_of(objective, key_features))
    assert objective.queue.labels.tolist() == [*labels.tolist(), *[-1] * 6]


@pytest.mark.parametrize("name", ["selfsupcon", "supcon", "ce+selfsupcon", "supcon+selfsupcon"])
def test_steps_with_a_backward_pass_between_them_train(name: str) -> None:
    """Nothing is overwritten that a backward pass still reads, queue wrapping around."""
    objective = made(name)
    for step in range(4):
        objective.zero_grad()
        objective(*batch(step))["total"].backward()
        trained = [p for p in objective.parameters() if p.requires_grad]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


@pytest.mark.parametrize("name", ["selfsupcon", "supcon", "ce+selfsupcon", "supcon+selfsupcon"])
def test_a_saved_state_holds_the_last_batch_s_keys(name: str) -> None:
    objective = made(name)
    _, key_features, _ = inputs = batch(1)
    objective(*inputs)["total"].backward()
    state = objective.state_dict()
    parts = contrastive(objective)
    saved = [state[key] for key in state if key.endswith("queue.keys")]
    assert len(saved) == len(parts)
    for keys, part in zip(saved, parts, strict=True):
        torch.testing.assert_close(keys[:4], keys_of(part, key_features))
    assert all(v.tolist() == [4, 4] for key, v in state.items() if key.endswith("queue.state"))


@pytest.mark.parametrize("name", ["selfsupcon", "supcon", "ce+selfsupcon", "supcon+selfsupcon"])
def test_a_restored_objective_goes_on_as_the_old_one_would(name: str) -> None:
    old, new = made(name, seed=0), made(name, seed=1)
    for step in range(2):
        old(*batch(step))["total"].backward()
    new.load_state_dict(old.state_dict())
    for step in range(2, 5):
        assert new(*batch(step))["total"].item() == old(*batch(step))["total"].item()


def test_a_state_loaded_over_a_used_objective_is_all_there_is() -> None:
    objective = made("selfsupcon")
    saved = copy.deepcopy(objective.state_dict())
    objective(*batch(1))
    objective.load_state_dict(saved)
    assert objective.queue_fill == 0


@pytest.mark.parametrize("name", ["selfsupcon", "supcon", "ce+selfsupcon", "supcon+selfsupcon"])
def test_the_fill_counts_the_last_batch(name: str) -> None:
    objective = made(name)
    shares = [objective.queue_fill]
    for step in range(3):
        objective(*batch(step))["total"].backward()
        shares.append(objective.queue_fill)
    assert shares == [0.0, 0.4, 0.8, 1.0]


@pytest.mark.parametrize("name", ["ce", "ce-strong"])
def test_cross_entropy_has_no_fill(name: str) -> None:
    assert made(name).queue_fill is None


def test_a_batch_longer_than_the_queue_is_refused() -> None:
    with pytest.raises(ValueError, match="11 keys do not fit a queue of 10"):
        made("supcon")(*batch(0, 11))


# ---------------------------------------------------------------- heads


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_projection_head_is_linear_layers_with_relu_between(depth: int) -> None:
    kinds = [type(layer).__name__ for layer in projection_head(8, depth, 3)]
    assert kinds == ["Linear", "ReLU"] * (depth - 1) + ["Linear"]


def test_a_projection_head_is_as_wide_as_the_features() -> None:
    for hidden, width in ((0, 8), (5, 5)):
        linear = [x for x in projection_head(8, 3, 3, hidden) if isinstance(x, nn.Linear)]
        widths = [(x.in_features, x.out_features) for x in linear]
        assert widths == [(8, width), (width, width), (width, 3)]


def test_the_defaults_are_the_study_s() -> None:
    assert ContrastiveOptions() == ContrastiveOptions(0.07, 64000, 2, 0, 128, False)


def test_two_contrastive_terms_share_neither_heads_nor_queues() -> None:
    parts = contrastive(made("supcon+selfsupcon"))
    tensors = [{v.untyped_storage().data_ptr() for v in p.state_dict().values()} for p in parts]
    assert len(parts) == 2
    assert not tensors[0] & tensors[1]
    assert not torch.equal(parts[0].head[0].weight, parts[1].head[0].weight)


def test_a_contrastive_term_leaves_the_other_one_s_head_alone() -> None:
    objective = made("supcon+selfsupcon")
    objective(*batch(0))["supcon"].backward()
    assert all(p.grad is None for p in objective.parts["selfsupcon"].parameters())


@pytest.mark.parametrize("name", ["ce+selfsupcon", "supcon+selfsupcon"])
def test_no_gradient_reaches_the_key_side(name: str) -> None:
    objective = made(name)
    features, key_features, labels = batch(0)
    key_features.requires_grad_()
    objective(features.requires_grad_(), key_features, labels)["total"].backward()
    assert key_features.grad is None
    for part in contrastive(objective):
        assert all(p.grad is None and not p.requires_grad for p in part.key_head.parameters())
        assert all(p.grad is not None for p in part.head.parameters())
        assert not part.queue.keys.requires_grad
    assert features.grad is not None


@pytest.mark.parametrize("name", ["selfsupcon", "supcon"])
def test_a_key_head_begins_as_its_head(name: str) -> None:
    objective = build(name, DIM, CLASSES, ContrastiveOptions(queue=4))
    assert isinstance(objective, Contrastive)
    pairs = zip(objective.head.parameters(), objective.key_head.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", ["selfsupcon", "supcon", "supcon+selfsupcon"])
def test_a_key_head_does_not_move_in_a_step(name: str) -> None:
    objective = made(name)
    before = [[p.clone() for p in part.key_head.parameters()] for part in contrastive(objective)]
    trained = [p for p in objective.parameters() if p.requires_grad]
    for step in range(2):
        objective(*batch(step))["total"].backward()
        torch.optim.SGD(trained, 0.1).step()
    after = [list(part.key_head.parameters()) for part in contrastive(objective)]
    for was, now in zip(before, after, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(was, now, strict=True))


@pytest.mark.parametrize("name", ["selfsupcon", "supcon", "ce+selfsupcon", "supcon+selfsupcon"])
def test_follow_moves_every_key_head_towards_its_own_head(name: str) -> None:
    objective = made(name)
    expected = [
        [
            0.9 * key.detach() + 0.1 * query.detach()
            for key, query in zip(part.key_head.parameters(), part.head.parameters(), strict=True)
        ]
        for part in contrastive(objective)
    ]
    objective.update_key_heads(0.9)
    for part, values in zip(contrastive(objective), expected, strict=True):
        for found, value in zip(part.key_head.parameters(), values, strict=True):
            torch.testing.assert_close(found.detach(), value, rtol=1e-12, atol=1e-12)


def test_cross_entropy_in_a_joint_objective_sees_the_query_features() -> None:
    objective = made("ce+selfsupcon")
    features, key_features, labels = batch(0)
    found = objective(features, key_features, labels)["ce"].item()
    head = objective.parts["ce"].head
    expected = cross_entropy_by_hand(head, features, labels.tolist())
    assert found == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize("name", ["ce", "ce-strong", "ce+selfsupcon", "2*ce"])
def test_the_classifier_is_the_cross_entropy_head(name: str) -> None:
    classifier = made(name).classifier
    assert (classifier.in_features, classifier.out_features) == (DIM, CLASSES)


@pytest.mark.parametrize("name", ["selfsupcon", "supcon", "supcon+selfsupcon"])
def test_a_contrastive_objective_has_no_classifier(name: str) -> None:
    assert made(name).classifier is None


@pytest.mark.parametrize("name", ["selfsupcon", "supcon"])
def test_under_autocast_the_loss_is_taken_in_float32(name: str) -> None:
    objective = made(name).float()
    features, key_features, labels = batch(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective(features.float(), key_features.float(), labels)["total"]
    assert loss.dtype == torch.float32
    # bf16 logits at this temperature would miss the loss against the keys by far more
    reference = made(name).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q, keys = reference.project(features.float(), key_features.float())
    expected = made(name)
    if name == "selfsupcon":
        exact = info_nce(q.double(), keys.double(), expected.queue.keys, 0.3)
    else:
        slots = expected.queue.enqueue(keys.double(), labels)
        positives = same_class(labels, expected.queue.labels)
        positives[torch.arange(4), slots] = True
        exact = sup_con(q.double(), expected.queue.keys, positives, 0.3)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


# ---------------------------------------------------------------- build


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ce", CrossEntropy),
        ("ce-strong", StrongCrossEntropy),
        ("ce-mlp", ProjectedCrossEntropy),
        ("nscl", NegativesOnlySupCon),
        ("ce-mlp+selfsupcon", Joint),
        ("selfsupcon", SelfSupCon),
        ("supcon", SupCon),
        ("ce+selfsupcon", Joint),
        ("supcon+selfsupcon", Joint),
    ],
)
def test_each_name_is_its_objective(name: str, kind: type[Objective]) -> None:
    assert type(made(name)) is kind


@pytest.mark.parametrize(
    ("name", "views"),
    [
        ("ce", "weak"),
        ("2*ce", "weak"),
        ("ce-strong", "strong"),
        ("2*ce-strong", "strong"),
        ("selfsupcon", "two strong"),
        ("supcon", "two strong"),
        ("ce+selfsupcon", "two strong"),
        ("supcon+selfsupcon", "two strong"),
    ],
)
def test_each_objective_has_its_views(name: str, views: str) -> None:
    assert made(name).views == views


@pytest.mark.parametrize("name", [*OBJECTIVES, "ce+ce-mlp"])
def test_an_objective_is_what_its_name_says(name: str) -> None:
    assert made(name).views == parse_objective(name).views
    assert made(name).contrastive == parse_objective(name).contrastive


def test_a_weight_in_the_name_wins() -> None:
    joint = made("ce+0.25*selfsupcon", weights={"ce": 3.0, "selfsupcon": 2.0})
    assert joint.weights == {"ce": 3.0, "selfsupcon": 0.25}


def test_a_weight_of_one_in_the_name_wins_too() -> None:
    assert made("ce+1*selfsupcon", weights={"selfsupcon": 2.0}).weights["selfsupcon"] == 1.0


def test_a_term_without_weight_counts_once() -> None:
    assert made("supcon+selfsupcon").weights == {"supcon": 1.0, "selfsupcon": 1.0}


def test_a_weight_counts_for_a_single_term() -> None:
    inputs = batch(0)
    terms = made("2*supcon")(*inputs)
    assert terms["total"].item() == pytest.approx(2 * made("supcon")(*inputs)["total"].item())
    assert terms["total"].item() == pytest.approx(2 * terms["supcon"].item())


def test_a_parsed_name_builds_the_same() -> None:
    objective = build(parse_objective("0.5*selfsupcon+ce"), DIM, 2, ContrastiveOptions(queue=4))
    assert isinstance(objective, Joint)
    assert objective.weights == {"ce": 1.0, "selfsupcon": 0.5}

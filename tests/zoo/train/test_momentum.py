"""The key encoder, the queue, and several processes."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.train.momentum import (
    MomentumCopy,
    Queue,
    encode_shuffled,
    gather,
    own_rows,
    processes,
    rank,
)

ROOT = Path(__file__).resolve().parents[3]
OBJECTIVES = ["selfsupcon", "supcon", "supcon+selfsupcon"]


def rows(*numbers: float) -> Tensor:
    """[n, 2]: keys that are told apart by their number."""
    return torch.tensor([[float(n), -float(n)] for n in numbers]).reshape(-1, 2)


def numbers(queue: Queue) -> list[float]:
    return queue.keys[:, 0].tolist()


def filled(length: int, *batches: list[int]) -> Queue:
    queue = Queue(length, 2)
    for batch in batches:
        queue.enqueue(rows(*batch), torch.tensor(batch))
    return queue


# ---------------------------------------------------------------- queue


def test_a_new_queue_holds_unit_vectors() -> None:
    torch.testing.assert_close(Queue(50, 7).keys.norm(dim=1), torch.ones(50))


def test_a_new_queue_s_vectors_are_random() -> None:
    keys = Queue(50, 7).keys
    assert (keys @ keys.t()).fill_diagonal_(0).abs().max() < 0.999
    assert not torch.equal(keys, Queue(50, 7).keys)


def test_a_new_queue_has_no_labels() -> None:
    assert Queue(4, 2).labels.tolist() == [-1] * 4


def test_a_queue_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one slot, got 0"):
        Queue(0, 2)


def test_keys_are_written_in_their_order() -> None:
    assert numbers(filled(5, [1, 2], [3]))[:3] == [1, 2, 3]


def test_slots_not_yet_reached_keep_their_random_keys() -> None:
    queue = Queue(5, 2)
    before = queue.keys.clone()
    queue.enqueue(rows(1, 2), None)
    assert torch.equal(queue.keys[2:], before[2:])


def test_labels_stand_beside_their_keys() -> None:
    queue = filled(5, [1, 2], [3, 4], [5, 6])
    assert queue.labels.tolist() == numbers(queue) == [6, 2, 3, 4, 5]


def test_a_batch_without_labels_writes_none() -> None:
    queue = filled(3, [7, 8, 9])
    queue.enqueue(rows(1, 2), None)
    assert queue.labels.tolist() == [-1, -1, 9]


def test_a_batch_that_wraps_around_returns_its_slots() -> None:
    assert filled(5, [1, 2, 3]).enqueue(rows(4, 5, 6), None).tolist() == [3, 4, 0]


def test_a_batch_as_long_as_the_queue_replaces_all_of_it() -> None:
    queue = filled(4, [1, 2, 3], [4, 5, 6, 7])
    assert numbers(queue) == [5, 6, 7, 4]


def test_a_batch_longer_than_the_queue_is_refused() -> None:
    with pytest.raises(ValueError, match="5 keys do not fit a queue of 4"):
        Queue(4, 2).enqueue(rows(*range(5)), None)


def test_a_refused_batch_leaves_the_queue_as_it_was() -> None:
    queue = filled(4, [1, 2, 3])
    with pytest.raises(ValueError, match="do not fit"):
        queue.enqueue(rows(*range(5)), None)
    assert queue.enqueue(rows(9), None).tolist() == [3]
    assert numbers(queue) == [1, 2, 3, 9]


def test_fill_is_the_share_of_real_keys() -> None:
    queue = Queue(4, 2)
    shares = [queue.fill]
    for _ in range(3):
        queue.enqueue(rows(1, 2, 3), None)
        shares.append(queue.fill)
    assert shares == [0.0, 0.75, 1.0, 1.0]


def test_the_length_of_a_queue_is_its_slots() -> None:
    assert len(filled(4, [1])) == 4


def test_a_queue_keeps_its_own_precision() -> None:
    queue = Queue(4, 2).double()
    queue.enqueue(rows(1).half(), None)
    assert queue.keys.dtype == torch.float64


def test_keys_are_copied_into_the_queue() -> None:
    queue, keys = Queue(4, 2), rows(1, 2)
    queue.enqueue(keys, None)
    keys.zero_()
    assert numbers(queue)[:2] == [1, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(0, 9), max_size=8))
def test_the_queue_holds_the_last_keys_each_in_the_slot_of_its_turn(
    length: int, sizes: list[int]
) -> None:
    queue, written = Queue(length, 2), []
    for size in (min(size, length) for size in sizes):
        batch = [len(written) + i for i in range(size)]
        slots = queue.enqueue(rows(*batch), torch.tensor(batch, dtype=torch.long))
        assert slots.tolist() == [n % length for n in batch]
        written += batch
    expected = [-1] * length
    for n in written:
        expected[n % length] = n
    assert queue.labels.tolist() == expected
    held = [(i, n) for i, n in enumerate(expected) if n >= 0]
    assert [numbers(queue)[i] for i, _ in held] == [n for _, n in held]


def test_a_restored_queue_holds_the_same_keys() -> None:
    queue, other = filled(5, [1, 2, 3]), Queue(5, 2)
    other.load_state_dict(queue.state_dict())
    assert torch.equal(other.keys, queue.keys)
    assert torch.equal(other.labels, queue.labels)


def test_a_restored_queue_goes_on_at_the_next_slot() -> None:
    other = Queue(5, 2)
    other.load_state_dict(filled(5, [1, 2, 3], [4, 5, 6]).state_dict())
    assert other.enqueue(rows(7, 8), None).tolist() == [1, 2]


def test_a_restored_queue_is_as_full() -> None:
    other = Queue(5, 2)
    other.load_state_dict(filled(5, [1, 2, 3]).state_dict())
    assert other.fill == 0.6


def test_a_queue_is_restored_within_a_larger_module() -> None:
    one, other = nn.Sequential(filled(5, [1, 2, 3])), nn.Sequential(Queue(5, 2))
    other.load_state_dict(one.state_dict())
    queue = other[0]
    assert isinstance(queue, Queue)
    assert queue.enqueue(rows(4), None).tolist() == [3]


def test_an_older_state_takes_the_queue_back() -> None:
    queue = filled(5, [1, 2])
    saved = copy.deepcopy(queue.state_dict())
    queue.enqueue(rows(3, 4), None)
    queue.load_state_dict(saved)
    assert queue.enqueue(rows(5), None).tolist() == [2]


def test_a_copy_of_a_queue_goes_its_own_way() -> None:
    queue = filled(5, [1, 2])
    copy.deepcopy(queue).enqueue(rows(3), None)
    assert queue.enqueue(rows(4), None).tolist() == [2]


# ---------------------------------------------------------------- momentum copy


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()


def moved(source: nn.Module) -> None:
    """Other parameters and other batch norm statistics."""
    with torch.no_grad():
        for value in source.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.randn_like(value))


@pytest.mark.parametrize("momentum", [0.999, 0.9, 0.3])
def test_parameters_follow_as_an_exponential_average(momentum: float) -> None:
    source = net()
    slow = MomentumCopy(source)
    expected = [p.detach().clone() for p in source.parameters()]
    for _ in range(3):
        moved(source)
        slow.move_towards(source, momentum)
        for mine, its in zip(expected, source.parameters(), strict=True):
            for i in range(mine.numel()):
                old, new = mine.view(-1)[i].item(), its.detach().view(-1)[i].item()
                mine.view(-1)[i] = momentum * old + (1 - momentum) * new
    for mine, found in zip(expected, slow.parameters(), strict=True):
        torch.testing.assert_close(found.detach(), mine, rtol=1e-12, atol=1e-12)


def test_momentum_one_never_moves() -> None:
    source = net()
    slow = MomentumCopy(source)
    before = [p.clone() for p in slow.parameters()]
    moved(source)
    slow.move_towards(source, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, slow.parameters(), strict=True))


def test_momentum_zero_is_the_source() -> None:
    source = net()
    slow = MomentumCopy(source)
    moved(source)
    slow.move_towards(source, 0.0)
    pairs = zip(source.parameters(), slow.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_copy_begins_as_its_source() -> None:
    source = net()
    moved(source)
    slow = MomentumCopy(source)
    assert all(torch.equal(value, slow.copy.state_dict()[n]) for n, value in source.named_buffers())
    pairs = zip(source.parameters(), slow.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_copy_shares_no_storage_with_its_source() -> None:
    source = net()
    slow = MomentumCopy(source)
    mine = {v.untyped_storage().data_ptr() for v in slow.state_dict().values()}
    assert not mine & {v.untyped_storage().data_ptr() for v in source.state_dict().values()}


def test_following_leaves_the_source_alone() -> None:
    source = net()
    slow = MomentumCopy(source)
    moved(source)
    before = copy.deepcopy(source.state_dict())
    slow.move_towards(source, 0.5)
    assert all(torch.equal(value, source.state_dict()[n]) for n, value in before.items())


def test_statistics_of_batch_norm_are_not_averaged() -> None:
    source = net()
    slow = MomentumCopy(source)
    before = {n: b.clone() for n, b in slow.named_buffers()}
    source(torch.randn(8, 3, dtype=torch.float64) + 5)
    slow.move_towards(source, 0.5)
    assert all(torch.equal(b, before[n]) for n, b in slow.named_buffers())


def test_statistics_of_batch_norm_are_the_copy_s_own() -> None:
    norm = nn.BatchNorm1d(1, momentum=1.0)
    slow = MomentumCopy(norm)
    norm(torch.full((4, 1), 2.0))
    slow(torch.full((4, 1), 7.0))
    own = slow.copy
    assert isinstance(own, nn.BatchNorm1d)
    assert own.running_mean is not None
    assert own.running_mean.item() == 7.0


def test_no_parameter_of_a_copy_wants_a_gradient() -> None:
    source = net()
    slow = MomentumCopy(source)
    assert not any(p.requires_grad for p in slow.parameters())
    assert all(p.requires_grad for p in source.parameters())


def test_no_gradient_flows_through_a_copy() -> None:
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert not MomentumCopy(net())(x).requires_grad


def test_a_copy_of_a_module_without_parameters_follows() -> None:
    slow = MomentumCopy(nn.ReLU())
    slow.move_towards(nn.ReLU(), 0.9)
    assert slow(torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]


# ---------------------------------------------------------------- one process


def test_one_process_is_alone() -> None:
    assert (processes(), rank(), own_rows(4)) == (1, 0, slice(0, 4))


def test_one_process_gathers_its_own_rows() -> None:
    assert gather(rows(1, 2)).tolist() == rows(1, 2).tolist()


def test_one_process_does_not_shuffle() -> None:
    seen: list[Tensor] = []
    images = torch.randn(6, 3, 2, 2)

    class Encoder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x.sum((2, 3))

    state = torch.get_rng_state()
    features = encode_shuffled(Encoder(), images)
    assert seen[0] is images
    assert torch.equal(features, images.sum((2, 3)))
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------- two processes


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `two_process_losses` finds."""
    out = tmp_path_factory.mktemp("two") / "found.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", "-m", "tests.zoo.train.two_process_losses", str(out)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


def flat(tree: Any) -> list[float]:
    if isinstance(tree, dict):
        return [x for key in sorted(tree) for x in flat(tree[key])]
    return [x for part in tree for x in flat(part)] if isinstance(tree, list) else [tree]


@pytest.mark.parametrize("process", [0, 1])
@pytest.mark.parametrize("what", ["losses", "gradients", "queues"])
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.slow
def test_two_processes_train_as_one_does(
    two: dict[str, Any], name: str, what: str, process: int
) -> None:
    alone = flat(two["alone"][name][what])
    together = flat(two["processes"][process]["together"][name][what])
    assert len(alone) > 1
    assert together == pytest.approx(alone, rel=1e-9, abs=1e-12)


@pytest.mark.slow
def test_gathered_rows_stand_in_the_order_of_the_processes(two: dict[str, Any]) -> None:
    assert [p["gathered"] for p in two["processes"]] == [[0, 10, 1, 11]] * 2


@pytest.mark.slow
def test_own_rows_are_the_process_s_share(two: dict[str, Any]) -> None:
    assert [p["own"] for p in two["processes"]] == [[0, 3], [3, 6]]


@pytest.mark.parametrize("process", [0, 1])
@pytest.mark.slow
def test_each_query_gets_its_own_key_s_features_back(two: dict[str, Any], process: int) -> None:
    found = two["processes"][process]["shuffled"]
    assert found["features"] == found["plain"]


@pytest.mark.parametrize("process", [0, 1])
@pytest.mark.slow
def test_a_share_holds_images_of_both_processes(two: dict[str, Any], process: int) -> None:
    given = two["processes"][process]["shuffled"]["given"]
    assert 3 < sum(number < 16 for number in given) < 13


@pytest.mark.slow
def test_shares_hold_every_image_once(two: dict[str, Any]) -> None:
    given = [number for p in two["processes"] for number in p["shuffled"]["given"]]
    assert sorted(given) == list(range(32))


@pytest.mark.parametrize("process", [0, 1])
@pytest.mark.slow
def test_batch_norm_sees_the_mixed_share(two: dict[str, Any], process: int) -> None:
    """Unmixed shares would have a mean of 7.5 and of 23.5."""
    mean = two["processes"][process]["shuffled"]["statistics"][0]
    assert 9 < mean < 22

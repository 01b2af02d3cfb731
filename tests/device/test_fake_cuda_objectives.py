"""Every objective, the key encoder and the queue on an accelerator: losses and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from eval.models.objectives import OBJECTIVES
from tests.device.fake_cuda import CUDA, Cuda, assert_on_cuda
from zoo.train.momentum import MomentumCopy, Queue, encode_shuffled
from zoo.train.objectives import ContrastiveOptions, ProjectorOptions, build

N, D, C = 6, 8, 4
OPTIONS = ContrastiveOptions(queue=16, head_dim=5)


def two_steps(name: str, device: str, options: ContrastiveOptions) -> dict[str, Tensor]:
    """Terms and gradients of the second of two steps, by which the queue holds keys."""
    torch.manual_seed(0)
    projector = ProjectorOptions(hidden_dim=12, bottleneck_dim=6)
    objective = build(name, D, C, options, projector=projector)
    objective.to(device)
    draws = torch.Generator().manual_seed(1)
    for _ in range(2):
        features = torch.randn(N, D, generator=draws).to(device).requires_grad_()
        keys = torch.randn(N, D, generator=draws).to(device) if objective.contrastive else None
        labels = torch.tensor([0, 1, 2, 3, 1, -1]).to(device)
        objective.zero_grad()
        objective.update_key_heads(0.9)
        terms = objective(features, keys, labels)
        terms["total"].backward()
    objective.state_dict()  # the last keys are enqueued now
    assert features.grad is not None
    found = {name: term.detach() for name, term in terms.items()}
    found |= {
        f"gradient of {n}": p.grad for n, p in objective.named_parameters() if p.requires_grad
    }
    found |= {n: b for n, b in objective.named_buffers() if "num_batches" not in n}
    return found | {"gradient of the features": features.grad}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives(name: str, cuda: Cuda) -> None:
    expected = two_steps(name, "cpu", OPTIONS)
    with cuda():
        found = two_steps(name, "cuda", OPTIONS)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if not key.endswith("queue.state"):
            assert_on_cuda(found[key], value)
    assert expected["gradient of the features"].abs().max() > 1e-4


def test_same_class_negatives(cuda: Cuda) -> None:
    options = ContrastiveOptions(queue=16, head_dim=5, same_class_negatives_only=True)
    expected = two_steps("selfsupcon", "cpu", options)
    with cuda():
        assert_on_cuda(two_steps("selfsupcon", "cuda", options)["total"], expected["total"])


def test_queue_wraps(cuda: Cuda) -> None:
    def filled(device: str) -> tuple[Queue, Tensor]:
        torch.manual_seed(3)
        queue = Queue(5, 2).to(device)
        queue.enqueue(torch.arange(8.0).view(4, 2).to(device), None)
        labels = torch.tensor([7, 8, 9]).to(device)
        return queue, queue.enqueue(-torch.arange(6.0).view(3, 2).to(device), labels)

    expected, slots = filled("cpu")
    with cuda():
        found, found_slots = filled("cuda")
    assert_on_cuda(found.keys, expected.keys)
    assert_on_cuda(found.labels, expected.labels)
    assert_on_cuda(found_slots, slots)
    assert slots.tolist() == [4, 0, 1]


def test_key_encoder_follows(cuda: Cuda) -> None:
    def followed(device: str) -> tuple[Tensor, Tensor]:
        torch.manual_seed(4)
        source = nn.Linear(3, 2).to(device)
        copy = MomentumCopy(source).to(device)
        with torch.no_grad():
            source.weight.add_(1)
        copy.move_towards(source, 0.75)
        return copy.copy.weight, encode_shuffled(copy, torch.ones(2, 3, device=device))

    expected = followed("cpu")
    with cuda():
        found = followed("cuda")
    for mine, theirs in zip(found, expected, strict=True):
        assert_on_cuda(mine, theirs)
        assert not mine.requires_grad
    assert found[0].device == CUDA

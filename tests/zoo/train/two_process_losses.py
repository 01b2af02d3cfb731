"""Run by torchrun on two processes: do halves of a batch train as the whole batch does?

    torchrun --standalone --nproc_per_node 2 -m tests.zoo.train.two_process_losses OUT.json

Writes what each process found; `test_momentum` judges it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from zoo.train.momentum import encode_shuffled, gather, own_rows, processes, rank
from zoo.train.objectives import Contrastive, ContrastiveOptions, Objective, build

NAMES = ("selfsupcon", "supcon", "supcon+selfsupcon")
BATCH, DIM, STEPS = 8, 6, 2
OPTIONS = ContrastiveOptions(temperature=0.2, queue=13, head_dim=4)  # the second batch wraps
Half = tuple[Tensor, Tensor, Tensor]


def queues(objective: Objective) -> list[dict[str, Any]]:
    objective.state_dict()  # the keys of the last batch too
    found = [m.queue for m in objective.modules() if isinstance(m, Contrastive)]
    return [
        {"keys": q.keys.tolist(), "labels": q.labels.tolist(), "state": q.state.tolist()}
        for q in found
    ]


def batches(own: slice) -> list[Half]:
    random = torch.Generator().manual_seed(3)
    found = []
    for _ in range(STEPS):
        features = torch.randn(2, BATCH, DIM, generator=random, dtype=torch.float64)
        labels = torch.randint(-1, 2, (BATCH,), generator=random)
        found.append((features[0, own], features[1, own], labels[own]))
    return found


def train(name: str, own: slice) -> dict[str, Any]:
    """Two steps of SGD with averaged gradients, as DistributedDataParallel averages them."""
    torch.manual_seed(0)
    objective = build(name, DIM, 2, OPTIONS).double()
    losses, gradients = [], []
    for features, key_features, labels in batches(own):
        objective.update_key_heads(0.9)
        objective.zero_grad()
        loss = objective(features, key_features, labels)["total"]
        loss.backward()
        losses.append(mean(loss.detach()).item())
        for parameter in objective.parameters():
            if parameter.grad is not None:
                parameter.grad = mean(parameter.grad)
                gradients.append(parameter.grad.flatten().tolist())
                parameter.data.sub_(parameter.grad, alpha=0.5)
    return {"losses": losses, "gradients": gradients, "queues": queues(objective)}


def mean(x: Tensor) -> Tensor:
    if processes() == 1:
        return x.clone()
    x = x.clone()
    dist.all_reduce(x)
    return x / processes()


class Recorder(nn.Module):
    """Each image's mean times weights; keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.arange(1.0, 4.0)
        self.given = torch.zeros(0)

    def forward(self, images: Tensor) -> Tensor:
        self.given = images.mean((1, 2, 3))
        return self.given[:, None] * self.weight


def shuffled() -> dict[str, Any]:
    """Images whose mean is their number, under another random state on each process."""
    torch.manual_seed(100 + rank())
    n = 16
    images = torch.arange(2.0 * n)[:, None, None, None].expand(-1, 3, 2, 2)[own_rows(n)]
    recorder = Recorder()
    features = encode_shuffled(recorder, images)
    given = recorder.given.tolist()
    norm = nn.Sequential(Recorder(), nn.BatchNorm1d(3, momentum=1.0))
    encode_shuffled(norm, images)
    return {
        "features": features.tolist(),
        "plain": recorder(images).tolist(),
        "given": given,
        "statistics": norm[1].running_mean.tolist(),
    }


def main(out: Path) -> None:
    alone = {name: train(name, slice(None)) for name in NAMES}
    dist.init_process_group("gloo")
    n = BATCH // processes()
    mine = {
        "together": {name: train(name, own_rows(n)) for name in NAMES},
        "shuffled": shuffled(),
        "gathered": gather(torch.tensor([[rank()], [10 + rank()]])).flatten().tolist(),
        "own": [own_rows(3).start, own_rows(3).stop],
    }
    everyone: list[Any] = [None] * processes()
    dist.all_gather_object(everyone, mine)
    if rank() == 0:
        out.write_text(json.dumps({"alone": alone, "processes": everyone}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

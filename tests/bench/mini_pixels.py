"""How far raw pixels get on the embedded suite: the `linear` protocol on 32x32x3 pixels.

    python -m tests.bench.mini_pixels

No task of `mini` may be trivial for a pixel classifier; this prints the table that shows it.
"""

from __future__ import annotations

import numpy as np
import torch

from eval.common.files import default_cache
from eval.common.images import decode
from eval.data.load import load_task
from eval.data.task_data import Split
from eval.features.bank import FeatureBank
from eval.protocols import linear
from eval.settings.protocols import Linear
from eval.tasks.registry import SUITES
from tests.bench.common import machine


def pixels(split: Split) -> torch.Tensor:
    """[N, 3072] in canonical order."""
    order = np.argsort(split.rows)
    out = torch.empty(len(split), 32 * 32 * 3)
    stream = split.source.images(np.sort(split.rows))
    for place, (_, data) in zip(order.tolist(), stream, strict=True):
        small = decode(data).resize((32, 32))
        out[place] = torch.from_numpy(np.asarray(small, np.float32).reshape(-1) / 255)
    return out


def main() -> None:
    print(machine("torch", "pillow"))
    print("| task | classes | raw pixels, top-1 % |")
    print("| --- | ---: | ---: |")
    for name in SUITES["mini"]:
        task = load_task(name, default_cache())
        bank = FeatureBank(
            torch.cat([pixels(task.train), pixels(task.test)]),
            torch.from_numpy(np.concatenate([task.train.labels, task.test.labels])),
            len(task.train),
            "fp32",
        )
        top1 = linear.score_bank(bank, task, Linear(), seed=0).scores[0]
        half = (top1.ci_high - top1.ci_low) / 2
        print(f"| {name} | {len(task.classes)} | {100 * top1.value:.1f} ±{100 * half:.1f} |")


if __name__ == "__main__":
    main()

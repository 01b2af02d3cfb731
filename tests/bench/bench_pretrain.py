"""Images a second of a MoCo training step: ours beside the loop of lightly's MoCo v2 example.

    python -m tests.bench.bench_pretrain [--steps 20] [--threads 2]

All take turns in one process on the CPU and on the same decoded images, with the backbone, head,
queue and augmentation strengths of the recipe ``tiny`` and SGD with its momentum and weight decay.
The example decodes its images each epoch; here it finds them decoded, as PIL images in memory. Its
loop neither shuffles batches (nor does ours on one process) nor clips gradients (ours does). It
trains in fp32; a further row gives it our precision and memory layout. Each gets the same cores:
ours as torch threads, lightly as torch threads and as many DataLoader workers. A round begins with
untimed steps, as many as batches are fetched ahead, and the timed ones end with that many fetched
again: no batch is had for free, and no worker is busy in another's round.
"""

from __future__ import annotations

import copy
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from eval.models.objectives import parse_objective
from tests.bench.common import arguments, in_turn, machine
from zoo.train.feed import Feed, read
from zoo.train.learner import feature_dim
from zoo.train.momentum import encode_shuffled
from zoo.train.objectives import SelfSupCon, info_nce
from zoo.train.pixels import PixelStore, open_data
from zoo.train.pretrain import Trainer, views_of
from zoo.train.recipe import Recipe, load_recipe

FETCH_AHEAD = 2  # batches of each DataLoader worker, torch's default
RATE = 0.06  # of the example


class Views(Dataset[tuple[list[Tensor], int]]):
    """Decoded images in memory and lightly's transform of each into two views."""

    def __init__(self, store: PixelStore, transform: Callable[[Image.Image], Any]) -> None:
        self.images = [Image.fromarray(np.array(pixels)) for pixels in store.pixels]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[list[Tensor], int]:
        return self.transform(self.images[index]), 0


class Ours:
    """`Trainer.take_step`, as `transfer-zoo pretrain` calls it."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.feed = Feed(trainer.data.train, trainer.schedule, 0, trainer.steps)

    def begin(self) -> None:
        pass

    def step(self) -> Tensor:
        terms = self.trainer.take_step(self.feed)
        self.trainer.step += 1
        return terms["total"]

    def end(self) -> None:
        pass


class Lightly:
    """What lightly's example does at each step, with lightly's own parts."""

    def __init__(
        self, backbone: nn.Module, recipe: Recipe, images: Views, workers: int, batches: int,
        *, half: bool, channels_last: bool,
    ) -> None:  # fmt: skip
        from lightly.loss import NTXentLoss
        from lightly.models.modules import MoCoProjectionHead
        from lightly.models.utils import deactivate_requires_grad, update_momentum

        size = recipe.train.batch_size
        self.loader = DataLoader(
            images,
            size,
            sampler=RandomSampler(images, num_samples=batches * size),
            drop_last=True,
            num_workers=workers,
            prefetch_factor=FETCH_AHEAD,
            persistent_workers=True,
        )
        settings = recipe.contrastive
        dim = feature_dim(backbone, recipe.image.px)
        head = MoCoProjectionHead(dim, dim, settings.head_dim, settings.head_depth)
        self.query = nn.ModuleList([copy.deepcopy(backbone), head])
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.query.to(memory_format=self.format)
        self.key = copy.deepcopy(self.query)
        deactivate_requires_grad(self.key)
        self.follow, self.momentum, self.half = update_momentum, settings.momentum, half
        bank = (settings.queue, settings.head_dim)
        self.loss = NTXentLoss(temperature=settings.temperature, memory_bank_size=bank)
        train = recipe.train
        self.optimiser = torch.optim.SGD(
            self.query.parameters(), RATE, momentum=train.momentum, weight_decay=train.weight_decay
        )

    def begin(self) -> None:
        self.batches = iter(self.loader)

    def step(self) -> Tensor:
        (first, second), _ = next(self.batches)
        for mine, slow in zip(self.query, self.key, strict=True):
            self.follow(mine, slow, m=self.momentum)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            query = self.encode(self.query, first)
            key = self.encode(self.key, second).detach()
        loss = self.loss(query.float(), key.float())
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return loss.detach()

    def encode(self, parts: nn.ModuleList, view: Tensor) -> Tensor:
        backbone, head = parts
        return head(backbone(view.contiguous(memory_format=self.format)).flatten(start_dim=1))

    def end(self) -> None:
        for _ in self.batches:  # what was fetched ahead
            pass


def timed(
    sides: dict[str, Ours | Lightly], rounds: int, unused: int, steps: int
) -> dict[str, list[float]]:
    """Seconds of ``steps`` steps in each round, the sides taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            side.begin()
            for _ in range(unused):
                side.step()
            waited = side.feed.waited if isinstance(side, Ours) else 0.0
            start = time.perf_counter()
            for _ in range(steps):
                loss = side.step()
            seconds[name].append(time.perf_counter() - start)
            assert loss.isfinite(), f"{name} diverged"
            if isinstance(side, Ours):
                seconds.setdefault("waiting", []).append(side.feed.waited - waited)
            side.end()
    return seconds


def check_loss(trainer: Trainer) -> tuple[float, float]:
    """Our loss and lightly's of the same queries, keys and queue, in float32; they must agree."""
    from lightly.loss import NTXentLoss

    learner, settings = trainer.learner, trainer.recipe.contrastive
    objective = learner.objective
    assert isinstance(objective, SelfSupCon)
    assert learner.key_backbone is not None
    objective.enqueue_waiting()
    first, second = a_batch(trainer)
    with torch.no_grad():
        queries, keys = objective.project(learner.backbone(first), learner.key_backbone(second))
    bank = (settings.queue, settings.head_dim)
    theirs = NTXentLoss(temperature=settings.temperature, memory_bank_size=bank)
    theirs.memory_bank.bank.copy_(objective.queue.keys)
    loss = float(info_nce(queries, keys, objective.queue.keys, settings.temperature))
    other = float(theirs(queries, keys))
    assert abs(loss - other) < 1e-5, f"the losses differ: ours {loss}, lightly's {other}"
    return loss, other


def a_batch(trainer: Trainer) -> tuple[Tensor, Tensor]:
    rows = np.arange(trainer.recipe.train.batch_size)
    generator = torch.Generator().manual_seed(0)
    batch = read(trainer.data.train, rows)
    first, second = views_of(batch, "two strong", trainer.view, generator, trainer.device)
    assert second is not None
    return first, second


def pieces(trainer: Trainer, rounds: int, steps: int) -> dict[str, float]:
    """Median seconds of ``steps`` times each piece of our step, alone and on one batch."""
    learner = trainer.learner
    assert learner.key_backbone is not None
    key_backbone = learner.key_backbone
    first, second = a_batch(trainer)
    with trainer.accelerator.autocast(), torch.no_grad():
        features, key_features = learner.backbone(first), key_backbone(second)
    upstream = torch.randn_like(features)

    def encode_keys() -> None:
        with trainer.accelerator.autocast():
            encode_shuffled(key_backbone, second)

    def encode_queries() -> None:
        with trainer.accelerator.autocast():
            out = learner.backbone(first)
        out.backward(upstream)

    def loss() -> None:
        with trainer.accelerator.autocast():
            terms = learner.objective(features.detach().requires_grad_(), key_features, None)
        terms["total"].backward()

    def repeated(work: Callable[[], object]) -> Callable[[], None]:
        def job() -> None:
            for _ in range(steps):
                work()

        return job

    jobs: dict[str, Callable[[], object]] = {
        "augmentation of both views": lambda: a_batch(trainer),
        "key encoder, forward": encode_keys,
        "query encoder, forward and backward": encode_queries,
        "update of the key encoder (EMA)": learner.update_key_encoder,
        "heads, loss and queue, forward and backward": loss,
    }
    for work in jobs.values():  # first calls allocate
        work()
    seconds = in_turn({name: repeated(work) for name, work in jobs.items()}, rounds)
    trainer.optimiser.zero_grad(set_to_none=True)
    return seconds


def cores(count: int | None) -> int:
    """Keep this process and the workers it will start on that many cores. Returns how many."""
    if not hasattr(os, "sched_setaffinity"):
        return count or os.cpu_count() or 1
    mine = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, mine)
    return len(mine)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of a round")
    parser.add_argument("--threads", type=int, help="cores for each (default: all)")
    parser.add_argument("--images", type=int, default=5120, help="of Tiny-ImageNet")
    args = parser.parse_args()
    try:
        for name in ("loss", "models.modules", "models.utils", "transforms"):
            import_module(f"lightly.{name}")
    except ImportError as error:
        print(f"There is nothing to compare with: lightly cannot be imported ({error}).")
        return
    from lightly.transforms import MoCoV2Transform

    threads = cores(args.threads)
    torch.set_num_threads(threads)

    work = Path(tempfile.mkdtemp(prefix="transferzoo-bench-"))
    recipe = load_recipe("tiny", ["train.epochs=1000"])  # never at the end of the schedule
    objective = parse_objective("selfsupcon")
    data = open_data(
        str(args.data / "tiny_imagenet"), recipe.image.store_px, work / "cache",
        need_labels=False, limit=args.images,
    )  # fmt: skip
    trainer = Trainer(recipe, objective, data, work / "out", "cpu")
    image, batch_size = recipe.image, recipe.train.batch_size
    brightness, contrast, saturation, hue = image.jitter
    images = Views(
        data.train,
        MoCoV2Transform(
            input_size=image.px,
            cj_prob=image.jitter_p,
            cj_bright=brightness,
            cj_contrast=contrast,
            cj_sat=saturation,
            cj_hue=hue,
            min_scale=image.scale[0],
            random_gray_scale=image.grey_p,
            gaussian_blur=image.blur_p,
            sigmas=image.blur_sigma,
            hf_prob=trainer.view.flip_p,
            normalize={"mean": [*image.mean], "std": [*image.std]},
        ),
    )
    ahead = FETCH_AHEAD * threads

    def rival(half: bool, channels_last: bool) -> Lightly:
        return Lightly(
            trainer.learner.backbone, recipe, images, threads, ahead + args.steps + ahead,
            half=half, channels_last=channels_last,
        )  # fmt: skip

    ours = Ours(trainer)
    sides: dict[str, Ours | Lightly] = {
        "ours": ours,
        "example": rival(half=False, channels_last=False),
        "same": rival(half=trainer.bf16, channels_last=True),
    }
    seconds = timed(sides, args.rounds, ahead, args.steps)
    ours.feed.close()
    loss, other = check_loss(trainer)
    alone = pieces(trainer, args.rounds, args.steps)

    n, medians = batch_size * args.steps, {k: statistics.median(s) for k, s in seconds.items()}
    precision = "bf16" if trainer.bf16 else "fp32"
    print(
        f"MoCo v2 on {len(images):,} images of Tiny-ImageNet at {image.px} px, "
        f"{recipe.backbone.name or recipe.backbone.architecture}, batch {batch_size}, queue "
        f"{recipe.contrastive.queue:,}; {threads} cores each, {args.rounds} rounds of "
        f"{args.steps} steps"
    )
    print(machine("torch", "torchvision", "timm", "lightly", "pillow"))
    print("| | images/s | slowest to fastest round | ours / this |")
    print("| --- | ---: | ---: | ---: |")
    for name, label in (
        ("ours", f"`Trainer.take_step`, {precision}, channels_last"),
        ("example", "lightly's example, fp32"),
        ("same", f"lightly's example, {precision}, channels_last"),
    ):
        spread = f"{n / max(seconds[name]):.1f} to {n / min(seconds[name]):.1f}"
        ratio = medians[name] / medians["ours"]
        print(f"| {label} | {n / medians[name]:.1f} | {spread} | {ratio:.2f} |")
    print(f"loss of the same q, k and queue: ours {loss:.6f}, lightly's {other:.6f} (float32)")

    print(f"\nOur step takes {1000 * medians['ours'] / args.steps:.0f} ms. Its pieces were timed")
    print("apart, each alone, except the waiting; so the shares need not add up exactly.")
    print("| piece | ms | share |")
    print("| --- | ---: | ---: |")
    parts = {**alone, "waiting for input": medians["waiting"]}
    parts["the rest (clipping, SGD step, ...)"] = medians["ours"] - sum(parts.values())
    for name, s in parts.items():
        print(f"| {name} | {1000 * s / args.steps:.1f} | {100 * s / medians['ours']:.1f} % |")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()

"""Pretrain one backbone with one objective: an accelerate loop that can be stopped at any time.

    transfer-zoo pretrain tiny --objective ce+selfsupcon --data DIR --out DIR [--resume]

A run's folder holds what its Hub repository will (model.safetensors, config.json, recipe.toml,
log.jsonl) and, under ``state/``, the last two training states. Batches, augmentations and
dropout are drawn from (seed, step, process), so on one process a resumed run gives the weights of
an uninterrupted one, bit for bit. Where the recipe has branches, each leaves the run as a folder of
its own, ``epochs-N/``, trained to its end before the run goes on. With several processes each keeps
batch norm statistics of its own and the first one's are saved.
"""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from eval.common.distributed import check_device, launched, stays_on_cpu, together
from eval.common.errors import BadInput, Conflict, UserError
from eval.common.files import atomic_file
from eval.common.interrupts import noted_signals
from eval.models.objectives import ObjectiveName
from eval.training.augment import Augmentation, strong, weak
from zoo.train.export import RECIPE, Exported, assemble, export
from zoo.train.feed import Batch, Feed, Schedule, draw_seed
from zoo.train.learner import Learner, build_learner
from zoo.train.meter import Meter
from zoo.train.momentum import processes, rank
from zoo.train.pixels import PixelStore, PretrainingData
from zoo.train.probe import knn_top1
from zoo.train.recipe import ImageRecipe, Recipe, completed, decisive, differences
from zoo.train.state import last_state, load_state, save_state, states

T = TypeVar("T")

LOG_EVERY = 20  # steps


class Interrupted(Exception):
    """Ctrl-C or SIGTERM, ``number``: the state was saved first."""

    def __init__(self, text: str, number: int = signal.SIGINT) -> None:
        super().__init__(text)
        self.number = number

    @property
    def exit_code(self) -> int:
        """As shells have it: 130 or 143."""
        return 128 + self.number

    @property
    def how(self) -> str:
        return "terminated" if self.number == signal.SIGTERM else "interrupted"


class Diverged(UserError):
    """The loss is not a number any more."""


@dataclass(frozen=True)
class Finished:
    """A run that reached its last epoch."""

    exported: Exported
    knn_top1: float | None  # percent, on the validation split
    seconds: float
    images_per_s: float  # of training alone, of this process's session


def augmentation(image: ImageRecipe) -> Augmentation:
    return Augmentation(
        px=image.px,
        mean=image.mean,
        std=image.std,
        scale=image.scale,
        jitter=image.jitter,
        jitter_p=image.jitter_p,
        grey_p=image.grey_p,
        blur_p=image.blur_p,
        blur_sigma=image.blur_sigma,
        crop_pct=image.crop_pct,
    )


def rate_at(step: int, steps: int, warmup: int) -> float:
    """The share of the peak learning rate: linear from 1 % over the warm-up, then cosine to 0."""
    if step < warmup:
        return 0.01 + 0.99 * step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def stable_rate_at(step: int, steps: int, warmup: int, cooldown: int) -> float:
    """The same warm-up, then the peak, then linear to 0 over the last ``cooldown`` steps."""
    if step < warmup:
        return 0.01 + 0.99 * step / warmup
    return min(1.0, (steps - step) / max(1, cooldown))


def views_of(batch: Batch, kind: str, view: Augmentation, generator: torch.Generator,
             device: torch.device) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """The query view and, for two-crop objectives, an independent second one."""
    images = batch.images.to(device, non_blocking=True)
    aspect = batch.aspect.to(device, non_blocking=True)
    if kind == "weak":
        return weak(images, aspect, view, generator), None
    first = strong(images, aspect, view, generator)
    second = strong(images, aspect, view, generator) if kind == "two strong" else None
    return first, second


def use_bf16(precision: str, device: torch.device) -> bool:
    """Whether to train in bfloat16: ``auto`` does where the hardware multiplies it fast."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type == "cpu":
        from torch.backends.cpu import get_cpu_capability

        flags = (
            Path("/proc/cpuinfo").read_text(encoding="utf-8")
            if Path("/proc/cpuinfo").is_file()
            else ""
        )
        return get_cpu_capability() == "AVX512" and "avx512_bf16" in flags
    return False


def check(recipe: Recipe, objective: ObjectiveName, train: PixelStore, count: int) -> None:
    """Raise UserError for a recipe that cannot train on these images with ``count`` processes."""
    batch, parts = recipe.train.batch_size, count * recipe.train.accumulate
    if batch > len(train):
        raise BadInput(
            f"train.batch_size = {batch} is larger than the data, {len(train)} images; "
            f"use --set train.batch_size={max(2, len(train) // 2)} or less"
        )
    if batch % parts or batch // parts < 2:
        raise BadInput(
            f"train.batch_size = {batch} does not split into {count} processes x "
            f"{recipe.train.accumulate} accumulated steps of at least 2 images each"
        )
    if objective.contrastive and recipe.contrastive.queue < batch // recipe.train.accumulate:
        raise BadInput(
            f"contrastive.queue = {recipe.contrastive.queue} is shorter than the "
            f"{batch // recipe.train.accumulate} keys of one step"
        )


class Trainer:
    """One run: its learner, where it stands, and what it writes."""

    def __init__(
        self, recipe: Recipe, objective: ObjectiveName, data: PretrainingData, out: Path,
        device: str | None, accelerator: Any = None,
    ) -> None:  # fmt: skip
        self.accelerator = accelerator or _accelerator(recipe, device)
        named = device if processes() == 1 else None  # several processes have a device each
        self.device = torch.device(named or self.accelerator.device)
        self.asked_device = device
        check(recipe, objective, data.train, processes())
        self.recipe, self.objective, self.data, self.out = recipe, objective, data, out
        self.bf16 = self.accelerator.mixed_precision == "bf16"
        self.view = augmentation(recipe.image)
        train = recipe.train
        self.schedule = Schedule(
            len(data.train), train.batch_size, train.seed, train.accumulate, processes(), rank()
        )
        self.steps = train.epochs * self.schedule.steps_per_epoch
        self.cooldown = round(train.cooldown * self.steps)
        self.warmup = round(train.warmup_epochs * self.schedule.steps_per_epoch)
        self.peak = recipe.learning_rate(objective)

        learner = build_learner(recipe, objective, len(data.train.classes))
        # What cannot be exported is refused now, not after the last epoch.
        assemble(recipe, learner.backbone, learner.objective.classifier)
        learner.to(self.device)
        learner.to(memory_format=torch.channels_last)
        self.learner: Learner = learner
        trained = [p for p in learner.parameters() if p.requires_grad]
        self.optimiser = torch.optim.SGD(
            trained, self.peak, momentum=train.momentum, weight_decay=train.weight_decay
        )
        self.model = self.accelerator.prepare_model(learner, device_placement=False)
        self.step = 0
        self.seconds = 0.0
        self.asked = {
            "recipe": json.loads(recipe.model_dump_json()),
            "objective": objective.name,
            "weights": dict(objective.terms),
            "data": data.train.fingerprint,
        }

    # ------------------------------------------------------------------ the state

    @property
    def states(self) -> Path:
        return self.out / "state"

    def resume(self) -> bool:
        """Go on from the last saved state; False where there is none.

        Raises UserError for a state of another recipe; it may be probed and saved at other times.
        """
        if (saved := last_state(self.states)) is None:
            return False
        if changed := differences(
            {**saved.asked, "recipe": decisive(completed(saved.asked["recipe"]))},
            {**self.asked, "recipe": decisive(self.asked["recipe"])},
        ):
            raise Conflict(
                f"{self.out} holds a run of another recipe: {'; '.join(changed[:6])}"
                + (f" and {len(changed) - 6} more" if len(changed) > 6 else "")
                + "; resume with the same values or choose another --out"
            )
        load_state(saved, self.learner, self.optimiser)
        self.step, self.seconds = saved.step, saved.seconds
        if rank() == 0:
            _cut_log(self.out / "log.jsonl", self.step)
        return True

    def save(self) -> None:
        """Write the state. Raises UserError, on all processes, where the disk is full."""
        self.main_process(
            lambda: save_state(
                self.states, self.learner, self.optimiser, self.step, self.asked, self.seconds
            )
        )

    def main_process(self, work: Callable[[], T]) -> T | None:
        """Run ``work`` on the first process; all wait for it and fail if it does."""
        return together(lambda: work() if rank() == 0 else None, processes())

    # ------------------------------------------------------------------ training

    def train(self, until: int | None = None) -> Finished:
        """Train to the last epoch, then export; at each branch of the recipe train that first.

        ``until``: a branch to end at. Raises Interrupted, or UserError on a NaN loss.
        """
        first, trained = self.step, 0.0
        for epochs in self.recipe.train.branches:
            if self.step > (fork := self.fork(epochs)):
                continue  # left before this run was resumed
            trained += self.run(fork)
            if epochs == until:
                return self.branch(epochs)
            if not (self.out / f"epochs-{epochs}" / RECIPE).is_file():  # written last
                self.branch(epochs)
        trained += self.run(self.steps)
        images = (self.steps - first) * self.recipe.train.batch_size
        return self.finish(images / max(trained, 1e-9))

    def fork(self, epochs: int) -> int:
        """The step at which a branch of that many epochs leaves: where its cool-down begins."""
        steps = epochs * self.schedule.steps_per_epoch
        return steps - round(self.recipe.train.cooldown * steps)

    def branch(self, epochs: int) -> Finished:
        """Train and export the branch that leaves here, going on with it where there is one."""
        out = self.out / f"epochs-{epochs}"
        saved = last_state(self.states)
        if saved is None or saved.step != self.step:
            self.save()
        self.main_process(lambda: out.mkdir(parents=True, exist_ok=True))
        branch = Trainer(
            self.recipe.branch(epochs), self.objective, self.data, out, self.asked_device,
            self.accelerator,
        )  # fmt: skip
        if not branch.resume():
            forked = last_state(self.states)
            assert forked is not None
            load_state(forked, branch.learner, branch.optimiser)
            branch.step, branch.seconds = forked.step, forked.seconds
            self.main_process(lambda: _copy_log(self.out, out))
        return branch.train()

    def run(self, until: int) -> float:
        """Train up to a step. Returns the seconds it took, probes and saves left out."""
        per_epoch = self.schedule.steps_per_epoch
        feed = Feed(self.data.train, self.schedule, self.step, until, self.device.type == "cuda")
        bar = tqdm(
            total=self.steps * self.recipe.train.batch_size,
            initial=self.step * self.recipe.train.batch_size,
            unit="img",
            unit_scale=True,
            desc=self.objective.shown,
            disable=not sys.stderr.isatty() or rank() > 0,
        )
        meter = Meter(self.recipe.train.batch_size)
        begin = saved = time.perf_counter()
        try:
            with noted_signals() as stop:
                while self.step < until:
                    terms = self.take_step(feed)
                    meter.add(terms)
                    self.step += 1
                    self.seconds += time.perf_counter() - begin
                    begin = time.perf_counter()
                    bar.update(self.recipe.train.batch_size)
                    ended = self.step % per_epoch == 0
                    epoch = self.step // per_epoch
                    stopped = self.agree(stop)
                    save = (
                        stopped
                        or (ended and self.due(epoch, self.recipe.save.every_epochs))
                        or self.minutes_have_passed(saved)
                    )
                    if self.step % LOG_EVERY == 0 or ended or save or self.step == until:
                        self.log(meter, feed, bar)
                    if ended and self.due(epoch, self.recipe.probe.every_epochs):
                        self.probe(epoch, bar)
                        meter.skip()
                    if save:
                        self.save()
                        meter.skip()
                        saved = time.perf_counter()
                    if stopped:
                        said = f"{self.step:,} of {self.steps:,} steps are saved"
                        raise Interrupted(said, *stop[:1])
        finally:
            bar.close()
            feed.close()
        return meter.total_seconds

    def minutes_have_passed(self, since: float) -> bool:
        """Whether a state is due by the clock: when it is on any process, all save."""
        minutes = self.recipe.save.every_minutes
        return minutes > 0 and not self.all_agree(time.perf_counter() - since < 60 * minutes)

    def due(self, epoch: int, every: int) -> bool:
        return every > 0 and (epoch % every == 0 or epoch == self.recipe.train.epochs)

    def take_step(self, feed: Feed) -> dict[str, Tensor]:
        """One optimiser step; returns the mean terms of its micro-batches, detached."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.peak * self.rate()
        self.learner.train()
        self.learner.update_key_encoder()
        seed = draw_seed(self.recipe.train.seed, self.step, rank())
        torch.manual_seed(seed)  # dropout, ShuffleBN
        generator = torch.Generator(self.device).manual_seed(seed)
        parts = self.recipe.train.accumulate
        sums: dict[str, Tensor] = {}
        for part in range(parts):
            batch = next(feed)
            view, key_view = views_of(
                batch, self.learner.objective.views, self.view, generator, self.device
            )
            labels = None if batch.labels is None else batch.labels.to(self.device)
            # Gradients travel between processes once a step, with the last micro-batch.
            with _quiet(self.model, part + 1 < parts):
                terms = self.model(view, key_view, labels)
                self.accelerator.backward(terms["total"] / parts)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach() / parts
        trained = self.optimiser.param_groups[0]["params"]
        limit = self.recipe.train.clip_norm or math.inf
        sums["grad_norm"] = torch.nn.utils.clip_grad_norm_(trained, limit).detach()
        # A NaN is found when the log is read, before every save: no device sync at each step.
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return sums

    def rate(self) -> float:
        """The share of the peak learning rate at this step."""
        if self.recipe.train.schedule == "wsd":
            return stable_rate_at(self.step, self.steps, self.warmup, self.cooldown)
        return rate_at(self.step, self.steps, self.warmup)

    def agree(self, stop: list[int]) -> bool:
        """Whether any process was asked to stop: all must leave at the same step."""
        return not self.all_agree(not stop)

    def all_agree(self, good: bool) -> bool:
        """Whether it is true on every process."""
        if processes() == 1:
            return good
        flag = torch.tensor(float(good), device=self.device)
        return bool(self.accelerator.reduce(flag, "sum").item() == processes())

    def log(self, meter: Meter, feed: Feed, bar: tqdm[Any]) -> None:
        """One line of log.jsonl, means since the last one. Raises UserError on a NaN."""
        line = meter.read(feed)
        if not self.all_agree(all(math.isfinite(v) for v in line.values())):
            kept = states(self.states)
            raise Diverged(
                f"the loss is not a number at step {self.step} (learning rate {self.peak:g}); "
                + (f"the last good state is {kept[-1]}; " if kept else "nothing was saved yet; ")
                + "try a lower rate, --set rate."
                + self.objective.family
                + f"={getattr(self.recipe.rate, self.objective.family) / 3:.2g}"
            )
        fill = self.learner.objective.queue_fill
        facts = {
            "step": self.step,
            "epoch": round(self.step / self.schedule.steps_per_epoch, 4),
            "images": self.step * self.recipe.train.batch_size,
            "lr": self.optimiser.param_groups[0]["lr"],
            **line,
            **({} if fill is None else {"queue_fill": round(fill, 4)}),
        }
        bar.set_postfix_str(f"loss {line['total']:.3f}", refresh=False)
        self.write(facts)
        if self.step % self.schedule.steps_per_epoch == 0:
            self.tell(f"loss {line['total']:.3f}, {line['images_per_s']:.0f} images/s")

    def probe(self, epoch: int, bar: tqdm[Any]) -> None:
        """The online kNN on the validation split, where there are labels to ask for."""
        train, validation = self.data.train, self.data.validation
        if validation is None or train.labels is None or validation.labels is None:
            return
        settings = self.recipe.probe
        top1 = knn_top1(
            self.learner.backbone, train, validation, self.view, self.device, self.bf16,
            settings.k, settings.bank,
        )  # fmt: skip
        self.write({"step": self.step, "epoch": epoch, "knn_top1": round(top1, 3)})
        self.tell(f"validation kNN {top1:.1f} %")
        bar.set_description_str(f"{self.objective.shown} kNN {top1:.1f} %")

    def tell(self, text: str) -> None:
        """A line of progress where no bar shows it."""
        if rank() == 0 and not sys.stderr.isatty():
            epochs = f"{self.step / self.schedule.steps_per_epoch:g} of {self.recipe.train.epochs}"
            print(f"{self.objective.shown}: epoch {epochs}: {text}", file=sys.stderr, flush=True)

    def write(self, facts: dict[str, Any]) -> None:
        if rank() == 0:
            with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(facts) + "\n")

    # ------------------------------------------------------------------ the end

    def finish(self, rate: float) -> Finished:
        """Export the query backbone. All processes wait until the folder is whole."""
        knn = _last_probe(self.out / "log.jsonl")
        exported = self.main_process(
            lambda: export(
                self.out,
                self.recipe,
                self.learner.backbone,
                self.learner.objective.classifier,
                self.data.train.classes,
                self.receipt(knn),
            )
        )
        return Finished(exported or Exported(self.out, 0, 0.0), knn, self.seconds, rate)

    def receipt(self, knn: float | None) -> dict[str, Any]:
        """What happened, for recipe.toml."""
        train = self.data.train
        weights = {t: w for t, w in self.asked["weights"].items() if w is not None}
        return {
            "objective": self.objective.name,
            **({"weights": weights} if weights else {}),
            "learning_rate": self.peak,
            "data": train.where,
            "data_fingerprint": train.fingerprint,
            "images": len(train),
            "classes": len(train.classes),
            "images_seen": self.steps * self.recipe.train.batch_size,
            "seconds": round(self.seconds),
            **({} if knn is None else {"validation_knn_top1": round(knn, 3)}),
            "processes": processes(),
            "precision": "bf16" if self.bf16 else "fp32",
            "device": (
                torch.cuda.get_device_name(self.device)
                if self.device.type == "cuda"
                else f"{self.device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"
            ),
            "versions": {p: version(p) for p in ("transferzoo", "torch", "timm", "accelerate")},
        }


def pretrain(
    recipe: Recipe,
    objective: ObjectiveName,
    data: PretrainingData,
    out: Path,
    *,
    resume: bool = False,
    device: str | None = None,
    until: int | None = None,
) -> Finished:
    """Train and export one checkpoint into ``out``, and one in ``out/epochs-N`` a branch.

    ``until``: stop once that branch of the recipe is exported; --resume goes on from there.
    Raises UserError for what cannot work (`check`), for a folder that holds another run, and when
    the loss is not a number; Interrupted after Ctrl-C, the state saved.
    """
    if until is not None and until not in recipe.train.branches:
        raise BadInput(
            f"until = {until} is not a branch of the recipe; its branches are "
            f"{[*recipe.train.branches]}"
        )
    if not resume and (states(out / "state") or (out / "model.safetensors").is_file()):
        raise Conflict(
            f"{out} already holds a run; add --resume to go on with it or choose another --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(recipe, objective, data, out, device)
    try:
        if resume:
            trainer.resume()
        elif rank() == 0:
            (out / "log.jsonl").unlink(missing_ok=True)
        done = trainer.train(until)
    except (UserError, Interrupted):  # which all processes raise
        _leave(trainer)
        raise
    _leave(trainer)
    return done


def _leave(trainer: Trainer) -> None:
    """Leave the process group together: who leaves early takes the others down."""
    if processes() > 1:
        trainer.accelerator.wait_for_everyone()
        torch.distributed.destroy_process_group()


def _accelerator(recipe: Recipe, device: str | None) -> Any:
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    if launched() == 1:  # a second run in one process may use another precision
        AcceleratorState._reset_state(reset_partial_state=True)
    if device is not None:
        check_device(device)
    cpu = stays_on_cpu(device)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() and not cpu else "cpu"))
    half = use_bf16(recipe.train.precision, place)
    # Buffers (batch norm, queues) are not sent from the first process at every step: queues are
    # equal everywhere already, and batch norm's running statistics are not used in training.
    handler = DistributedDataParallelKwargs(broadcast_buffers=False)
    return Accelerator(cpu=cpu, mixed_precision="bf16" if half else "no", kwargs_handlers=[handler])


@contextmanager
def _quiet(model: Any, quiet: bool) -> Iterator[None]:
    """No exchange of gradients in here, if ``quiet``."""
    if quiet and hasattr(model, "no_sync"):
        with model.no_sync():
            yield
    else:
        yield


def _cut_log(path: Path, step: int) -> None:
    """Drop the lines written after the state that is resumed from."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):  # a line cut short by a crash
            continue
    with atomic_file(path) as file:
        file.write("".join(line + os.linesep for line in kept).encode())


def _copy_log(trunk: Path, branch: Path) -> None:
    """A branch's log begins as the run's that it leaves."""
    with atomic_file(branch / "log.jsonl") as file:
        file.write((trunk / "log.jsonl").read_bytes())


def _last_probe(path: Path) -> float | None:
    if not path.is_file():
        return None
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return next((x["knn_top1"] for x in reversed(lines) if "knn_top1" in x), None)

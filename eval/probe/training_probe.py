"""A probe in a training loop: kNN and few-shot accuracy of the features as they are right now."""

from __future__ import annotations

import dataclasses
import hashlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eval.api import Place, Protocols, load_task, protocol_settings
from eval.common.distributed import is_main_process
from eval.common.errors import BadInput, one_line
from eval.features.encode import Encoded, default_batch_size, normalised
from eval.features.precision import Precision, device_format
from eval.features.read import Read
from eval.models.backbone import Backbone
from eval.models.in_memory import (
    Pool,
    Transform,
    check_pool,
    one_row_each,
    prepared_transform,
    python_id,
    state_sha256,
    unwrapped,
)
from eval.models.resolve import ResolvedModel
from eval.probe.alone import Alone
from eval.probe.subset import Subset
from eval.probe.undisturbed import undisturbed
from eval.protocols import PROTOCOLS
from eval.results.collection import Results
from eval.results.leaderboard import main_scores
from eval.results.names import shelf_path
from eval.results.schema import Result
from eval.results.store import check_writable, write_result
from eval.run.execute import score_cell
from eval.run.plan import Cell, Request

Features = Callable[[Any, Tensor], Tensor]
Sink = Callable[[int, Mapping[str, float]], None]

DEFAULT: Mapping[str, Mapping[str, Any]] = {"knn": {}, "fewshot": {"shots": (5,)}}


class TrainingProbe:
    """Scores a network every so many steps of its training, on small fixed parts of tasks.

    Call it in the loop, after the optimiser's step: ``probe(step, net)``. The training does not
    notice: modes, buffers and all random states are restored, and it is bit-identical with and
    without the probe. Each reading is a result file of the model ``python:NAME@STEP`` under
    ``results``, which ``transfer-eval curves --x step`` draws.

    Args:
        tasks: task strings, as for ``evaluate``; of each at most ``images`` of train and as many of
            test, decoded once and kept in memory (12 kB an image at 64 px, 150 kB at 224 with
            timm's data config, four times that with a transform that returns floats).
        transform: a function of an RGB ``PIL.Image`` to a normalised float tensor [C, H, W], or
            timm's data config, as for ``backbone``.
        every: steps between two readings.
        name: of the training, in results.
        features: ``(net, images [N, C, H, W]) -> [N, D]``, or maps [N, D, h, w] with ``pool``. By
            default a timm network's features before its classifier, and what any other network
            returns.
        protocols: names, or names with settings, of those that work on features; by default kNN and
            5-shot.
        sinks: functions ``(step, {"probe/TASK/PROTOCOL/SCORE": value})``: see `eval.probe.sinks`.

    Raises:
        UserError: here for tasks, transform and settings, and at the first reading for a network
            that gives no features. Later a reading that fails warns: it must not end a training.

    >>> transform = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    >>> probe = TrainingProbe(["digits"], transform, every=100, images=250)
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 16))
    >>> [len(probe(step, net)) for step in (99, 100)]  # results: kNN and 5-shot at step 100
    [0, 2]
    """

    def __init__(
        self,
        tasks: str | Sequence[str],
        transform: Transform | Mapping[str, Any],
        *,
        every: int = 1000,
        name: str = "training",
        features: Features | None = None,
        pool: Pool | None = None,
        protocols: Protocols | None = None,
        images: int = 500,
        results: Place = "probe",
        sinks: Sequence[Sink] = (),
        data: Place | None = None,
        cache: Place | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(every, int) or every < 1:
            raise BadInput(f"every must be at least 1 step, got {every!r}")
        self.every, self.name, self.sinks = every, name, tuple(sinks)
        self.seconds = 0.0  # that all readings took
        self.readings = 0
        self._id = python_id(name)
        check_pool(pool, self._id)
        self._features, self._pool = features or plain_features, pool
        self._protocols = protocol_settings(DEFAULT if protocols is None else protocols)
        for protocol in self._protocols:
            if PROTOCOLS[protocol].trains or PROTOCOLS[protocol].reads != "vector":
                raise BadInput(
                    f"protocol {protocol!r} takes more than one vector an image; a probe takes "
                    "those on features: knn, fewshot, linear"
                )
        self._request = Request([], [], {}, Path(cache or "."), Path(results), seed=seed)
        self._main = is_main_process()
        if not self._main:
            return
        check_writable(self._request.results)
        prepare, said, _ = prepared_transform(transform, self._id)
        self._template = Backbone(
            ResolvedModel("python", name, self._id, self._id, ""), nn.Identity(), prepare, said,
            0, 0, "", "",
        )  # fmt: skip
        names = [tasks] if isinstance(tasks, str) else list(tasks)
        if not names:
            raise BadInput("tasks is empty; name at least one")
        self._subsets = []
        for task in (load_task(t, data, cache=cache, limit=images, seed=seed) for t in names):
            if task.kind != "classification":
                raise BadInput(f"task {task.name!r} has boxes; a probe takes one label an image")
            for protocol, settings in self._protocols.items():
                PROTOCOLS[protocol].check(settings, [task])
            self._subsets.append(Subset.of(task, self._template))

    def __call__(self, step: int, net: nn.Module) -> Results:
        """A reading where ``step`` is a multiple of ``every``; else no results, at once."""
        return self.read(step, net) if step % self.every == 0 else Results()

    def read(self, step: int, net: nn.Module) -> Results:
        """A reading now: one result a task and protocol, written and handed to the sinks.

        Under torchrun the main process reads, with its own copy of the weights; the others have no
        results and do not wait.
        """
        if not self._main:
            return Results()
        start = time.perf_counter()
        try:
            found = self._read(step, unwrapped(net))
        except Exception as error:  # also of memory that ran out: a training goes before its probe
            if not self.readings:
                raise
            warnings.warn(f"no reading at step {step}: {one_line(error)}", stacklevel=3)
            return Results()
        self.readings += 1
        values = {
            f"probe/{r.task.name}/{r.protocol.name}/{s.name}": s.value
            for r in found for s in main_scores(r)
        }  # fmt: skip
        for sink in self.sinks:
            sink(step, values)
        self.seconds += time.perf_counter() - start
        return found

    def _read(self, step: int, net: nn.Module) -> Results:
        device, precision = _place(net, self._id)
        with undisturbed(net):
            weights = state_sha256(net)
            name = f"{self._id}@{step}"
            revision = hashlib.sha256(f"{step}{weights}{self._template.input_config}".encode())
            backbone = dataclasses.replace(
                self._template,
                resolved=ResolvedModel("python", self.name, name, name, revision.hexdigest()[:40]),
                params=sum(p.numel() for p in net.parameters()),
                weights_sha256=weights,
            )
            found = Results()
            for subset in self._subsets:
                begin = time.perf_counter()
                encoded = self._encoded(net, subset, device, precision)
                encoded = dataclasses.replace(encoded, seconds=time.perf_counter() - begin)
                for protocol, settings in self._protocols.items():
                    cell = Cell(
                        backbone.resolved, subset.task, protocol, settings,
                        self._request.results, False,
                        precision.dtype if precision.dtype != "fp32" else None,
                    )  # fmt: skip
                    features = Read(backbone, encoded)
                    result = score_cell(
                        cell, backbone, features, precision, Alone(device), self._request, 0.0
                    )
                    found.append(_at_step(result, step))
        for result in found:
            write_result(self._request.results / shelf_path(result), result)
        return found

    def _encoded(
        self, net: nn.Module, subset: Subset, device: torch.device, precision: Precision
    ) -> Encoded:
        half = precision.dtype == "bf16"
        weights = next((p.dtype for p in net.parameters()), torch.float32)

        def encode(pixels: Any) -> Tensor:
            images = normalised(pixels, self._template, str(device))
            # Without autocast's cache: a weight that was cast without gradients would stay in it.
            with torch.autocast(device.type, torch.bfloat16, enabled=half, cache_enabled=False):
                out = self._features(net, images.to(weights))
            return one_row_each(out, images, self._pool, self._id)

        size = default_batch_size(device, subset.pixels[0, 0].size)
        bank = subset.bank(encode, size, str(precision))
        if not bool(torch.isfinite(bank.features).all()):
            raise BadInput(f"{self._id} gives features that are not finite (NaN or infinite)")
        return Encoded(bank, 0.0, len(bank.features))


def plain_features(net: Any, images: Tensor) -> Tensor:
    """What a network gives before its classifier where it is timm's; else what it returns."""
    head, maps = getattr(net, "forward_head", None), getattr(net, "forward_features", None)
    if callable(head) and callable(maps):
        return head(maps(images), pre_logits=True)
    # accelerate wraps forward in the training's mixed precision; a reading states its own
    return getattr(net, "_original_forward", net)(images)


def _place(net: nn.Module, subject: str) -> tuple[torch.device, Precision]:
    """Where the network is, and the format its features are computed in: bf16 where its weights or
    its device are for that, else fp32."""
    first = next(net.parameters(), torch.empty(0))
    if any(type(p).__name__ in ("DTensor", "FlatParameter") for p in net.parameters()):
        raise BadInput(
            f"{subject} is spread over processes (FSDP), and a probe reads on one; give it a copy "
            "that is whole, such as an exponential moving average"
        )
    if first.dtype not in (torch.float32, torch.bfloat16):
        raise BadInput(f"{subject} has weights of {first.dtype}; a probe takes float32 or bfloat16")
    half = first.dtype == torch.bfloat16 or device_format(first.device) == "bf16"
    return first.device, Precision("bf16" if half else "fp32")


def _at_step(result: Result, step: int) -> Result:
    return result.model_copy(update={"model": result.model.model_copy(update={"step": step})})

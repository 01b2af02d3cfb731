"""The processes of one run, one or many, through accelerate."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from eval.common.errors import BadInput, NotFound, UserError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def is_main_process() -> bool:
    """Whether this process prints and writes results; known before torch is imported."""
    return int(os.environ.get("RANK", "0")) == 0


def launched() -> int:
    """How many processes torchrun or ``accelerate launch`` started for this command."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_device(device: str) -> None:
    """Raise UserError for a device that torch does not know or that is not there."""
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise NotFound(f"unknown --device {device!r}; use cpu, cuda or mps") from None
    backend = getattr(torch, kind, None)
    if kind != "cpu" and not (backend and backend.is_available()):
        raise UserError(f"--device {device} is not available here; use --device cpu")


def stays_on_cpu(device: str | None) -> bool:
    """Whether accelerate must be told to use the CPU.

    Else it joins processes only where they have GPUs: each would take itself for the only one.
    Apple's one GPU is not shared either.
    """
    import torch

    several = any(b.is_available() for b in (torch.cuda, torch.xpu))
    return device == "cpu" or (device is None and launched() > 1 and not several)


class Workers:
    """Rank, device and the few collective calls that encoding needs."""

    def __init__(self, device: str | None = None) -> None:
        import torch
        from accelerate import Accelerator, InitProcessGroupKwargs
        from accelerate.state import GradientState
        from accelerate.utils import GradientAccumulationPlugin

        if device is not None:
            check_device(device)
        # Protocols run on the main process while the others wait: a long fit must not time out.
        wait = InitProcessGroupKwargs(timeout=timedelta(hours=12))
        # All Accelerators of a process share one state of accumulation: the caller's stays.
        held = GradientState().plugin_kwargs
        self._accelerator = Accelerator(
            cpu=stays_on_cpu(device), kwargs_handlers=[wait],
            gradient_accumulation_plugin=GradientAccumulationPlugin(**held) if held else None,
        )  # fmt: skip
        single = self._accelerator.num_processes == 1
        if self._accelerator.num_processes != launched():
            raise BadInput(
                f"{launched()} processes were started, but they cannot share --device {device}; "
                "use --device cpu or one process"
            )
        self.device: torch.device = (
            torch.device(device) if device and single else self._accelerator.device
        )
        self.rank: int = self._accelerator.process_index
        self.count: int = self._accelerator.num_processes

    @property
    def main(self) -> bool:
        return self.rank == 0

    def close(self) -> None:
        """Wait for all, then leave the process group together.

        A process that exits while another still holds its connection takes that one down with a
        C++ abort, after all the work is done.
        """
        if self.count > 1:
            import torch

            self._accelerator.wait_for_everyone()
            torch.distributed.destroy_process_group()

    def broadcast(self, value: T) -> T:
        """The main process's value, everywhere."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        box: list[Any] = [value]
        broadcast_object_list(box)
        return box[0]

    def together(self, work: Callable[[], T]) -> T:
        """Run ``work`` on every process; if it fails on one, raise that error on all."""
        return together(work, self.count)


def together(work: Callable[[], T], count: int) -> T:
    """Run ``work`` on each of ``count`` processes; if it fails on one, raise that error on all.

    Without this a corrupt image seen by one process leaves the others waiting for ever.
    """
    failure: tuple[type[Exception], str] | None = None
    original: Exception | None = None
    result: Any = None
    try:
        result = work()
    except Exception as error:
        failure, original = (type(error), str(error)), error
    if count > 1:
        from accelerate.utils import gather_object

        failures = [f for f in gather_object([failure]) if f is not None]
        if failures and original is None:
            kind, text = failures[0]
            original = UserError(text) if issubclass(kind, UserError) else RuntimeError(text)
    if original is not None:
        raise original
    return result

"""``--on local:N``: N processes of this machine, on one GPU each where it has any."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from eval.common.errors import UserError
from eval.engines.engine import TRIES, Ended, died
from eval.engines.process import our_version
from eval.run.attempt import tries
from eval.run.group import Group
from eval.stores.front import folder_of, store_of

_LOOK = 15.0  # seconds between two looks for workers of which nobody has heard


class _Worker:
    """One process, and what it is at. It leaves when the driver is gone, after its group."""

    def __init__(self, gpu: str, threads: int) -> None:
        self.group: Group | None = None
        self.shelf = ""  # of the model that it has loaded
        self.gpu = gpu
        self.pipe, theirs = Pipe()
        settings = {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
        settings |= {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        settings |= {"TQDM_DISABLE": "1"}  # bars of several processes overwrite each other
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, str(theirs.fileno())],
                pass_fds=[theirs.fileno()], env=os.environ | settings, stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the driver, which ends its workers itself
            )  # fmt: skip

    def take(self, group: Group, store: str) -> None:
        self.group, self.shelf = group, group.shelf
        self.pipe.send((group, store, str(Path.cwd()), our_version()))

    def how_it_ended(self) -> str:
        code = self.process.wait()
        return f"by signal {-code}" if code < 0 else f"with exit code {code}"


_MAIN = "import sys; from eval.engines.process import serve; serve(int(sys.argv[1]))"


class Local:
    """See `eval.engines.engine.Engine`."""

    name = "local"

    def __init__(self, slots: int) -> None:
        self.slots = slots

    def check(self) -> None:
        """Processes are always to be had."""

    def work(self, groups: Sequence[Group], store: str) -> Iterator[Ended | None]:
        left, deaths, looked = deque(groups), Counter[str](), time.monotonic()
        gpus, count = _gpus() or [""], min(self.slots, len(left))
        threads = max(1, len(os.sched_getaffinity(0)) // count)
        idle = [_Worker(gpus[i % len(gpus)], threads) for i in range(count)]
        busy: dict[Connection, _Worker] = {}
        try:
            while left or busy:
                while left and idle:
                    worker = idle.pop()
                    group = _next(left, worker, busy.values())
                    left.remove(group)
                    busy[worker.pipe] = worker
                    try:
                        worker.take(group, store)
                    except OSError:  # it died while it was idle: `wait` says so now
                        continue
                for pipe in wait(list(busy), 1.0):
                    worker = busy.pop(pipe)  # type: ignore[call-overload]
                    group, worker.group = worker.group, None
                    assert group is not None
                    try:
                        error = worker.pipe.recv()
                    except (EOFError, OSError):
                        why = worker.how_it_ended()
                        idle.append(_Worker(worker.gpu, threads))
                        deaths[group.key] += 1
                        if deaths[group.key] < TRIES:
                            left.append(group)
                        else:
                            yield Ended((group,), died(group.title, why))
                        continue
                    idle.append(worker)
                    yield Ended((group,), error, bool(error))
                if time.monotonic() - looked > _LOOK:
                    looked = time.monotonic()
                    for worker in _silent(busy.values(), store):
                        # It may be stopped, and go on one day: what it writes then does no harm.
                        del busy[worker.pipe]
                        worker.pipe.close()
                        assert worker.group is not None
                        left.append(worker.group)
                        idle.append(_Worker(worker.gpu, threads))
                yield None
        finally:
            for worker in (*idle, *busy.values()):
                worker.pipe.close()
                if worker.group is not None:
                    worker.process.terminate()
            for worker in (*idle, *busy.values()):
                worker.process.wait()


def _next(left: Sequence[Group], worker: _Worker, others: Collection[_Worker]) -> Group:
    """A group of the model that the worker has loaded; else of one that nobody has; else any."""
    mine = (g for g in left if g.shelf == worker.shelf)
    taken = {other.shelf for other in others}
    free = (g for g in left if g.shelf not in taken)
    return next(mine, None) or next(free, None) or left[0]


def _silent(workers: Collection[_Worker], store: str) -> list[_Worker]:
    """Those whose try gave no sign of life for long."""
    try:
        found = {one.process: one for one in tries(store_of(folder_of(store)))}
    except UserError:  # the store does not answer: nothing is known of anybody
        return []
    mine = [(w, found.get(w.process.pid)) for w in workers]
    return [w for w, one in mine if one is not None and w.group and not one.alive and one.here]


def _gpus() -> list[str]:
    """The GPUs of this machine, as CUDA_VISIBLE_DEVICES names them; none where it has none."""
    import torch

    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name for name in told.split(",") if name]
    return [str(i) for i in range(torch.cuda.device_count())]

"""``--on slurm``: an array of jobs through submitit.

Slurm places and restarts: a job whose node died or that was preempted is queued again, one whose
time is over queues itself again (USR2), and each finds what is done. What Slurm gives up, a job
that was told to stop (SIGTERM), whose process was killed or that no node could start, is submitted
once more from here.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.common.errors import BadInput, NotFound, one_line
from eval.common.extras import require
from eval.common.files import default_cache
from eval.engines.engine import TRIES, Ended, died
from eval.engines.placing import Placing, portions
from eval.engines.process import our_version
from eval.engines.slurm_job import Job
from eval.engines.slurm_queue import alive, said
from eval.run.group import Group

_LOOK = 5.0  # seconds between two questions to Slurm
_ARRAY = 1000  # jobs of one array: Slurm's own limit, where nobody raised it
_GRACE = 60  # seconds of warning before a job's time is over


class Slurm:
    """See `eval.engines.engine.Engine`."""

    name = "slurm"

    def __init__(self, placing: Placing) -> None:
        self._placing = placing
        self.slots = placing.max_jobs

    def check(self) -> None:
        """Raises UserError without submitit, without Slurm, or for a partition that it has not."""
        require("slurm", "--on slurm")
        if shutil.which("sbatch") is None:
            raise NotFound("--on slurm: there is no sbatch on this machine; use a login node")
        known = {name.rstrip("*") for name in said("sinfo", "-h", "-o", "%P").split()}
        wanted = self._placing.partition
        if wanted and wanted not in known:
            raise NotFound(
                f"--on slurm: there is no partition {wanted!r}; use {', '.join(sorted(known))}"
            )

    def work(self, groups: Sequence[Group], store: str) -> Iterator[Ended | None]:
        name = f"tz-{groups[0].drive}"
        while alive(name):  # of an earlier driver: they go on without it
            yield None
            time.sleep(_LOOK)
            if not alive(name):
                return  # the driver knows what is left
        deaths = Counter[str]()
        left = self._submit(list(portions(groups, self.slots)), store, name)
        gone: set[str] = set()
        while left:
            time.sleep(1.0)
            yield None
            there = alive(name)
            again: list[tuple[Group, ...]] = []
            for number in [n for n in left if n not in there]:
                job, portion = left[number]
                if job.paths.result_pickle.exists():
                    del left[number]
                    ended = _ended(job, portion)
                    if ended is None:
                        again.append(portion)
                    else:
                        yield ended
                elif number not in gone:
                    gone.add(number)  # a shared file system may be late: it is asked once more
                else:
                    del left[number]
                    deaths.update(group.key for group in portion)
                    if deaths[portion[0].key] < TRIES:
                        again += [(group,) for group in portion]  # one of them may kill it
                    else:
                        log = job.paths.stderr
                        yield Ended(portion, died(portion[0].title, f"as {log} may say"))
            if again:
                left |= self._submit(again, store, name)
            time.sleep(_LOOK - 1)

    def _submit(
        self, several: Sequence[tuple[Group, ...]], store: str, name: str
    ) -> dict[str, tuple[Any, tuple[Group, ...]]]:
        """An array of jobs, by the number of each."""
        import submitit

        folder = default_cache() / "slurm" / name
        executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=1000)
        placing = self._placing
        executor.update_parameters(
            job_name=name, time=placing.minutes, cpus_per_task=placing.cpus,
            array_parallelism=placing.max_jobs, signal_delay_s=_GRACE, stderr_to_stdout=False,
            additional_parameters={"requeue": True, **placing.slurm},
            **({"partition": placing.partition} if placing.partition else {}),
            **({"gpus_per_node": placing.gpus} if placing.gpus else {}),
        )  # fmt: skip
        calls = [Job(groups, store, str(Path.cwd()), our_version()) for groups in several]
        jobs: list[Any] = []
        try:
            for start in range(0, len(calls), _ARRAY):
                with executor.batch():
                    jobs += [executor.submit(call) for call in calls[start : start + _ARRAY]]
        except Exception as error:
            raise BadInput(f"--on slurm: sbatch refuses the jobs: {one_line(error)}") from None
        return {str(job.job_id): (job, call.groups) for job, call in zip(jobs, calls, strict=True)}


def _ended(job: Any, portion: tuple[Group, ...]) -> Ended | None:
    """None where the job was told to stop before its groups were done."""
    try:
        error = job.result()
    except Exception as failed:  # a mistake of ours, with its traceback in the log
        return Ended(portion, one_line(failed))
    return None if error is None else Ended(portion, error, bool(error))

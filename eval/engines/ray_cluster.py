"""``--on ray``: tasks of a Ray cluster, one that runs here or the one at an address.

Ray places, retries and restarts: a task that dies with its worker or node is tried again elsewhere,
and finds what is done.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.common.errors import BadInput, NotFound, one_line
from eval.common.extras import require
from eval.common.interrupts import own_sigterm
from eval.engines import process
from eval.engines.engine import TRIES, Ended, died
from eval.engines.placing import Placing, portions
from eval.engines.process import our_version, score_groups
from eval.run.group import Group


class Ray:
    """See `eval.engines.engine.Engine`."""

    name = "ray"

    def __init__(self, address: str, placing: Placing) -> None:
        self._address, self._placing = address, placing
        self.slots = placing.max_jobs

    def check(self) -> None:
        """Raises UserError without ray, without a cluster, with one of another Python, ray or
        transferzoo, and where no node has what a job asks for."""
        require("ray", "--on ray")
        import ray

        where = self._address or os.environ.get("RAY_ADDRESS", "a cluster of this machine")
        _check_port(where)
        try:
            with own_sigterm():  # ray's handler would exit with 15 and leave no word
                ray.init(
                    self._address or "auto", ignore_reinit_error=True, log_to_driver=False,
                    logging_level=logging.ERROR,
                )  # fmt: skip
        except (ConnectionError, ValueError) as error:
            raise NotFound(
                f"--on ray: {where} does not answer ({one_line(error)}); start one with "
                "`ray start --head`, or give ray://HEAD:10001"
            ) from None
        except RuntimeError as error:  # of another Python or ray
            raise BadInput(f"--on ray: {where} cannot be used: {one_line(error)}") from None
        self._check_nodes(ray)
        self.slots = min(self._placing.max_jobs, self._room(ray))

    def _check_nodes(self, ray: Any) -> None:
        """One question: a task of ours runs, under the same version."""
        try:
            theirs = ray.get(ray.remote(num_cpus=0)(process.our_version).remote(), timeout=120)
        except Exception as error:
            raise BadInput(
                f"--on ray: the cluster cannot run transferzoo ({one_line(error)}); install it on "
                "all nodes, in the same Python"
            ) from None
        if theirs != our_version():
            raise BadInput(
                f"--on ray: the cluster has transferzoo {theirs or 'not installed'} and this "
                f"machine {our_version() or 'a checkout'}; install the same version"
            )

    def _room(self, ray: Any) -> int:
        """Groups that fit in at once."""
        has = ray.cluster_resources()
        room = has.get("CPU", 0) // self._placing.cpus
        if self._placing.gpus:
            room = min(room, has.get("GPU", 0) // self._placing.gpus)
        if room < 1:
            raise BadInput(
                f"--on ray: no node has {self._placing.cpus} CPUs and {self._placing.gpus} GPUs; "
                f"the cluster has {has.get('CPU', 0):g} and {has.get('GPU', 0):g}"
            )
        return int(room)

    def work(self, groups: Sequence[Group], store: str) -> Iterator[Ended | None]:
        import ray

        task = ray.remote(
            num_cpus=self._placing.cpus, num_gpus=self._placing.gpus, max_retries=TRIES - 1,
        )(score_groups)  # fmt: skip

        def start(several: Iterable[tuple[Group, ...]]) -> dict[Any, tuple[Group, ...]]:
            here = str(Path.cwd()), our_version()
            return {task.remote(portion, store, *here): portion for portion in several}

        left = start(portions(groups, self.slots))
        try:
            while left:
                ready, _ = ray.wait(list(left), timeout=1.0)
                for one in ready:
                    portion = left.pop(one)
                    try:
                        error = ray.get(one)
                    except ray.exceptions.RayTaskError as failed:  # a mistake of ours
                        yield Ended(portion, one_line(failed.cause))
                    except ray.exceptions.RayError as failed:
                        if len(portion) > 1:  # one of them may kill the others' worker
                            left |= start((group,) for group in portion)
                        else:
                            yield Ended(portion, died(portion[0].title, f"with {one_line(failed)}"))
                    else:
                        yield Ended(portion, error, bool(error))
                yield None
        finally:
            for one in left:
                ray.cancel(one, force=True)


def _check_port(address: str) -> None:
    """Raises UserError where nobody listens: ray itself would wait, and then end the process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isascii() and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise NotFound(
            f"--on ray: nobody answers at {address} ({one_line(error)}); start a cluster with "
            "`ray start --head`, or give the address of one"
        ) from None

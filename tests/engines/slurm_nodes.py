"""A real Slurm of two nodes on this machine, without munge, as root."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tests.children import free_ports

# A job that is queued again waits until its credential has expired, two minutes unless told. A job
# of ``urgent`` takes the node of one of ``p``, which hears SIGTERM and has twenty seconds left.
CONF = """\
ClusterName=box
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmctldPort={ports[0]}
SlurmdTimeout=10
AuthInfo=cred_expire=5
SchedulerParameters=sched_interval=2,bf_interval=5
SlurmctldPidFile={state}/state/slurmctld.pid
SlurmdPidFile={state}/state/slurmd.%n.pid
SlurmdSpoolDir={state}/spool/%n
StateSaveLocation={state}/state
SlurmctldLogFile={state}/log/ctld.log
SlurmdLogFile={state}/log/d.%n.log
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MaxArraySize=1001
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=2000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=2000
PartitionName=p Nodes=n1,n2 Default=YES PriorityTier=1 GraceTime=20 MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=n1,n2 PriorityTier=2 MaxTime=INFINITE State=UP
"""


def slurm_missing() -> str:
    """Why no Slurm can be started here; '' where one can."""
    for name in ("slurmctld", "slurmd", "sbatch"):
        if shutil.which(name) is None:
            return f"there is no {name} here: apt-get install slurmctld slurmd slurm-client"
    return "" if os.geteuid() == 0 else "Slurm's daemons need root here"


class SlurmNodes:
    """Two nodes of one CPU while it is entered."""

    def __init__(self, prefix: str = "tz-slurm-") -> None:
        # Slurm's sockets lie in it, whose paths may have 108 characters: none of pytest's folders.
        self._folder = folder = Path(tempfile.mkdtemp(prefix=prefix))
        self.settings = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._before: str | None = None

    def __enter__(self) -> SlurmNodes:
        for name in ("state", "spool/n1", "spool/n2", "log"):
            (self._folder / name).mkdir(parents=True)
        (self._folder / "slurm.conf").write_text(
            CONF.format(
                host=socket.gethostname().partition(".")[0], ports=free_ports(3),
                state=self._folder,
            )
        )  # fmt: skip
        self._before = os.environ.get("SLURM_CONF")
        os.environ |= self.settings
        self._controller = self._started("slurmctld", "-D")
        for name in ("n1", "n2"):
            self._nodes[name] = self._started("slurmd", "-D", "-N", name)
        deadline = time.monotonic() + 60
        while self._idle() < 2 and time.monotonic() < deadline:
            time.sleep(0.5)
        if self._idle() < 2:
            self.__exit__()
            raise RuntimeError(
                f"Slurm did not start: {(self._folder / 'log/ctld.log').read_text()}"
            )
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["scancel", "--signal=KILL", "--user=root"], capture_output=True)
        for process in (*self._nodes.values(), self._controller):
            process.terminate()
            process.wait(30)
        if self._before is None:
            os.environ.pop("SLURM_CONF", None)
        else:
            os.environ["SLURM_CONF"] = self._before
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill_one(self, draw: random.Random) -> bool:
        """kill -9 of a slurmd, and another in its place."""
        name = draw.choice(sorted(self._nodes))
        self._nodes[name].kill()
        self._nodes[name].wait()
        self._nodes[name] = self._started("slurmd", "-D", "-N", name)
        return True

    def _idle(self) -> int:
        said = subprocess.run(
            ["sinfo", "-h", "-N", "-o", "%N %T"], capture_output=True, text=True
        ).stdout
        return sum(line.endswith("idle") for line in said.splitlines())

    def _started(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

"""What Slurm says of jobs."""

from __future__ import annotations

import getpass
import subprocess

from eval.common.errors import UserError, one_line


def alive(name: str) -> set[str]:
    """The numbers of jobs of that name that wait, run, or end just now.

    Those that no node could start Slurm holds until somebody acts: they are cancelled here, and
    count as jobs that died."""
    listed = said("squeue", "-h", "-r", "-u", getpass.getuser(), "-n", name, "-o", "%F_%K|%r")
    found = set()
    for line in listed.splitlines():
        job, _, why = line.partition("|")
        number = job.strip().removesuffix("_N/A")
        if "launch failed" in why:
            said("scancel", number)
        else:
            found.add(number)
    return found


def said(*command: str) -> str:
    """What Slurm answers. Raises UserError where it does not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"--on slurm: {command[0]} does not answer: {one_line(error)}") from None
    if done.returncode:
        raise UserError(f"--on slurm: {command[0]} says {' '.join(done.stderr.split())[:200]!r}")
    return done.stdout

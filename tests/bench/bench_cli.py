"""Wall time of the commands that should be instant, as whole processes.

python -m tests.bench.bench_cli
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.common import arguments, machine


def main() -> None:
    args = arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run = [
            sys.executable, "-m", "eval", "run", "random:resnet18", "random:resnet10t",
            "--img-size", "64", "--data", str(args.data), "--task", "chestx", "dtd", "svhn",
            "--results", str(work / "results"), "--cache", str(work / "cache"),
        ]  # fmt: skip
        subprocess.run(run, check=True, capture_output=True)
        commands = {
            "`transfer-eval --help`": [sys.executable, "-m", "eval", "--help"],
            "second identical `run` (2 models, 3 tasks, 3 protocols)": run,
            "`leaderboard` of them": [
                sys.executable, "-m", "eval", "leaderboard", "--results", str(work / "results"),
            ],
        }  # fmt: skip
        print(machine("torch"))
        print("| command | seconds, median | slowest |")
        print("| --- | ---: | ---: |")
        for label, command in commands.items():
            taken = []
            for _ in range(args.rounds):
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                taken.append(time.perf_counter() - start)
            print(f"| {label} | {statistics.median(taken):.2f} | {max(taken):.2f} |")


if __name__ == "__main__":
    main()

"""The three bank protocols together against encoding the same task (ResNet-50 at 224 px).

python -m tests.bench.bench_protocols [--task eurosat]
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.common import arguments, machine


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", default="eurosat")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="transferzoo-bench-"))
    command = [
        sys.executable, "-m", "eval", "run", "random:resnet50", "--data", str(args.data),
        "--task", args.task, "--cache", str(work / "cache"), "--results", str(work / "results"),
    ]  # fmt: skip
    encode = 0.0
    rounds: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        shutil.rmtree(work / "results", ignore_errors=True)
        subprocess.run(command, check=True, capture_output=True)
        for file in (work / "results").rglob("*.json"):
            result = json.loads(file.read_text())
            encode = max(encode, result["seconds"]["encode"])  # 0 once it is cached
            spent = result["seconds"]["fit"] + result["seconds"]["score"]
            rounds.setdefault(result["protocol"]["name"], []).append(spent)
    medians = {name: statistics.median(s) for name, s in sorted(rounds.items())}
    print(f"ResNet-50 at 224 px on {args.task}; {machine('torch', 'timm')}")
    print("| step | seconds |")
    print("| --- | ---: |")
    print(f"| encode (once) | {encode:.1f} |")
    for name, seconds in medians.items():
        print(f"| {name} | {seconds:.2f} |")
    total = sum(medians.values())
    print(f"| protocols together | {total:.2f} |")
    print(f"share of encoding: {100 * total / encode:.1f} %")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()

"""What reading many layers costs beside one, encoding beside bare forward passes, and the Python
call beside the command's own work.

    python -m tests.bench.bench_readout [--images 256] [--arch vit_tiny_patch16_224]

Seconds are the processor's, of all threads of this process: other work on the machine does not
count. The jobs take turns in one process on the same images, one thread each.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from eval.api import evaluate, protocol_settings
from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.features.encode import default_batch_size, encode, normalised, pixels_of
from eval.features.precision import forward, preferred, prepared
from eval.features.read import read
from eval.features.readout import layer_names
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.results.store import read_result
from eval.run.execute import execute
from eval.run.plan import Request, plan
from eval.settings.readout import Readout, readout
from tests.bench.common import arguments, machine, processor_seconds


def help_seconds(rounds: int) -> float:
    """The processor's seconds of ``transfer-eval --help``, as a process of its own."""
    code = (
        "import time, contextlib, io\n"
        "import eval.__main__ as m\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    m.main(['--help'])\n"
        "print(time.process_time())"
    )
    line = [sys.executable, "-c", code]
    return statistics.median(
        float(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
        for _ in range(rounds)
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--arch", default="vit_tiny_patch16_224")
    args = parser.parse_args()
    torch.set_num_threads(1)
    work = Path(tempfile.mkdtemp(prefix="transferzoo-bench-"))
    cache, workers = work / "cache", Workers("cpu")
    task = load_task("eurosat", cache, args.data, limit=args.images // 2)
    backbone = load(resolve(f"random:{args.arch}", cache))
    precision = preferred(backbone.net, workers.device)
    _, height, width = backbone.input_config["input_size"]
    size = default_batch_size(workers.device, height * width)
    first = task.train.source.images(np.sort(task.train.rows)[:size])
    pixels = np.stack([pixels_of(backbone, task, task.train, *item) for item in first])
    names = layer_names(backbone)
    every = [Readout(), *(readout("mean", name) for name in names)]

    def bare() -> None:
        with prepared(backbone.net, workers.device, precision) as net:
            for split in (task.train, task.test):
                for at in range(0, len(split), size):
                    batch = normalised(pixels[: min(size, len(split) - at)], backbone)
                    forward(net, batch, precision)

    def fresh(wanted: list[Readout]) -> Callable[[], None]:
        def job() -> None:
            shutil.rmtree(cache / "banks", ignore_errors=True)
            read(backbone, wanted, task, cache, workers, precision)

        return job

    found = processor_seconds(
        {"bare": bare, "one": fresh(every[:1]), "every": fresh(every)}, args.rounds
    )
    count = len(task.train) + len(task.test)
    print(f"{args.arch}, {count} images of EuroSAT, {precision}, one thread, processor's seconds")
    print(machine("torch", "timm"))
    print(f"bare forward passes {found['bare']:.2f} s")
    print(f"encode {found['one']:.2f} s, {found['one'] / found['bare']:.3f} of them")
    print(
        f"its own vector and {len(names)} layers at once {found['every']:.2f} s, "
        f"{found['every'] / found['one']:.3f} of one"
    )

    encode(backbone, task, cache, workers, precision)
    model, results = f"random:{args.arch}", work / "results"
    request = Request(
        [model], ["eurosat"], protocol_settings("knn"), cache, results, data=args.data,
        limit=args.images // 2,
    )  # fmt: skip

    def command() -> None:
        cells = plan(request)
        execute(request, cells)
        for cell in cells:
            read_result(cell.path)

    def call() -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            evaluate(
                model, "eurosat", "knn", results=results, cache=cache, data=args.data,
                limit=args.images // 2,
            )  # fmt: skip

    found = processor_seconds({"command": command, "call": call}, args.rounds)
    more = 1000 * (found["call"] - found["command"])
    print(f"evaluate adds {more:.1f} ms to the {1000 * found['command']:.0f} ms of the command")
    print(f"transfer-eval --help {1000 * help_seconds(args.rounds):.0f} ms")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()

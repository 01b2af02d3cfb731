"""Does the search for C choose what a sweep of the whole grid chooses?

    python -m tests.bench.bench_c_path [--seeds 0 1] [--tasks dtd eurosat] [--model zoo:...]

On splits of real sets into a fitted and a validation part, one a seed and task: the C of
`search_c` and that of all 45 values solved in float64 to a hundredth of a fit's tolerance, each
from the last one's solution. The tests hold such solves to scikit-learn's. Prints what each chose,
with validation accuracies by the sweep, iterations and seconds.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from eval.common.distributed import Workers
from eval.common.files import default_cache
from eval.data.load import load_task
from eval.data.validation import held_out
from eval.features.encode import encode
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.settings.protocols import Linear
from eval.solvers.c_path import C_GRID, search_c
from eval.solvers.logistic import Problem, standardise
from tests.bench.common import arguments, machine

TASKS = (
    "chestx", "cropdisease", "deepweeds", "dtd", "eurosat", "flowers102", "isic2018",
    "pacs_sketch", "resisc45", "svhn",
)  # fmt: skip
Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def sweep(parts: Parts, classes: int) -> list[int]:
    """Right answers on validation at each C of the grid."""
    x, y, x_val, y_val = parts
    problem = Problem(x.double(), y, classes)
    model, right = None, []
    for c in C_GRID:
        (model,) = problem.solve([c], [model], tol=1e-6, relative=1.0, max_iter=10_000)
        if not model.converged:
            raise RuntimeError(f"the sweep's fit at C = {c:g} did not converge")
        right.append(int((model.logits(x_val.double()).argmax(1) == y_val).sum()))
    return right


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", default="zoo:resnet18_narrow.ce_tin100")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--cache", type=Path, default=default_cache())
    args = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load(resolve(args.model, args.cache))
    print(f"{args.model}; {machine('torch')}\n")
    print("| task | seed | rows | validation | ours | right | sweep | right | ours s | sweep s |")
    print("| --- |" + " ---: |" * 9)
    agreed = splits = 0
    for name in args.tasks:
        task = load_task(name, cache=args.cache, data=args.data)
        bank = encode(backbone, task, args.cache, Workers(None)).bank
        x, y = bank.train
        classes = len(task.classes)
        for seed in args.seeds:
            held = torch.from_numpy(held_out(task, Linear().validation, seed))
            mean, scale = standardise(x[~held])
            parts = (x[~held] - mean) / scale, y[~held], (x[held] - mean) / scale, y[held]
            start = time.perf_counter()
            found = search_c(*parts, classes)
            middle = time.perf_counter()
            right = sweep(parts, classes)
            end = time.perf_counter()
            ours, best = C_GRID.index(found.best_c), right.index(max(right))
            agreed, splits = agreed + (ours == best), splits + 1
            print(
                f"| {name} | {seed} | {len(parts[1])} | {len(parts[3])} | {C_GRID[ours]:.3g} "
                f"| {right[ours]} | {C_GRID[best]:.3g} | {right[best]} "
                f"| {middle - start:.2f} | {end - middle:.1f} |",
                flush=True,
            )
    print(f"\nthe same C on {agreed} of {splits} splits")


if __name__ == "__main__":
    main()

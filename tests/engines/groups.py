"""Small groups to score: an untrained network on made-up pictures."""

from __future__ import annotations

from pathlib import Path

from eval.run.group import Group, groups_of, run_group
from eval.run.plan import Request, plan
from eval.settings.protocols import Fewshot, Knn
from tests.factories import make_task
from tests.run.scored import files

PROTOCOLS = {"knn": Knn(), "fewshot": Fewshot(shots=(1,), episodes=10, queries=5)}


def make_request(folder: Path, results: Path, models: int = 1, tasks: int = 1) -> Request:
    """Of random networks and data sets under ``folder``, which are made where they are missing."""
    names = []
    for i in range(tasks):
        place = folder / "data" / f"set{i}"
        if not place.exists():
            make_task(place, classes=5, train=10, test=8, seed=i)
        names.append(f"parquet:{place}")
    return Request(
        models=[f"random:test_resnet@{i}" for i in range(models)], tasks=names,
        protocols=dict(PROTOCOLS), cache=folder / "cache", results=results, img_size=32,
        device="cpu", precision="fp32",
    )  # fmt: skip


def make_groups(request: Request) -> list[Group]:
    return groups_of(request, plan(request), str(request.cache), "run")


def undisturbed_results(folder: Path, models: int, tasks: int) -> dict[str, bytes]:
    """The results of one process that nothing happens to, without times (`files`)."""
    request = make_request(folder, folder / "undisturbed", models, tasks)
    for group in make_groups(request):
        run_group(group, str(request.results))
    return files(request.results)


def command_of(request: Request) -> list[str]:
    """The same as a command line."""
    return [
        "run", *map(str, request.models), "--task", *request.tasks, "--protocol", "knn", "fewshot",
        "--shots", "1", "--episodes", "10", "--queries", "5", "--img-size", "32", "--device", "cpu",
        "--precision", "fp32", "--cache", str(request.cache),
    ]  # fmt: skip

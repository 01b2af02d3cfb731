"""Results, made up and shipped, as the Space's tables take them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eval.results.schema import Result
from eval.results.store import read_shelf
from space.tables.matrix import Grid, Key, grid
from space.tables.scores import frame, rows
from tests.factories import make_result

CARDS = Path(__file__).resolve().parents[2] / "model_cards"
LINEAR = Key("linear", "", "top1")
FIVE = Key("fewshot", "", "top1_5shot")
# Each is markup, a link, a formula or code somewhere: shown as it is, it is none of them.
HOSTILE_NAMES = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "](javascript:alert(1))",
    "[x](javascript:alert(1))", "![x](http://evil/x.png)", "`code`", "**bold** _it_ ~~no~~",
    "# head", "a\n\n# b\n<b>", "$x^2$", "&lt;b&gt;", "<javascript:alert(1)>", "a|b\n-|-\n1|2",
    "\\<b>", "{{7*7}}", "- list", "1. list", "'\"", "=cmd|' /C calc'!A0",
]  # fmt: skip


@functools.cache
def shipped() -> tuple[tuple[Path, Result], ...]:
    """The results in the repository."""
    return read_shelf(CARDS).results


@functools.cache
def shipped_scores() -> pd.DataFrame:
    return frame(
        row for path, result in shipped() for row in rows(str(path.relative_to(CARDS)), result)
    )


def scored(results: Iterable[Result]) -> pd.DataFrame:
    return frame(row for i, r in enumerate(results) for row in rows(f"{i}.json", r))


def part(result: Result, name: str, **changes: Any) -> Result:
    """The result with fields of one part changed."""
    return result.model_copy(update={name: getattr(result, name).model_copy(update=changes)})


def without_samples(result: Result) -> Result:
    return result.model_copy(update={"samples": {}})


def without_kinds(result: Result) -> Result:
    """As a file of before it was said of which chance an interval speaks."""
    scores = [score.model_copy(update={"kind": ""}) for score in result.scores]
    return result.model_copy(update={"scores": scores})


def linear(results: Iterable[Result]) -> Grid:
    return grid(scored(results), LINEAR)


def world(seed: int, models: int, tasks: int, missing: float = 0.0, n: int = 40) -> list[Result]:
    """Random results of models m0.. on tasks t0.., each cell absent with a probability."""
    random = np.random.RandomState(seed)
    skill = random.uniform(0.2, 0.9, models)
    hard = [random.uniform(size=n) for _ in range(tasks)]
    return [
        make_result(f"m{m}", f"t{t}", correct=hard[t] + random.normal(0, 0.1, n) < skill[m])
        for m, t in itertools.product(range(models), range(tasks))
        if random.uniform() >= missing
    ]


def zoo(objective: str, tail: str = "tin100", maker: str = "zoo:") -> str:
    return f"{maker}resnet18_narrow.{objective.replace('+', '_')}_{tail}"


def study(
    values: dict[str, dict[str, float]], protocol: str = "linear", seed: int = 0
) -> pd.DataFrame:
    """Scores of {objective: {task: accuracy}} on 200 shared units a task."""
    found = []
    for task in sorted({task for tasks in values.values() for task in tasks}):
        chance = np.random.RandomState([seed, len(task), ord(task[-1])]).uniform(size=200)
        found += [
            make_result(zoo(name), task, protocol, correct=chance < tasks[task])
            for name, tasks in values.items()
            if task in tasks
        ]
    return scored(found)


def fewshot(model: str, task: str, values: dict[int, float], **more: Any) -> Result:
    result = make_result(model, task, "fewshot", correct=np.arange(50) < 25, **more)
    (score,), (samples,) = result.scores, result.samples.values()
    new = {
        f"top1_{k}shot": score.model_copy(
            update={"name": f"top1_{k}shot", "value": v, "ci_low": v - 0.02, "ci_high": v + 0.02}
        )
        for k, v in values.items()
    }
    return result.model_copy(
        update={"scores": list(new.values()), "samples": dict.fromkeys(new, samples)}
    )


def shipped_grid() -> Grid:
    return grid(shipped_scores(), FIVE)


def mixed() -> list[Result]:
    """Models of many kinds on tasks of many domains; dtd is a subset, tiny_imagenet pretrains."""
    models = {
        "zoo:resnet18.ce_tin100": 3, "zoo:resnet18.supcon_tin100": 3, "resnet50.a1_in1k": 24,
        "random:vit_tiny": 6, "hf-hub:org/big.ce_tin100": 90,
    }  # fmt: skip
    out = []
    for (model, millions), task in itertools.product(
        models.items(), ("dtd", "eurosat", "isic2018", "tiny_imagenet", "mine")
    ):
        facts = {"objective": "supervised", "architecture": "resnet50", "data": ["imagenet-1k"]}
        result = make_result(model, task, top1=0.3 + 0.1 * (len(model) % 5),
                             facts=facts if "a1" in model else None)  # fmt: skip
        result = part(result, "model", params=millions * 10**6)
        out.append(part(result, "task", subset=task == "dtd"))
    return out


def gaps() -> Grid:
    """Seven models on three tasks, where m1 lacks the first and m4 the last."""
    holes = {("m1", "t0"), ("m4", "t2")}
    return linear(r for r in world(4, 7, 3) if (r.model.id, r.task.name) not in holes)

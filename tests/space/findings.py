"""Made-up findings of every analysis, under any names."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from eval.analysis import ANALYSES
from eval.analysis.finding import Finding
from eval.analysis.predictors import PREDICTORS
from eval.results.schema import ModelFacts, ModelInfo, TaskInfo
from tests.factories import made_up_facts, make_result

LAYERS = ["act1", "layer1", "features"]
KINDS = ["fog", "gaussian_noise"]


def picture(seed: int = 0) -> str:
    """A small PNG as a data URI."""
    pixels = np.random.RandomState(seed).randint(0, 255, (8, 8, 3)).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def values_of(analysis: str, models: Sequence[str], tasks: Sequence[str]) -> dict[str, Any]:
    """What the analysis would write, with numbers that rise with the model's place."""

    def each(make: Any) -> dict[str, Any]:
        return {m: {t: make(0.1 * i) for t in tasks} for i, m in enumerate(models)}

    if analysis == "cka":
        grid = [[1.0, 0.5, None], [0.5, 1.0, 0.25], [None, 0.25, 1.0]]
        return {"layers_a": LAYERS, "layers_b": LAYERS, "cka": grid, "images": 300, "batches": 2,
                "error": [[0.01, None, None]] * 3}  # fmt: skip
    if analysis == "profile":
        return {"models": each(lambda x: {k: [x + 0.1, x, x + 0.2] for k in LAYERS})}
    if analysis == "geometry":
        names = ("within", "between", "index", "effective_rank", "uniformity", "nc1", "equinorm")
        part = dict.fromkeys(names, 0.5) | {"nc1": None}
        return {"models": each(lambda x: {
            k: {p: part | {"index": x} for p in ("train", "test")} for k in LAYERS
        })}  # fmt: skip
    if analysis == "robustness":
        return {
            "models": each(lambda x: {
                "clean": {"top1": 0.6 + x, "low": 0.5, "high": 0.7, "ece": 0.1, "nll": 1.0},
                "corrupted": {"top1": 0.4 + x, "low": 0.3, "high": 0.5, "ece": 0.2},
                "drop": {"value": 0.3, "low": 0.2, "high": 0.4},
                "conditions": {k: {"top1": [0.5 + x, 0.3], "ece": [0.1, 0.2]} for k in KINDS},
                "by_severity": {"top1": [0.5 + x, 0.3], "ece": [0.1, 0.2]},
                "hits": base64.b64encode(bytes([1, 2, 3])).decode(),
            }),
            "severities": [1, 5], "corruptions": KINDS,
        }  # fmt: skip
    if analysis == "reconstruction":
        return {
            "models": each(lambda x: {
                "layers": {k: {"psnr": [20 + x, 19, 21], "ssim": [0.5, 0.4, 0.6]} for k in LAYERS},
                "prior": {"layer1": {"psnr": [18.0], "ssim": [0.4], "error": [0.01]}},
                "decoded": {"layer1": [picture(1)]}, "inverted": {"layer1": [picture(2)]},
                "floor": {"psnr": 12.0, "ssim": 0.1},
            }),
            "floor": {"psnr": 12.0, "ssim": 0.1}, "originals": [picture()],
            "train_images": 100, "test_images": 50, "side": 8,
        }  # fmt: skip
    numbers = each(lambda x: dict.fromkeys(PREDICTORS, x))
    measured = {t: {m: 0.5 + 0.1 * i for i, m in enumerate(models)} for t in tasks}
    return {"models": numbers, "measured": measured, "agreement": {t: {} for t in tasks}}


def made(analysis: str, models: Sequence[str], tasks: Sequence[str] = ("eurosat",)) -> Finding:
    base = make_result("zoo:x", "digits", "linear", top1=0.5)
    infos = [
        ModelInfo(
            spec=m, id=m, revision=f"{i:040x}", weights_sha256=f"{i:064x}", params=7,
            facts=ModelFacts(**made_up_facts(m)),
        )
        for i, m in enumerate(models)
    ]  # fmt: skip
    return Finding(
        analysis=analysis, models=infos,
        tasks=[
            TaskInfo(name=t, source="/home/me/data", revision="", split_hash=f"{t}-hash",
                     counts={"classes": 2, "train": 9, "test": 9}) for t in tasks
        ],
        config={"kernel": "linear"}, values=values_of(analysis, models, tasks),
        sentence=f"What {analysis} shows of {models[0]}.", environment=base.environment, seed=0,
        seconds={}, created="2026-01-01T00:00:00+00:00", notes=[],
    )  # fmt: skip


def every(models: Sequence[str], tasks: Sequence[str] = ("eurosat",)) -> list[Finding]:
    """One of each analysis; those of one task or two models take the first."""
    return [
        made(name, models[: a.most_models], tasks[: a.most_tasks]) for name, a in ANALYSES.items()
    ]

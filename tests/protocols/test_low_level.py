"""Low-level content as a protocol: scikit-learn's ridge on the same cells gives the same R2."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.data.task_data import Split, TaskData
from eval.data.validation import held_out
from eval.features.low_level import TARGETS, targets
from eval.features.maps import encode_maps, mapping
from eval.features.precision import Precision
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.protocols import low_level
from eval.results.evidence import against_numbers
from eval.results.store import read_result
from eval.settings.protocols import LowLevel
from eval.training.context import Context
from tests.data.masks.pictures import write_parquet
from tests.factories import Cli

SETTINGS = LowLevel(cells=3, penalties=(1e-3, 0.1), layers=("layer3", "layer4"))


@pytest.fixture
def context(real_data: Path, cache: Path) -> Context[TaskData]:
    task = load_task("eurosat", cache, real_data, limit=120)
    backbone = load(resolve("random:test_resnet", cache, 64))
    return Context(backbone, task, None, Workers("cpu"), Precision(), cache, 0)


def pictures(split: Split) -> np.ndarray:
    """[N, cells, 7] in canonical order."""
    found: dict[int, np.ndarray] = {}
    for row, data in split.source.images(np.sort(split.rows)):
        found[row] = targets(Image.open(io.BytesIO(data)).convert("RGB"), 3).reshape(9, -1)
    return np.stack([found[row] for row in split.rows.tolist()])


def test_sklearn_s_ridge_gives_the_same(context: Context[TaskData]) -> None:
    out = low_level.score(context, SETTINGS)
    task, settings = context.task, SETTINGS
    mapped, layout = mapping(context.backbone, settings.layers)
    bank = encode_maps(mapped, task, context.cache, context.workers, context.precision)

    def cells(rows: torch.Tensor) -> np.ndarray:
        large = [
            F.interpolate(x.transpose(1, 2).unflatten(2, grid), size=(3, 3), mode="bilinear")
            for x, grid in zip(layout.split(rows), layout.grids, strict=True)
        ]
        return torch.cat(large, 1).flatten(2).transpose(1, 2).double().numpy()  # [N, 9, D]

    x, x_test = cells(bank.train[0]), cells(bank.test[0])
    raw = [part.double() for part in layout.split(bank.train[0])]
    mean = torch.cat([part.mean((0, 1)) for part in raw]).numpy()
    scale = torch.cat([part.flatten(0, 1).std(0, correction=0) for part in raw]).numpy()
    scale[scale == 0] = 1
    x, x_test = (x - mean) / scale, (x_test - mean) / scale
    y, y_test = pictures(task.train), pictures(task.test)
    held = held_out(task, settings.validation, 0)
    found = {s.name: s.value for s in out.scores}
    for name, where in TARGETS.items():
        on_held = []
        for penalty in settings.penalties:
            rows = x[~held].reshape(-1, x.shape[2])
            model = Ridge(alpha=penalty * len(rows)).fit(rows, y[~held].reshape(-1, 7)[:, where])
            answer = model.predict(x[held].reshape(-1, x.shape[2]))
            on_held.append(r2_score(y[held].reshape(-1, 7)[:, where], answer))
        assert out.details["validation_r2"][name] == pytest.approx(on_held, abs=2e-3)
        penalty = settings.penalties[int(np.argmax(on_held))]
        assert out.details["chosen"][name] == penalty
        rows = x.reshape(-1, x.shape[2])
        model = Ridge(alpha=penalty * len(rows)).fit(rows, y.reshape(-1, 7)[:, where])
        answer = model.predict(x_test.reshape(-1, x.shape[2]))
        known = r2_score(y_test.reshape(-1, 7)[:, where], answer)
        assert found[f"r2_{name}"] == pytest.approx(known, abs=2e-3)
    assert found["r2"] == pytest.approx(np.mean([found[f"r2_{n}"] for n in TARGETS]), abs=2e-6)
    assert found["r2_colour"] > 0.5


def test_early_layers_know_more_of_the_pixels(context: Context[TaskData]) -> None:
    """Of a trained network."""
    backbone = load(resolve("zoo:resnet18_narrow.ce_tin100", context.cache, None))
    trained = dataclasses.replace(context, backbone=backbone)
    first, last = (
        low_level.score(trained, LowLevel(layers=(name,))).scores[0].value
        for name in ("layer1", "layer4")
    )
    assert first > last + 0.1


def test_from_the_command_line_on_images_of_any_kind(
    cli: Cli, real_data: Path, tmp_path: Path
) -> None:
    masks = write_parquet(tmp_path / "scenes", 30, 20, group=2)
    line = (
        "run", "random:test_resnet", "random:test_vit", "--task", f"parquet:{masks}", "bccd",
        "--data", real_data, "--limit", "25", "--img-size", "32", "--cache", tmp_path / "cache",
        "--results", tmp_path / "results", "--protocol", "low-level",
    )  # fmt: skip
    done = cli(*line, "--json").json
    assert (done["scored"], done["failures"]) == (4, [])
    assert {b["score"] for b in done["boards"]} == {"r2"}
    for path in done["files"]:
        result = read_result(Path(path))
        assert list(against_numbers(result)) == []
        assert [s.name for s in result.scores] == ["r2", *(f"r2_{name}" for name in TARGETS)]
    again = cli(*line, "--json").json
    assert again["reused"] == 4
    names = [f"random:{name} @32px" for name in ("test_resnet", "test_vit")]
    assert "low-level r2" in cli("compare", *names, "--results", tmp_path / "results").out

"""Segmentation as a protocol: a plain torch loop on the same maps gives about the same, the files
and boards are those of every protocol, and what cannot work is one sentence."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from eval.common.distributed import Workers
from eval.data.load import load_task
from eval.data.masks.mask_data import SegmentationData, held_out_masks
from eval.features.precision import Precision
from eval.metrics.segmentation import confusion, mean_iou
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.protocols import PROTOCOLS, segment, segment_knn
from eval.protocols.segment_maps import counted, read_maps, sampled
from eval.results.evidence import against_numbers
from eval.results.store import read_result
from eval.settings.protocols import Segment, SegmentKnn
from eval.training.context import Context
from tests.data.masks.pictures import write_parquet
from tests.factories import Cli, refusal
from tests.protocols.segmentation import Standardised, fit, miou, pixel_labels

FEW = Segment(lrs=(3e-3, 1e-2), weight_decays=(0.01,), epochs=12, batch_size=8, cells=24)


def context_of(
    task: SegmentationData, cache: Path, model: str = "random:test_resnet", size: int = 64
) -> Context[SegmentationData]:
    backbone = load(resolve(model, cache, size))
    return Context(backbone, task, None, Workers("cpu"), Precision(), cache, 0)


@pytest.fixture
def task(tmp_path: Path, cache: Path) -> SegmentationData:
    found = load_task(f"parquet:{write_parquet(tmp_path / 'scenes', 40, 24)}", cache)
    assert isinstance(found, SegmentationData)
    return found


def test_a_plain_loop_over_pixels_gives_about_the_same(task: SegmentationData, cache: Path) -> None:
    """With our statistics and order of images it differs by the cells alone, at which our loss is
    taken; with a BatchNorm and an order of its own within 3 points here, where masks have 768
    pixels, test 24 images and 60 steps are few. `bench_segment` holds both to ours on camvid."""
    context = context_of(task, cache)
    outcome = segment.score(context, FEW)
    mapped = read_maps(context, FEW)
    assert mapped.bank.features.dtype == torch.float16
    chosen = outcome.details["chosen"]
    labels = [pixel_labels(split) for split in (task.train, task.test)]
    rows = [mapped.bank.train[0], mapped.bank.test[0]]
    every = torch.arange(len(task.train))
    found = segment.SegmentFit(context, FEW, mapped)
    plain, batchnorm = (
        miou(
            fit(
                mapped.layout, rows[0], labels[0], 3, chosen["lr"], chosen["weight_decay"], 12, 8,
                norm=norm, order=order,
            ), mapped.layout, rows[1], labels[1], 3,
        )
        for norm, order in (
            (Standardised(mapped.statistics(every)), lambda epoch: found.order(epoch, every)),
            (None, None),
        )
    )  # fmt: skip
    value = outcome.scores[0].value
    assert (outcome.scores[0].name, value) == ("miou", pytest.approx(plain, abs=0.01))
    assert value == pytest.approx(batchnorm, abs=0.03)
    assert value > 0.5
    told = [row["iou"] for row in outcome.details["per_class"]]
    assert value == pytest.approx(np.mean(told), abs=2e-6)
    assert segment.score(context, FEW).scores == outcome.scores


def test_the_grid_is_judged_on_images_that_are_held_out(
    task: SegmentationData, cache: Path
) -> None:
    context = context_of(task, cache)
    mapped = read_maps(context, FEW)
    found = segment.SegmentFit(context, FEW, mapped)
    held = held_out_masks(task, FEW.validation, 0)
    assert np.array_equal(found.held.numpy(), np.flatnonzero(held))
    statistics = mapped.statistics(found.fitted)
    x = torch.cat([m.flatten(0, 1) for m in mapped.train(found.fitted)[:1]]).double()
    assert statistics[0][0].numpy() == pytest.approx(x.mean(0).numpy(), abs=1e-5)
    deviation = x.std(0, correction=0).numpy()
    deviation[deviation == 0] = 1  # channels that never fire
    assert statistics[0][1].numpy() == pytest.approx(deviation, abs=1e-4)
    probes = found.trained(found.points, found.fitted, statistics)
    judged = found.validated(probes, statistics)
    for probe in range(2):  # at every cell, by its four samples
        matrix = np.zeros((3, 3), np.int64)
        for row in found.held.tolist():
            maps = found.prepared(mapped.train(torch.tensor([row])), statistics)
            answers = probes.answers(maps)[0, ..., probe, :].argmax(2).numpy()
            labels = found.labels[row]
            matrix += confusion(labels, answers.repeat(2, 0).repeat(2, 1), 3)
        assert judged[probe] == pytest.approx(float(mean_iou(matrix)))


def test_samples_of_cells_are_the_mask_s(task: SegmentationData) -> None:
    """Of masks of 24 x 32 pixels, 12 x 16 cells of 2 x 2 samples are the masks themselves."""
    labels = sampled(task.train, (12, 16))
    np.testing.assert_array_equal(labels, pixel_labels(task.train).numpy())
    counts = counted(labels[:3], 3).numpy()
    for c in range(3):
        plain = (labels[:3] == c).reshape(3, 12, 2, 16, 2).sum((2, 4))
        np.testing.assert_array_equal(counts[..., c], plain)
    assert counts.sum() < 3 * 24 * 32  # void is nobody's


def test_layers_side_by_side(task: SegmentationData, cache: Path) -> None:
    context = context_of(task, cache)
    one = Segment(layers=("layer4",), epochs=1, cells=16)
    assert [m["grid"] for m in segment.score(context, one).details["layers"]] == [[2, 2]]
    both = Segment(layers=("layer2", "layer4"), epochs=1, cells=16)
    found = segment.score(context, both).details
    assert [m["name"] for m in found["layers"]] == ["layer2", "layer4"]
    vit = context_of(task, cache, "random:test_vit")
    assert [
        m["grid"] for m in segment.score(vit, one.__class__(epochs=1, cells=8)).details["layers"]
    ] == [[4, 4]]
    assert "has no layer 'layer9'; its layers are" in refusal(
        segment.score, context, Segment(layers=("layer9",))
    )


# --------------------------------------------------------------------------- neighbours


def test_neighbours_are_those_of_a_plain_loop(task: SegmentationData, cache: Path) -> None:
    context = context_of(task, cache)
    settings = SegmentKnn(ks=(5,), temperatures=(0.1,), memory=10_000)
    outcome = segment_knn.score(context, settings)
    mapped = read_maps(context, settings)
    rows = torch.arange(len(task.train))
    statistics = mapped.statistics(rows)

    def vectors(parts: list[torch.Tensor]) -> torch.Tensor:
        found = []
        for x, (mean, scale), grid in zip(parts, statistics, mapped.layout.grids, strict=True):
            x = ((x - mean) / scale).transpose(1, 2).unflatten(2, grid)
            x = F.interpolate(x, size=mapped.layout.finest, mode="bilinear")
            found.append(F.normalize(x, dim=1))
        return torch.cat(found, 1).flatten(2).transpose(1, 2)

    places = vectors(mapped.train(rows)).flatten(0, 1)
    labels = sampled(task.train, mapped.layout.finest, 4)
    counts = counted(labels, 3, 4).flatten(0, 2)
    known = counts.sum(1) > 0
    places, shares = places[known], (counts / counts.sum(1, keepdim=True))[known]
    assert outcome.details["places"] == len(places)
    matrix = np.zeros((3, 3), np.int64)
    for i, mask in task.test.label_maps(np.arange(len(task.test))):
        asking = vectors(mapped.test(torch.tensor([i])))[0]
        similarity = F.normalize(asking, dim=1) @ F.normalize(places, dim=1).t()
        answer = torch.zeros(len(asking), 3)
        for place, row in enumerate(similarity):
            near = row.topk(5).indices
            weight = torch.softmax(row[near] / 0.1, 0)
            answer[place] = (weight[:, None] * shares[near]).sum(0)
        large = F.interpolate(
            answer.t().view(1, 3, *mapped.layout.finest), size=mask.shape, mode="bilinear"
        )
        matrix += confusion(mask, large[0].argmax(0).numpy(), 3)
    assert outcome.scores[0].value == pytest.approx(float(mean_iou(matrix)), abs=2e-3)


def test_a_small_memory_is_drawn(task: SegmentationData, cache: Path) -> None:
    context = context_of(task, cache)
    outcome = segment_knn.score(context, SegmentKnn(memory=20))
    assert outcome.details["places"] == 20
    assert outcome.notes == ["k [30, 100] left out: only 20 places to choose among"]
    assert outcome.details["chosen"]["k"] in (1, 10)


# --------------------------------------------------------------------------- commands


def line(task_dir: Path, tmp_path: Path, *more: str) -> tuple[str, ...]:
    return (
        "run", "random:test_resnet", "--task", f"parquet:{task_dir}", "--img-size", "64",
        "--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "results"),
        *more,
    )  # fmt: skip


def test_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "scenes", 24, 20, group=2)
    words = line(
        folder, tmp_path, "--protocol", "segment", "segment-knn", "--set", "segment.epochs=2",
        "segment.cells=16", "--json",
    )  # fmt: skip
    done = json.loads(cli(*words).out)
    assert (done["scored"], done["failures"]) == (2, [])
    assert {b["score"] for b in done["boards"]} == {"miou"}
    for path in map(Path, done["files"]):
        result = read_result(path)
        assert list(against_numbers(result)) == []
        assert result.samples["miou"].of == result.task.counts["test"] == 20
        assert {s.name for s in result.scores} == {"miou", "pixel_accuracy"}
        assert len(result.details["examples"]) == 8
        png = base64.b64decode(result.details["examples"][0]["answer"])
        assert Image.open(io.BytesIO(png)).size == (32, 24)
        assert cli("verify", str(path)).out.startswith("equal")
    assert len(list((tmp_path / "cache" / "banks").iterdir())) == 1  # both read the same maps
    assert json.loads(cli(*words).out)["reused"] == 2
    board = cli("leaderboard", "--results", str(tmp_path / "results")).out
    assert "segment, mIoU" in board
    assert "segment-knn, mIoU" in board


@pytest.mark.parametrize(("preset", "decay"), [("dinov2", 1e-4), ("dinov3", 1e-2)])
def test_others_rules(preset: str, decay: float, cli: Cli, tmp_path: Path) -> None:
    """A preset is one point of the grid, 40,000 batches of 16 of ADE20K's 20,210 images."""
    folder = write_parquet(tmp_path / "scenes")
    words = line(folder, tmp_path, "--preset", f"{preset}-segmentation", "--json")
    [path] = cli(*words).json["files"]
    result = read_result(Path(path))
    assert result.protocol.name == "segment"
    config = result.protocol.config
    assert (config["lrs"], config["weight_decays"]) == ([1e-3], [decay])
    assert round(40_000 / (20_210 / config["batch_size"])) == config["epochs"] == 32
    assert result.details["chosen"] == {"lr": 1e-3, "weight_decay": decay}
    assert "epochs=32" in Path(path).name  # tables of their own


def test_it_is_the_default_of_its_kind(cli: Cli, tmp_path: Path) -> None:
    words = ("plan", *line(write_parquet(tmp_path / "scenes"), tmp_path)[1:], "--json")
    [row] = cli(*words).json
    assert row["cells"] == 1
    able = [n for n, p in PROTOCOLS.items() if p.default and p.able("segmentation")]
    assert able == ["segment"]


def test_a_plan_says_what_maps_take(cli: Cli, tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "scenes")
    words = ("plan", *line(folder, tmp_path, "--protocol", "segment", "segment-knn")[1:])
    out = cli(*words).out
    assert "memory MB" in out
    [row] = cli(*words, "--json").json
    values = sum(side * side * width for side, width in ((8, 64), (4, 128), (2, 256)))
    assert row["images"] == 20
    assert row["megabytes"] == pytest.approx(20 * 2 * values / 1e6, rel=0.9)
    assert row["training"] > 0
    assert row["memory"] > 100


def test_two_models_are_compared_in_pairs(cli: Cli, tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "scenes")
    for model in ("random:test_resnet", "random:test_vit"):
        words = list(line(folder, tmp_path, "--protocol", "segment", "--set", "segment.epochs=1"))
        words[1] = model
        assert cli(*words).code == 0
    ran = cli(
        "compare", "random:test_resnet @64px", "random:test_vit @64px", "--results",
        str(tmp_path / "results"),
    )  # fmt: skip
    assert ran.code == 0
    assert "segment miou" in ran.out
    assert "other test images" in ran.out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--protocol", "linear"), "has a label a pixel; protocol linear cannot score it, segment, "
                                   "segment-knn, low-level can"),
        (("--protocol", "segment", "--pool", "mean"), "leave --pool and --layer out"),
        (("--protocol", "segment", "--set", "segment.layers=[\"body\"]"), "has no layer 'body'"),
        (("--protocol", "segment", "--set", "segment.lrs=[1e6]", "segment.weight_decays=[1e6]"),
         "diverged; use smaller rates"),
    ],
)  # fmt: skip
def test_mistakes(more: tuple[str, ...], words: str, cli: Cli, tmp_path: Path) -> None:
    ran = cli(*line(write_parquet(tmp_path / "scenes"), tmp_path, *more))
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert ran.err.count("\n") == 1


def test_too_little_room_is_said_before_anything_is_encoded(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_parquet(tmp_path / "scenes")
    monkeypatch.setattr("eval.features.maps.available_memory", lambda: 1 << 20)
    ran = cli(*line(folder, tmp_path, "--protocol", "segment"))
    assert ran.code == 2
    assert "GB of memory, and 0.0 GB are free; name fewer layers" in ran.err
    assert not (tmp_path / "cache" / "banks").exists()

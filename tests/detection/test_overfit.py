"""Learning shows: a detector knows by heart what it was trained on, real images."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from eval.protocols.detection import score
from eval.settings.protocols import Detection
from tests.data.boxes.make import make_setup

pytestmark = pytest.mark.slow  # 170 steps on real images

IMAGES = 16


def test_overfits_real_images(real_data: Path, tmp_path: Path) -> None:
    """Blood cells, some 15 an image, on a backbone of the zoo."""
    rows = pq.read_table(real_data / "bccd" / "train-00000-of-00001.parquet").slice(0, IMAGES)
    folder = tmp_path / "cells"
    folder.mkdir()
    for part in ("train", "test"):
        pq.write_table(rows, folder / f"{part}-00000-of-00001.parquet")
    setup = make_setup(folder, tmp_path / "cache", "zoo:resnet18_narrow.ce_tin100")
    assert len(setup.task.train) == len(setup.task.test) == IMAGES
    settings = Detection(
        schedule="short:170", lr=0.03, channels=32, head=128, sides=(192,), test_side=192
    )
    scores = {s.name: s.value for s in score(setup, settings).scores}
    assert scores["ap50"] > 0.9
    assert scores["ap50"] > scores["ap"] > 0.45

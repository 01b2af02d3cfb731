"""One checkpoint of the study through timm, as a module in memory, and as transformers wraps it:
the same numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from eval.models.backbone import Backbone, load
from eval.models.in_memory import backbone
from eval.models.names import zoo_folder
from eval.models.resolve import resolve
from tests.models.pictures import PICTURES, pixels

CE = "resnet18_narrow.ce_tin100"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load(resolve(f"zoo:{CE}", tmp_path_factory.mktemp("cache")))


def features(found: Backbone) -> torch.Tensor:
    with torch.inference_mode():
        return found.net(pixels(found, PICTURES))


def test_a_module_in_memory(ours: Backbone) -> None:
    mine = backbone(ours.net, ours.input_config, name="ce")
    assert torch.equal(features(mine), features(ours))


def test_the_wrapper_of_transformers(ours: Backbone, tmp_path: Path) -> None:
    import transformers

    plain = tmp_path / "timm"
    shutil.copytree(zoo_folder(CE), plain)
    wrapper = transformers.TimmWrapperForImageClassification.from_pretrained(plain)
    wrapper.save_pretrained(tmp_path / "wrapped")
    wrapped = load(resolve(f"local-dir:{tmp_path / 'wrapped'}", tmp_path / "cache"))
    assert wrapped.input_config == ours.input_config
    assert torch.equal(features(wrapped), features(ours))
    theirs = transformers.TimmWrapperModel.from_pretrained(
        tmp_path / "wrapped", dtype=torch.float32
    ).eval()
    with torch.inference_mode():
        library = theirs(pixel_values=pixels(ours, PICTURES)).pooler_output
    torch.testing.assert_close(features(wrapped), library, rtol=0, atol=1e-5)

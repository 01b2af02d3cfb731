"""What a result says of its making, by whose network it scores."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from eval.common.distributed import Workers
from eval.features.precision import Precision
from eval.models.backbone import load
from eval.models.resolve import resolve
from eval.results.receipt import environment, versions
from eval.run.tolerance import tolerance
from tests.models import open_clip_folders, transformers_folders
from tests.models.checkpoints import checkpoint

MADE: list[tuple[Callable[[Path], Path], set[str]]] = [
    (checkpoint, set()),
    (transformers_folders.folder, {"transformers", "tokenizers"}),
    (open_clip_folders.folder, {"open-clip-torch"}),
]


@pytest.mark.parametrize(("made", "packages"), MADE)
def test_the_library_that_built_the_network_is_named_and_excuses_last_bits(
    made: Callable[[Path], Path], packages: set[str], tmp_path: Path
) -> None:
    backbone = load(resolve(f"local-dir:{made(tmp_path / 'm')}", tmp_path / "cache"))
    then = environment(Workers("cpu"), Precision.parse("fp32"), backbone.resolved)
    assert then.versions.keys() - versions().keys() == packages
    for package in packages:
        assert then.versions[package] == version(package)
        upgraded = then.model_copy(update={"versions": then.versions | {package: "99.0"}})
        assert not tolerance(then, upgraded).exact
        assert f"{package} 99.0 here, {version(package)} recorded" in str(tolerance(then, upgraded))

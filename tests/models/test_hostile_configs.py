"""config.json files that ask for what no trained network is: one sentence, and no memory.

All are read in one child process, whose largest size the system counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from eval.models.arguments import KINDS, NOT_ARCHITECTURE
from tests.models.checkpoints import checkpoint
from tests.models.hostile_configs import HOSTILE

ROOM = 100  # MB beyond what a good model of this size needs


CHILD = """
import json, resource, sys, time
from pathlib import Path
import timm, torch
from eval.common.errors import UserError
from eval.models.backbone import load
from eval.models.resolve import resolve

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

said = []
for path in [Path(p) for p in json.load(sys.stdin)]:
    start = time.perf_counter()
    try:
        load(resolve(f"local-dir:{path}", path.parent / "cache"))
        words = None
    except UserError as error:
        words = str(error)
    said.append([words, round(peak()), round(time.perf_counter() - start, 2)])
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str | None, int, float]]:
    """(sentence, MB at most so far, seconds): of a good folder first, then of the table."""
    root = tmp_path_factory.mktemp("hostile")
    good = checkpoint(root / "good", "test_vit")
    weights = (good / "model.safetensors").read_bytes()
    config = json.loads((good / "config.json").read_text())
    folders = [good]
    for i, (architecture, args, inner, _) in enumerate(HOSTILE):
        folder = root / f"m{i}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(weights)
        changed = config | {
            "architecture": architecture,
            "model_args": args,
            "pretrained_cfg": config["pretrained_cfg"] | inner,
        }
        if "num_classes" in inner:
            del changed["num_classes"]
        (folder / "config.json").write_text(json.dumps(changed))
        folders.append(folder)
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD], input=json.dumps([str(f) for f in folders]),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [tuple(row) for row in json.loads(out.stdout.splitlines()[-1])]


@pytest.mark.slow
def test_the_untouched_folder_loads(answers: list[tuple[str | None, int, float]]) -> None:
    assert answers[0][0] is None


@pytest.mark.slow
@pytest.mark.parametrize("row", range(len(HOSTILE)))
def test_a_hostile_config_gets_one_sentence(
    row: int, answers: list[tuple[str | None, int, float]]
) -> None:
    said, _, _ = answers[row + 1]
    assert said is not None
    assert HOSTILE[row][3] in said
    assert len(said) < 500
    assert said.isprintable()


@pytest.mark.slow
def test_no_hostile_config_takes_memory(answers: list[tuple[str | None, int, float]]) -> None:
    assert answers[-1][1] - answers[0][1] < ROOM


def test_nothing_of_timms_builder_is_an_architecture() -> None:
    """Arguments that timm's own functions take by name, before they hand on the rest."""
    import inspect

    import timm
    from timm.models import build_model_with_cfg

    theirs = {
        name
        for function in (timm.create_model, build_model_with_cfg)
        for name, one in inspect.signature(function).parameters.items()
        if one.kind is not inspect.Parameter.VAR_KEYWORD
    }
    assert not theirs & KINDS.keys()
    assert not NOT_ARCHITECTURE.keys() & KINDS.keys()


def test_arguments_that_networks_on_the_hub_have_are_taken() -> None:
    """As timm's save_for_hf writes them, and papers' configs have them."""
    from eval.models.arguments import check_arguments

    args = {
        "img_size": [224, 224], "num_classes": 0, "in_chans": 3, "global_pool": "token",
        "init_values": 1e-5, "dynamic_img_size": True, "reg_tokens": 4, "mlp_ratio": 5.33334,
        "no_embed_class": True, "act_layer": "quick_gelu", "class_token": False, "depth": 24,
        "embed_dim": 1536, "num_heads": 24, "patch_size": 14, "pre_norm": True, "pos_embed": None,
        "depths": [3, 3, 27, 3], "dims": (96, 192), "drop_path_rate": 0.1, "qk_norm": True,
    }  # fmt: skip
    found = check_arguments(args, "a folder")
    assert found == {k: v for k, v in args.items() if v is not None}


def test_a_config_that_is_far_too_long(tmp_path: Path) -> None:
    from eval.models.resolve import resolve
    from tests.factories import refusal

    folder = checkpoint(tmp_path / "m")
    (folder / "config.json").write_bytes(b" " * 10_000_001)
    assert "has 10,000,001 bytes" in refusal(resolve, f"local-dir:{folder}", tmp_path)
    for nested in ("[" * 100_000, '{"architecture": ' * 100_000):
        (folder / "config.json").write_text(nested)
        assert "is not valid JSON" in refusal(resolve, f"local-dir:{folder}", tmp_path)

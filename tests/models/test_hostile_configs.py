"""config.json files that ask for what no trained network is: one sentence, and no memory.

All are read in one child process, whose largest size the system counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eval.models.arguments import KINDS, NOT_ARCHITECTURE
from tests.models.checkpoints import checkpoint

ROOM = 100  # MB beyond what a good model of this size needs

# (architecture, model_args, pretrained_cfg, what the sentence says); the weights are test_vit's.
HOSTILE: list[tuple[str, Any, dict[str, Any], str]] = [
    ("test_vit", {"depth": 10**9}, {}, "sets depth to 1000000000"),
    ("test_vit", {"depth": 128, "embed_dim": 16384, "num_heads": 16}, {}, "describes a network of"),
    ("test_vit", {"embed_dim": 65536}, {}, "sets embed_dim to 65536"),
    ("test_vit", {"embed_dim": 2048, "depth": 120}, {}, "describes a network of"),
    ("test_vit", {"device": "cpu", "embed_dim": 2048, "depth": 24}, {}, "'device'"),
    ("test_vit", {"dtype": "float64"}, {}, "'dtype'"),
    ("test_vit", {"pretrained_strict": False}, {}, "'pretrained_strict'"),
    ("test_vit", {"features_only": True}, {}, "'features_only'"),
    ("test_vit", {"pretrained_cfg_overlay": {"file": "/x"}}, {}, "'pretrained_cfg_overlay'"),
    ("test_vit", {"pretrained_cfg": {"url": "http://x"}}, {}, "'pretrained_cfg'"),
    ("test_vit", {"checkpoint_path": "/etc/passwd"}, {}, "'checkpoint_path'"),
    ("test_vit", {"cache_dir": "/root"}, {}, "'cache_dir'"),
    ("test_vit", {"pretrained": True}, {}, "'pretrained'"),
    ("test_vit", {"img_size": 10**6}, {}, "sets img_size to 1000000"),
    ("test_vit", {"img_size": [1024, 1024], "patch_size": 1}, {}, "into 1,048,576 patches"),
    ("test_vit", {"img_size": -160}, {}, "sets img_size to -160"),
    ("test_vit", {"img_size": [[[[160]]]]}, {}, "sets img_size to [[[[160]]]]"),
    ("test_vit", {"img_size": [1, 2, 3]}, {}, "use [height, width]"),
    ("test_vit", {"depth": True}, {}, "sets depth to true"),
    ("test_vit", {"depth": 2.5}, {}, "sets depth to 2.5"),
    ("test_vit", {"depth": "6; import os"}, {}, "sets depth to"),
    ("test_vit", {"mlp_ratio": float("nan")}, {}, "sets mlp_ratio to nan"),
    ("test_vit", {"mlp_ratio": float("inf")}, {}, "sets mlp_ratio to inf"),
    ("test_vit", {"mlp_ratio": 1e9}, {}, "sets mlp_ratio to"),
    ("test_vit", {"qkv_bias": 1}, {}, "sets qkv_bias to 1"),
    ("test_vit", {"norm_layer": "torch.nn.LayerNorm"}, {}, "sets norm_layer to"),
    ("test_vit", {"act_layer": "__import__('os').system('id')"}, {}, "sets act_layer to"),
    ("test_vit", {"act_layer": {"name": "gelu"}}, {}, "sets act_layer to"),
    ("test_vit", {"block_args": {"attn_layer": "se"}}, {}, "'block_args'"),
    ("test_vit", {"block_fn": "builtins.exec"}, {}, "'block_fn'"),
    ("test_vit", {"kwargs": {"depth": 9}}, {}, "'kwargs'"),
    ("test_vit", {"embed_dims": [64] * 1000}, {}, "sets embed_dims to"),
    ("test_vit", {"num_classes": 10**9}, {}, "sets num_classes to"),
    ("test_vit", {"num_classes": 150_000, "embed_dim": 4096}, {}, "describes a network of"),
    ("test_vit", {"x" * 10_000: 1}, {}, "no known argument"),
    ("test_vit", [1, 2], {}, "'model_args' is not an object"),
    ("test_vit", "depth=9", {}, "'model_args' is not an object"),
    ("test_vit", {"depth": 7}, {}, "tensors are missing (blocks.6."),
    ("test_vit", {"num_heads": 7}, {}, "timm cannot build 'test_vit'"),
    ("test_vit", {}, {"input_size": [3, 10**6, 10**6]}, "images of 1000000x1000000 px"),
    ("test_vit", {}, {"input_size": [10**9, 160, 160]}, "1000000000 channels"),
    ("test_vit", {}, {"num_classes": 10**12}, "has num_classes"),
    ("test_vit", {}, {"mean": [1e308] * 3}, "has mean"),
    ("vit_7b_patch16_dinov3", {}, {}, "describes a network of 6,7"),
    ("resnet18", {"channels": [16384] * 4}, {"fixed_input_size": False}, "describes a network of"),
    ("resnet18", {"layers": [128, 128, 128, 128]}, {}, "asks for 512 blocks"),
    ("swin_tiny_patch4_window7_224", {"window_size": 128, "img_size": 512}, {}, "describes a"),
    ("eva_giant_patch14_560", {"img_size": 1024, "patch_size": 8}, {}, "describes a network of"),
    ("gmixer_24_224", {"img_size": 1024}, {}, "describes a network"),
    ("levit_128", {"depth": [80, 80, 80], "embed_dim": [8192] * 3}, {}, "describes a network"),
    ("../../etc/passwd", {}, {}, "knows no architecture"),
    ("os.system('id')", {}, {}, "knows no architecture"),
    ("x" * 100_000, {}, {}, "knows no architecture"),
]  # fmt: skip

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


def test_the_untouched_folder_loads(answers: list[tuple[str | None, int, float]]) -> None:
    assert answers[0][0] is None


@pytest.mark.parametrize("row", range(len(HOSTILE)))
def test_a_hostile_config_gets_one_sentence(
    row: int, answers: list[tuple[str | None, int, float]]
) -> None:
    said, _, _ = answers[row + 1]
    assert said is not None
    assert HOSTILE[row][3] in said
    assert len(said) < 500
    assert said.isprintable()


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

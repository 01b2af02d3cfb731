"""A trained learner -> the folder a Hub repository holds: timm loads it as it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import tomli_w
import torch
from safetensors.torch import save
from torch import Tensor, nn

from eval.common.errors import BadInput
from eval.common.files import atomic_file, write_json
from zoo.timm_config import timm_config
from zoo.train.learner import create_backbone
from zoo.train.recipe import Recipe

RECIPE = "recipe.toml"


@dataclass(frozen=True)
class Exported:
    """What lies in the folder, and how far its features are from the trained backbone's."""

    folder: Path
    bytes: int
    difference: float  # largest absolute difference, relative to the largest feature


def assemble(recipe: Recipe, backbone: nn.Module, classifier: nn.Linear | None) -> nn.Module:
    """The timm model that holds the backbone's weights and, where one was trained, the classifier.

    Raises UserError when the architecture's own classifier is not one linear layer.
    """
    net = create_backbone(recipe.backbone, classifier.out_features if classifier else 0)
    state: dict[str, Tensor] = {k: v.detach().cpu() for k, v in backbone.state_dict().items()}
    if classifier is not None:
        head = net.get_classifier()  # type: ignore[operator]
        if not isinstance(head, nn.Linear) or head.in_features != classifier.in_features:
            raise BadInput(
                f"{recipe.backbone.architecture} ends in {type(head).__name__}, not in a linear "
                "classifier of its pooled features, so a cross-entropy model cannot be exported"
            )
        prefix = next(name for name, module in net.named_modules() if module is head)
        state[f"{prefix}.weight"] = classifier.weight.detach().cpu()
        state[f"{prefix}.bias"] = classifier.bias.detach().cpu()
    net.load_state_dict(state)
    return net.eval()


def config_of(recipe: Recipe, net: nn.Module, names: tuple[str, ...]) -> dict[str, Any]:
    """timm's config.json: the architecture, and how images must be prepared for it."""
    image, backbone = recipe.image, recipe.backbone
    config = timm_config(
        net, backbone.architecture, backbone.model_args, image.px, image.mean, image.std,
        image.crop_pct, "squash",
    )  # fmt: skip
    if config["num_classes"] and names:
        config["label_names"] = list(names)
    return config


def export(
    folder: Path,
    recipe: Recipe,
    backbone: nn.Module,
    classifier: nn.Linear | None,
    names: tuple[str, ...],
    run: dict[str, Any],
) -> Exported:
    """Write model.safetensors, config.json and recipe.toml, each atomically; load them again.

    ``run`` (what happened: objective, data, versions) goes into recipe.toml as [run]. Raises
    UserError when the weights do not survive the stored precision.
    """
    net = assemble(recipe, backbone, classifier)
    dtype = getattr(torch, recipe.save.dtype)
    weights = {
        k: (v.to(dtype) if v.is_floating_point() else v).contiguous()
        for k, v in net.state_dict().items()
    }
    lost = [k for k, v in weights.items() if v.is_floating_point() and not v.isfinite().all()]
    if lost:
        raise BadInput(
            f"weights {lost[0]!r} are not finite as {recipe.save.dtype}; set save.dtype=float32"
        )
    with atomic_file(folder / "model.safetensors") as file:
        file.write(save(weights, {"format": "pt"}))
    write_json(folder / "config.json", config_of(recipe, net, names))
    write_recipe(folder / RECIPE, recipe, run)  # the last: with it the folder is whole
    return Exported(
        folder, (folder / "model.safetensors").stat().st_size, _difference(folder, net, recipe)
    )


def write_recipe(path: Path, recipe: Recipe, run: dict[str, Any]) -> None:
    """The recipe as resolved; ``transfer-zoo pretrain PATH`` trains it again."""
    with atomic_file(path) as file:
        file.write(tomli_w.dumps({**json.loads(recipe.model_dump_json()), "run": run}).encode())


@torch.no_grad()
def _difference(folder: Path, net: nn.Module, recipe: Recipe) -> float:
    """How far the loaded model's features are from the trained ones, on noise images."""
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, recipe.image.px, recipe.image.px, generator=generator)
    before, after = (m.forward_head(m.forward_features(images), pre_logits=True)  # type: ignore[operator]
                     for m in (net, loaded))  # fmt: skip
    return float((before - after).abs().max() / before.abs().max().clamp(min=1e-12))

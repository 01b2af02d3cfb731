"""A fine-tuned network on disk, in timm's own form: model.safetensors and config.json, no pickle.

The head is BatchNorm and a linear layer; once trained they are one linear map of the features.
Where timm's classifier is such a map it is given that one, else the backbone is kept alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save
from torch import Tensor, nn

from eval.common.errors import BadInput, UserError, one_line
from eval.common.files import atomic_file, write_json
from eval.data.task_data import TaskData
from eval.finetune.train import Classifier
from eval.models.backbone import Backbone
from eval.models.resolve import ResolvedModel, model_config
from eval.models.timm_config import timm_config
from eval.settings.protocols import Finetune
from eval.training.context import Context

WEIGHTS, CONFIG = "model.safetensors", "config.json"
AGREE = 1e-4  # how far logits may lie apart, relative to the largest where that is above 1
FOLDED = "the trained BatchNorm and linear layer, as one linear classifier"
ALONE = "left out: timm's classifier is not a linear layer on the features that were trained on"
_NOT_OURS = ("num_classes", "checkpoint_path")  # arguments that speak of the older weights
_AS_BUILT = ("fixed_input_size", "global_pool", "first_conv", "classifier")


class Keeper:
    """Keeps the network that answers in one folder."""

    def __init__(self, setup: Context[TaskData], settings: Finetune, folder: Path) -> None:
        self.setup, self.settings, self.folder = setup, settings, folder
        self._digest = ""

    def wants(self, digest: str) -> bool:
        """Whether the network of that training is still to be kept; the same on every process.

        Raises UserError, before anything is trained, where timm would not load what is kept.
        """
        self._digest = digest
        workers = self.setup.workers

        def look() -> bool:
            if self._held():
                return False
            _check(self.setup.backbone)
            return True

        return workers.broadcast(workers.together(lambda: workers.main and look()))

    def _held(self) -> bool:
        try:
            config = json.loads((self.folder / CONFIG).read_bytes())
            return config["finetuned"]["training"] == self._digest
        except (OSError, ValueError, TypeError, KeyError):
            return False

    def keep(self, net: Classifier) -> None:
        """Write the network, on the main process; the others wait. Raises UserError."""
        workers = self.setup.workers
        workers.together(lambda: self._keep(net) if workers.main else None)

    def _keep(self, net: Classifier) -> None:
        backbone, classes = self.setup.backbone, self.setup.task.classes
        trained = Classifier(backbone, len(classes), self.setup.seed).cpu()
        trained.load_state_dict({k: v.detach().cpu() for k, v in net.state_dict().items()})
        config, whole = _whole(trained.eval(), backbone, classes)
        model = backbone.resolved
        config["finetuned"] = {
            "model": {"id": model.id, "revision": model.revision,
                      "weights_sha256": backbone.weights_sha256},
            "task": {"name": self.setup.task.name, "split_hash": self.setup.task.split_hash},
            "settings": dataclasses.asdict(self.settings),
            "seed": self.setup.seed,
            "precision": str(self.setup.precision),
            "head": FOLDED if config["num_classes"] else ALONE,
            "training": self._digest,
        }  # fmt: skip
        try:
            _write(self.folder, config, whole)
        except OSError as error:
            raise UserError(
                f"the fine-tuned model cannot be kept in {self.folder} "
                f"({error.strerror or one_line(error)}); make room and start again: it goes on "
                "where it was"
            ) from None


def _write(folder: Path, config: dict[str, Any], net: nn.Module) -> None:
    """A folder with a config.json is whole: an older one goes first, the new one comes last."""
    # Each tensor is a copy, as safetensors wants no two in one memory.
    weights = {
        k: v.detach().clone(memory_format=torch.contiguous_format)
        for k, v in net.state_dict().items()
    }
    (folder / CONFIG).unlink(missing_ok=True)
    with atomic_file(folder / WEIGHTS) as file:
        file.write(save(weights, {"format": "pt"}))
    write_json(folder / CONFIG, config)


@torch.no_grad()
def _whole(
    trained: Classifier, backbone: Backbone, classes: Sequence[str]
) -> tuple[dict[str, Any], nn.Module]:
    """(config.json, a network of timm's that answers as the trained one, or its backbone)."""
    config = _config(backbone, classes)
    net = _with_head(config, trained)
    if net is not None:
        noise = torch.Generator().manual_seed(0)
        images = torch.randn(4, *backbone.input_config["input_size"], generator=noise)
        wanted, seen = trained(images), net(images)
        apart = float((seen - wanted).abs().max()) if seen.shape == wanted.shape else float("inf")
        if apart <= AGREE * max(1.0, float(wanted.abs().max())):
            return config, net
    config = _config(backbone, ())
    net = _empty(config)
    net.load_state_dict(_inner(trained.backbone).state_dict())
    return config, net


def _with_head(config: dict[str, Any], trained: Classifier) -> nn.Module | None:
    """timm's network with the trained weights; None where its classifier cannot hold the head."""
    net = _empty(config)
    head = net.get_classifier()  # type: ignore[operator]  # a method of every timm model
    weight, bias = folded(trained.norm, trained.linear)
    if not isinstance(head, nn.Linear) or head.weight.shape != weight.shape:
        return None
    place = next(name for name, module in net.named_modules() if module is head)
    state = _inner(trained.backbone).state_dict()
    state |= {f"{place}.weight": weight, f"{place}.bias": bias}
    try:
        net.load_state_dict(state)
    except RuntimeError:  # it has other layers where it has a classifier
        return None
    return net


@torch.no_grad()
def folded(norm: nn.BatchNorm1d, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight [C, D] and bias [C] of the linear map that both layers are in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    weight = linear.weight.double()
    return (weight * scale).float(), (linear.bias.double() + weight @ shift).float()


def _check(backbone: Backbone) -> None:
    """Raises UserError where timm does not build the same network from the config."""
    if backbone.net.grey:
        raise BadInput(
            f"{backbone.resolved.id} takes grey images and was tuned on RGB ones, which timm's "
            "config.json cannot say; run without --keep-model"
        )
    try:
        _empty(_config(backbone, ())).load_state_dict(_inner(backbone.net).state_dict())
    except Exception as error:  # architectures take their arguments as they please
        raise UserError(
            f"{backbone.resolved.id} cannot be kept, as timm does not rebuild it: "
            f"{one_line(error)}; run without --keep-model"
        ) from None


def _empty(config: dict[str, Any]) -> nn.Module:
    """The network of a config.json, in eval mode, its weights drawn."""
    with torch.random.fork_rng(devices=[]):
        net: nn.Module = timm.create_model(
            config["architecture"], pretrained_cfg=dict(config["pretrained_cfg"]),
            **config.get("model_args", {}),
        )  # fmt: skip
    return net.eval()


def _inner(pooled: nn.Module) -> nn.Module:
    """timm's network, without what pools its features."""
    assert isinstance(pooled.net, nn.Module)
    return pooled.net


def _config(backbone: Backbone, classes: Sequence[str]) -> dict[str, Any]:
    """timm's config.json: what the checkpoint was built by, how images are prepared for it, and
    the classes it tells; none for a backbone alone."""
    net, model, source = _inner(backbone.net), backbone.resolved, _source(backbone.resolved)
    known: Any = getattr(net, "pretrained_cfg", None) or {}
    architecture = source.get("architecture") or model.name.partition(".")[0]
    args = {k: v for k, v in source.get("model_args", {}).items() if k not in _NOT_OURS}
    if model.img_size and _built_for_one_size(model, source, architecture):
        args["img_size"] = model.img_size
    config: dict[str, Any] = {
        "architecture": architecture,
        "num_classes": len(classes),
        "num_features": int(getattr(net, "num_features", backbone.dim)),
    }
    if args:
        config["model_args"] = args
    config["pretrained_cfg"] = {
        **{k: known[k] for k in _AS_BUILT if known.get(k) is not None},
        **backbone.input_config,
        "num_classes": len(classes),
    }
    if classes:
        config["label_names"] = list(classes)
    return config


def _source(model: ResolvedModel) -> dict[str, Any]:
    """config.json of the checkpoint that was fine-tuned, checked; empty where there was none."""
    if model.kind == "random":
        return {}
    return timm_config(model_config(model).config, model.id).as_json()


def _built_for_one_size(model: ResolvedModel, source: dict[str, Any], architecture: str) -> bool:
    """Whether --img-size was an argument of the network, as ``models.backbone.load`` has it."""
    fixed = source.get("pretrained_cfg", {}).get("fixed_input_size")
    if fixed is None:
        known = timm.get_pretrained_cfg(model.name if model.kind == "random" else architecture)
        fixed = known is not None and known.fixed_input_size
    return bool(fixed)

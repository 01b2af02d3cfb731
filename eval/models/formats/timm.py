"""Folders as timm publishes them: a config.json with an architecture's name, safetensors."""

from __future__ import annotations

from typing import Any

from eval.models.formats import Examined, Loaded, ModelFiles
from eval.models.timm_config import timm_config


def check(config: dict[str, Any], where: str) -> None:
    """Raises UserError for values that no network can have; see `eval.models.timm_config`."""
    timm_config(config, where)


def examine(files: ModelFiles, held: int) -> Examined:
    """What its config.json describes, built without memory.

    Raises UserError where weights of ``held`` numbers are far too few for it, where timm lacks or
    cannot build it, and where it gives no features.
    """
    from timm.data import resolve_data_config

    from eval.models import timm_network

    checked = timm_config(files.config, files.who)
    net = timm_network.check_budget(checked, held, files.who)
    numbers = timm_network.numbers(net)
    timm_network.drop_classifier(net)
    _, height, width = resolve_data_config({}, model=net)["input_size"]
    return Examined(checked.architecture, numbers, (height, width))


def load(files: ModelFiles) -> Loaded:
    """The network of config.json with its weights; see `eval.models.timm_network`."""
    from timm.data import resolve_data_config

    from eval.models import timm_network

    config = timm_config(files.config, files.who)
    paths = [files.folder / name for name in files.weights]
    net, notes = timm_network.load(config, paths, files.who, files.img_size)
    args = {"img_size": files.img_size} if files.img_size else {}
    return Loaded(net, resolve_data_config(args, model=net), config.channels, tuple(notes))

"""Folders as transformers saves them: config.json with a model_type, safetensors, and the numbers
of the image processor. Nothing of a repository is run; the classes are the library's own."""

from __future__ import annotations

from typing import Any

from eval.models.formats import Examined, Loaded, ModelFiles, needs
from eval.models.formats.transformers_config import TransformersConfig, transformers_config


def check(config: dict[str, Any], where: str) -> None:
    """Raises UserError for code of the repository's own, kinds of networks that are not read, and
    values that no network can have; see `eval.models.formats.transformers_config`."""
    transformers_config(config, where)


def examine(files: ModelFiles, held: int) -> Examined:
    """What its config.json describes, built without memory.

    Raises UserError where weights of ``held`` numbers are far too few for it, where the library
    cannot build it, and where its images are prepared for another size than it takes.
    """
    from eval.models.formats import transformers_network
    from eval.models.formats.image_processor import data_config

    config = _config(files)
    net = transformers_network.check_budget(config, held, files.who, pooler=True)
    data = data_config(files, config, net.config)
    _, height, width = data["input_size"]
    return Examined(config.model_type, transformers_network.numbers(net), (height, width))


def load(files: ModelFiles) -> Loaded:
    """The network with its weights, giving the library's own pooled output."""
    from eval.models.formats import transformers_network
    from eval.models.formats.image_processor import data_config, transform

    config = _config(files)
    paths = [files.folder / name for name in files.weights]
    net, notes = transformers_network.load(config, paths, files.who)
    data = data_config(files, config, net.net.config)
    return Loaded(net, data, config.channels, tuple(notes), transform(data))


def _config(files: ModelFiles) -> TransformersConfig:
    needs("transformers", "transformers", files.who)
    return transformers_config(files.config, files.who)

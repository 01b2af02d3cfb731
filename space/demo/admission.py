"""Which models a visitor may name, and what is asked of one before it is built."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eval.common.errors import BadInput, NotFound, UserError, did_you_mean
from eval.models.names import ModelName, parse_model, zoo_names

MAX_CONFIG_BYTES = 10**6
MAX_INPUT = 1024  # pixels a side a configuration may ask for
MAX_WIDTH = 16384  # any number in a configuration's model_args
_FORMS = "zoo:NAME, hf-hub:org/name[@revision] or a timm name"


def checked_name(text: str) -> ModelName:
    """The parsed string. Raises UserError for what a visitor may not name."""
    if len(text) > 200:
        raise BadInput(f"a model name of {len(text)} characters is too long; use {_FORMS}")
    if ":" not in text and "/" in text:
        raise BadInput(f"model {text!r} has no prefix; use 'hf-hub:{text}' for the Hub")
    name = parse_model(text)
    if name.kind not in ("zoo", "hub", "timm"):
        raise BadInput(f"model {text!r} cannot be used on this page; use {_FORMS}")
    if ".." in name.name or not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", name.revision or "main"):
        raise BadInput(f"model {text!r} is not the name of a model; use {_FORMS}")
    if name.kind == "zoo" and (name.revision or name.name not in zoo_names()):
        names = zoo_names()
        raise NotFound(
            f"no model {name.name + ('@' + name.revision if name.revision else '')!r} ships here"
            + did_you_mean(name.name, names, "there are " + ", ".join(names))
        )
    return name


def check_config(folder: Path, text: str, max_bytes: int) -> None:
    """Refuse a configuration whose network would not fit in memory, before it is built.

    The weights' size says little: ``model_args`` may ask for any width, ``input_size`` for any
    picture. So both are bounded, and the network is first built without memory (meta device).
    """
    from timm.models import model_entrypoint

    config = json.loads((folder / "config.json").read_bytes())
    cfg, args = config.get("pretrained_cfg") or {}, config.get("model_args") or {}
    if not isinstance(cfg, dict) or not isinstance(args, dict):
        raise BadInput(f"config.json of model {text!r} is not timm's")
    sizes = [cfg.get("input_size"), cfg.get("test_input_size"), args.get("img_size")]
    if any(n > MAX_INPUT for size in sizes for n in _numbers(size)):
        raise BadInput(f"model {text!r} wants pictures of more than {MAX_INPUT} pixels a side")
    if any(abs(n) > MAX_WIDTH for n in _numbers(args)):
        raise BadInput(f"model {text!r} has model_args beyond anything that fits here")
    try:
        with torch.device("meta"):
            # Not create_model: its own arguments (checkpoint_path) are not for a stranger to set.
            net = model_entrypoint(config["architecture"])(pretrained=False, **args)
    except Exception:
        return  # some networks compute while they are built; load() says what is wrong
    if weight_bytes(net) > max_bytes:
        raise BadInput(f"model {text!r} is a network of more than {max_bytes / 1e9:.2g} GB")


def _numbers(value: Any) -> Iterator[float]:
    """All numbers in a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float):
        yield value


def weight_bytes(net: nn.Module) -> int:
    tensors = [*net.parameters(), *net.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


@contextlib.contextmanager
def in_public_words(cache: Path, text: str) -> Iterator[None]:
    """Errors of loading as UserErrors that name no folder of this machine."""
    from huggingface_hub import constants

    here = Path(__file__).resolve().parents[2]
    roots = {str(p) for p in (cache, constants.HF_HUB_CACHE, Path.home(), Path.cwd(), here)}
    try:
        yield
    except UserError as error:
        said = str(error)
        for root in sorted(roots - {"/"}, key=len, reverse=True):
            said = re.sub(re.escape(root) + r"[^\s'\",;)]*", "[folder]", said)
        raise UserError(said) from None
    except Exception as error:  # what a hostile configuration makes a library raise
        raise BadInput(f"model {text!r} cannot be loaded ({type(error).__name__})") from error

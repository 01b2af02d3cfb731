"""Which models a visitor may name, and what is asked of one before it is built."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from eval.common.errors import BadInput, NotFound, UserError, did_you_mean
from eval.models.formats import format_of
from eval.models.names import ModelName, parse_model, zoo_names
from eval.models.resolve import ResolvedModel, model_config

if TYPE_CHECKING:
    from torch import nn

MAX_CONFIG_BYTES = 10**6
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


def check_config(model: ResolvedModel, held: int, text: str, max_bytes: int) -> None:
    """Refuse a configuration whose network would not fit in memory, before it is built.

    ``held`` is how many bytes its weights have, which says little of what ``model_args`` ask for:
    so the network is first built without memory.
    """
    files = replace(model_config(model), who=f"model {text!r}")
    found = format_of(files.config, text).loader().examine(files, held)
    if 4 * found.numbers > max_bytes:  # in fp32
        raise BadInput(f"model {text!r} is a network of more than {max_bytes / 1e9:.2g} GB")


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

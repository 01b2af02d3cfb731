"""A network of timm's from a checked config.json: counted first, then built, then filled.

timm never opens the weights, nor anything that a config.json names: its loader is held back, and
`eval.models.weights` compares and loads instead.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eval.common.errors import BadInput, did_you_mean, one_line
from eval.models import weights
from eval.models.timm_config import TimmConfig

# Beside twice what the weights hold: a head of 21,843 classes that the file left out, or position
# embeddings of a larger image.
SPARE = 64_000_000

Adapt = Callable[[weights.State], weights.State]
_LOADER = threading.Lock()  # timm's loader is one for all threads


def build(config: TimmConfig, who: str, **args: Any) -> tuple[nn.Module, Adapt]:
    """The network as timm builds it, its weights drawn, and timm's own adapter of older or
    differently sized weights. Both depend on the config alone: the draw has a fixed seed.

    Raises UserError for an architecture that timm lacks or cannot build so.
    """
    import timm

    _check_known(config.architecture, who)
    with tempfile.TemporaryDirectory(prefix="transferzoo-config-") as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config.as_json()))
        try:
            with torch.random.fork_rng(devices=[]), _held_loader() as adapters:
                torch.manual_seed(0)
                net: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True, **args)
        except Exception as error:  # architectures take their arguments as they please
            said = one_line(error).replace(folder, "the folder")
            raise BadInput(
                f"timm cannot build {config.architecture!r} as config.json of {who} has it: {said}"
            ) from None
    for place in ("file", "source"):  # of the folder that is gone
        net.pretrained_cfg.pop(place, None)  # type: ignore[operator, union-attr]  # a dict

    def adapt(state: weights.State) -> weights.State:
        for adapter in adapters:
            try:
                state = adapter(state, net)
            except TypeError:  # older ones take the weights alone
                state = adapter(state)
        return state

    return net, adapt


def numbers(net: nn.Module) -> int:
    """Of a network's parameters and buffers together."""
    return sum(tensor.numel() for tensor in (*net.parameters(), *net.buffers()))


def check_budget(config: TimmConfig, held: int, who: str, **args: Any) -> nn.Module:
    """The network built without memory, its classifier in place.

    Raises UserError like `build`, and where it is far larger than weights of ``held`` numbers.
    """
    with torch.device("meta"):
        net, _ = build(config, who, **args)
    wanted = numbers(net)
    if wanted > 2 * held + SPARE:
        raise BadInput(
            f"config.json of {who} describes a network of {wanted:,} numbers, its weights hold "
            f"at most {held:,}"
        )
    return net


def drop_classifier(net: Any) -> None:
    """Make a timm model return features. Raises UserError where its class cannot."""
    if not callable(getattr(net, "reset_classifier", None)):
        raise BadInput(f"{type(net).__name__} has no reset_classifier: not a timm classifier")
    net.reset_classifier(0)


def wants_img_size(config: TimmConfig) -> bool:
    """Whether the architecture is built for one input size (ViTs) rather than any (CNNs)."""
    import timm

    fixed = config.pretrained.get("fixed_input_size")
    if fixed is None:
        known = timm.get_pretrained_cfg(config.architecture)
        fixed = bool(known is not None and known.fixed_input_size)
    return bool(fixed)


def load(
    config: TimmConfig, paths: Sequence[Path], who: str, img_size: int | None
) -> tuple[nn.Module, list[str]]:
    """The backbone with its weights, on the CPU, and what to say of them.

    Raises UserError where the weights are damaged, or are not those of the network.
    """
    args = {"img_size": img_size} if img_size and wants_img_size(config) else {}
    check_budget(config, weights.elements(paths, who), who, **args)
    state: dict[str, Tensor] = weights.read_tensors(paths, who)
    net, adapt = build(config, who, **args)
    notes = weights.load_backbone(net, state, adapt, lambda: drop_classifier(net), who)
    return net, [*config.notes, *notes]


def _check_known(architecture: str, who: str) -> None:
    import timm

    if not timm.is_model(architecture):
        raise BadInput(
            f"timm {timm.__version__} knows no architecture {architecture[:80]!r}, which "
            f"config.json of {who} names" + did_you_mean(architecture[:80], timm.list_models())
        )


@contextmanager
def _held_loader() -> Iterator[list[Callable[..., weights.State]]]:
    """While timm builds, its loader notes the architecture's adapter and loads nothing.

    The adapter (``checkpoint_filter_fn`` in most of timm's modules, with arguments of the variant)
    is handed to the loader alone.
    """
    from timm.models import _builder

    adapters: list[Callable[..., weights.State]] = []

    def note(model: nn.Module, *args: Any, filter_fn: Any = None, **kwargs: Any) -> None:
        if filter_fn is not None:
            adapters.append(filter_fn)

    with _LOADER:
        theirs = _builder.load_pretrained
        _builder.load_pretrained = note
        try:
            yield adapters
        finally:
            _builder.load_pretrained = theirs

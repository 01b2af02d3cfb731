"""Weights into a network: every tensor of the backbone accounted for, or a sentence.

timm loads loosely as soon as a head differs, and what is not loaded stays as it was drawn: another
score every time, under one hash of weights. Here the backbone is compared first, name by name and
shape by shape. What the file holds beside it is dropped, and said where an author might not expect
it.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn

from eval.common.errors import BadInput, one_line, ran_out_of_memory
from eval.common.text import visible

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

SILENT = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile: no part of a net
SAID = ("model.", "backbone.", "encoder.")  # of somebody's own class around it
_MOST_HEADER = 10_000_000  # some 100 bytes a tensor; networks have some thousands
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# Counters and tables that a network makes itself, or a profiler left in it.
_NO_WEIGHTS = re.compile(
    r"(^|\.)(num_batches_tracked|relative_position_index|attn_mask|inv_freq|total_ops|total_params)$"
)
# Where classifiers and projectors lie, by the first part of a tensor's name.
_HEADS = re.compile(
    r"(head|heads|fc|classifier|last_linear|pre_logits|projector|predictor)\b|head_"
)
# Beside the blocks there are tensors by which an architecture differs from its neighbours.
_TOKENS = ("cls_token", "dist_token", "reg_token", "register_tokens", "pos_embed")


def read_tensors(paths: Sequence[Path], who: str) -> State:
    """All tensors of safetensors files, on the CPU; names that shared memory with another when they
    were saved are there again. Raises UserError for a file that is damaged or a name in two."""
    from safetensors import safe_open

    state: State = {}
    for path in paths:
        _check_header(path, who)
        try:
            with safe_open(path, "pt", device="cpu") as file:
                names = list(file.keys())
                if twice := [name for name in names if name in state]:
                    raise BadInput(f"the weights of {who} hold {twice[0]!r} in two files")
                for name in names:
                    state[name] = file.get_tensor(name)
                shared = file.metadata() or {}
        except BadInput:
            raise
        except Exception as error:  # SafetensorError, OSError, a dtype that torch has not
            if ran_out_of_memory(error):
                raise
            raise BadInput(f"the weights of {who} cannot be read: {one_line(error)}") from None
        # safetensors.torch.save_model notes in which tensor's memory a name lay.
        for name, kept in shared.items():
            if name not in state and kept in state:
                state[name] = state[kept]
    return state


def elements(paths: Iterable[Path], who: str) -> int:
    """How many numbers the files hold, by their headers. Raises UserError for a damaged one."""
    from safetensors import safe_open

    count = 0
    for path in paths:
        _check_header(path, who)
        try:
            with safe_open(path, "pt", device="cpu") as file:
                for name in file.keys():  # noqa: SIM118  # no mapping
                    count += torch.Size(file.get_slice(name).get_shape()).numel()
        except Exception as error:
            if ran_out_of_memory(error):
                raise
            raise BadInput(f"the weights of {who} cannot be read: {one_line(error)}") from None
    return count


def _check_header(path: Path, who: str) -> None:
    """Raises UserError for a list of tensors that takes longer to read than any network's."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise BadInput(f"the weights of {who} cannot be read: {one_line(error)}") from None
    if length > _MOST_HEADER:
        raise BadInput(
            f"the weights of {who} begin with a list of tensors of {length:,} bytes, at most "
            f"{_MOST_HEADER:,} are read"
        )


def without_prefix(state: State, wanted: Iterable[str], who: str) -> tuple[State, list[str]]:
    """The tensors under the names of ``wanted``, and what to say of it.

    Wrappers' prefixes go silently. ``model.`` and the like, up to three of them, go where more of
    ``wanted`` is found so. Raises UserError where two prefixes hold as much: two networks.
    """
    known = set(wanted)
    state = {unwrapped(name): tensor for name, tensor in state.items()}
    found: dict[str, int] = {}
    for depth in range(4):
        for parts in product((*SAID, *SILENT), repeat=depth):
            prefix = "".join(parts)
            cut = len(prefix)
            found[prefix] = sum(n[cut:] in known for n in state if n.startswith(prefix))
    most = max(found.values())
    best = [prefix for prefix, count in found.items() if count == most]
    if most == 0 or "" in best:
        return state, []
    if len(best) > 1:
        raise BadInput(
            f"the weights of {who} hold as much of the network under {best[0]!r} as under "
            f"{best[1]!r}; keep one of them"
        )
    prefix = best[0]
    inside = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    outside = {n: t for n, t in state.items() if not n.startswith(prefix) and n not in inside}
    return outside | inside, [f"the weights lie under {prefix!r}, which was taken off their names"]


def unwrapped(name: str) -> str:
    """A tensor's name without what DistributedDataParallel and torch.compile put before it."""
    while name.startswith(SILENT):
        for prefix in SILENT:
            name = name.removeprefix(prefix)
    return name


def load_backbone(
    net: nn.Module,
    state: State,
    adapt: Callable[[State], State],
    drop_classifier: Callable[[], None],
    who: str,
) -> list[str]:
    """Fill ``net``, whose classifier ``drop_classifier`` takes away; what to say of it.

    ``adapt`` fits tensors to another input size, or an older file's names to the network's, as
    timm does. Raises UserError where a tensor of the backbone is missing, of another shape or not
    finite, and where the weights are those of another architecture.
    """
    whole = shapes(net.state_dict())
    state, notes = without_prefix(state, whole, who)
    try:
        adapted: State | None = adapt(dict(state))
    except Exception:  # timm's adapters trip over tensors they do not know, and over missing ones
        adapted = None
    drop_classifier()
    target = net.state_dict()
    wanted = shapes(target)
    aliases = _aliases(target)
    fault = None
    for candidate in (adapted, state) if adapted is not None else (state,):
        fault = _fault(candidate, target, aliases)
        if fault is None:
            state = candidate
            break
    if fault is not None:
        raise BadInput(f"the weights of {who} do not load into its architecture: {fault}")
    head = {name: shape for name, shape in whole.items() if name not in wanted}
    notes += _dropped(state, wanted, head, who)
    used = OrderedDict((name, state[name]) for name in wanted if name in state)
    # Every tensor was compared with the network as it is: they are of its versions of its layers,
    # and a layer that reads older ones has nothing to change.
    used._metadata = net.state_dict()._metadata  # type: ignore[attr-defined]  # as torch's own
    try:
        net.load_state_dict(used, strict=False)
    except Exception as error:  # layers may load as they please
        if ran_out_of_memory(error):
            raise
        raise BadInput(
            f"the weights of {who} do not load into its architecture: {one_line(error)}"
        ) from None
    check_finite(net, who)
    return notes


def shapes(state: Mapping[str, Tensor]) -> Shapes:
    """Tensor shapes by name."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _aliases(state: Mapping[str, Tensor]) -> dict[str, set[str]]:
    """Names by each name whose tensor lies in the same memory."""
    places: dict[tuple[int, torch.Size], set[str]] = {}
    for name, tensor in state.items():
        places.setdefault((tensor.data_ptr(), tensor.shape), set()).add(name)
    return {name: names for names in places.values() if len(names) > 1 for name in names}


def _fault(state: State, wanted: Mapping[str, Tensor], aliases: dict[str, set[str]]) -> str | None:
    """What keeps these tensors from being the backbone's, in words; None where nothing does."""
    missing = [
        name
        for name in wanted
        if name not in state
        and not _NO_WEIGHTS.search(name)
        and not any(other in state for other in aliases.get(name, ()))
    ]
    if missing:
        of = sum(not _NO_WEIGHTS.search(name) for name in wanted)
        return f"{len(missing)} of its {of} tensors are missing ({_some(missing)})"
    for name, own in wanted.items():
        if name not in state:
            continue
        seen = state[name]
        if seen.shape != own.shape:
            return f"{name} has the shape {_shape(seen.shape)} where {_shape(own.shape)} is needed"
        if own.is_floating_point() and seen.dtype not in _FLOATS:  # quantised: needs its scales
            return f"{name} is of {str(seen.dtype).removeprefix('torch.')}, no floating-point type"
    if strange := _strange(state, wanted):
        return (
            f"{len(strange)} tensors belong to a larger or another network ({_some(strange)}), so "
            "config.json describes less than was trained"
        )
    return None


def _strange(state: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Tensors within the backbone's own parts that it does not have: to drop them would score a
    part of what was trained."""
    known = set(wanted)
    parts = {name.partition(".")[0] for name in known if "." in name}
    return [
        name
        for name in state
        if name not in known
        and not _NO_WEIGHTS.search(name)
        and not _HEADS.match(name)
        and (("." in name and name.partition(".")[0] in parts) or name in _TOKENS)
    ]


def _dropped(state: State, wanted: Shapes, head: Shapes, who: str) -> list[str]:
    """What to say of the tensors that are not the backbone's."""
    notes = []
    other = [n for n, shape in head.items() if n in state and tuple(state[n].shape) != shape]
    if other:
        name = other[0]
        notes.append(
            f"the classifier of {who} is another than config.json says ({name} has the shape "
            f"{_shape(state[name].shape)}, not {_shape(head[name])}); only the backbone is scored"
        )
    elif head and not any(name in state for name in head):
        notes.append(f"the weights of {who} have no classifier; only the backbone is scored")
    extra = [n for n in state if n not in wanted and n not in head and not _NO_WEIGHTS.search(n)]
    if extra:
        what = "tensor is" if len(extra) == 1 else "tensors are"
        notes.append(
            f"{len(extra)} {what} not part of the backbone of {who} and dropped ({_some(extra)})"
        )
    return notes


def loaded_notes(
    missing: Iterable[str],
    unexpected: Iterable[str],
    mismatched: Iterable[object],
    wanted: Mapping[str, Tensor],
    who: str,
) -> list[str]:
    """What to say of weights that another library has loaded, by what it found.

    Raises UserError where a tensor of the network was missing or of another shape, and where the
    weights hold more of the network's own parts than it has.
    """
    lost = sorted(name for name in missing if not _NO_WEIGHTS.search(name))
    fault = None
    if lost:
        of = sum(not _NO_WEIGHTS.search(name) for name in wanted)
        fault = f"{len(lost)} of its {of} tensors are missing ({_some(lost)})"
    elif odd := [str(name) for name in mismatched]:
        fault = f"{_some(odd)} have other shapes"
    left = sorted(name for name in unexpected if not _NO_WEIGHTS.search(name))
    if fault is None and (strange := _strange(dict.fromkeys(left), wanted)):
        fault = (
            f"{len(strange)} tensors belong to a larger or another network ({_some(strange)}), so "
            "config.json describes less than was trained"
        )
    if fault is not None:
        raise BadInput(f"the weights of {who} do not load into its architecture: {fault}")
    if not left:
        return []
    what = "tensor is" if len(left) == 1 else "tensors are"
    return [f"{len(left)} {what} not part of the backbone of {who} and dropped ({_some(left)})"]


def check_finite(net: nn.Module, who: str) -> None:
    """Raises UserError for a network that holds NaN or infinite numbers."""
    bad = [
        name
        for name, tensor in net.state_dict().items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
    if bad:
        raise BadInput(
            f"the weights of {who} hold NaN or infinite numbers in {len(bad)} "
            f"tensor{'s' * (len(bad) > 1)} ({_some(bad)})"
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(visible(name[:80]) for name in names[:3]) + more


def _shape(shape: Iterable[int]) -> str:
    shown = "(" + ", ".join(map(str, shape)) + ")"
    return shown if len(shown) <= 80 else shown[:77] + "..."

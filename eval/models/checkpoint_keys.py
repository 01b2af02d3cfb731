"""Whose tensors are whose in a checkpoint file: the backbone's, and what each other one is.

Training code saves a network under names of its own: in a container beside the optimiser, behind
the prefixes of wrappers and of its own classes, beside a momentum copy, heads and decoders. Here
they are told by the names of the network that is looked for. Every tensor is used, or dropped for
a stated reason; what is neither is left for the caller to refuse, for it may be a part of the
network.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.common.errors import BadInput
from eval.models.safe_reader import state_dict, values_of

if TYPE_CHECKING:
    from torch import Tensor

# Where state dicts lie in files; of several, the first that holds the network: averages before raw
# weights, and DINO's teacher before its student, as their authors evaluate them.
CONTAINERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "target_encoder", "teacher", "student",
    "state_dict", "model_state_dict", "model", "net", "network", "encoder", "backbone", "module",
)  # fmt: skip
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")
# The children of a torchvision ResNet, put into nn.Sequential as lightly's backbones are.
CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_COPY = re.compile(r"momentum|target|(^|_)ema($|_)|encoder_k$|_k$|^key")
_TEACHER = re.compile(r"teacher")
# What a part of a name says of a tensor that is not the backbone's.
_REASONS = (
    (re.compile(r"queue"), "queue"),
    (re.compile(r"mask_token"), "mask token"),
    (re.compile(r"decoder"), "decoder of the pretraining"),
    (re.compile(r"predict|^pred$"), "prediction head"),
    (re.compile(r"prototype"), "prototypes"),
    (re.compile(r"proj(ect|_head)|_proj$|^mlp_head"), "projection head"),
    (re.compile(r"head|^fc|classifier|^linear|^last_linear|last_layer"), "head"),
    (re.compile(r"loss|criterion|^center|^bn$"), "state of the loss"),  # Barlow Twins' norm
    (re.compile(r"^(total_ops|total_params|num_batches_tracked)$"), "counter"),
)
_SUPERVISED = ("", "model.", "net.", "network.", "backbone.", "encoder.")


@dataclass
class Account:
    """All tensors of a file by name, each used under the network's name, dropped, or neither."""

    state: dict[str, Tensor]
    uses: dict[str, str] = field(default_factory=dict)  # key -> name in the network
    drops: dict[str, str] = field(default_factory=dict)  # key -> why

    @property
    def lost(self) -> list[str]:
        """Keys that nothing is known of."""
        return [key for key in self.state if key not in self.uses and key not in self.drops]


def account(
    top: Mapping[Any, Any], file: Path, wanted: Mapping[str, object], classifier: str
) -> Account:
    """Tell the file's tensors apart, for a network with the names ``wanted``.

    ``classifier`` is the name of its last layer, which a file may lack. Raises UserError for a file
    without tensors, and where two copies of the network differ and neither is known to be the one.
    """
    body = [n for n in wanted if not n.startswith(f"{classifier}.") and not _counts(n)]
    containers = _containers(top, file)
    name, state = max(
        containers, key=lambda item: _most(item[1], set(body))
    )  # the first of the best: CONTAINERS has their order
    found = Account(dict(state))
    chosen, copies = _prefix(state, body, file)
    inside = {n.partition(".")[0] for n in body if "." in n}
    trained = any(re.search(r"queue|momentum|predict|projector|prototype", key) for key in state)
    for key in state:
        to = _name(key, chosen)
        if to is None:
            found.drops |= _reason(key, copies)
            continue
        head = to.startswith(f"{classifier}.")
        if to in wanted and (not head or (chosen[0] in _SUPERVISED and not trained)):
            found.uses[key] = to
        elif _counts(to):
            found.drops[key] = "counter"
        elif to.partition(".")[0] not in inside:
            found.drops |= _reason(key, copies)
    for other, tensors in containers:
        if other != name:
            for key, tensor in tensors.items():
                full = f"{other}.{key}"
                found.state[full] = tensor
                found.drops[full] = f"another copy or part; {name or 'the rest'} is used"
    return found


Prefix = tuple[str, bool]  # what stands before the network's names, and whether these are CHILDREN


def _containers(top: Mapping[Any, Any], file: Path) -> list[tuple[str, Mapping[str, Tensor]]]:
    """State dicts by name, in the order of ``CONTAINERS``; the top level where it is one."""
    import torch

    found: list[tuple[str, Mapping[str, Tensor]]] = []
    for name in CONTAINERS:
        inner = values_of(top.get(name))
        if inner and any(isinstance(value, torch.Tensor) for value in inner.values()):
            tensors = {k: v for k, v in inner.items() if isinstance(v, torch.Tensor)}
            found.append((name, state_dict(tensors, file)))
    if not found or any(isinstance(value, torch.Tensor) for value in top.values()):
        tensors = {k: v for k, v in top.items() if isinstance(v, torch.Tensor)}
        found.append(("", state_dict(tensors or top, file)))
    return found


def _splits(key: str) -> Iterator[tuple[Prefix, str]]:
    """Each way in which a key may be a prefix and a name of the network."""
    key = _WRAPPERS.sub("", key)
    parts = key.split(".")
    for cut in range(len(parts)):
        prefix, rest = ".".join(parts[:cut]), parts[cut:]
        prefix += "." if prefix else ""
        yield (prefix, False), ".".join(rest)
        if rest[0] in CHILDREN and len(rest) > 1:
            yield (prefix, True), ".".join([CHILDREN[rest[0]], *rest[1:]])


def _coverage(state: Mapping[str, object], body: set[str]) -> Counter[Prefix]:
    return Counter(prefix for key in state for prefix, name in _splits(key) if name in body)


def _most(state: Mapping[str, object], body: set[str]) -> int:
    return max(_coverage(state, body).values(), default=0)


def _prefix(
    state: Mapping[str, Tensor], body: list[str], file: Path
) -> tuple[Prefix, list[Prefix]]:
    """Where the network lies, and where further copies of it do."""
    import torch

    found = _coverage(state, set(body))
    if not found:
        return ("", False), []
    most = max(found.values())
    copies = [prefix for prefix, count in found.items() if count == most]
    copies.sort(key=_rank)
    chosen = copies[0]
    for other in copies[1:]:
        if _rank(other) != _rank(chosen):
            continue
        ours, theirs = ({_name(k, p): v for k, v in state.items()} for p in (chosen, other))
        if not all(torch.equal(ours[n], theirs[n]) for n in body if n in ours and n in theirs):
            raise BadInput(
                f"{file} holds the network under {chosen[0]!r} and, with other numbers, under "
                f"{other[0]!r}; which of them was trained cannot be told, so keep one"
            )
    return chosen, copies[1:]


def _rank(prefix: Prefix) -> int:
    """DINO's teacher first, then what is no copy, then momentum copies."""
    parts = prefix[0].split(".")
    if any(_TEACHER.search(part) for part in parts):
        return 0
    return 2 if any(_COPY.search(part) for part in parts) else 1


def _name(key: str, prefix: Prefix) -> str | None:
    """The network's name of a key under a prefix."""
    return next((name for found, name in _splits(key) if found == prefix), None)


def _reason(key: str, copies: list[Prefix]) -> dict[str, str]:
    """Why a tensor is dropped, by its key; empty where nothing is known of it."""
    bare = _WRAPPERS.sub("", key)
    if any(prefix and bare.startswith(prefix) for prefix, _ in copies):
        return {key: "another copy of the network"}
    parts = bare.split(".")
    for pattern, why in _REASONS:
        if any(pattern.search(part) for part in parts):
            return {key: why}
    return {}


def _counts(name: str) -> bool:
    return name.endswith("num_batches_tracked")

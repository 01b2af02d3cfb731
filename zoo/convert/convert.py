"""Others' checkpoints -> a folder like those of the zoo. Importing this imports no torch.

Every key of the file is accounted for: used under its timm name, or dropped for a stated reason.
A key that is neither is refused, for a backbone put together by guesswork must not be scored.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eval.common.errors import BadInput, NotFound, UserError, did_you_mean, one_line
from eval.common.files import atomic_file, sha256_file, write_json
from eval.common.text import text_table
from eval.models.checkpoint_network import RESNETS
from eval.models.objectives import parse_objective
from eval.models.safe_reader import load
from zoo.convert.key_layouts import READERS, SOURCES, Plan, check_known
from zoo.timm_config import timm_config

if TYPE_CHECKING:
    from torch import Tensor, nn

Fate = Literal["used", "dropped"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class KeyUse:
    """What became of one key of the file."""

    key: str
    fate: Fate
    to: str  # its timm name; empty where dropped
    why: str


@dataclass(frozen=True)
class Converted:
    """What lies in the folder, and where it came from."""

    folder: Path
    architecture: str
    objective: str | None  # None: the file does not tell, and the caller did not
    params: int
    classes: int  # 0: no classifier
    sha256: str  # of the file that was converted
    keys: tuple[KeyUse, ...]  # every key of the file once, in its order


def convert(
    file: Path,
    source: str,
    out: Path,
    *,
    architecture: str | None = None,
    objective: str | None = None,
    px: int | None = None,
) -> Converted:
    """Write ``out``/config.json, model.safetensors and source.toml, and load them again.

    ``out`` appears whole or not at all, and depends on the file and the arguments only. Raises
    UserError for an unknown source, a file that holds anything but tensors and plain values, a
    key too many or too few, weights that are not finite, an architecture or objective that
    cannot be told or contradicts the file, and an ``out`` that holds something.
    """
    if source not in SOURCES:
        raise NotFound(
            f"unknown source {source!r}"
            + did_you_mean(source, SOURCES, f"sources are {', '.join(SOURCES)}")
        )
    if px is not None and px < 8:
        raise BadInput(f"an input of {px} px is too small; use 8 px or more, 224 for most")
    if objective is not None:
        objective = parse_objective(objective).name
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadInput(f"{out} exists and is not an empty folder; name another")
    plan = READERS[source](load(file), file, architecture)
    if px is not None:
        plan.images = replace(plan.images, px=px)
    _check_split(plan, file)
    objective = _objective(plan, objective, file)
    weights = {to: plan.state[key].detach() for key, to in plan.uses.items()}
    architecture = _architecture(plan, weights, architecture, file)
    net = _skeleton(architecture, _classes(architecture, weights), plan)
    for name, tensor in net.state_dict().items():
        # Written since torch 0.4.1, and read only by a norm without momentum: none is one of zero.
        if name not in weights and name.endswith("num_batches_tracked"):
            weights[name] = tensor.new_zeros(tensor.shape, device="cpu")
    done = Converted(
        folder=out,
        architecture=architecture,
        objective=objective,
        params=sum(p.numel() for p in net.parameters()),
        classes=int(net.num_classes),  # type: ignore[arg-type]
        sha256=sha256_file(file),
        keys=tuple(
            KeyUse(key, "used", plan.uses[key], "")
            if key in plan.uses
            else KeyUse(key, "dropped", "", plan.drops[key])
            for key in plan.state
        ),
    )
    _write(done, plan, net, {name: weights[name] for name in net.state_dict()}, source, file)
    return done


def render(converted: Converted, *, markdown: bool = False) -> str:
    """One line on the model, then the keys by where they start, their fate and the reason."""
    objective = "unknown" if converted.objective is None else converted.objective
    head = (
        f"{converted.architecture}, objective {objective}, {converted.params:,} parameters, "
        + (f"{converted.classes} classes" if converted.classes else "no classifier")
        + f"; from sha256 {converted.sha256[:12]}"
    )
    groups = Counter((_group(use.key), use.fate, use.why) for use in converted.keys)
    lines = [[group, str(count), fate, why] for (group, fate, why), count in groups.items()]
    return f"{head}\n\n{text_table(['keys', 'count', 'fate', 'why'], lines, markdown)}"


def _group(key: str) -> str:
    """A key's first part, behind the wrapper's: ``module.encoder_q`` of module.encoder_q.fc.bias"""
    parts = key.split(".")
    return ".".join(parts[: 2 if parts[0] == "module" and len(parts) > 2 else 1])


def _objective(plan: Plan, given: str | None, file: Path) -> str | None:
    """What was trained: the caller's word where the file allows it, else the file's."""
    allowed = " or ".join(map(repr, plan.objectives))
    if given is not None:
        if plan.evidence and given not in plan.objectives:
            raise BadInput(
                f"objective {given!r} contradicts {file}, which is of {allowed} by its "
                f"{plan.evidence}; leave --objective out or name that"
            )
        return given
    if not plan.objectives:
        return None
    if not plan.sure:
        raise BadInput(
            f"{file} may be of {allowed}, and its {plan.evidence} cannot tell; give --objective"
        )
    return plan.objectives[0]


# --------------------------------------------------------------------------- the architecture


@dataclass(frozen=True)
class _Misfit:
    """How weights and an architecture differ; names are timm's, in their order."""

    shapes: list[tuple[str, Shape, Shape]]  # name, seen, needed
    missing: list[str]
    extra: list[str]

    def __len__(self) -> int:
        return len(self.shapes) + len(self.missing) + len(self.extra)


def _check_split(plan: Plan, file: Path) -> None:
    """Raises UserError for a key without a rule, a name taken twice, weights that are NaN."""
    lost = [key for key in plan.state if key not in plan.uses and key not in plan.drops]
    if lost:
        raise BadInput(
            f"{file}: unexpected key {lost[0]!r}{more(len(lost))}; it is neither of the backbone "
            "nor known to be of the training alone, so another --source may fit"
        )
    if not plan.uses:
        raise BadInput(
            f"{file} holds no backbone: its first key is {next(iter(plan.state))!r}; "
            "another --source may fit"
        )
    seen: dict[str, str] = {}
    for key, to in plan.uses.items():
        if to in seen:
            raise BadInput(f"{file}: {seen[to]!r} and {key!r} are both {to!r}; remove one")
        seen[to] = key
        tensor = plan.state[key]
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise BadInput(f"{file}: {key!r} holds NaN or infinity, so its features are void")


def _skeleton(architecture: str, classes: int, plan: Plan) -> nn.Module:
    """The model without weights. Raises UserError where timm cannot build it."""
    import timm
    import torch

    args = plan.model_args
    config = timm.get_pretrained_cfg(architecture)
    size = plan.images.px
    if config and config.fixed_input_size and "img_size" not in args:
        # Such a model is built for its size, which the next to build it learns from config.json.
        args |= {} if config.input_size[1] == size else {"img_size": size}
    try:
        with torch.device("meta"):
            return timm.create_model(architecture, num_classes=classes, **args)
    except Exception as error:  # whatever an architecture raises for arguments it does not take
        raise BadInput(
            f"{architecture} cannot be built with {args or 'no arguments'}: {one_line(error)}"
        ) from None


def _classes(architecture: str, weights: Mapping[str, Tensor]) -> int:
    """How many classes the weights' classifier has, 0 where it is absent."""
    import timm

    config = timm.get_pretrained_cfg(architecture)
    name = config.classifier if config else None
    name = name[0] if isinstance(name, tuple | list) and name else name
    head = weights.get(f"{name}.weight")
    return int(head.shape[0]) if head is not None and head.ndim else 0


def _misfit(weights: Mapping[str, Tensor], net: nn.Module) -> _Misfit:
    needed = net.state_dict()
    return _Misfit(
        [(name, tuple(weights[name].shape), tuple(tensor.shape))
         for name, tensor in needed.items()
         if name in weights and weights[name].shape != tensor.shape],
        [name for name in needed
         if name not in weights and not name.endswith("num_batches_tracked")],
        [name for name in weights if name not in needed],
    )  # fmt: skip


def _architecture(plan: Plan, weights: Mapping[str, Tensor], given: str | None, file: Path) -> str:
    """The timm name whose keys and shapes are those of the weights. Raises UserError for none."""
    stem = weights.get("conv1.weight")
    if plan.architecture is None and stem is not None and stem.shape[2:] == (3, 3):
        raise BadInput(
            f"{file}: conv1 is {_shape(tuple(stem.shape))}, the 3x3 stem of CIFAR ResNets, which "
            "no timm ResNet has, so no config.json can name it; convert takes the 7x7 stem"
        )
    name = given or plan.architecture
    if name is not None:
        check_known(name)
        name = name.partition(".")[0]
        nearest = _misfit(weights, _skeleton(name, _classes(name, weights), plan))
        advice = f"{name} does not fit; " + (
            "leave --arch out to have it inferred" if plan.architecture is None else
            "give the --arch that it was trained with"
        )  # fmt: skip
    else:
        fits: dict[str, _Misfit] = {}
        for candidate in RESNETS:
            net = _skeleton(candidate, _classes(candidate, weights), plan)
            fits[candidate] = _misfit(weights, net)
            if not fits[candidate]:
                return candidate
        name = min(fits, key=lambda candidate: len(fits[candidate]))
        nearest = fits[name]
        if len(nearest) > len(weights) / 4:
            raise BadInput(
                f"{file}: its {len(weights)} weights are of none of {', '.join(RESNETS)}; "
                "give --arch, the timm name"
            )
        advice = f"{name} is the nearest architecture; give --arch if it is another"
    if not nearest:
        return name
    key = {to: key for key, to in plan.uses.items()}
    if nearest.shapes:
        first, seen, needed = nearest.shapes[0]
        what = (
            f"key {key[first]!r}{more(len(nearest.shapes))} has shape {_shape(seen)}, where "
            f"{name} needs {_shape(needed)}"
        )
    elif nearest.missing:
        what = f"{nearest.missing[0]!r}{more(len(nearest.missing))} of {name} is missing"
    else:
        what = f"unexpected key {key[nearest.extra[0]]!r}{more(len(nearest.extra))}"
    raise UserError(f"{file}: {what}; {advice}")


def _shape(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"


def more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""


# --------------------------------------------------------------------------- writing the folder


def _write(
    done: Converted, plan: Plan, net: nn.Module, weights: Mapping[str, Tensor], source: str,
    file: Path,
) -> None:  # fmt: skip
    """The folder, filled beside its place, loaded again, and moved there."""
    import tomli_w
    from safetensors.torch import save

    out = done.folder.resolve()  # a link to an empty folder stays one
    out.parent.mkdir(parents=True, exist_ok=True)
    temp = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        folder = temp / "folder"  # mkdtemp's own cannot be read by others
        folder.mkdir()
        # Cloned: tensors that share memory, or are views of more, cannot be stored as they are.
        tensors = {name: tensor.contiguous().clone() for name, tensor in weights.items()}
        with atomic_file(folder / "model.safetensors") as stream:
            stream.write(save(tensors, {"format": "pt"}))
        images = plan.images
        config = timm_config(
            net, done.architecture, plan.model_args, images.px, images.mean, images.std,
            images.crop_pct, images.crop_mode, images.interpolation,
        )  # fmt: skip
        write_json(folder / "config.json", config)
        with atomic_file(folder / "source.toml") as stream:
            stream.write(tomli_w.dumps(_receipt(done, plan, source, file)).encode())
        _check_reloads(folder, tensors, file)
        if out.exists():
            try:
                out.rmdir()
            except OSError:
                raise BadInput(f"{out} was filled meanwhile; name another folder") from None
        folder.rename(out)
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _receipt(done: Converted, plan: Plan, source: str, file: Path) -> dict[str, Any]:
    """source.toml: what the folder was made of, without a date, so that it can be made again."""
    used = sum(use.fate == "used" for use in done.keys)
    origin = {
        "kind": source,
        "file": file.name,
        "sha256": done.sha256,
        "bytes": file.stat().st_size,
        "architecture": done.architecture,
        **({"objective": done.objective} if done.objective else {}),
        "keys_used": used,
        "keys_dropped": len(done.keys) - used,
    }
    dropped = Counter(f"{_group(u.key)}: {u.why}" for u in done.keys if u.fate == "dropped")
    return {"source": origin, "dropped": dict(dropped), "system": plan.facts}


def _check_reloads(folder: Path, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Raises UserError unless timm loads the folder strictly and finds every tensor again."""
    import timm
    import torch

    try:
        with torch.random.fork_rng(devices=[]):  # the weights are drawn, then overwritten
            net = timm.create_model(f"local-dir:{folder}", pretrained=True)
    except Exception as error:
        raise BadInput(
            f"{file}: timm does not load what was converted: {one_line(error)}"
        ) from None
    loaded = net.state_dict()
    changed = [
        name
        for name in loaded.keys() | tensors.keys()
        if name not in loaded
        or name not in tensors
        or not torch.equal(loaded[name], tensors[name].to(loaded[name].dtype))
    ]
    if changed:
        raise BadInput(f"{file}: timm loads {min(changed)!r}{more(len(changed))} otherwise")

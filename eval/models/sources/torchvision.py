"""``torchvision:resnet50[@IMAGENET1K_V2]``: torchvision's classifiers with its published weights.

Weights are files of torch's own cache, downloaded there once; ``?file=PATH`` takes one that lies
elsewhere, of any training of that architecture. Images are prepared as the weights' own preset, and
the network is built as torchvision builds it for those weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.common.errors import BadInput, NotFound, Unreachable, did_you_mean, one_line
from eval.common.files import sha256_file, write_json
from eval.models.crop_share import crop_share
from eval.models.formats import Loaded
from eval.models.resolve import ResolvedModel

if TYPE_CHECKING:
    from eval.models.backbone import Backbone

FORM = "torchvision:NAME[@WEIGHTS][?file=PATH]"
_NAME = re.compile(r"torchvision:(\w+)(?:@(\w+))?(?:\?file=(.+))?")
# Names in older files, published ones among them, and in the networks of today.
_RENAMED = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(\.mlp)\.linear_2\."), r"\1.3."),
)
# With published weights these undo the preset's mean and std, and go on with 0.5 and 0.5.
_HALVES = ("inception_v3", "googlenet")


def resolve(text: str, cache: Path, img_size: int | None) -> ResolvedModel:
    """Pin a name to one of torchvision's sets of weights, or a file to its SHA-256.

    torch is imported the first time a name is met; what was found is memoised in ``cache``. Raises
    UserError for names and weights that torchvision lacks, and a file that is not there.
    """
    match = _NAME.fullmatch(text)
    if match is None:
        raise BadInput(f"model {text!r} is no {FORM}")
    name, wanted, own = match.groups()
    facts = _facts(name, wanted, cache)
    spec = f"torchvision:{name}@{facts['weights']}"
    if own is None:
        identity, shown = f"{spec} {facts['file']}", spec
    else:
        file = Path(own).expanduser()
        if not file.is_file():
            raise NotFound(f"model {text!r}: there is no file {own!r}")
        spec += f"?file={file.resolve()}"
        identity, shown = sha256_file(file), f"torchvision:{name}?file={file.name}"
    if name in _HALVES:  # results of versions that left the preset's numbers are no answer
        identity += " of 0.5 and 0.5"
    revision = hashlib.sha256(identity.encode()).hexdigest()[:40]
    return ResolvedModel(
        "source", name, spec, shown, revision, img_size=img_size, format="torchvision"
    )


def load(model: ResolvedModel) -> Backbone:
    """The network up to its last linear layer, whose input are the features."""
    from eval.models.backbone import assembled

    match = _NAME.fullmatch(model.spec)
    assert match is not None
    name, wanted, own = match.groups()
    file = Path(own) if own else _download(name, wanted, model.id)
    net, notes = _filled(name, wanted, file, model.id)
    data = _preset(name, wanted)
    if own and name in _HALVES:
        notes.append(
            f"{model.id} is read as torchvision's own weights are: mean and std of its images are "
            "0.5, which a network that was built with transform_input=False is not used to"
        )
    if model.img_size:
        scale = model.img_size / data["input_size"][1]
        resized = round(data.pop("resized") * scale)
        data["input_size"] = (3, model.img_size, model.img_size)
        data["crop_pct"] = crop_share(model.img_size, resized)
    data.pop("resized", None)
    loaded = Loaded(net, data, notes=tuple(notes))
    return assembled(model, loaded, sha256_file(file), ["torchvision", name, wanted])


def _facts(name: str, wanted: str | None, cache: Path) -> dict[str, str]:
    """Which weights a name means, and their file."""
    memo_file = cache / f"torchvision-{importlib.metadata.version('torchvision')}.json"
    key, memo = f"{name}@{wanted or ''}", {}
    with contextlib.suppress(OSError, ValueError):
        memo = dict(json.loads(memo_file.read_text()))
    if key not in memo:
        memo[key] = _ask(name, wanted)
        with contextlib.suppress(OSError):  # a cache that may only be read
            write_json(memo_file, memo)
    return dict(memo[key])


def _ask(name: str, wanted: str | None) -> dict[str, str]:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise NotFound(
            f"torchvision has no classifier {name!r}"
            + did_you_mean(name, known, "see torchvision.models.list_models()")
        )
    sets = {member.name: member for member in models.get_model_weights(name)}
    if wanted in (None, "DEFAULT"):
        wanted = models.get_model_weights(name).DEFAULT.name
    if wanted not in sets:
        raise NotFound(
            f"torchvision's {name} has no weights {wanted!r}"
            + did_you_mean(str(wanted), sets, f"it has {', '.join(sets)}")
        )
    return {"weights": str(wanted), "file": sets[str(wanted)].url.rpartition("/")[2]}


def _weights(name: str, wanted: str) -> Any:
    from torchvision import models

    return models.get_model_weights(name)[wanted]


def _download(name: str, wanted: str, who: str) -> Path:
    """The weights' file in torch's cache; torch compares it with the hash in its name."""
    import torch

    url = _weights(name, wanted).url
    place = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(
                url, str(place), hash_prefix=place.stem.rpartition("-")[2], progress=False
            )
        except Exception as error:
            with contextlib.suppress(OSError):
                place.unlink()
            raise Unreachable(
                f"{who}: {url} cannot be downloaded ({one_line(error, 120)}); put it at {place}"
            ) from None
    return place


def _built(name: str, wanted: str) -> Any:
    """The network as torchvision's builder makes it for these weights, which are not loaded."""
    from torchvision import models

    args: dict[str, Any] = {}
    if name in _HALVES:
        # Auxiliary classifiers are for training. What their input becomes is in `_preset`.
        args = {"aux_logits": False, "init_weights": False}
    elif name.startswith("vit_"):
        args = {"image_size": _weights(name, wanted).meta["min_size"][0]}
    return models.get_model(name, weights=None, **args)


def _filled(name: str, wanted: str, file: Path, who: str) -> tuple[Any, list[str]]:
    import torch
    from torch import nn

    from eval.models import weights
    from eval.models.safe_reader import load as read
    from eval.models.safe_reader import state_dict

    state = state_dict(read(file), file, "state_dict", "model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = _built(name, wanted)
    last = [n for n, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not last:
        raise BadInput(f"torchvision's {name} ends in no linear layer, so it has no features")
    parent, _, attribute = last[-1].rpartition(".")

    def drop() -> None:
        setattr(net.get_submodule(parent), attribute, nn.Identity())

    notes = weights.load_backbone(
        net, _renamed(state), lambda found: _as_first_version(net, found), drop, who
    )
    return net, notes


def _renamed(state: dict[str, Any]) -> dict[str, Any]:
    """The tensors under today's names, as torchvision renames them itself while it loads."""
    found = {}
    for name, tensor in state.items():
        for old, new in _RENAMED:
            name = old.sub(new, name)
        found[name] = tensor
    return found


def _as_first_version(net: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Gives a MNASNet the wide stem of torchvision 0.4, as torchvision does where a file says that
    it is so old: here the stem's own shape says it, as wrappers and safetensors keep no versions.
    """
    import torch
    from torchvision.models import MNASNet

    stem = state.get("layers.0.weight")
    if isinstance(net, MNASNet) and stem is not None and stem.shape != net.layers[0].weight.shape:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the file is old
            net._load_from_state_dict({}, "", {"version": 1}, False, [], [], [])
        net._version = MNASNet._version  # its stem is there: not to be made again while it loads
    return state


def _preset(name: str, wanted: str) -> dict[str, Any]:
    """timm's data config of the weights' preset, and under ``resized`` the side before the crop."""
    preset = _weights(name, wanted).transforms()
    crop, resized = preset.crop_size[0], preset.resize_size[0]
    mean, std = ((0.5,) * 3,) * 2 if name in _HALVES else (tuple(preset.mean), tuple(preset.std))
    return {
        "input_size": (3, crop, crop),
        "interpolation": preset.interpolation.value,
        "mean": mean,
        "std": std,
        "crop_pct": crop_share(crop, resized),
        "crop_mode": "center",
        "resized": resized,
    }

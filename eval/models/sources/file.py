"""``file:PATH[?arch=NAME]``: a checkpoint file as training code left it, read as it is.

Containers and prefixes are recognised (`eval.models.checkpoint_keys`), and nothing but tensors and
plain values is read. Such a file does not say how its images were prepared: they are resized and
normalised as the study's ResNets were, which is noted; ``transfer-zoo convert`` makes a folder of
it in which that can be changed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from eval.common.errors import BadInput, NotFound, did_you_mean, one_line, ran_out_of_memory
from eval.common.files import sha256_file
from eval.models.backbone import Backbone, assembled
from eval.models.crop_share import crop_share
from eval.models.formats import Loaded
from eval.models.resolve import ResolvedModel

FORM = "file:PATH[?arch=NAME]"
_NAME = re.compile(r"file:(.+?)(?:\?arch=([\w.]+))?")


def resolve(text: str, cache: Path, img_size: int | None) -> ResolvedModel:
    """Pin a file by its SHA-256, without torch. Raises UserError for one that is not there."""
    path, architecture = _parts(text)
    file = Path(path).expanduser()
    if not file.is_file():
        raise NotFound(f"model {text!r}: there is no file {path!r}")
    asked = f"?arch={architecture}" if architecture else ""
    return ResolvedModel(
        "source", file.name, f"file:{file.resolve()}{asked}", f"file:{file.name}{asked}",
        sha256_file(file)[:40], img_size=img_size,
    )  # fmt: skip


def load(model: ResolvedModel) -> Backbone:
    """The network with the file's weights; what was dropped is said.

    Raises UserError where a tensor is neither the network's nor known to be of the training alone,
    and where the network lacks one.
    """
    import timm
    import torch

    from eval.models import weights
    from eval.models.checkpoint_network import told
    from eval.models.safe_reader import load as read
    from eval.models.timm_network import drop_classifier

    path, architecture = _parts(model.spec)
    file = Path(path)
    if architecture is not None and not timm.is_model(architecture.partition(".")[0]):
        raise NotFound(
            f"timm has no architecture {architecture!r}"
            + did_you_mean(architecture, timm.list_models(), "see timm.list_models()")
        )
    found = told(read(file), file, architecture and architecture.partition(".")[0])
    lost = found.account.lost
    if lost:
        raise BadInput(
            f"{file}: {lost[0]!r} is neither of {found.architecture} nor known to be of the "
            f"training alone ({len(lost)} such); name another ?arch="
        )
    px = found.px or 224
    known = timm.get_pretrained_cfg(found.architecture)
    fixed = known is not None and known.fixed_input_size
    args: dict[str, Any] = {"img_size": px} if fixed else {}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = timm.create_model(found.architecture, num_classes=0, **args)
    except Exception as error:
        if ran_out_of_memory(error):
            raise
        raise BadInput(
            f"{found.architecture} cannot be built at {px} px: {one_line(error)}"
        ) from None
    state = {to: found.account.state[key] for key, to in found.account.uses.items()}
    notes = weights.load_backbone(
        net, state, lambda tensors: tensors, lambda: drop_classifier(net), model.id
    )
    if model.img_size and fixed and model.img_size != px:
        raise BadInput(f"{model.id} takes images of {px} px alone; leave --img-size out")
    side = model.img_size or px
    data = {
        "input_size": (3, side, side),
        "interpolation": "bilinear",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop_pct": crop_share(side, round(side * 256 / 224)),
        "crop_mode": "center",
    }
    notes += [f"{model.id} is read as {found.architecture}, its images as ImageNet's are prepared"]
    whys = sorted(set(found.account.drops.values()))
    if whys:
        notes.append(f"{len(found.account.drops)} tensors are dropped: {'; '.join(whys)}")
    loaded = Loaded(net, data, notes=tuple(notes))
    return assembled(model, loaded, sha256_file(file), ["timm", found.architecture])


def _parts(text: str) -> tuple[str, str | None]:
    match = _NAME.fullmatch(text)
    if match is None:
        raise BadInput(f"model {text!r} is no {FORM}")
    return match[1], match[2]

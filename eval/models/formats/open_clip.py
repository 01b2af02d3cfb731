"""Folders as open_clip publishes them: the visual tower, its projection included, which is what
``encode_image`` gives before it is brought to length one."""

from __future__ import annotations

from typing import Any

from eval.common.errors import BadInput, one_line
from eval.models.formats import Examined, Loaded, ModelFiles, needs
from eval.models.formats.open_clip_config import OpenClipConfig, open_clip_config

_TOWER = "visual."


def check(config: dict[str, Any], where: str) -> None:
    """Raises UserError for values that no tower can have."""
    open_clip_config(config, where)


def examine(files: ModelFiles, held: int) -> Examined:
    """What its config describes, built without memory.

    Raises UserError where open_clip cannot build it, and where weights of ``held`` numbers are far
    too few for it.
    """
    from eval.models.timm_network import numbers

    config = open_clip_config(files.config, files.who)
    net = _budgeted(config, held, files.who)
    _, height, width = config.data["input_size"]
    return Examined(config.name, numbers(net), (height, width))


def load(files: ModelFiles) -> Loaded:
    """The visual tower with its weights; the text tower is dropped, and said."""
    import torch

    from eval.models import weights

    config, who = open_clip_config(files.config, files.who), files.who
    side = config.data["input_size"][1]
    if files.img_size and files.img_size != side:
        raise BadInput(f"{who} takes images of {side} px alone; leave --img-size out")
    paths = [files.folder / name for name in files.weights]
    _budgeted(config, weights.elements(paths, who), who)
    state = weights.read_tensors(paths, who)
    state = {weights.unwrapped(name): tensor for name, tensor in state.items()}
    tower = {n.removeprefix(_TOWER): t for n, t in state.items() if n.startswith(_TOWER)}
    if not tower:
        raise BadInput(
            f"the weights of {who} have no tensors under {_TOWER!r}, where open_clip's visual "
            "tower lies"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = _tower(config, who)
    notes = weights.load_backbone(net, tower, lambda found: found, lambda: None, who)
    if rest := len(state) - len(tower):
        notes.append(f"{rest} tensors of {who} are not of its visual tower and dropped")
    return Loaded(net, dict(config.data), notes=tuple(notes))


def _budgeted(config: OpenClipConfig, held: int, who: str) -> Any:
    import torch

    from eval.models.timm_network import SPARE, numbers

    needs("open_clip", "open-clip", who)
    with torch.device("meta"):
        net = _tower(config, who)
    if (wanted := numbers(net)) > 2 * held + SPARE:
        raise BadInput(
            f"open_clip_config.json of {who} describes a tower of {wanted:,} numbers, its weights "
            f"hold at most {held:,}"
        )
    return net


def _tower(config: OpenClipConfig, who: str) -> Any:
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    try:
        cfg = CLIPVisionCfg(**config.settings)
        return _build_vision_tower(config.dim, cfg, quick_gelu=config.quick_gelu)
    except Exception as error:
        raise BadInput(
            f"open_clip cannot build the visual tower of {who}: {one_line(error)}"
        ) from None

"""open_clip_config.json of a visual tower, read and checked without open_clip or torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.common.errors import BadInput, did_you_mean
from eval.models.arguments import KINDS, check_tokens, shorten

# Settings of a tower by the kind of their values, whose bounds are those of timm's arguments.
_LIKE = {
    "embed_dim": "head_width width",
    "depth": "layers",
    "num_heads": "attn_pooler_heads attn_pooler_queries",
    "img_size": "image_size",
    "patch_size": "patch_size",
    "mlp_ratio": "mlp_ratio",
    "drop_rate": "patch_dropout timm_drop timm_drop_path",
    "init_values": "ls_init_value",
    "qkv_bias": """
        attentional_pool final_ln_after_pool no_ln_pre output_tokens qk_norm scale_attn
        scale_attn_inner scale_fc scale_heads scaled_cosine_attn timm_model_pretrained
        timm_proj_bias
    """,
    "act_layer": "block_type pool_type pos_embed_type timm_model_name timm_pool timm_proj",
}
_KIND = {name: KINDS[like] for like, names in _LIKE.items() for name in names.split()}
_NESTED: dict[str, dict[str, tuple[Any, ...]]] = {
    "act_kwargs": {"approximate": ("none", "tanh")},
    "norm_kwargs": {"eps": (0.0, 1.0)},
}
# Which have no effect on what an image becomes: a download, and what is given beside the features.
_IGNORED = ("timm_model_pretrained", "output_tokens", "patch_dropout", "timm_drop_path")
_OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class OpenClipConfig:
    """A checked tower: width of its features, settings of its class, how images are prepared."""

    dim: int
    settings: dict[str, Any]
    quick_gelu: bool
    data: dict[str, Any]  # timm's data config

    @property
    def name(self) -> str:
        """What kind of tower it is."""
        if name := self.settings.get("timm_model_name"):
            return str(name)
        return "ModifiedResNet" if isinstance(self.settings.get("layers"), list) else "ViT"


def open_clip_config(config: Mapping[str, Any], where: str) -> OpenClipConfig:
    """What an open_clip_config.json says of the visual tower.

    Raises UserError, one sentence that names the key, for what is not known or out of bounds.
    """
    model = config.get("model_cfg")
    vision = model.get("vision_cfg") if isinstance(model, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(vision, Mapping):
        raise BadInput(f"open_clip_config.json of {where} has no 'vision_cfg' in its 'model_cfg'")
    settings: dict[str, Any] = {}
    for key, value in vision.items():
        if value is not None:
            _check(key, value, where)
            if key not in _IGNORED:
                settings[key] = value
    dim = model.get("embed_dim")
    if not isinstance(dim, int) or not KINDS["embed_dim"].takes(dim) or dim == 0:
        raise BadInput(f"open_clip_config.json of {where} has embed_dim {shorten(dim)}")
    side = settings.get("image_size", 224)
    sides = (side, side) if isinstance(side, int) else tuple(side)
    if len(sides) != 2:
        raise BadInput(f"open_clip_config.json of {where} has image_size {shorten(side)}")
    if not settings.get("timm_model_name"):
        check_tokens({"patch_size": settings.get("patch_size", 16)}, (sides[0], sides[1]), where)
    data = _preparation(config.get("preprocess_cfg") or {}, (sides[0], sides[1]), where)
    return OpenClipConfig(dim, settings, bool(model.get("quick_gelu")), data)


def _check(key: str, value: object, where: str) -> None:
    if (inner := _NESTED.get(key)) is not None:
        fits = isinstance(value, Mapping) and all(
            name in inner and (part in inner[name] or _between(part, inner[name]))
            for name, part in value.items()
        )
        if not fits:
            raise BadInput(f"open_clip_config.json of {where} has {key} {shorten(value)}")
        return
    kind = _KIND.get(key)
    if kind is None:
        raise BadInput(
            f"open_clip_config.json of {where} sets {key[:40]!r} in 'vision_cfg', which is no "
            "known setting of a tower" + did_you_mean(key[:40], _KIND, "leave it out")
        )
    leaves = value if isinstance(value, list) else [value]
    if not leaves or len(leaves) > 8 or not all(kind.takes(leaf) for leaf in leaves):
        raise BadInput(
            f"open_clip_config.json of {where} sets {key} to {shorten(value)}, where {kind} can "
            "be built"
        )


def _between(value: object, bounds: tuple[Any, ...]) -> bool:
    return isinstance(value, float) and isinstance(bounds[0], float) and value < bounds[1]


def _preparation(given: object, sides: tuple[int, int], where: str) -> dict[str, Any]:
    """timm's data config of what open_clip's own transform does."""
    cfg = given if isinstance(given, Mapping) else {}
    mean, std = cfg.get("mean") or _OPENAI[0], cfg.get("std") or _OPENAI[1]
    for name, value in (("mean", mean), ("std", std)):
        many = value if isinstance(value, list | tuple) else ()
        if len(many) != 3 or not all(isinstance(n, int | float) and 0 <= n <= 1 for n in many):
            raise BadInput(
                f"open_clip_config.json of {where} has {name} {shorten(value)}; three numbers in "
                "0 to 1 are needed"
            )
    if min(std) <= 0:
        raise BadInput(f"open_clip_config.json of {where} has std {shorten(list(std))}")
    mode, kernel = cfg.get("resize_mode") or "shortest", cfg.get("interpolation") or "bicubic"
    if mode not in ("shortest", "squash") or (mode == "shortest" and sides[0] != sides[1]):
        raise BadInput(
            f"open_clip_config.json of {where} resizes by {shorten(mode)} to {sides[0]} x "
            f"{sides[1]} px; 'squash', or 'shortest' to a square, is done here"
        )
    if kernel not in ("bicubic", "bilinear"):
        raise BadInput(f"open_clip_config.json of {where} has interpolation {shorten(kernel)}")
    return {
        "input_size": (3, *sides),
        "interpolation": kernel,
        "mean": tuple(mean),
        "std": tuple(std),
        "crop_pct": 1.0,
        "crop_mode": "squash" if mode == "squash" else "center",
    }

"""transformers' config.json of a vision network, read and checked without transformers or torch.

As with timm's (`eval.models.arguments`), only keys that say what the network is are handed on, each
within bounds that no published network comes near. The rest of such a file (labels, tokens of text
models, how the library should run it) has no effect here; code of the repository's own is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from eval.common.errors import BadInput, Refused, did_you_mean
from eval.models.arguments import KINDS, check_tokens, shorten

Pool = Literal["pooler", "class token", "mean of tokens"]


@dataclass(frozen=True)
class Architecture:
    """How one kind of network becomes features: [N, D] of the library's own output."""

    model: str  # its class in transformers
    pool: Pool
    fixed: bool = False  # takes images of its image_size alone
    optional_pooler: bool = False  # in some weights a trained layer; then it is used
    inner: str = ""  # the key of config.json under which the vision network is described
    vision: str = ""  # the model_type of that network, where it is another


ARCHITECTURES: dict[str, Architecture] = {
    "beit": Architecture("BeitModel", "pooler", fixed=True),
    "clip": Architecture(
        "CLIPVisionModel", "pooler", fixed=True, inner="vision_config", vision="clip_vision_model"
    ),
    "clip_vision_model": Architecture("CLIPVisionModel", "pooler", fixed=True),
    "convnext": Architecture("ConvNextModel", "pooler"),
    "convnextv2": Architecture("ConvNextV2Model", "pooler"),
    "deit": Architecture("DeiTModel", "class token", fixed=True, optional_pooler=True),
    "dinov2": Architecture("Dinov2Model", "pooler"),
    "dinov2_with_registers": Architecture("Dinov2WithRegistersModel", "pooler"),
    "dinov3_convnext": Architecture("DINOv3ConvNextModel", "pooler"),
    "dinov3_vit": Architecture("DINOv3ViTModel", "pooler"),
    "ijepa": Architecture("IJepaModel", "mean of tokens", fixed=True),
    "mobilenet_v1": Architecture("MobileNetV1Model", "pooler"),
    "mobilenet_v2": Architecture("MobileNetV2Model", "pooler"),
    "regnet": Architecture("RegNetModel", "pooler"),
    "resnet": Architecture("ResNetModel", "pooler"),
    "siglip": Architecture(
        "SiglipVisionModel", "pooler", fixed=True, inner="vision_config",
        vision="siglip_vision_model",
    ),
    "siglip_vision_model": Architecture("SiglipVisionModel", "pooler", fixed=True),
    "swin": Architecture("SwinModel", "pooler"),
    "swinv2": Architecture("Swinv2Model", "pooler"),
    "vit": Architecture("ViTModel", "class token", fixed=True, optional_pooler=True),
    "vit_mae": Architecture("ViTMAEModel", "class token", fixed=True),
    "vit_msn": Architecture("ViTMSNModel", "class token", fixed=True),
}  # fmt: skip

# Keys by the kind of their values, whose bounds are those of timm's arguments.
_LIKE = {
    "embed_dim": """
        decoder_hidden_size decoder_intermediate_size embed_dim embedding_size groups_width
        hidden_size hidden_sizes intermediate_size pooler_output_size projection_dim vocab_size
    """,
    "depth": "decoder_num_hidden_layers depths num_hidden_layers",
    "num_heads": """
        decoder_num_attention_heads depth_divisible_by min_depth num_attention_heads num_channels
        num_heads num_register_tokens num_stages
    """,
    "img_size": "image_size",
    "window_size": """
        encoder_stride output_stride patch_size pretrained_window_sizes window_size
    """,
    "mlp_ratio": "depth_multiplier expand_ratio mlp_ratio",
    "drop_rate": """
        attention_dropout attention_probs_dropout_prob classifier_dropout_prob drop_path_rate
        hidden_dropout_prob mask_ratio
    """,
    "init_values": """
        initializer_factor initializer_range layer_norm_eps layer_scale_init_value layerscale_value
        pos_embed_jitter pos_embed_rescale pos_embed_shift rope_theta
    """,
    "qkv_bias": """
        apply_layernorm downsample_in_bottleneck downsample_in_first_stage finegrained_output
        first_layer_is_expansion key_bias mlp_bias norm_pix_loss proj_bias qkv_bias query_bias
        tf_padding use_absolute_embeddings use_absolute_position_embeddings use_gated_mlp
        use_mask_token use_mean_pooling use_relative_position_bias
        use_shared_relative_position_bias use_swiglu_ffn value_bias vision_use_head
    """,
    "act_layer": "hidden_act layer_type pooler_act",
}
_KIND = {name: KINDS[like] for like, names in _LIKE.items() for name in names.split()}
_VOCABULARY = "vocab_size"  # of BEiT's tokens, in a head that is dropped
_MOST_LAYERS = 256

# Of the classes' settings these change no features: other heads', and what names layers.
_HEADS = """
    add_fpn auxiliary_channels auxiliary_concat_input auxiliary_loss_weight auxiliary_num_convs
    num_layers out_features out_indices pool_scales reshape_hidden_states semantic_loss_ignore_index
    stage_names use_auxiliary_head
"""
NO_FEATURES = frozenset(_HEADS.split())


@dataclass(frozen=True)
class TransformersConfig:
    """A checked config.json: which network, and the settings of its class."""

    architecture: Architecture
    model_type: str  # of the vision network
    settings: dict[str, Any]
    given: dict[str, Any]  # all that the file says of that network

    @property
    def channels(self) -> int:
        """1 for grey images, else 3."""
        return int(self.settings.get("num_channels", 3))


def transformers_config(config: Mapping[str, Any], where: str) -> TransformersConfig:
    """What a config.json with a ``model_type`` says, checked.

    Raises UserError, one sentence that names the key, for another kind of network than
    ``ARCHITECTURES``, for code of the repository's own, and for values that no network can have.
    """
    if config.get("auto_map"):
        raise Refused(
            f"config.json of {where} has 'auto_map': it runs code of the repository's own, which "
            "is never done here; score it from Python (eval.backbone) if you trust that code"
        )
    name = str(config.get("model_type"))
    found = ARCHITECTURES.get(name)
    if found is None:
        raise BadInput(
            f"config.json of {where} is of model_type {name[:40]!r}, from which no features are "
            "taken" + did_you_mean(name[:40], ARCHITECTURES, f"use {', '.join(ARCHITECTURES)}")
        )
    given = config.get(found.inner) if found.inner else config
    if given is None:  # all of it as the class has it
        given = {}
    if not isinstance(given, Mapping):
        raise BadInput(f"config.json of {where} has no object under {found.inner!r}")
    settings = {}
    for key, value in given.items():
        if key in _KIND and value is not None:
            _check(key, value, where)
            settings[key] = value
    if settings.get("num_channels", 3) not in (1, 3):
        raise BadInput(
            f"{where} takes {settings['num_channels']} channels; networks for RGB (3) or grey "
            "images (1) are scored"
        )
    side = settings.get("image_size", 224)
    sides = (side, side) if isinstance(side, int) else tuple(side)
    if len(sides) != 2:
        raise BadInput(f"config.json of {where} has image_size {shorten(side)}; use one number")
    check_tokens(settings, (sides[0], sides[1]), where)
    return TransformersConfig(found, found.vision or name, settings, dict(given))


def _check(key: str, value: object, where: str) -> None:
    kind = _KIND[key]
    leaves = value if isinstance(value, list) else [value]
    if key == _VOCABULARY and isinstance(value, int) and 0 <= value <= 200_000:
        return
    if not leaves or len(leaves) > 64 or not all(kind.takes(leaf) for leaf in leaves):
        raise BadInput(
            f"config.json of {where} sets {key} to {shorten(value)}, where {kind} can be built"
        )
    if key in _LIKE["depth"].split() and sum(leaves) > _MOST_LAYERS:
        raise BadInput(
            f"config.json of {where} asks for {sum(leaves):,} layers ({key}), at most "
            f"{_MOST_LAYERS} are built"
        )

"""Which arguments of an architecture a config.json may set, and how far. Imports no torch.

timm hands ``model_args`` to whatever builds the network, its own loader among it: a stranger's file
could switch off strict loading, name files of this machine, or ask for layers that no memory holds.
So an argument is taken only if it says what the network *is*, and only within bounds that no
published network comes near; they also bound what building without memory costs, which is how
`eval.models.timm_network` counts parameters before it allocates any.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from eval.common.errors import BadInput, Refused, did_you_mean

MOST_PX = 1024  # no model of timm takes a larger side by default
MOST_CLASSES = 200_000
MOST_TOKENS = 16_384  # patches of one image
_MOST_BLOCKS = 256  # of all stages together; the most in timm are 139
_MOST_VALUES = 64  # in one list, nested ones counted through

# Arguments of timm's builder and loader: nothing of the network itself.
NOT_ARCHITECTURE = {
    "pretrained": "says what is loaded",
    "pretrained_strict": "says how weights are loaded",
    "pretrained_filter_fn": "says how weights are loaded",
    "pretrained_custom_load": "says how weights are loaded",
    "pretrained_cfg": "says where weights come from",
    "pretrained_cfg_overlay": "says where weights come from",
    "pretrained_model_args": "says where weights come from",
    "checkpoint_path": "names a file to load",
    "cache_dir": "names a folder of this machine",
    "pruned": "names a file to load",
    "device": "says where the network is put",
    "dtype": "says in what precision it is put there",
    "features_only": "asks for another network than the one that was trained",
    "out_indices": "asks for another network than the one that was trained",
    "feature_cls": "asks for another network than the one that was trained",
    "feature_cfg": "asks for another network than the one that was trained",
    "scriptable": "says how the network is run",
    "exportable": "says how the network is run",
    "no_jit": "says how the network is run",
}

_WIDTHS = """
    base_dim base_dims base_width channels dims embed_dim embed_dims feature_dim final_chs
    growth_rate growth_rates head_dim head_hidden_size head_widths hidden_size hidden_sizes inc_sec
    init_channels initial_chs inner_dim inplanes intermediate_size k_r key_dim neck_chans
    num_features num_init_features partial_dim qk_dim rel_pos_dim state_dim stem_chs stem_hidden_dim
    stem_size stem_width swiglu_align_to widths
"""
_DEPTHS = """
    block_config cls_attn_layers depth depth_token_only depths extra_norm_period global_block_counts
    k_sec layers levels num_blocks num_blocks_list num_levels num_rnn_layers parallel_depth
    serial_depths stages transformer_depths
"""
_COUNTS = """
    attn_groups attn_head_dim_reduction attn_pool_num_heads block_reduce_first bn_size cardinality
    ch_div channel_multiplier d2_scales downsample_ratio expand_groups focal_levels
    global_att_blocks global_attn_indexes group groups heads local_up_to_layer merge_size
    msfa_indices n_div num_heads num_heads_inner num_heads_outer num_kv_heads num_reg_tokens num_vit
    q_pool reg_tokens
"""
_IMAGES = "img_size"
_WINDOWS = """
    down_kernel_size down_pad down_patch_size down_stride downsample_kernel_size downsample_padding
    drop_block_size first_stride focal_windows global_pos_size kernel_size kernel_sizes kernels
    local_conv_size mask_unit_size msfa_output_resolution output_stride patch_kernel patch_padding
    patch_size patch_sizes patch_stride pool_size pooling_kernel_size pooling_scale
    pos_embed_grid_size pretrained_window_sizes q_stride ref_feat_shape repmixer_kernel_size
    sr_ratios stem_kernel_size stem_stride stride strides window_ratio window_size window_sizes
    window_spec wss
"""
_RATIOS = """
    attn_mlp_ratio attn_pool_mlp_ratio attn_ratio bottle_ratio bottleneck_width_ratio cls_ratio
    conv_ratio deepen_factor depth_mult dim_mul downsample_expand_ratios expand_ratio
    expansion_ratio ffn_ratio head_mul mbconv_expand_ratio mix_block_ratio mlp_ratio
    mlp_ratio_token_only mlp_ratios se_ratio ssd_expand stem_expand_ratio
    transition_compression_ratio widen_factor width width_factor width_mult
"""
_RATES = """
    attn_drop_rate drop_block_rate drop_path_rate drop_rate patch_drop_rate pos_drop_rate
    proj_drop_rate
"""
_NUMBERS = """
    eta head_init_scale init_values layer_scale layer_scale_init_value layer_scale_init_values
    layerscale_value locality_strength ls_init_value norm_eps res_scale_init_values rope_grid_offset
    rope_jitter_coords rope_rescale_coords rope_shift_coords rope_temperature rope_theta scale
"""
_FLAGS = """
    aa_stem_only abs_win_pos_embed always_partition attn attn_block_token_only attn_mlp
    attn_only_layer_scale aux_logits avg_down bias bidirectional channel_attention channel_attn_v2
    class_token conv_bias conv_init conv_mlp cpe_act distillation distilled downsample_block
    downsamples dynamic_img_pad dynamic_img_size extra_norm_stage fc_norm ffn final_norm fix_init
    fix_stem fused_conv fused_downsample head_bias head_norm head_norm_first inference_mode
    input_3x3 is_downsample_block legacy lkc_use_act mask_unit_attn memory_efficient mlp_bias
    multi_conv named_blocks no_embed_class normalize_modulator outlook_attention patch_norm
    pool_include_prefix pre_norm preact proj_bias qk_norm qkv_bias qkv_fused reparam
    replace_stem_pool rope_rotate_half scale_attn_inner scale_attn_norm scale_mlp scale_mlp_norm
    se_downsamples se_from_exp sep_pos_embed sequential_attn shared_rel_pos shortcut_root
    small_kernels standardize stem_bias stem_mid_norm stem_norm stem_use_scale_branch
    strict_img_size swiglu_mlp tokens_norm use_abs_pos use_abs_pos_emb use_aux_head use_checkpoint
    use_conv use_expand_proj use_fc_norm use_grn use_lab use_layer_scale use_mix_token use_mlp_head
    use_msfa use_overlap_down use_pos_emb use_pos_embed use_post_norm use_post_norm_in_modulation
    use_post_transformer_norm use_pre_transformer_norm use_rel_pos use_rel_pos_bias use_rope
    use_rot_pos_emb use_shared_rel_pos_bias v2 vit_stem with_fc zero_init_last
"""
_WORDS = """
    aa_layer act_layer attn_act_layer attn_layer attn_stage attn_type attn_types block_type
    down_op downsample embed_norm embed_norm_layer encoder_pool fc_act_layer global_pool
    local_mbconv_norm norm_layer norm_layer_cl pad_type pool_type pos_embed post_layers rel_pos_type
    rope_grid_indexing rope_type se_layer spatial_conv stem_type token_mixers types union version
    weight_init
"""
# A name of timm's for a layer or a way; a path of Python's has dots and capitals.
_WORD = re.compile(r"[a-z0-9_]{0,32}")


class _Kind:
    """What one value may be."""

    def __init__(self, low: float, high: float, *, whole: bool) -> None:
        self.low, self.high, self.whole = low, high, whole

    def takes(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return self.low <= value <= self.high  # NaN is not

    def __str__(self) -> str:
        return f"{'whole numbers' if self.whole else 'numbers'} of {self.low:,} to {self.high:,}"


class _Flag(_Kind):
    """True or false; timm's tuples of flags hold numbers where one is None."""

    def __init__(self) -> None:
        super().__init__(0, 1, whole=True)

    def takes(self, value: object) -> bool:
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "true or false"


class _Word(_Kind):
    def __init__(self) -> None:
        super().__init__(0, 0, whole=True)

    def takes(self, value: object) -> bool:
        return isinstance(value, str) and _WORD.fullmatch(value) is not None

    def __str__(self) -> str:
        return "a name of timm's in small letters"


KINDS: dict[str, _Kind] = {
    name: kind
    for names, kind in (
        (_WIDTHS, _Kind(0, 16_384, whole=True)),
        (_DEPTHS, _Kind(0, 128, whole=True)),
        (_COUNTS, _Kind(-64, 1024, whole=True)),
        (_IMAGES, _Kind(1, MOST_PX, whole=True)),
        (_WINDOWS, _Kind(0, 128, whole=True)),
        (_RATIOS, _Kind(0, 64, whole=False)),
        (_RATES, _Kind(0, 1, whole=False)),
        (_NUMBERS, _Kind(-1e6, 1e6, whole=False)),
        (_FLAGS, _Flag()),
        (_WORDS, _Word()),
        ("num_classes", _Kind(0, MOST_CLASSES, whole=True)),
        ("in_chans", _Kind(1, 16, whole=True)),
    )
    for name in names.split()
}
_DEPTH_NAMES = frozenset(_DEPTHS.split())
_PATCHES = ("patch_size", "patch_sizes", "patch_stride")


def check_arguments(args: object, where: str) -> dict[str, Any]:
    """``model_args`` of a config.json, each known and within its bounds; None values left out.

    Raises UserError, one sentence that names the argument, for everything else.
    """
    if args is None:
        return {}
    if not isinstance(args, Mapping):
        raise BadInput(f"config.json of {where} is not timm's: 'model_args' is not an object")
    found: dict[str, Any] = {}
    for name, value in args.items():
        kind = _kind(name, where)
        if value is None:  # timm's own default
            continue
        leaves = list(_leaves(value, 0))
        if len(leaves) > _MOST_VALUES or not all(
            leaf is None or kind.takes(leaf) for leaf in leaves
        ):
            shown = shorten(value)
            raise BadInput(
                f"config.json of {where} sets {name} to {shown} in 'model_args', where {kind} "
                "can be built"
            )
        if name in _DEPTH_NAMES and sum(leaf or 0 for leaf in leaves) > _MOST_BLOCKS:
            raise BadInput(
                f"config.json of {where} asks for {sum(leaf or 0 for leaf in leaves):,} blocks in "
                f"'model_args' ({name}), at most {_MOST_BLOCKS} are built"
            )
        found[name] = value
    return found


def check_tokens(args: Mapping[str, Any], sides: tuple[int, int], where: str) -> None:
    """Raises UserError where an image of ``sides`` would be cut into too many patches: attention
    takes time, and in some networks memory, by the square of their number."""
    patches = [n for name in _PATCHES for n in _leaves(args.get(name), 0) if n]
    if not patches:
        return
    tokens = math.ceil(sides[0] / min(patches)) * math.ceil(sides[1] / min(patches))
    if tokens > MOST_TOKENS:
        raise BadInput(
            f"config.json of {where} cuts images of {sides[0]} x {sides[1]} px into {tokens:,} "
            f"patches, at most {MOST_TOKENS:,} are encoded"
        )


def _kind(name: object, where: str) -> _Kind:
    if name in NOT_ARCHITECTURE:
        raise Refused(
            f"config.json of {where} sets {name!r} in 'model_args', which "
            f"{NOT_ARCHITECTURE[str(name)]} and nothing of the architecture; leave it out"
        )
    kind = KINDS.get(str(name))
    if kind is None:
        raise BadInput(
            f"config.json of {where} sets {str(name)[:40]!r} in 'model_args', which is no known "
            "argument of an architecture" + did_you_mean(str(name)[:40], KINDS, "leave it out")
        )
    return kind


def shorten(value: object) -> str:
    """A value of somebody's JSON in at most 60 characters."""
    shown = json.dumps(value, default=str) if not isinstance(value, float) else str(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _leaves(value: object, depth: int) -> Iterator[Any]:
    """Values of a list of at most two levels; what is nested deeper comes as it is, which no kind
    takes."""
    if isinstance(value, list | tuple) and depth < 2:
        for inner in value:
            yield from _leaves(inner, depth + 1)
    else:
        yield value

"""Small folders as transformers saves them, of random weights: one an architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

_VIT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
_DINO2 = {k: v for k, v in _VIT.items() if k != "intermediate_size"}
_DECODER = {
    "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}  # fmt: skip
_STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
_SWIN = {
    "image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4],
    "window_size": 4,
}  # fmt: skip
_TEXT = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "vocab_size": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip

# model_type -> (class that was saved, settings)
SAVED: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTForImageClassification", _VIT),
    "vit with a pooler": ("ViTModel", _VIT),
    "deit": ("DeiTForImageClassification", _VIT),
    "vit_msn": ("ViTMSNModel", _VIT),
    "vit_mae": ("ViTMAEForPreTraining", _VIT | _DECODER),
    "ijepa": ("IJepaModel", _VIT),
    "dinov2": ("Dinov2Model", _DINO2),
    "dinov2_with_registers": ("Dinov2WithRegistersForImageClassification", _DINO2),
    "dinov3_vit": ("DINOv3ViTModel", _VIT | {"num_register_tokens": 4}),
    "dinov3_convnext": ("DINOv3ConvNextModel", _STAGES),
    "clip_vision_model": ("CLIPVisionModel", _VIT),
    "clip": ("CLIPModel", {"vision_config": _VIT, "text_config": _TEXT}),
    "siglip_vision_model": ("SiglipVisionModel", _VIT),
    "siglip": ("SiglipModel", {"vision_config": _VIT, "text_config": _TEXT}),
    "beit": ("BeitForImageClassification", _VIT | {"use_relative_position_bias": True}),
    "swin": ("SwinForImageClassification", _SWIN),
    "swinv2": ("Swinv2Model", _SWIN),
    "convnext": ("ConvNextForImageClassification", _STAGES),
    "convnextv2": ("ConvNextV2Model", _STAGES),
    "mobilenet_v1": ("MobileNetV1Model", {"depth_multiplier": 0.25}),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", {"depth_multiplier": 0.25}),
    "resnet": ("ResNetForImageClassification", _STAGES | {"embedding_size": 8}),
    "regnet": ("RegNetModel", _STAGES | {"embedding_size": 8, "groups_width": 8}),
}  # fmt: skip


def folder(path: Path, kind: str = "vit", px: int = 32, **settings: Any) -> Path:
    """A folder of weights of the kind, and a processor that makes images of ``px``."""
    class_name, usual = SAVED[kind]
    network(class_name, usual | settings).save_pretrained(path)
    size = {"height": px, "width": px}
    transformers.ViTImageProcessor(size=size, resample=3).save_pretrained(path)
    return path


def network(class_name: str, settings: dict[str, Any]) -> Any:
    """Weights far from their start values, so that no layer could be left out unseen."""
    kind = getattr(transformers, class_name)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net: nn.Module = kind(kind.config_class(**settings)).eval()
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                spread = torch.rand_like(tensor) * 0.2
                tensor.copy_(spread + 0.9 if "var" in name else tensor + spread - 0.1)
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:  # statistics of what comes through, so that deep layers see images
            norm.momentum = None
        if norms:
            with torch.no_grad():
                net.train()(pixel_values=torch.randn(8, 3, 64, 64))
    return net.eval()

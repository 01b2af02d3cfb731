"""Families of pretraining, and the words by which configs and cards name them. Imports no torch.

A word is a declaration where an author wrote it into a config or a card; in the name of a
repository it is none, and nobody looks there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

FINE_TUNED = "-ft"  # behind a family: trained further with labels


@dataclass(frozen=True)
class Family:
    """How boards write it, and the words that say it."""

    shown: str
    words: frozenset[str]


def _family(shown: str, *words: str) -> Family:
    return Family(shown, frozenset(words))


# In the order in which they are looked for: SigLIP's cards say CLIP too, as a relative.
FAMILIES = {
    "siglip": _family("SigLIP", "siglip", "siglip2"),
    "clip": _family("CLIP", "clip", "openclip", "metaclip", "contrastive-language-image"),
    "dino": _family("DINO", "dino", "dinov2", "dinov3"),
    "mae": _family("MAE", "mae", "fcmae", "masked-autoencoder"),
    "moco": _family("MoCo", "moco", "mocov2", "mocov3"),
    "distilled": _family("distilled", "dist", "distilled", "distillation"),
    "supervised": _family("supervised", "supervised", "supervised-learning"),
}
# Data sets by their words in timm's tags: resnet50's a1_in1k, vit's augreg_in21k_ft_in1k.
_DATA = {
    "in1k": "imagenet-1k",
    "in12k": "imagenet-12k",
    "in21k": "imagenet-21k",
    "in22k": "imagenet-21k",
    "jft": "jft-300m",
    "ig1b": "instagram-1b",
    "yfcc100m": "yfcc-100m",
    "laion400m": "laion-400m",
    "laion2b": "laion-2b",
    "dfn2b": "dfn-2b",
    "dfn5b": "dfn-5b",
    "webli": "webli",
    "lvd142m": "lvd-142m",
    "lvd1689m": "lvd-1689m",
    "openai": "wit-400m",
}
_LABELLED = ("in1k", "in12k", "in21k", "in22k")  # what a tag ends in whose last step had labels


def family_of(words: Iterable[str]) -> str:
    """The family that one of the words names; '' where none does."""
    said = {word.lower() for word in words}
    return next((name for name, family in FAMILIES.items() if family.words & said), "")


def words_of(text: str) -> list[str]:
    """``augreg_in21k_ft_in1k`` as its words."""
    return [word for word in re.split(r"[_.\s]+", text.lower()) if word]


def of_timm(architecture: str, tag: str) -> tuple[str, tuple[str, ...]]:
    """(family, data) of timm's own weights, by the tag of their pretrained_cfg.

    ``a1_in1k`` is supervised on imagenet-1k, ``fcmae_ft_in1k`` an MAE that was fine-tuned there.
    Without a tag nothing is said: an architecture's name is no training.

    >>> of_timm("resnet50", "a1_in1k")
    ('supervised', ('imagenet-1k',))
    >>> of_timm("vit_small_patch14_dinov2", "lvd142m")
    ('dino', ('lvd-142m',))
    """
    if not tag:
        return "", ()
    words = words_of(tag)
    data = tuple(dict.fromkeys(_DATA[word] for word in words if word in _DATA))
    family = family_of([*words, *words_of(architecture)])
    labelled = words[-1] in _LABELLED
    if not family:
        return ("supervised" if labelled else ""), data
    fine = labelled and "ft" in words and family not in ("supervised", "distilled")
    return family + FINE_TUNED * fine, data


def shown_family(name: str) -> str:
    """``mae-ft`` as boards write it: MAE, fine-tuned; '' for what is no family."""
    family = FAMILIES.get(name.removesuffix(FINE_TUNED))
    if family is None:
        return ""
    return family.shown + ", fine-tuned" * name.endswith(FINE_TUNED)

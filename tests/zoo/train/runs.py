"""Small recipes and made-up images to pretrain on."""

from __future__ import annotations

import numpy as np

from zoo.train.pixels import PixelStore, PretrainingData
from zoo.train.recipe import Recipe, load_recipe

SMALL = (
    "backbone.architecture=resnet10t",
    "backbone.model_args={channels=[8,8,16,16],stem_width=8}",
    "image.px=16",
    "image.store_px=16",
    "train.batch_size=16",
    "train.epochs=2",
    "train.warmup_epochs=0.5",
    "contrastive.queue=40",
    "probe.every_epochs=1",
    "probe.k=5",
    "save.dtype=float32",
    # oneDNN's bf16 kernels give infinite gradients for feature maps of 1 x 1 here (torch 2.15)
    "train.precision=fp32",
)


def recipe_of(*overrides: str) -> Recipe:
    return load_recipe("tiny", [*SMALL, *overrides])


def store_of(
    images: int = 70, classes: int = 3, labelled: bool = True, seed: int = 0
) -> PixelStore:
    """Coloured noise: each class its own tint."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    tint = np.random.default_rng(7).integers(0, 120, (classes, 1, 1, 3))
    pixels = (rng.integers(0, 120, (images, 16, 16, 3)) + tint[labels]).astype(np.uint8)
    return PixelStore(
        pixels=pixels,
        aspect=np.ones(images, np.float32),
        labels=labels.astype(np.int64) if labelled else None,
        classes=tuple(f"class{i}" for i in range(classes)) if labelled else (),
        fingerprint=f"made-up-{images}-{classes}-{seed}",
        where="made-up",
    )


def data_of(images: int = 70, labelled: bool = True) -> PretrainingData:
    return PretrainingData(store_of(images, labelled=labelled), store_of(30, seed=1))

"""A mask file -> [H, W] class numbers.

A mask is a grey picture whose values are classes, or a palette whose indices are (PASCAL VOC's
colours are such a palette). A picture of colours does not say which colour is which class, so it is
refused.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.common.errors import BadInput
from eval.common.images import why_unreadable

VOID = 255  # of a label map that was read: not scored
MOST_CLASSES = 255  # numbers 0 to 254


def raw_map(data: bytes, where: str) -> NDArray[np.int64]:
    """[H, W] values as they are stored. Raises UserError, beginning with ``where``, for what is no
    picture and for a picture of colours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            image = Image.open(io.BytesIO(data))
            image.load()
    except Exception as error:  # a parser fed with arbitrary bytes raises anything
        raise BadInput(f"{where}: its mask cannot be read: {why_unreadable(data, error)}") from None
    if image.mode not in ("L", "P", "1") and not image.mode.startswith("I"):
        raise BadInput(
            f"{where}: its mask is a picture of colours (mode {image.mode}), which do not say "
            "which class they stand for; store class numbers, as a grey or a palette PNG"
        )
    return np.asarray(image).astype(np.int64)


def label_map(data: bytes, void: Sequence[int], where: str) -> NDArray[np.uint8]:
    """[H, W] class numbers, ``VOID`` where the value is one of ``void``; values were checked."""
    values = raw_map(data, where)
    return np.where(np.isin(values, void), VOID, values).astype(np.uint8)

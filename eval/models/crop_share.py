"""timm's crop_pct of other libraries' sizes."""

from __future__ import annotations

import math


def crop_share(crop: int, resized: int) -> float:
    """The share from which timm finds the side before the crop: floor(crop / share) is ``resized``.

    >>> int(224 / crop_share(224, 232))
    232
    """
    share = crop / resized
    while math.floor(crop / share) < resized:
        share = math.nextafter(share, 0)
    return share

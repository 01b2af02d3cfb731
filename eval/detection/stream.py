"""Which image comes when: an endless stream of batches, the same on any number of processes.

Images come in epochs, each in an order drawn from (seed, epoch). A batch holds images that are
wide, or images that are not, as in detectron2: so little of it is padding. What is left of an
epoch waits for the next.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Pick = tuple[int, int]  # (image in canonical order, epoch)


def batches(wide: NDArray[np.bool_], size: int, seed: int) -> Iterator[list[Pick]]:
    """``wide`` is [N], N at least 1. Batches of ``size``, without an end."""
    waiting: tuple[list[Pick], list[Pick]] = ([], [])
    epoch = 0
    while True:
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch))))
        for index in random.permutation(len(wide)).tolist():
            group = waiting[int(wide[index])]
            group.append((index, epoch))
            if len(group) == size:
                yield list(group)
                group.clear()
        epoch += 1

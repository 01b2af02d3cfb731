"""A real Ray of three nodes on this machine, each of which can be killed."""

from __future__ import annotations

import os
import random
from typing import Any

from eval.common.interrupts import own_sigterm

# Read when ray is imported: a busy machine takes longer than half a minute to start a node.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")


class RayNodes:
    """A head without a slot, and nodes of one CPU each, while it is entered."""

    def __init__(self, nodes: int = 2) -> None:
        self._count = nodes

    def __enter__(self) -> RayNodes:
        from ray.cluster_utils import Cluster

        with own_sigterm():
            self._cluster: Any = Cluster(
                initialize_head=True,
                head_node_args={"num_cpus": 0, "num_gpus": 0, "object_store_memory": 100 << 20},
            )
        self._nodes = [self._added() for _ in range(self._count)]
        self._cluster.wait_for_nodes()
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()

    @property
    def settings(self) -> dict[str, str]:
        """How a driver finds it."""
        return {"RAY_ADDRESS": self._cluster.address}

    def kill_one(self, draw: random.Random) -> bool:
        """A node without grace, and another in its place."""
        node = self._nodes.pop(draw.randrange(len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._added())
        return True

    def _added(self) -> Any:
        with own_sigterm():
            return self._cluster.add_node(num_cpus=1, num_gpus=0, object_store_memory=100 << 20)

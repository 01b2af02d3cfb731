"""What a run was asked for, kept in the store: who asks how far it is need not plan it again."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.common.errors import UserError
from eval.results.names import shelf_folder
from eval.run.plan import Cell
from eval.stores.store import Store

FOLDER = ".plans"  # of a results directory


@dataclass(frozen=True)
class Planned:
    """A cell of a run."""

    path: str  # where its result was to lie
    title: str
    model: str  # folder of the model's results
    task: str
    split_hash: str
    protocol: str
    images: int

    @property
    def group(self) -> tuple[str, str]:
        return self.model, self.split_hash


def planned_cells(cells: Iterable[Cell], folder: Path) -> list[Planned]:
    """What the store is told of a run's cells."""
    sizes: dict[str, int] = {}
    shelves: dict[int, str] = {}
    found = []
    for cell in cells:
        task = cell.task
        if task.split_hash not in sizes:
            sizes[task.split_hash] = len(task.train) + len(task.test)
        shelf = shelves.setdefault(id(cell.model), shelf_folder(cell.model))
        found.append(
            Planned(
                cell.path.relative_to(folder).as_posix(), cell.title, shelf, task.name,
                task.split_hash, cell.protocol, sizes[task.split_hash],
            )
        )  # fmt: skip
    return found


def write_planned(store: Store, run: str, cells: Sequence[Planned]) -> None:
    """Keep a run's cells under its key; the first ones stay."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    table = pa.Table.from_pylist([dataclasses.asdict(c) for c in cells])
    pq.write_table(table, out, compression="zstd")
    store.create(f"{FOLDER}/{run}.parquet", out.getvalue())


def read_planned(store: Store) -> dict[str, list[Planned]]:
    """The cells of all runs of a store, by the key of the run."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [n for n in store.sizes(FOLDER) if n.endswith(".parquet")]
    found = {}
    for name, data in store.get(names).items():
        try:
            rows = pq.read_table(io.BytesIO(data)).to_pylist()
            found[Path(name).stem] = [Planned(**facts) for facts in rows]
        except (pa.ArrowException, OSError, TypeError) as error:
            raise UserError(
                f"{name} of {store.address} cannot be read ({type(error).__name__}); remove it, "
                "and the run's own command writes it again"
            ) from None
    return found

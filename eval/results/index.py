"""Which results a store holds, without a look at each: small Parquet files that are only added.

Whoever has scored a group adds one part, with a row a result and a row a failure. A driver joins
many parts into one and removes them afterwards, so that a reader who finds a part gone finds its
rows in a later file. Rows are facts about files that never change: one that is there twice does no
harm, and nobody needs a lock. A result whose writer died before it could add its row is found by
the next one who is given its group.
"""

from __future__ import annotations

import dataclasses
import io
import json
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from eval.common.errors import UserError
from eval.results.names import number_format, shelf_folder
from eval.results.schema import ProtocolInfo, Result
from eval.stores.store import Store

FOLDER = ".index"  # of a results directory; no model's folder begins with a dot
JOIN = 64  # parts that are joined into one
_TRIES = 10  # readings of a folder whose parts are joined meanwhile


@dataclass(frozen=True)
class Row:
    """A cell that ended: with a result at ``path``, or, where ``error`` is one, without."""

    path: str  # below the results directory
    planned: str  # where it was to lie before its precision was known
    title: str
    group: str  # key of the group
    attempt: str  # which of the tries of that group
    when: str  # UTC, ISO
    host: str
    model: str = ""  # folder of the model's results
    task: str = ""
    split_hash: str = ""
    protocol: str = ""
    config: str = "{}"  # the protocol's settings, JSON
    computed: str = ""  # fp32 or bf16
    images: int = 0  # of train and test
    load: float = 0.0  # seconds, as the four below
    encode: float = 0.0
    fit: float = 0.0
    score: float = 0.0
    bytes: int = 0
    error: str = ""
    mistake: bool = False  # of the user
    conflict: bool = False  # the result that is there has other scores

    @property
    def info(self) -> ProtocolInfo:
        return ProtocolInfo(name=self.protocol, config=json.loads(self.config))


def row_of(
    result: Result, path: str, *, planned: str, title: str, group: str, attempt: str, when: str,
    host: str, size: int,
) -> Row:  # fmt: skip
    """What the index says of a result."""
    counts, seconds = result.task.counts, result.seconds
    return Row(
        path, planned, title, group, attempt, when, host,
        model=shelf_folder(result.model), task=result.task.name,
        split_hash=result.task.split_hash, protocol=result.protocol.name,
        config=json.dumps(result.protocol.config), computed=number_format(result),
        images=counts.get("train", 0) + counts.get("test", 0), bytes=size,
        load=seconds.get("load", 0.0), encode=seconds.get("encode", 0.0),
        fit=seconds.get("fit", 0.0), score=seconds.get("score", 0.0),
    )  # fmt: skip


@dataclass
class Index:
    """What is known of a store, read part by part."""

    results: dict[str, Row] = field(default_factory=dict)  # by path
    failures: dict[str, Row] = field(default_factory=dict)  # the last of each planned path
    attempts: set[str] = field(default_factory=set)  # that ended
    planned: dict[str, str] = field(default_factory=dict)  # planned path -> path
    _read: set[str] = field(default_factory=set)  # names of parts

    def add(self, rows: Iterable[Row]) -> list[Row]:
        """The rows that are new."""
        new = []
        for row in rows:
            self.attempts.add(row.attempt)
            if row.error:
                held = self.failures.get(row.planned)
                if held is None or held.when < row.when:
                    self.failures[row.planned] = row
                    new.append(row)
            else:
                self.planned.setdefault(row.planned, row.path)
                if row.path not in self.results:
                    self.results[row.path] = row
                    new.append(row)
        return new

    def refresh(self, store: Store) -> list[Row]:
        """Read what was added since; the new rows."""
        new: list[Row] = []
        for _ in range(_TRIES):
            names = [n for n in store.sizes(FOLDER) if n.endswith(".parquet")]
            wanted = [n for n in names if n not in self._read]
            found = store.get(wanted)
            for name, data in found.items():
                new += self.add(_rows(name, data))
            self._read.update(found)
            if len(found) == len(wanted):
                return new
        raise UserError(f"the index of {store.address} changes faster than it can be read")

    def failed(self) -> list[Row]:
        """Failures of cells that have no result by now, and results that were contradicted."""
        return [r for at, r in self.failures.items() if r.conflict or at not in self.planned]

    def join(self, store: Store) -> None:
        """Write what is known as one part in the place of many."""
        parts = sorted(n for n in store.sizes(FOLDER) if n in self._read)
        if len(parts) < JOIN:
            return
        add_part(store, [*self.results.values(), *self.failures.values()])
        store.remove(parts)


def add_part(store: Store, rows: Iterable[Row]) -> None:
    """Add rows to the index; nothing for none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(rows)
    if not rows:
        return
    out = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist([dataclasses.asdict(r) for r in rows]), out, compression="zstd"
    )
    name = f"{FOLDER}/{time.time_ns():020d}-{secrets.token_hex(4)}.parquet"
    store.create(name, out.getvalue())


def _rows(name: str, data: bytes) -> list[Row]:
    """The rows of a part. Columns of other versions do not matter."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = [f.name for f in dataclasses.fields(Row)]
    try:
        table = pq.read_table(io.BytesIO(data))
        table = table.select([c for c in known if c in table.column_names])
        return [Row(**facts) for facts in table.to_pylist()]
    except (pa.ArrowException, OSError, TypeError) as error:
        raise UserError(
            f"{name} of the index cannot be read ({type(error).__name__}); remove it, and the "
            "next run finds its results again"
        ) from None

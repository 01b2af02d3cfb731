"""All results of a repository as one table: one row a score, for whoever reads Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eval.results.estimates import stated
from eval.results.facts import facts_of
from eval.results.leaderboard import setting_label
from eval.results.provenance import objection
from eval.results.schema import Result

if TYPE_CHECKING:
    import pyarrow

# column -> type; a row's own order of columns is this one
_COLUMNS = {
    "path": "string",
    "model": "string",
    "revision": "string",
    "weights_sha256": "string",
    "objective": "string",
    "params": "int64",
    "task": "string",
    "split_hash": "string",
    "subset": "bool",
    "protocol": "string",
    "setting": "string",
    "score": "string",
    "value": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "kind": "string",  # of the chance that the interval speaks of: eval.metrics.estimates.KINDS
    "n": "int64",
    "seed": "int64",
    "created": "string",
}


def table(results: Sequence[tuple[str, Result]]) -> pyarrow.Table:
    """One row a score of each (path, result), by path and then in the result's own order.

    The order of ``results`` does not matter. Raises ValueError for one that `flaw` names.
    """
    import pyarrow as pa

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in _COLUMNS.items()])
    rows = [
        row
        for path, result in sorted(results, key=lambda r: r[0])
        for row in score_rows(path, result)
    ]
    try:
        return pa.Table.from_pylist(rows, schema)
    except (OverflowError, UnicodeEncodeError) as error:
        raise ValueError(str(error)) from None


def table_bytes(results: Sequence[tuple[str, Result]]) -> bytes:
    """The table as a Parquet file; the same results give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = pa.BufferOutputStream()
    pq.write_table(table(results), out, compression="zstd")
    return out.getvalue().to_pybytes()


def flaw(result: Result) -> str:
    """Why a result of a valid form can still not be published; empty where it can."""
    if why := objection(result):
        return why
    try:
        result.model_dump_json().encode()
        table([("", result)])
    except ValueError:
        return "a number or a text in it is out of range"
    return ""


def score_rows(path: str, result: Result) -> list[dict[str, Any]]:
    """One mapping a score, with the table's columns as its keys."""
    shared = {
        "path": path,
        "model": result.model.id,
        "revision": result.model.revision,
        "weights_sha256": result.model.weights_sha256,
        "objective": facts_of(result.model).objective,
        "params": result.model.params,
        "task": result.task.name,
        "split_hash": result.task.split_hash,
        "subset": result.task.subset,
        "protocol": result.protocol.name,
        "setting": setting_label(result),
        "seed": result.seed,
        "created": result.created,
    }
    return [
        shared
        | {
            "score": s.name,
            "value": s.value,
            "ci_low": s.ci_low,
            "ci_high": s.ci_high,
            "kind": s.kind,
            "n": s.n,
        }
        for s in (stated(result, score) for score in result.scores)
    ]

"""Two sources read as one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.data.joined_source import Joined
from eval.data.sources import ParquetSource
from tests.factories import write_parquet


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Joined:
    """Four rows and three, whose files number the same classes in another order."""
    folder = tmp_path_factory.mktemp("joined")
    write_parquet(folder / "a.parquet", [b"0", b"1", b"2", b"3"], [0, 1, 0, 1], ["cat", "dog"])
    write_parquet(folder / "b.parquet", [b"4", b"5", b"6"], [0, 1, 1], ["dog", "cat"])
    first, second = (ParquetSource((folder / f"{name}.parquet",)) for name in "ab")
    return Joined(first, second, 4)


@settings(deadline=None)
@given(rows=st.sets(st.integers(0, 6)))
def test_any_rows_stream(joined: Joined, rows: set[int]) -> None:
    wanted = sorted(rows)
    found = list(joined.images(np.array(wanted, np.int64)))
    assert found == [(row, b"%d" % row) for row in wanted]


def test_labels_are_names(joined: Joined) -> None:
    scan = joined.scan()
    assert scan.labels == ["cat", "dog", "cat", "dog", "dog", "cat", "cat"]
    assert (len(scan.hashes), scan.deep.any(), scan.names) == (7, False, None)


def test_a_row_in_words(joined: Joined) -> None:
    for row, words in ((3, "row 3 of {}/a.parquet"), (4, "row 0 of {}/b.parquet")):
        folder = joined.first.files[0].parent.name  # type: ignore[attr-defined]
        assert joined.describe(row) == words.format(folder)


def test_either_content_changes_the_fingerprint(joined: Joined) -> None:
    assert joined.fingerprint() != Joined(joined.second, joined.first, 3).fingerprint()

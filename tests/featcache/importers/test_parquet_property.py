"""Random parquet tables of features are imported as pyarrow gives their rows, one by one."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.importers.parquet import read_parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

WORDS = st.text(alphabet="aéÉß日\"',;\n \t", min_size=1, max_size=4).map("x{}x".format)
WIDTH = 3


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Draw the columns of a table, in any order and type, and how they are written."""
    names = draw(st.lists(WORDS, min_size=2, max_size=3, unique=True))
    count = draw(st.integers(2, 12)) * len(names)
    numbers = st.floats(-10, 10, width=32)
    columns: dict[str, list[Any]] = {
        "vector": draw(st.lists(st.lists(numbers, min_size=WIDTH, max_size=WIDTH),
                                min_size=count, max_size=count)),
        "label": draw(st.permutations(names * (count // len(names)))),
        "path": [f"{draw(WORDS)}{i}" for i in range(count)],
        "split": draw(st.lists(st.sampled_from(["train", "test"]), min_size=count, max_size=count)),
        "remark": draw(st.lists(st.none() | st.text("a\"\n,日"), min_size=count, max_size=count)),
    }  # fmt: skip
    order = draw(st.permutations(list(columns)))
    options = {
        "row_group_size": draw(st.integers(1, count)),
        "compression": draw(st.sampled_from(["none", "snappy", "zstd"])),
        "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
        "use_dictionary": draw(st.booleans()),
    }
    return {name: columns[name] for name in order}, options


@settings(deadline=None, max_examples=15)
@given(drawn=tables(), is_fixed=st.booleans(), has_dictionary=st.booleans())
def test_a_table_is_imported_row_by_row(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: tuple[dict[str, list[Any]], dict[str, Any]],
    is_fixed: bool,
    has_dictionary: bool,
) -> None:
    columns, options = drawn
    kind = pa.list_(pa.float32(), WIDTH) if is_fixed else pa.list_(pa.float32())
    arrays = {n: pa.array(v, kind if n == "vector" else pa.string()) for n, v in columns.items()}
    if has_dictionary:
        arrays["label"] = arrays["label"].dictionary_encode()
    path = tmp_path_factory.mktemp("t") / "t.parquet"
    pq.write_table(pa.table(arrays), path, **options)

    naive: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(path).to_pylist():
        naive.setdefault(row["split"], []).append(row)
    found = read_parquet([str(path)]).arrays
    names = found["classnames"].tolist()
    assert set(names) == set(columns["label"])
    assert {key.partition("_")[0] for key in found if key.endswith("_features")} == set(naive)
    for split, rows in naive.items():
        wanted = np.array([row["vector"] for row in rows], dtype=np.float32)
        np.testing.assert_array_equal(found[f"{split}_features"], wanted)
        assert [names[i] for i in found[f"{split}_labels"]] == [row["label"] for row in rows]
        assert found[f"{split}_paths"].tolist() == [row["path"] for row in rows]

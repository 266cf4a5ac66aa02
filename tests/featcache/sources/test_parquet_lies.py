"""Parquet files that say something else than they hold: bounded memory, one sentence."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from featcache.errors import SourceError
from featcache.limits import IMAGE_FILE
from featcache.sources.base import Dataset
from featcache.sources.layouts.own.huggingface import open_huggingface
from featcache.sources.layouts.own.parquet_pages import DamagedPageError, pages
from tests.featcache.sources.fetch.hub_server import shard
from tests.featcache.sources.test_bombs import first, outcome
from tests.featcache.sources.thrift import I32, I64, LIST, Fields, Reader, written

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

BYTES, LABEL = 0, 2
"""Columns of the file."""
ROWS, GROUPS = 3, 4
GROUP_COLUMNS, GROUP_ROWS = 1, 3
VALUES, UNPACKED, PACKED, PAGE_AT, DICTIONARY_AT = 5, 6, 7, 9, 11
"""Fields of the footer, of a row group in it, and of a column in that."""

Lie = Callable[[Fields], None]


@pytest.fixture(scope="module")
def sound() -> bytes:
    return shard(*([0, 1] * 50))


def footer(data: bytes) -> tuple[Fields, int]:
    """Return the footer and where it begins."""
    start = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
    return Reader(data[start:-8]).struct(), start


def lying(data: bytes, lie: Lie) -> bytes:
    fields, start = footer(data)
    lie(fields)
    new = written(fields)
    return data[:start] + new + struct.pack("<I", len(new)) + b"PAR1"


def group_of(fields: Fields) -> Fields:
    return fields[GROUPS][1][1][0]  # type: ignore[no-any-return]


def column_of(fields: Fields, column: int) -> Fields:
    return group_of(fields)[GROUP_COLUMNS][1][1][column][3][1]  # type: ignore[no-any-return]


def rows(file: int | None, group: int | None, values: int | None = None) -> Lie:
    def lie(fields: Fields) -> None:
        if file is not None:
            fields[ROWS] = (I64, file)
        if group is not None:
            group_of(fields)[GROUP_ROWS] = (I64, group)
        if values is not None:
            for column in (BYTES, 1, LABEL):
                column_of(fields, column)[VALUES] = (I64, values)

    return lie


def column(number: int, field: int, value: int) -> Lie:
    def lie(fields: Fields) -> None:
        column_of(fields, number)[field] = (I64, value)

    return lie


def more_columns(fields: Fields) -> None:
    kind, (inner, columns) = group_of(fields)[GROUP_COLUMNS]
    group_of(fields)[GROUP_COLUMNS] = (kind, (inner, columns * 100))


def again(count: int) -> Lie:
    """Name the one row group so often."""

    def lie(fields: Fields) -> None:
        fields[ROWS] = (I64, 100 * count)
        fields[GROUPS] = (LIST, (fields[GROUPS][1][0], [group_of(fields)] * count))

    return lie


def children(count: int) -> Lie:
    """Say that the top of the schema has so many columns."""

    def lie(fields: Fields) -> None:
        fields[2][1][1][0][5] = (I32, count)

    return lie


def read(data: Dataset) -> list[bytes]:
    return [sample.place.read(IMAGE_FILE) for sample in data.samples]


def test_the_tools_of_this_test_change_nothing_by_themselves(sound: bytes, tmp_path: Path) -> None:
    assert lying(sound, lambda _: None) == sound
    (tmp_path / "p.parquet").write_bytes(sound)
    assert len(read(open_huggingface(str(tmp_path / "p.parquet"), {}))) == 100


LIES: dict[str, Lie] = {
    **{f"the file has {n} rows": rows(n, None) for n in (0, -1, 99, 1 << 40)},
    **{f"the row group has {n} rows": rows(n, n) for n in (0, -1, 99, 1 << 40, 1 << 62)},
    **{f"columns have {n} values": rows(n, n, n) for n in (1, 99, 1 << 31)},
    **{f"labels are at {n}": column(LABEL, PAGE_AT, n) for n in (-1, 1)},
    **{f"words are at {n}": column(LABEL, DICTIONARY_AT, n) for n in (1, 1 << 62)},
    **{f"labels take {n}": column(LABEL, PACKED, n) for n in (-1, 3, 1 << 20, 1 << 62)},
    **{f"images take {n}": column(BYTES, PACKED, n) for n in (3, 1 << 20, 1 << 62)},
    "the row group is there a hundred times": again(100),
    "the columns are there a hundred times": more_columns,
    **{f"there are {n} columns": children(n) for n in (-1, 5, 1 << 30)},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_footer_that_lies(sound: bytes, tmp_path: Path, lie: Lie) -> None:
    path = tmp_path / "p.parquet"
    path.write_bytes(lying(sound, lie))
    with pytest.raises((SourceError, OSError)) as caught:
        read(open_huggingface(str(path), {}))
    assert "p.parquet" in str(caught.value) or "p lists no image" in str(caught.value)


def test_sizes_that_nobody_needs_may_be_anything(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    for value in (-1, 0, 1 << 62):
        path.write_bytes(lying(sound, column(LABEL, UNPACKED, value)))
        assert len(read(open_huggingface(str(path), {}))) == 100


@pytest.mark.parametrize("which", ["label", pytest.param("image", marks=pytest.mark.long)])
def test_a_bomb_whose_footer_says_that_it_is_small(tmp_path: Path, which: str) -> None:
    count = 100 if which == "label" else 4
    size = (4 if which == "label" else 100) << 20
    long = pa.array(["a" * size]) if which == "label" else pa.array([bytes(size)])
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), long)
    columns = {"image": pa.array([b"x"] * count), "label": pa.array([0, 1] * (count // 2))}
    path = tmp_path / "p.parquet"
    table = pa.table({**columns, which: repeated})
    pq.write_table(table, path, compression="zstd", store_schema=False)
    number = table.column_names.index(which)
    path.write_bytes(lying(path.read_bytes(), column(number, UNPACKED, 1)))
    assert outcome(first(f"hf:{path}")) == "refused"


@pytest.mark.parametrize("size", [-1, (1 << 31) - 1])
@pytest.mark.parametrize("field", [2, 3], ids=["unpacked", "packed"])
@pytest.mark.parametrize("which", [BYTES, LABEL], ids=["images", "labels"])
def test_a_page_that_lies_about_its_size(
    sound: bytes, tmp_path: Path, which: int, field: int, size: int
) -> None:
    fields, start = footer(sound)
    at = min(column_of(fields, which)[f][1] for f in (PAGE_AT, DICTIONARY_AT))
    reader = Reader(sound[at:])
    head = reader.struct()
    head[field] = (I32, size)
    new = written(head)
    # The pages of this column alone are moved: to the end of all columns, with a longer header.
    count = column_of(fields, which)[PACKED][1]
    moved = new + sound[at + reader.at : at + count]
    facts = column_of(fields, which)
    by = start - at
    for offset in (PAGE_AT, DICTIONARY_AT):
        facts[offset] = (I64, facts[offset][1] + by + (offset == PAGE_AT) * (len(new) - reader.at))
    facts[PACKED] = (I64, len(moved))
    foot = written(fields)
    path = tmp_path / "p.parquet"
    path.write_bytes(sound[:start] + moved + foot + struct.pack("<I", len(foot)) + b"PAR1")
    with pytest.raises((SourceError, OSError)):
        read(open_huggingface(str(path), {}))


def test_the_sizes_of_pages_are_those_that_were_written(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    values = [bytes([i]) * 3000 for i in range(50)]
    table = pa.table({"x": pa.array(values)})
    options = {"use_dictionary": False, "compression": None, "data_page_size": 6000}
    pq.write_table(table, path, write_batch_size=1, **options)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    with path.open("rb") as file:
        found = list(pages(file.fileno(), chunk.data_page_offset, chunk.total_compressed_size))
    assert len(found) > 10
    assert all(page.packed == page.unpacked for page in found)
    levels = sum(page.unpacked for page in found) - 50 * 3004
    assert 0 <= levels <= 8 * len(found)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_every_form_of_pages_is_read(tmp_path: Path, version: str, compression: str) -> None:
    keys = [f"{i}" * 100 for i in range(300)]
    columns = {
        "img": pa.array([k.encode() for k in keys]),
        "label": [None, *([0, 1, 1] * 100)][:300],
    }
    path = tmp_path / "p.parquet"
    pq.write_table(
        pa.table(columns), path, data_page_version=version, compression=compression,
        row_group_size=70, data_page_size=1000, write_batch_size=7, dictionary_pagesize_limit=2000,
    )  # fmt: skip
    assert sorted(read(open_huggingface(str(path), {}))) == sorted(k.encode() for k in keys)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x15" * 100, b"\x1c" * 100, b"\x18\xff\xff\xff\xff\x0f" + bytes(20), bytes(50)],
    ids=["nothing", "no end", "too deep", "a long text", "no sizes"],
)
def test_headers_that_no_writer_writes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with (tmp_path / "x").open("rb") as file, pytest.raises(DamagedPageError):
        list(pages(file.fileno(), 0, 1 << 40))

"""Random tables are read as Python's csv module reads them, row by row."""

import csv
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.sources.layouts.own.csv_file import open_csv
from featcache.text.templates import clean_name

IMAGES = [f"d/é {i}, '{i}'.jpg" for i in range(12)]
LABELS = st.text(alphabet="aéß日\"',;|", min_size=1, max_size=5).map("x{}".format) | st.just("")
# Python's writer leaves a lone \r unquoted, and its reader then ends the row there.
REMARKS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12
) | st.sampled_from(['"', '""', "\n", "\r\n", ",", '",\n"', " x ", "\t;"])


SPLITS = ("train", "val", "test")


class Row(NamedTuple):
    image: str
    label: str
    split: str
    remark: str


def with_every_split(rows: list[Row]) -> list[Row]:
    """Let each split have a row, as none is made then, and one row have a label."""
    first = [row._replace(split=split) for row, split in zip(rows, SPLITS, strict=False)]
    return [first[0]._replace(label="xa"), *first[1:], *rows[len(SPLITS) :]]


ROWS = st.lists(
    st.builds(Row, st.sampled_from(IMAGES), LABELS, st.sampled_from(SPLITS), REMARKS),
    min_size=3,
    max_size=12,
    unique_by=lambda row: row.image,
).map(with_every_split)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("table")
    for image in IMAGES:
        (root / image).parent.mkdir(exist_ok=True)
        (root / image).write_bytes(b"x")
    return root


@settings(deadline=None, max_examples=25)
@given(
    rows=ROWS,
    delimiter=st.sampled_from([("comma", ","), ("semicolon", ";"), ("tab", "\t")]),
    line=st.sampled_from(["\n", "\r\n"]),
    is_quoted=st.booleans(),
    order=st.permutations(Row._fields),
)
def test_a_table_is_read_as_the_csv_module_reads_it(
    folder: Path,
    rows: list[Row],
    delimiter: tuple[str, str],
    line: str,
    is_quoted: bool,
    order: list[str],
) -> None:
    path = folder / "list.csv"
    quoting: Literal[0, 1] = csv.QUOTE_ALL if is_quoted else csv.QUOTE_MINIMAL
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter[1], lineterminator=line, quoting=quoting)
        writer.writerow(order)
        writer.writerows([getattr(row, name) for name in order] for row in rows)
    with path.open(encoding="utf-8", newline="") as file:
        naive = [
            (row["image"], clean_name(row["label"]), row["split"])
            for row in csv.DictReader(file, delimiter=delimiter[1])
        ]
    assert [row.image for row in rows] == [image for image, _, _ in naive]
    chosen = {"path": "image", "label": "label", "split": "split", "delimiter": delimiter[0]}
    data = open_csv(str(path), chosen)
    found = [(s.id, data.classes[s.label] if s.label >= 0 else "", s.split) for s in data.samples]
    rank = {"train": 0, "val": 1, "test": 2}
    assert found == sorted(naive, key=lambda row: rank[row[2]])

"""Rows of a csv or tsv file, read one at a time; ambiguous delimiters are refused."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from featcache.errors import SourceError
from featcache.sources.layouts.own.csv_columns import choice
from featcache.sources.layouts.own.text_file import read_lines

DELIMITERS = {"comma": ",", "tab": "\t", "semicolon": ";"}
"""Name of a delimiter, as the option has it -> the character."""

SAMPLE = 50
"""Rows that tell the delimiter."""


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A table whose first row is read."""

    path: Path
    first: tuple[str, ...]
    """The first row: names of columns, or a row like the others."""
    delimiter: str
    """The character."""

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows after the first with the number of their line; empty ones are skipped.

        Raises:
            SourceError: If a row has more or fewer fields than the first, or cannot be read.
        """
        rows = _rows(self.path, self.delimiter)
        next(rows, None)
        for line, row in rows:
            if len(row) != len(self.first):
                raise SourceError(
                    f"Line {line} of {self.path} has {len(row)} fields and the first row "
                    f"{len(self.first)}; write as many in each, with quotes around a field that "
                    f"holds the delimiter."
                )
            yield line, row


def open_table(path: Path, delimiter: str, spec: str, *, columns: int = 2) -> CsvTable:
    """Find the delimiter of a table and read its first row.

    The delimiter is the one that divides the first row; where several do, the one that divides
    the rows after it into as many fields.

    Args:
        path: The file; the delimiter of a `.tsv` is the tab.
        delimiter: comma, tab, semicolon, or empty to find it.
        spec: How the reader calls the source, for messages.
        columns: How many there are at least; one column needs no delimiter.

    Raises:
        SourceError: If the file is empty or cannot be read, or not exactly one delimiter fits.
    """
    if delimiter and delimiter not in DELIMITERS:
        raise SourceError(
            f"There is no delimiter '{delimiter}' for {path}; expected {', '.join(DELIMITERS)}."
        )
    if not delimiter and path.suffix.lower() in (".tsv", ".tab"):
        delimiter = "tab"
    if not delimiter:
        delimiter = _sniffed(path, spec, columns)
    first = next(_rows(path, DELIMITERS[delimiter]), None)
    if first is None:
        raise SourceError(f"{path} is empty; expected a table with one image a row.")
    return CsvTable(path, tuple(first[1]), DELIMITERS[delimiter])


def _sniffed(path: Path, spec: str, columns: int) -> str:
    """Return the name of the only delimiter that fits, or of any where none divides one column."""
    if not any(line.strip() for line in islice(read_lines(path), SAMPLE)):
        raise SourceError(f"{path} is empty; expected a table with one image a row.")
    dividing = [name for name in DELIMITERS if _fits(path, name, 1)]
    if not dividing and columns == 1:
        return "comma"
    fitting = dividing
    if len(dividing) > 1:
        fitting = [name for name in dividing if _fits(path, name, SAMPLE)]
    if len(fitting) == 1:
        return fitting[0]
    possible = fitting or dividing
    found = f"{' and '.join(possible)} all divide" if possible else "none divides"
    raise SourceError(
        f"The delimiter of {path} is not clear: of comma, tab and semicolon, {found} its first "
        f"row. Choose one with ",
        choice(spec, "delimiter", (possible or ["comma"])[0]),
        ".",
    )


def _fits(path: Path, delimiter: str, count: int) -> bool:
    """Tell whether a delimiter divides the first rows, all into as many fields."""
    try:
        rows = islice(_read(path, DELIMITERS[delimiter]), count)
        widths = {len(row) for _, row in rows}
    except csv.Error:  # another delimiter stands behind a quote
        return False
    return len(widths) == 1 and widths != {1}


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty with the number of their last line."""
    line = 0
    try:
        for line, row in _read(path, delimiter):
            yield line, row
    except csv.Error as error:
        raise SourceError(
            f"The row behind line {line} of {path} could not be read ({error}); check its quotes."
        ) from error


def _read(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(read_lines(path), delimiter=delimiter, strict=True, skipinitialspace=True)
    for row in reader:
        if any(field.strip() for field in row):
            yield reader.line_num, row

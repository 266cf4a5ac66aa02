"""Listing kind `table`: a table with a row for each image, and others that are joined to it."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from featcache.errors import SourceError
from featcache.sources.layouts.named.base import (
    Listed,
    ListedImage,
    Location,
    checked_label,
    numbered,
)
from featcache.sources.lists import ClassTable

Column: TypeAlias = int | str
"""Position, from 0, or the name in the header."""

Row: TypeAlias = list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """One more column, from another file, found by a key."""

    file: str
    key: Column
    """Column of this file that holds the key."""
    value: Column
    name: str
    """What the new column is called."""
    on: Column
    """Column of the table that holds the key."""
    delimiter: str = ","
    header: bool = True
    optional: bool = False
    """Whether the images can be listed without the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of a table; their order is kept."""

    kind: Literal["table"]
    file: str
    image: Column
    """Column that names the image."""
    delimiter: str = ","
    header: bool = True
    paths: tuple[str, ...] = ("{}",)
    """Path of an image below the image folder, `{}` for what its column says; of several the first
    whose folder is there."""
    by_name: bool = False
    """Whether images are found by their base name, in whatever folder they lie."""
    label: Column = ""
    """Column with the number of the class."""
    label_base: int = 0
    class_: Column = ""
    """Column with the name or folder of the class."""
    several: str = ""
    """What separates several classes of one image; only images of exactly one word, that is one
    of the classes, are listed."""
    first_word: bool = False
    """Whether the class is the first word of its column."""
    one_hot: tuple[str, ...] = ()
    """Columns in label order, of which one holds 1."""
    split: str = ""
    """The split that all images are in."""
    split_column: Column = ""
    split_values: Mapping[str, str] = field(default_factory=dict)
    """What the column says -> split."""
    group: Column = ""
    """Column with the patient, lesion or track."""
    joins: tuple[Join, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The table and the files that must be joined to it."""
        return (self.file, *(join.file for join in self.joins if not join.optional))

    def is_here(self, location: Location, classes: ClassTable) -> bool:
        """Tell whether the table and the folder of its images are there."""
        return location.has_list(self.file) and self._path(location) is not None

    def read(self, location: Location, classes: ClassTable) -> Listed:
        """List the images in the order of the rows.

        Raises:
            SourceError: If a column is missing, or a row names no class or split.
        """
        header, rows = _rows(location, self.file, self.delimiter, self.header)
        columns, rows, notes = self._joined(location, header, rows)
        name_of, group_of = columns.reader(self.image), columns.optional_reader(self.group)
        label_of = self._label_reader(columns, classes)
        split_of = self._split_reader(columns)
        found = location.by_name if self.by_name else location.by_id
        form = self._path(location) or self.paths[0]
        samples, missing = [], []
        for number, row in enumerate(rows, start=1 + self.header):
            where = f"{self.file}, row {number}"
            if len(row) < columns.needed:
                raise SourceError(
                    f"{where}: expected {columns.needed} columns or more, got {len(row)}."
                )
            label = label_of(row, where)
            if label is None:
                continue
            path = form.replace("{}", name_of(row).lstrip("/"))
            entry = found.get(path)
            if entry is None:
                missing.append(path)
            else:
                group = group_of(row)
                samples.append(ListedImage(entry, label, split_of(row, where), group))
        return Listed(tuple(samples), tuple(missing), notes)

    def _path(self, location: Location) -> str | None:
        folders = ((form, form.partition("{}")[0].rpartition("/")[0]) for form in self.paths)
        return next((f for f, top in folders if not top or location.images.has_folder(top)), None)

    def _joined(
        self, location: Location, header: Sequence[str], rows: list[Row]
    ) -> tuple["_Columns", list[Row], tuple[str, ...]]:
        width = max(len(header), min(map(len, rows), default=0))
        columns = _Columns(self.file, header, width)
        notes = []
        for join in self.joins:
            values: dict[str, str] = {}
            if location.has_list(join.file):
                its_header, its_rows = _rows(location, join.file, join.delimiter, join.header)
                its = _Columns(join.file, its_header, len(its_rows[0]) if its_rows else 0)
                key, value = its.reader(join.key), its.reader(join.value)
                values = {key(row): value(row) for row in its_rows if len(row) >= its.needed}
            elif join.optional:
                notes.append(f"{join.file} is not there, so {join.name}s are not known.")
            else:
                raise SourceError(f"{join.file} is missing; it belongs to {self.file}.")
            on = columns.reader(join.on)
            short = next((i for i, row in enumerate(rows) if len(row) < width), None)
            if short is not None:
                raise SourceError(
                    f"{self.file}, row {short + 1 + self.header}: expected {width} columns, got "
                    f"{len(rows[short])}."
                )
            rows = [[*row[:width], values.get(on(row), "")] for row in rows]
            columns.add(join.name, join.file)
            width += 1
        return columns, rows, tuple(notes)

    def _label_reader(
        self, columns: "_Columns", classes: ClassTable
    ) -> Callable[[Row, str], int | None]:
        if self.one_hot:
            readers = [columns.reader(column) for column in self.one_hot]

            def one_hot(row: Row, where: str) -> int:
                ones = [i for i, read in enumerate(readers) if _is_one(read(row))]
                if len(ones) != 1:
                    raise SourceError(f"{where}: expected one class, got {len(ones)}.")
                return ones[0]

            return one_hot
        if self.label != "":
            number = columns.reader(self.label)
            origin = columns.origin(self.label)
            return lambda row, where: checked_label(
                number(row), self.label_base, len(classes), where + origin
            )
        label_of = numbered(classes.names) | numbered(classes.folders)
        cell = columns.reader(self.class_)

        def named(row: Row, where: str) -> int | None:
            text = cell(row)
            if self.several:
                return None if self.several in text else label_of.get(text)
            name = text.split(" ")[0] if self.first_word else text
            if name not in label_of:
                raise SourceError(f"{where}: '{name[:80]}' is none of the classes.")
            return label_of[name]

        return named

    def _split_reader(self, columns: "_Columns") -> Callable[[Row, str], str]:
        if self.split:
            return lambda row, where: self.split
        cell = columns.reader(self.split_column)

        def read(row: Row, where: str) -> str:
            if cell(row) not in self.split_values:
                origin = columns.origin(self.split_column)
                raise SourceError(f"{where}{origin}: expected a split, got '{cell(row)[:40]}'.")
            return self.split_values[cell(row)]

        return read


class _Columns:
    """Positions of the columns of a table."""

    def __init__(self, file: str, header: Sequence[str], width: int) -> None:
        self._file = file
        self._position = {name.strip(): i for i, name in enumerate(header)}
        self._own = self._width = width
        self._joined: dict[str, str] = {}
        self.needed = 0
        """How many columns every row must have."""

    def add(self, name: str, file: str) -> None:
        """Add a column that is joined from another file."""
        self._position[name] = self._width
        self._joined[name] = file
        self._width += 1

    def origin(self, column: Column) -> str:
        """Return the file of a joined column, for messages; empty for the table's own."""
        file = self._joined.get(str(column))
        return f", joined with {file}" if file else ""

    def reader(self, column: Column) -> Callable[[Row], str]:
        """Return a function that reads a column of a row.

        Raises:
            SourceError: If there is no such column.
        """
        i = column if isinstance(column, int) else self._position.get(column, -1)
        if not 0 <= i < (self._own if isinstance(column, int) else self._width):
            known = ", ".join(self._position) or f"{self._width} columns"
            raise SourceError(
                f"{self._file} has no column {column!r}; it has {known[:200]}. Get a whole copy."
            )
        self.needed = max(self.needed, i + 1)
        return lambda row: row[i].strip()

    def optional_reader(self, column: Column) -> Callable[[Row], str]:
        """Return a function that reads a column; an empty text if no column is named."""
        return (lambda row: "") if column == "" else self.reader(column)


def _rows(
    location: Location, file: str, delimiter: str, header: bool
) -> tuple[list[str], list[Row]]:
    """Read a file into its header and its rows that are not empty."""
    rows = list(_parsed(location.read_text(file), file, delimiter))
    if header and not rows:
        raise SourceError(f"{file} is empty; get a whole copy.")
    return (rows[0], rows[1:]) if header else ([], rows)


def _parsed(text: str, file: str, delimiter: str) -> Iterator[Row]:
    if delimiter == " ":
        yield from (line.split() for line in text.splitlines() if line.strip())
        return
    try:
        yield from (row for row in csv.reader(text.splitlines(), delimiter=delimiter) if row)
    except csv.Error as error:
        raise SourceError(f"{file} could not be read as a table ({error}).") from error


def _is_one(text: str) -> bool:
    try:
        return float(text) == 1
    except ValueError:
        return False

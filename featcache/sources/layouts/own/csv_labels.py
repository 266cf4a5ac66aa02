"""Path, label and split of each row of a table: a column names the class, or one marks it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from featcache.errors import SourceError
from featcache.sources.layouts.own.csv_columns import USUAL, find_columns, has_header
from featcache.sources.layouts.own.csv_rows import CsvTable

ONE_HOT = "_classes.csv"
"""Name of Roboflow's one-hot tables."""


@dataclass(frozen=True, slots=True)
class CsvRow:
    """One image of a table."""

    line: int
    path: str
    """As written."""
    label: str | None
    split: str
    """Empty where the table has none."""
    fields: Sequence[str]
    """All of the row, as written."""


@dataclass(frozen=True, slots=True)
class LabelledTable:
    """A table whose columns are known."""

    table: CsvTable
    header: tuple[str, ...]
    """Names of the columns; their numbers, from 1, where the first row is one of images."""
    columns: Mapping[str, int]
    """path, label, split -> place of the column, counted from 0."""
    classes: tuple[int, ...]
    """Columns of a one-hot table; empty where a column names the class."""

    @property
    def note(self) -> str:
        """What the reader should know of how the columns were taken."""
        if self.classes:
            return f"Each of the {len(self.classes)} columns of {self.table.path.name} is a class."
        read = ", ".join(f"{role} from '{self.header[i]}'" for role, i in self.columns.items())
        return f"Columns of {self.table.path.name}: {read}."

    @property
    def further(self) -> dict[str, int]:
        """Columns that say nothing of path, label and split, by their names where these differ."""
        return {name: i for name, i in self._unread() if self.header.count(name) == 1}

    @property
    def repeated(self) -> tuple[str, ...]:
        """Names that such a column shares with another column."""
        shared = (name for name, _ in self._unread() if self.header.count(name) > 1)
        return tuple(dict.fromkeys(shared))

    def _unread(self) -> list[tuple[str, int]]:
        """Return name and place of the columns that say nothing of path, label and split."""
        read = {*self.columns.values(), *self.classes}
        return [(name, i) for i, name in enumerate(self.header) if i not in read and name]

    def rows(self) -> Iterator[CsvRow]:
        """Yield the rows, reading as it goes.

        Raises:
            SourceError: If a row has another number of fields, or several classes.
        """
        if not has_header(self.table.first):
            yield self._row(1, self.table.first)
        for line, row in self.table.rows():
            yield self._row(line, row)

    def _row(self, line: int, row: Sequence[str]) -> CsvRow:
        path = row[self.columns["path"]].strip()
        split = row[self.columns["split"]] if "split" in self.columns else ""
        if self.classes:
            return CsvRow(line, path, self._marked(line, path, row), split, row)
        label = row[self.columns["label"]] if "label" in self.columns else None
        return CsvRow(line, path, label, split, row)

    def _marked(self, line: int, path: str, row: Sequence[str]) -> str | None:
        """Return the class whose column has a 1; None where none has."""
        marked = []
        for i in self.classes:
            value = row[i].strip()
            if value not in ("0", "1"):
                raise SourceError(
                    f"Line {line} of {self.table.path} has '{value[:80]}' in the column "
                    f"'{self.header[i]}'; expected 0 or 1 in every column of a class."
                )
            if value == "1":
                marked.append(self.header[i])
        if len(marked) > 1:
            raise SourceError(
                f"Line {line} of {self.table.path} gives {path} several classes "
                f"({', '.join(marked[:4])}); expected one class an image. Multi-label data are "
                f"not supported."
            )
        return marked[0] if marked else None


def label_columns(
    table: CsvTable,
    options: Mapping[str, str],
    spec: str,
    *,
    needed: Sequence[str] = ("path", "label"),
) -> LabelledTable:
    """Find the columns of a table.

    Args:
        table: Table from `open_table`.
        options: Names of columns that the reader chose, as path, label and split.
        spec: How the reader calls the source, for messages: csv:photos.csv.
        needed: Columns that there must be.

    Raises:
        SourceError: If the columns are not clear; the message names them.
    """
    chosen = {role: options[role] for role in USUAL if role in options}
    header = tuple(field.strip() for field in table.first)
    if not has_header(table.first):
        header = tuple(str(i + 1) for i in range(len(header)))
        image = next(i for i, field in enumerate(table.first) if not has_header([field]))
        chosen.setdefault("path", header[image])
        rest = [column for column in header if column != chosen["path"]]
        if len(rest) == 1:
            chosen.setdefault("label", rest[0])
    what = str(table.path)
    if table.path.name != ONE_HOT or "label" in chosen:
        found = find_columns(header, chosen, what, spec, needed=needed)
        return LabelledTable(table, header, found, ())
    usual = {role: names for role, names in USUAL.items() if role != "label"}
    found = find_columns(header, chosen, what, spec, usual=usual, needed=("path",))
    classes = tuple(i for i in range(len(header)) if i not in found.values())
    return LabelledTable(table, header, found, classes)

"""Predictions as rows of a table, csv, lines of JSON or parquet, written as they come."""

import csv
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cli.ui import output, tables
from featcache.errors import FeatcacheError, UnknownNameError, UsageError
from featcache.escapes import shown
from featcache.paths import expand

if TYPE_CHECKING:
    from heads.predicted import Candidate, Prediction

SUFFIXES = {".csv": "csv", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
"""Suffix of a file -> its format."""
UNUSABLE, NONE = "(unusable)", "(none of these)"
"""What a table shows in place of a class: of no image, and of one that looks like no class."""
SHOWN = 5
"""Classes of a set that a table names."""
FORMATS = ("table", "csv", "json", "parquet")


def format_of(named: str | None, out: Path | None, *, json_: bool) -> str:
    """Choose the format: the named one, that of the file's suffix, or a table.

    Raises:
        UnknownNameError: If there is no such format.
        UsageError: If two are asked for, or the format needs a file and none is given.
    """
    if json_ and named not in (None, "json"):
        raise UsageError(f"--json and --format {named} exclude each other; choose one.")
    if named is not None and named not in FORMATS:
        raise UnknownNameError("format", named, FORMATS)
    chosen = "json" if json_ else named
    if out is None:
        if chosen == "parquet":
            raise UsageError("--format parquet needs a file; name one with --out FILE.parquet.")
        return chosen or "table"
    chosen = chosen or SUFFIXES.get(out.suffix.lower())
    if chosen is None:
        raise UsageError(
            f"The format of {out} is not clear; name one with --format csv, json or parquet."
        )
    if chosen == "table":
        raise UsageError("--format table is for the terminal; write csv, json or parquet to files.")
    return chosen


def check_place(out: Path, read: Sequence[str]) -> None:
    """Refuse to write to a folder, into none, or over the head, table or image that is read.

    Raises:
        UsageError: If it is one of these, or a device or a pipe.
    """
    from featcache.store.format.outputs import in_the_way

    place = expand(out)
    if place.is_dir():
        raise UsageError(f"{out} is a folder; name a file in it with --out.")
    if in_the_way(place):
        raise UsageError(f"{out} is no plain file; name another with --out.")
    if not place.parent.is_dir():
        raise UsageError(
            f"There is no folder {place.parent} for {place.name}; make it first, or "
            f"name another file with --out."
        )
    for name in read:
        path = name.partition(":")[2] if name.startswith(("csv:", "zip:", "tar:")) else name
        for plain in (path, path.rpartition("?")[0]):
            is_same = False
            with suppress(OSError, ValueError, FeatcacheError):  # it is no file
                is_same = bool(plain) and place.samefile(expand(plain))
            if is_same:
                raise UsageError(f"{out} is read by this command; name another file with --out.")


@dataclass(frozen=True)
class Columns:
    """What is written of every image."""

    top: int
    """Number of candidates."""
    sets: bool = False
    """Whether there are prediction sets."""
    rejects: bool = False
    """Whether it is told which images look like no class."""

    def names(self) -> list[str]:
        """Name the columns of csv and parquet.

        Example:
            >>> Columns(1, sets=True).names()
            ['image', 'prediction', 'probability', 'set', 'label', 'problem']
        """
        pairs = [(f"prediction{n}", f"probability{n}") for n in _numbers(self.top)]
        certainty = ["set"] * self.sets + ["rejected"] * self.rejects
        return ["image", *(name for pair in pairs for name in pair), *certainty, "label", "problem"]

    def values(self, p: "Prediction") -> dict[str, Any]:
        """Return the value of every column; None where there is none."""
        row: dict[str, Any] = dict.fromkeys(self.names())
        row |= {"image": p.id, "label": p.label, "problem": p.problem or None}
        for number, candidate in zip(_numbers(self.top), p.candidates, strict=False):
            row[f"prediction{number}"] = candidate.name
            row[f"probability{number}"] = candidate.probability
        if self.sets and p.set is not None:
            row["set"] = [c.name for c in p.set]
        if self.rejects:
            row["rejected"] = p.rejected
        return row

    def head(self) -> tuple[str, ...]:
        """Name the columns of a table."""
        return ("image", "prediction", "%", "then", *["set"] * self.sets, "label")

    def cells(self, p: "Prediction") -> list[str]:
        """Return the row of a table."""
        if p.problem:
            return [p.id, UNUSABLE, "", p.problem, *[""] * self.sets, p.label or ""]
        first, *others = p.candidates
        then = ", ".join(f"{c.name} {_percent(c)}" for c in ([first] * bool(p.rejected) + others))
        best = [NONE, ""] if p.rejected else [first.name, _percent(first)]
        within = [_few([c.name for c in p.set or ()])] if self.sets else []
        return [p.id, *best, then, *within, p.label or ""]


class Writer(ABC):
    """Takes predictions as they come."""

    @abstractmethod
    def write(self, predictions: "Sequence[Prediction]") -> None:
        """Write some predictions."""


class Table(Writer):
    """Rows on stdout: drawn with a head for every lot, or lines between tabs after one head."""

    def __init__(self, before: Callable[[], None], columns: Columns) -> None:
        """Take what makes room on the terminal before something is drawn, and the columns."""
        self._before, self._columns = before, columns
        self._is_first = True

    def write(self, predictions: "Sequence[Prediction]") -> None:
        """Draw a table, or write lines."""
        head, rows = self._columns.head(), [self._columns.cells(p) for p in predictions]
        if sys.stdout.isatty():
            self._before()
            tables.emit_table(head, rows, right=("%",), spare=("then", "label"))
            return
        if self._is_first:
            output.emit_lines("\t".join(head))
            self._is_first = False
        output.emit_lines("\n".join("\t".join(map(shown, row)) for row in rows))


class Csv(Writer):
    """A line for each image, and a head with a class and a probability for each candidate."""

    def __init__(self, emit: Callable[[str], None], columns: Columns) -> None:
        """Write the head.

        Args:
            emit: Writes lines, without a line feed behind the last.
            columns: What is written of every image; a set is a list in JSON.
        """
        self._emit, self._columns = emit, columns
        self._lines([columns.names()])

    def write(self, predictions: "Sequence[Prediction]") -> None:
        """Write a line for each."""
        self._lines([list(self._columns.values(p).values()) for p in predictions])

    def _lines(self, rows: list[Any]) -> None:
        text = StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            [_text(value) for value in row] for row in rows
        )
        self._emit(text.getvalue().rstrip("\n"))


class Lines(Writer):
    """One JSON object for each image."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        """Take what writes lines."""
        self._emit = emit

    def write(self, predictions: "Sequence[Prediction]") -> None:
        """Write a line for each."""
        self._emit("\n".join(json.dumps(p.to_json(), allow_nan=False) for p in predictions))


class Parquet(Writer):
    """The columns of csv in a parquet file, a row group for each lot."""

    def __init__(self, path: Path, columns: Columns) -> None:
        """Open the file; a set is a list.

        Raises:
            FeatcacheError: If pyarrow is not installed.
        """
        from featcache.parquet import load_pyarrow

        parquet = load_pyarrow(FeatcacheError)
        import pyarrow

        kinds = {
            "probability": pyarrow.float32(),
            "set": pyarrow.list_(pyarrow.string()),
            "rejected": pyarrow.bool_(),
        }
        self._pyarrow, self._columns = pyarrow, columns
        self._schema = pyarrow.schema(
            (name, kinds.get(name.partition("_")[0], pyarrow.string())) for name in columns.names()
        )
        self._file = parquet.ParquetWriter(path, self._schema)

    def write(self, predictions: "Sequence[Prediction]") -> None:
        """Write a row group."""
        rows = [self._columns.values(p) for p in predictions]
        self._file.write_table(self._pyarrow.Table.from_pylist(rows, schema=self._schema))

    def close(self) -> None:
        """Write the end of the file."""
        self._file.close()


@contextmanager
def writer(
    kind: str, out: Path | None, columns: Columns, before: Callable[[], None]
) -> Iterator[Writer]:
    """Open what predictions are written with; a file appears when the block has ended well.

    Args:
        kind: table, csv, json or parquet.
        out: The file; None for stdout.
        columns: What is written of every image; JSON has all there is.
        before: Called before a table is drawn on a terminal.

    Raises:
        FeatcacheError: If the file cannot be written, or pyarrow is not installed.
    """
    if out is None:
        table = kind == "table"
        yield Table(before, columns) if table else _lines(kind, output.emit_lines, columns)
        return
    with _in_place(expand(out)) as path:
        if kind == "parquet":
            file = Parquet(path, columns)
            yield file
            file.close()
            return
        with path.open("x", encoding="utf-8", errors="backslashreplace") as text:
            yield _lines(kind, _emitter(text), columns)


def _lines(kind: str, emit: Callable[[str], None], columns: Columns) -> Writer:
    return Csv(emit, columns) if kind == "csv" else Lines(emit)


def _text(value: Any) -> Any:
    """Write a value of csv."""
    if isinstance(value, float):
        return f"{value:.9g}"
    return json.dumps(value) if isinstance(value, list | bool) else value


def _few(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _numbers(top: int) -> list[str]:
    return ["", *(f"_{n}" for n in range(2, top + 1))]


def _percent(candidate: "Candidate") -> str:
    return f"{100 * candidate.probability:.1f}"


def _emitter(file: IO[str]) -> Callable[[str], None]:
    def emit(lines: str) -> None:
        file.write(lines + "\n")

    return emit


@contextmanager
def _in_place(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which becomes the file when the block has ended well.

    Raises:
        FeatcacheError: If it cannot be written.
    """
    from featcache.store.format.outputs import replacing

    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise FeatcacheError(
            f"{path} cannot be written ({error.strerror or error}). Choose another with --out."
        ) from error

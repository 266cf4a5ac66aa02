"""Reading untrusted text files line by line: UTF-8, no NUL bytes, lines of bounded length."""

from collections.abc import Iterator
from pathlib import Path

from featcache.errors import SourceError
from featcache.paths import open_regular

LONGEST_LINE = 1 << 20
"""Most bytes of one line; in a listing a line has a few hundred."""

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
"""First bytes of a file in UTF-16."""


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, newlines included, without reading it whole.

    Raises:
        SourceError: If the file cannot be read, is not UTF-8, holds a NUL byte, or has a line
            longer than `LONGEST_LINE`.
    """
    try:
        with open_regular(path) as file:
            number = 0
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if number == 1:
                    _refuse_utf16(path, line)
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if len(line) > LONGEST_LINE:
                    raise SourceError(
                        f"Line {number} of {path} has more than {LONGEST_LINE} bytes; expected a "
                        f"text file with one image a line."
                    )
                yield _decoded(path, number, line)
    except OSError as error:
        raise SourceError(
            f"{path} could not be read ({error.strerror or error}); expected a text file."
        ) from error


def _refuse_utf16(path: Path, line: bytes) -> None:
    if line.startswith(_UTF16_MARKS):
        raise SourceError(f"{path} is text in UTF-16; save it as UTF-8.")


def _decoded(path: Path, number: int, line: bytes) -> str:
    if b"\0" in line:
        raise SourceError(
            f"Line {number} of {path} holds a NUL byte, so it is no text; get a whole copy of it."
        )
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"Line {number} of {path} is not UTF-8; save the file as UTF-8."
        ) from error

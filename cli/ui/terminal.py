r"""Writing to the terminal: control characters in untrusted text are escaped.

    styled(text)   a text for rich: escaped, and neither markup nor emoji names are read in it
    guarded()      escapes whatever else is written meanwhile: by click, by warnings, by libraries

Names of data sets, classes, backbones and files come from elsewhere. `\x1b]0;...\x07` in one would
rename the window, a bidirectional control would turn a sentence round, a line separator would forge
one. Inside `guarded` everything written is escaped, even where a command does not use `styled`.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from featcache.escapes import shown
from featcache.scarcity import allow_files

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


class Guarded:
    """A text stream that escapes control characters; other attributes are the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        """Take the stream that is written to."""
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text, escaped; a progress bar may return to the start of its line."""
        begin, rest = ("\r", text[1:]) if text.startswith("\r") else ("", text)
        self.stream.write(begin + shown(rest, keep="\n\t"))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts one after the other."""
        for each in lines:
            self.write(each)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def guarded() -> Iterator[None]:
    """Escape whatever reaches stdout and stderr while the block runs."""
    before = sys.stdout, sys.stderr
    guard()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def guard() -> None:
    """Escape what reaches stdout and stderr from now on, until somebody puts others there."""
    sys.stdin, out, err = (_there(stream) for stream in (sys.stdin, sys.stdout, sys.stderr))
    sys.stdout, sys.stderr = (cast("TextIO", Guarded(raw(stream))) for stream in (out, err))


def _there(stream: TextIO | None) -> TextIO:
    """Return a stream; for one that was closed (`>&-`) one that leads nowhere.

    Otherwise the next file to be opened would get its number, and what a library prints would be
    written into a shard. So they are filled in order: the lowest number goes first.
    """
    return Path(os.devnull).open("r+") if stream is None else stream


def raw(stream: TextIO) -> TextIO:
    """Return what a guarded stream writes to; any other stream is that itself."""
    return stream.stream if isinstance(stream, Guarded) else stream


def run(app: Callable[[], object]) -> None:
    """Run a command line; of a bug of ours, too, the terminal sees nothing but text."""
    allow_files()
    with guarded():
        try:
            app()
        except Exception:
            traceback.print_exc()
            sys.exit(1)


def console(*, err: bool) -> "Console":
    """Return rich's console on stdout or stderr; give it `styled` texts only."""
    from rich.console import Console

    return Console(file=raw(sys.stderr if err else sys.stdout))


def styled(text: str, style: str = "") -> "Text":
    """Make a text for rich: escaped, and nothing in it is markup or the name of an emoji."""
    from rich.text import Text

    return Text(shown(text), style)

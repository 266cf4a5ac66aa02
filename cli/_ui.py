"""What both commands share: the error boundary, progress on stderr, results on stdout.

Exit codes: 0 done, 1 an expected failure (one sentence), 2 wrong usage, 130 interrupted.
"""

import errno
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from cli import _terminal as terminal
from cli._options import Command
from featcache.errors import FeatcacheError, UsageError
from featcache.escapes import shown
from featcache.scarcity import lacking

if TYPE_CHECKING:
    from featcache.pipeline.passes import Progress

# How long a waiting thread of torch spins before it sleeps; read when torch is loaded. The default
# (300,000) takes the core from whoever else works here, none at all doubles the time on a quiet
# machine: docs/decisions/waiting-threads.md.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

CacheDir = Annotated[
    Path | None,
    typer.Option("--cache", help="Cache folder; else $FEATCACHE_HOME, else your cache folder."),
]
OfKey = Annotated[
    str | None, typer.Option("--key", help="First digits of the cache's key, as `ls` shows it.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.")]

F = TypeVar("F", bound=Callable[..., Any])

PLAIN_EVERY = 10.0
"""Seconds between progress lines where stderr is no terminal."""


OF_PATHS = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
    }
)
"""What the operating system answers to paths that are not ours to use."""


class App(typer.Typer):
    """A command line all of whose commands are such."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[F], F]:
        """Register a command."""
        return super().command(name, **{"cls": Command, **options})


class Group(TyperGroup):
    """A command group that turns an expected error into one sentence and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the whole command line, its complaints about arguments too, on guarded streams."""
        with terminal.guarded():
            return super().main(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the command inside the error boundary."""
        previous = signal.signal(signal.SIGTERM, _interrupt)
        if isinstance(stdout := terminal.raw(sys.stdout), io.TextIOWrapper):
            stdout.reconfigure(errors="replace")  # a terminal without ± shows a question mark
        try:
            return super().invoke(ctx)
        except UsageError as error:
            fail(error, code=2)
        except FeatcacheError as error:
            fail(error, code=1)
        except KeyboardInterrupt as error:
            say(with_notes("Interrupted.", error))
            raise typer.Exit(130) from None
        except BrokenPipeError as error:  # the reader of stdout has gone (`| head`)
            _drop_stdout()
            if text := with_notes("", error):
                say(text)
            raise typer.Exit(0) from None
        except (OSError, MemoryError, RuntimeError, ImportError) as error:
            if lack := lacking(error):
                fail(FeatcacheError(with_notes(lack, error)), code=1)
            if not isinstance(error, OSError) or error.errno not in OF_PATHS:
                raise
            fail_at_path(error)
        finally:
            signal.signal(signal.SIGTERM, previous)


def make_app(help_: str) -> App:
    """Build a command with plain help, no completion flags and no decorated tracebacks."""
    return App(
        cls=Group,
        help=help_,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def fail(error: Exception, code: int) -> None:
    """Print an error in one red line and leave."""
    text = with_notes(str(error), error)
    try:
        head, body = terminal.styled("error: ", "bold red"), terminal.styled(text)
        terminal.console(err=True).print(head + body, soft_wrap=True)
    except (MemoryError, ImportError, OSError):  # too little memory, or files, for colours
        sys.stderr.write(shown(f"error: {text}") + "\n")
    raise typer.Exit(code) from error


def fail_at_path(error: OSError) -> None:
    """Say what the operating system refuses about a path, and leave."""
    path = error.filename if isinstance(error.filename, str) else "A file"
    cure = "Check the path and who may use it, or give another."
    what = f"{path} cannot be used ({error.strerror}). {cure}"
    fail(FeatcacheError(with_notes(what, error)), code=1)


@contextmanager
def noting(text: str | Callable[[], str], *kinds: type[BaseException]) -> Iterator[None]:
    """Let what ends the block early say this too: what is kept, and what to do next.

    Args:
        text: The sentence, or what finds it out in that moment.
        kinds: Of exceptions; none is an interruption.
    """
    caught = kinds or (KeyboardInterrupt,)
    try:
        yield
    except caught as error:
        error.add_note(text if isinstance(text, str) else text())
        raise


def with_notes(text: str, error: BaseException) -> str:
    """Put what `noting` added to an exception behind a text."""
    return " ".join(filter(None, [text, *getattr(error, "__notes__", ())]))


def say(text: str) -> None:
    """Say one line on stderr."""
    terminal.console(err=True).print(terminal.styled(text), soft_wrap=True)


def emit(text: str) -> None:
    """Write one line of results to stdout."""
    emit_lines(shown(text))


def emit_lines(text: str) -> None:
    """Write results of several lines to stdout.

    Raises:
        BrokenPipeError: If nobody reads it any more.
        FeatcacheError: If it cannot be written.
    """
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_stdout()
        raise FeatcacheError(
            f"Standard output cannot be written ({error.strerror}); results have to go elsewhere."
        ) from error


def emit_json(value: object) -> None:
    """Write one JSON object in one line to stdout, in ASCII: exact, and nothing to obey."""
    emit_lines(json.dumps(value, ensure_ascii=True, allow_nan=False))


def confirm(question: str) -> bool:
    """Ask on stderr; no is what Enter says."""
    return typer.confirm(shown(question), err=True)


def emit_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """Write a table to stdout: drawn for people, tab-separated where stdout is no terminal.

    Args:
        columns: The head.
        rows: Cells as they are shown.
        right: Columns of numbers.
        spare: Columns that are left out, in this order, while the window is too narrow; what is
            still too long then goes on in the next line, and nothing is cut.
    """
    columns = list(map(shown, columns))
    rows = [list(map(shown, row)) for row in rows]
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            emit_lines("\t".join(row))
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    console = terminal.console(err=False)
    kept = fitting(columns, rows, spare, console.width)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    if left_out := [c for c in columns if c not in kept]:
        say(f"Left out in this narrow window: {', '.join(left_out)}.")
    rows = [[cell for c, cell in zip(columns, row, strict=True) if c in kept] for row in rows]
    for column in kept:
        numeric = column in right
        table.add_column(
            terminal.styled(column),
            justify="right" if numeric else "left",
            no_wrap=numeric,
            overflow="fold",  # a cell that is cut could lose a mark or a figure
        )
    for row in rows:
        table.add_row(*map(terminal.styled, row))
    console.print(table)


def fitting(
    columns: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str], width: int
) -> list[str]:
    """Choose the columns that fit a window side by side; those that are not spare always stay."""
    needed = {
        c: max(map(len, cells)) + 3 for c, *cells in zip(columns, columns, *rows, strict=True)
    }
    kept = set(columns)
    room = width + 1  # nothing is drawn behind the last column
    for column in spare:
        if column in kept and sum(needed[c] for c in kept) > room:
            kept.remove(column)
    for column in reversed(spare):  # what went before a wide one may have room again
        if column in columns and sum(needed[c] for c in kept | {column}) <= room:
            kept.add(column)
    return [c for c in columns if c in kept]


def shown_on(line: "Live") -> Callable[["Progress"], None]:
    """Return what shows the progress of a pass, and of what comes before it, on a line."""
    count = line.counter()

    def show(p: "Progress") -> None:
        if p.rate:
            line.update(progress_text(p))
        else:  # hashing and the like, which know of no rate
            count(p.stage, p.done, p.total)

    return show


def progress_text(p: "Progress") -> str:
    """Say how a pass stands, on one line."""
    line = f"{p.stage} {p.done}/{p.total}"
    if p.rate:
        line += f"  {p.rate:.0f} images/s"
    if p.eta_s is not None:
        line += f"  ETA {human_seconds(p.eta_s)}"
    if p.bytes:
        line += f"  {human_bytes(p.bytes)} written"
    if p.binding:
        line += f"  bound by {p.binding}"
    return line + (f"  {p.bad} unreadable" if p.bad else "")


def human_bytes(count: float) -> str:
    """Say a number of bytes in decimal units: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    """Say a duration: 4.2 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


class Live:
    """One live line on a terminal, an occasional plain line elsewhere, nothing when quiet."""

    def __init__(self, quiet: bool) -> None:
        self._console = None if quiet else terminal.console(err=True)
        self._status: Any = None
        self._last = time.monotonic()

    def update(self, text: str) -> None:
        """Show how things stand now."""
        if self._console is None:
            return
        if self._console.is_terminal:
            if self._status is None:
                self._status = self._console.status(terminal.styled(text), spinner="dots")
                self._status.start()
                terminal.guard()  # rich puts streams of its own there meanwhile
            self._status.update(terminal.styled(text))
        elif time.monotonic() - self._last >= PLAIN_EVERY:
            self._last = time.monotonic()
            self._console.print(terminal.styled(text), soft_wrap=True)

    def counter(self) -> Callable[[str, int, int], None]:
        """Return a reporter of (what is being done, done so far, of how many)."""
        started: dict[str, float] = {}

        def report(what: str, done: int, total: int) -> None:
            elapsed = time.monotonic() - started.setdefault(what, time.monotonic())
            text = f"{what} {done}/{total}"
            if done and elapsed > 1:
                rest = elapsed / done * (total - done)
                text += f"  {done / elapsed:.3g}/s  ETA {human_seconds(rest)}"
            self.update(text)

        return report

    def say(self, text: str) -> None:
        """Print a line that stays, above the live one."""
        if self._console is not None:
            self._console.print(terminal.styled(text), soft_wrap=True)

    def close(self) -> None:
        """Take the live line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None


@contextmanager
def live(quiet: bool) -> Iterator[Live]:
    """Show progress while the block runs."""
    line = Live(quiet)
    try:
        yield line
    finally:
        line.close()


def can_ask() -> bool:
    """Tell whether somebody sits at a terminal and can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def some(names: Sequence[str], most: int = 8) -> str:
    """Say the first of many names, and how many there are."""
    first = ", ".join(names[:most])
    return f"{first}, ... ({len(names)} in all)" if len(names) > most else first


def pairs(values: Sequence[str]) -> Mapping[str, str]:
    """Read `--set key=value` options.

    Raises:
        UsageError: If one has no `=`, or a key is given twice.
    """
    out: dict[str, str] = {}
    for item in values:
        key, equals, value = item.partition("=")
        if not equals or not key or not value:
            raise UsageError(f"--set takes key=value, for example --set alpha=0.5; got '{item}'.")
        if key in out:
            raise UsageError(f"--set {key}=... is given twice; leave one.")
        out[key] = value
    return out


def _drop_stdout() -> None:
    """Let what is still to be written go nowhere, so that Python does not complain at exit."""
    with suppress(OSError):  # a stream that is no file has nothing to complain of
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

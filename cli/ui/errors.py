"""The error boundary: an expected error becomes one sentence and an exit code.

Exit codes: 0 done, 1 an expected failure (one sentence), 2 wrong usage, 130 interrupted.
"""

import errno
import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from cli.ui import terminal
from cli.ui.flags import in_flags
from cli.ui.output import drop_stdout, say
from cli.ui.refusals import TYPER_ERROR, refusal, unknown_command
from featcache.errors import FeatcacheError, UsageError, presentable
from featcache.escapes import shown
from featcache.scarcity import lacking

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
"""Errors of the operating system for paths that cannot be used."""


class Group(TyperGroup):
    """A command group that turns an expected error into one sentence and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the whole command line, its complaints about arguments too, on guarded streams."""
        with terminal.guarded():
            return super().main(*args, **kwargs)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options before the name of a command; unknown ones end it with a sentence."""
        with boundary():
            try:
                return super().parse_args(ctx, args)
            except TYPER_ERROR as error:
                if not hasattr(error, "option_name"):  # the help, where nothing is given
                    raise
                raise refusal(ctx, error) from error

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the first word names.

        Raises:
            UsageError: If there is none.
        """
        known = self.list_commands(ctx)
        if args and args[0] not in known and not ctx.resilient_parsing:
            raise unknown_command(ctx, args[0], known)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command inside the error boundary."""
        with boundary():
            return super().invoke(ctx)


@contextmanager
def boundary() -> Iterator[None]:
    """Let an expected error of the block end the command with one sentence and an exit code."""
    previous = signal.signal(signal.SIGTERM, _interrupt)
    if isinstance(stdout := terminal.raw(sys.stdout), io.TextIOWrapper):
        stdout.reconfigure(errors="replace")  # a terminal without ± shows a question mark
    try:
        yield
    except UsageError as error:
        fail(error, code=2)
    except FeatcacheError as error:
        fail(error, code=1)
    except KeyboardInterrupt as error:
        say(with_notes("Interrupted.", error))
        raise typer.Exit(130) from None
    except BrokenPipeError as error:  # the reader of stdout has gone (`| head`)
        drop_stdout()
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


def fail(error: Exception, code: int) -> None:
    """Print an error in one red line and exit."""
    text = with_notes(text_of(error), error)
    try:
        head, body = terminal.styled("error: ", "bold red"), terminal.styled(text)
        terminal.console(err=True).print(head + body, soft_wrap=True)
    except (MemoryError, ImportError, OSError):  # too little memory, or files, for colours
        sys.stderr.write(shown(f"error: {text}") + "\n")
    raise typer.Exit(code) from error


def text_of(error: Exception) -> str:
    """Return the message of an error; arguments that it names are written as flags."""
    if isinstance(error, FeatcacheError):
        return presentable(in_flags(error.parts))
    return str(error)


def fail_at_path(error: OSError) -> None:
    """Print the operating system's error about a path and exit."""
    path = error.filename if isinstance(error.filename, str) else "A file"
    hint = "Check the path and its permissions, or give another."
    what = f"{path} cannot be used ({error.strerror}). {hint}"
    fail(FeatcacheError(with_notes(what, error)), code=1)


@contextmanager
def noting(text: str | Callable[[], str], *kinds: type[BaseException]) -> Iterator[None]:
    """Add a sentence to the error that ends the block early: what is kept, and what to do next.

    Args:
        text: The sentence, or a function that returns it when the error occurs.
        kinds: Kinds of exceptions; without any, KeyboardInterrupt.
    """
    caught = kinds or (KeyboardInterrupt,)
    try:
        yield
    except caught as error:
        error.add_note(text if isinstance(text, str) else text())
        raise


def with_notes(text: str, error: BaseException) -> str:
    """Append the sentences that `noting` added to an exception."""
    return " ".join(filter(None, [text, *getattr(error, "__notes__", ())]))


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

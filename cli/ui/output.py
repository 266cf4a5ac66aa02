"""Results go to stdout; messages for people go to stderr."""

import json
import os
import sys
from contextlib import suppress

import typer

from cli.ui import terminal
from featcache.errors import FeatcacheError, UsageError
from featcache.escapes import shown


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
        drop_stdout()
        raise FeatcacheError(
            f"Standard output cannot be written ({error.strerror}); results have to go elsewhere."
        ) from error


def emit_json(value: object) -> None:
    """Write one JSON object in one line to stdout, in ASCII, without control characters."""
    emit_lines(json.dumps(value, ensure_ascii=True, allow_nan=False))


def confirm(question: str) -> bool:
    """Ask on stderr; Enter means no."""
    return typer.confirm(shown(question), err=True)


def agree(what: str, yes: bool) -> None:
    """Ask whether something may be removed, unless that was said; end the command if not.

    Args:
        what: What it is, for the question.
        yes: Whether the user said so.

    Raises:
        UsageError: If nobody is there to be asked.
    """
    if not yes and not can_ask():
        raise UsageError(f"Nobody is there to agree to removing {what}. Add --yes.")
    if not yes and not confirm(f"Remove {what}?"):
        raise typer.Exit(1)


def can_ask() -> bool:
    """Tell whether stdin and stderr are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def drop_stdout() -> None:
    """Redirect stdout to /dev/null, so that Python does not report an error at exit."""
    with suppress(OSError):  # not a file: nothing to redirect
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

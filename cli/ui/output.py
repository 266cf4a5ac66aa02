"""Results go to stdout, everything that is said to people goes to stderr."""

import json
import os
import sys
from contextlib import suppress

import typer

from cli.ui import terminal
from featcache.errors import FeatcacheError
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
    """Write one JSON object in one line to stdout, in ASCII: exact, and nothing to obey."""
    emit_lines(json.dumps(value, ensure_ascii=True, allow_nan=False))


def confirm(question: str) -> bool:
    """Ask on stderr; no is what Enter says."""
    return typer.confirm(shown(question), err=True)


def can_ask() -> bool:
    """Tell whether somebody sits at a terminal and can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def drop_stdout() -> None:
    """Let what is still to be written go nowhere, so that Python does not complain at exit."""
    with suppress(OSError):  # a stream that is no file has nothing to complain of
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

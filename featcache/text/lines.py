"""Text files of the user with one text a line: templates, prompts."""

from collections.abc import Callable
from pathlib import Path

from featcache.errors import UsageError
from featcache.limits import TEXTS, WORDS
from featcache.paths import read_regular
from featcache.wording import Argument


def read_lines(
    path: Path, given: Argument, check: Callable[[str], str], *, what: str, example: str
) -> tuple[str, ...]:
    """Read a file of lines; empty ones and those that start with # are skipped.

    Args:
        path: UTF-8 text file.
        given: Argument that names the file, for messages.
        check: Returns a stripped line as it is used; raises UsageError if it cannot be.
        what: What a line is: template, sentence.
        example: One of these.

    Returns:
        What `check` returned, each once, in order.

    Raises:
        UsageError: If the file cannot be read, is JSON, holds no line or too many, or `check`
            refuses one.
    """
    try:
        text = read_regular(path, WORDS).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            given, f" could not be read ({why}); expected a UTF-8 text file, one {what} a line."
        ) from error
    if _is_json(text):
        raise UsageError(given, f" is JSON; write one {what} a line, without quotes or brackets.")
    stripped = [line.strip() for line in text.splitlines()]
    kept = [line for line in stripped if line and not line.startswith("#")]
    if not kept:
        raise UsageError(given, f" holds no {what}; write one a line, e.g. '{example}'")
    if len(kept) > TEXTS.value():
        raise UsageError(
            given,
            f" has more than {TEXTS.value()} {what}s. Leave some out, or raise {TEXTS.variable}.",
        )
    try:
        return tuple(dict.fromkeys(map(check, kept)))
    except UsageError as error:
        raise UsageError(given, ": ", error.parts) from error


def _is_json(text: str) -> bool:
    """Tell by its brackets and quotes whether a file is a list or an object."""
    inside = text.strip()
    return inside[:1] + inside[-1:] in ("[]", "{}") and '"' in inside

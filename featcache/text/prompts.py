"""Prompts: sentences that belong to no class, from a file of lines."""

from pathlib import Path

from featcache.errors import UsageError
from featcache.limits import TEXTS, WORDS
from featcache.paths import read_regular
from featcache.text.templates import check_length, is_plain
from featcache.wording import Argument


def read_prompts(path: Path) -> tuple[str, ...]:
    """Read a file of prompts, one a line; empty lines and lines starting with # are skipped.

    A sentence that stands there twice is taken once.

    Args:
        path: UTF-8 text file.

    Raises:
        UsageError: If the file cannot be read, is JSON, holds no prompt or too many, or a line is a
            template or no plain text.
    """
    given = Argument("prompts", str(path))
    try:
        text = read_regular(path, WORDS).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            given, f" could not be read ({why}); expected a UTF-8 text file, one sentence a line."
        ) from error
    if _is_json(text):
        raise UsageError(given, " is JSON; write one sentence a line, without quotes or brackets.")
    kept = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    if not kept:
        raise UsageError(given, " holds no sentence; write one a line, e.g. 'a photo of a dog.'")
    if len(kept) > TEXTS.value():
        raise UsageError(
            given,
            f" has more than {TEXTS.value()} sentences. Leave some out, or raise {TEXTS.variable}.",
        )
    return tuple(dict.fromkeys(_checked(line, given) for line in kept))


def _is_json(text: str) -> bool:
    """Tell by its brackets whether a file is a list or an object, each line of which is no text."""
    inside = text.strip()
    return inside[:1] + inside[-1:] in ("[]", "{}")


def _checked(line: str, given: Argument) -> str:
    text = line.strip()
    if not is_plain(text):
        raise UsageError(given, f" has control characters in {text[:200]!a}; expected plain text.")
    if "{}" in text:
        raise UsageError(
            given, f" has the template '{text[:200]}'. A prompt names no class: write a sentence."
        )
    try:
        return check_length(text)
    except UsageError as error:
        raise UsageError(given, ": ", error.parts) from error

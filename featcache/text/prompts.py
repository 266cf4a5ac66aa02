"""Prompts: sentences that belong to no class, from a file of lines."""

from pathlib import Path

from featcache.errors import UsageError
from featcache.text.lines import read_lines
from featcache.text.templates import check_length, is_plain
from featcache.wording import Argument


def read_prompts(path: Path) -> tuple[str, ...]:
    """Read a file of prompts, one a line; one that stands there twice is taken once.

    Args:
        path: UTF-8 text file; empty lines and lines starting with # are skipped.

    Raises:
        UsageError: If the file cannot be read, is JSON, holds no prompt or too many, or a line is a
            template or no plain text.
    """
    given = Argument("prompts", str(path))
    return read_lines(path, given, check_prompt, what="sentence", example="a photo of a dog.")


def check_prompt(text: str) -> str:
    """Return a prompt if it is plain text without `{}`.

    Raises:
        UsageError: If it is not, or is too long.
    """
    if not is_plain(text):
        raise UsageError(f"A prompt is plain text. Got the control characters of {text[:200]!a}.")
    if "{}" in text:
        raise UsageError(
            f"A prompt names no class. Got the template '{text[:200]}'; write a sentence."
        )
    return check_length(text)

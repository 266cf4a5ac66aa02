"""Reading untrusted JSON files, bounded in size and depth."""

import json
from pathlib import Path
from typing import Any

from featcache.errors import SourceError
from featcache.limits import WORDS
from featcache.paths import read_regular
from featcache.scarcity import lacking


def read_json(path: Path, expected: str) -> Any:
    """Read a JSON file whole.

    Args:
        path: The file, of at most `WORDS` bytes.
        expected: What it should hold, for messages: "a COCO file".

    Raises:
        SourceError: If it cannot be read, is no JSON, or is nested too deeply.
    """
    try:
        data = read_regular(path, WORDS)
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{path} could not be read ({getattr(error, 'strerror', None) or error}); expected "
            f"{expected}."
        ) from error
    return parse_json(data, path, expected)


def parse_json(data: bytes, path: Path, expected: str) -> Any:
    """Parse the content of a JSON file.

    Args:
        data: What was read.
        path: The file, for messages.
        expected: What it should hold, for messages: "a COCO file".

    Raises:
        SourceError: If it is no JSON, or is nested too deeply.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        raise SourceError(
            f"{path} is JSON nested too deeply to be read; expected {expected}."
        ) from error
    except (MemoryError, ValueError) as error:
        why = lacking(error) or error
        raise SourceError(
            f"{path} could not be read as JSON ({why}); expected {expected}. Get a whole copy."
        ) from error


def parse_line(text: str, where: str) -> dict[str, Any]:
    """Read one line of a jsonl file, or a small JSON text, as an object.

    Raises:
        SourceError: If it is none.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where} could not be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise SourceError(f"{where} is no JSON object; expected {{...}}.")
    return content


def label_text(value: object) -> str | None:
    """Return a label of a JSON file or a table as text; None where there is none.

    Raises:
        ValueError: If it is no single label; the text says what it is.

    Example:
        >>> label_text(3), label_text("cat"), label_text(None)
        ('3', 'cat', None)
    """
    match value:
        case None:
            return None
        case bool():
            return str(value).lower()
        case str() | int():
            return str(value)
        case float() if value.is_integer():
            return str(int(value))
        case list():
            raise ValueError("a list, and multi-label data are not supported")
        case _:
            raise ValueError(f"{type(value).__name__}, neither a name nor a whole number")

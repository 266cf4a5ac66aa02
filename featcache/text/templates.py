"""Templates: sentences with one `{}` for the class name, checked before anything is encoded."""

import re
import unicodedata
from pathlib import Path

from featcache.errors import UsageError
from featcache.limits import TEXT, WORDS
from featcache.paths import read_regular

DEFAULT_TEMPLATES = ("a photo of a {}.",)
"""Default for image folders without templates."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def is_plain(text: str) -> bool:
    """Tell whether a text has no control characters and no lone surrogates."""
    return _CONTROL.search(text) is None


def clean_name(folder: str) -> str:
    """Convert a folder name to a class name: underscores become spaces, spaces are normalised."""
    return " ".join(unicodedata.normalize("NFC", folder).replace("_", " ").split())


def check_length(text: str) -> str:
    """Return a text for encoding if its length is within the limit.

    Raises:
        UsageError: If it is longer; the time of some tokenizers is quadratic in the length.
    """
    if len(text) > TEXT.value():
        raise UsageError(
            f"A text that is encoded has at most {TEXT.value()} characters, of which a backbone "
            f"reads the first hundreds; got {len(text)}, beginning '{text[:40]}'. Shorten it, or "
            f"raise {TEXT.variable}."
        )
    return text


def check_template(template: str) -> str:
    """Return the template, stripped, if it is plain text with one `{}` and no other brace.

    Raises:
        UsageError: If it is not, or is too long.
    """
    text = check_length(template.strip())
    if text.count("{}") != 1 or text.count("{") != 1 or text.count("}") != 1:
        raise UsageError(
            f"A template has exactly one {{}} for the class name. Got '{text}'; write e.g. "
            f"'a photo of a {{}}.'"
        )
    if not is_plain(text):
        raise UsageError(f"A template is plain text. Got the control characters of {text!a}.")
    return text


def fill(template: str, name: str) -> str:
    """Put a class name into a template; braces in the name stay as they are."""
    return template.replace("{}", name)


def read_templates(path: Path) -> tuple[str, ...]:
    """Read a file of templates, one a line; empty lines and lines starting with # are skipped.

    Raises:
        UsageError: If the file cannot be read, holds no template, or a line is none.
    """
    try:
        lines = read_regular(path, WORDS).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"Templates could not be read from {path} ({why}); expected a UTF-8 text file with "
            f"one template a line."
        ) from error
    kept = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not kept:
        raise UsageError(f"{path} holds no template; write one a line, e.g. 'a photo of a {{}}.'")
    try:
        return tuple(dict.fromkeys(check_template(line) for line in kept))
    except UsageError as error:
        raise UsageError(f"{path}: ", error.parts) from error

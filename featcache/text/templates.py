"""Templates: sentences with one `{}` for the class name, checked before anything is encoded."""

import re
import unicodedata
from pathlib import Path

from featcache.errors import UsageError
from featcache.limits import TEXT
from featcache.text.lines import read_lines
from featcache.wording import Argument

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
        UsageError: If the file cannot be read, holds no template or too many, or a line is none.
    """
    given = Argument("templates", str(path))
    return read_lines(path, given, check_template, what="template", example="a photo of a {}.")

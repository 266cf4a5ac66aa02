"""Options after the path of a source: `photos.csv?label=species&split=fold`.

A file whose own name holds the question mark is taken as it is.
"""

from collections.abc import Collection, Mapping
from urllib.parse import quote, unquote

from featcache.errors import UnknownNameError, UsageError
from featcache.paths import expand


def split_options(text: str, known: Collection[str]) -> tuple[str, dict[str, str]]:
    """Split the text after a prefix into a path and its options.

    Args:
        text: `PATH` or `PATH?name=value&name=value`; values may be percent-encoded.
        known: Names of the options that the source has.

    Returns:
        The path and the options that were given.

    Raises:
        UnknownNameError: If an option is none of them.
        UsageError: If an option has no value or is given twice.

    Example:
        >>> split_options("photos.csv?label=common%20name", ["label", "split"])
        ('photos.csv', {'label': 'common name'})
    """
    path, mark, rest = text.rpartition("?")
    if not mark or "=" not in rest or expand(text).exists():
        return text, {}
    options: dict[str, str] = {}
    for part in rest.split("&"):
        name, _, value = part.partition("=")
        if name not in known:
            raise UnknownNameError("option of a source", name, known)
        if not value or name in options:
            what = "has no value" if not value else "is given twice"
            raise UsageError(
                f"Option '{name}' behind {path} {what}; write it once, as {path}?{name}=VALUE."
            )
        options[name] = unquote(value)
    return path, options


def join_options(path: str, options: Mapping[str, str]) -> str:
    """Write a path and its options so that `split_options` reads them again.

    Example:
        >>> join_options("photos.csv", {"label": "common name"})
        'photos.csv?label=common%20name'
    """
    written = "&".join(f"{name}={quote(value, safe='/')}" for name, value in options.items())
    return f"{path}?{written}" if written else path

r"""Text of strangers as a terminal may be given it: what it would obey or hide becomes an escape.

Shown as `\x1b`, `\u202e` and the like are control characters (C0, C1, line and paragraph
separators), format characters (bidirectional controls, zero-width ones), half characters, and code
points that are private or not assigned. Everything else, of any script, stays.
"""

import unicodedata

_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of Unicode."""


def shown(text: str, keep: str = "") -> str:
    r"""Return a text in which nothing is left that a terminal obeys.

    Args:
        text: Any text.
        keep: Characters that stay as they are: "\n" where our own lines end.

    Example:
        >>> shown("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or is_harmless(c) else ascii(c)[1:-1] for c in text)


def is_harmless(character: str) -> bool:
    """Tell whether one character only shows itself, or a space."""
    return unicodedata.category(character) not in _ESCAPED

r"""Escape untrusted text before it is written to a terminal.

Escaped as `\x1b`, `\u202e` and so on are control characters (C0, C1, line and paragraph
separators), format characters (bidirectional controls, zero-width characters), surrogates, and code
points that are private or unassigned. All other characters stay as they are.
"""

import unicodedata
from collections.abc import Iterable

_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of the escaped characters."""


def shown(text: str, keep: str = "") -> str:
    r"""Return a text without characters that control a terminal.

    Args:
        text: Any text.
        keep: Characters that are not escaped, e.g. "\n" in our own messages.

    Example:
        >>> shown("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or is_harmless(c) else ascii(c)[1:-1] for c in text)


def shown_notes(notes: Iterable[str]) -> tuple[str, ...]:
    r"""Return notes, one line each, without characters that control a terminal.

    Args:
        notes: Sentences, which may quote names from strangers.

    Example:
        >>> shown_notes(["The first is a\x1b[2J\n.jpg."])
        ('The first is a\\x1b[2J\\n.jpg.',)
    """
    return tuple(map(shown, notes))


def is_harmless(character: str) -> bool:
    """Tell whether a character is printable or a space."""
    return unicodedata.category(character) not in _ESCAPED

"""Whether a sentence names the class that it is about.

A description that names its class tells a text tower nothing beyond the name; a CuPL sentence has
to name it.
"""

import re
from collections.abc import Collection

SMALL = frozenset({"with", "from", "into", "over"})
"""Words with over 3 letters that say nothing of a class."""

_ENDINGS = ("ing", "ed", "es", "ly", "s", "y", "e")


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation.

    Example:
        >>> words_of("A photo of a Pug.")
        ['a', 'photo', 'of', 'a', 'pug']
    """
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())


def stem(word: str) -> str:
    """Cut common endings, so that dots, dotted and dot are one.

    Example:
        >>> {stem(word) for word in ("dots", "dotted", "dot")}
        {'dot'}
    """
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def names_class(name: str, sentence: str) -> bool:
    """Tell whether a sentence has the whole name of a class, whatever the case."""
    return f" {' '.join(words_of(name))} " in f" {' '.join(words_of(sentence))} "


def given_away(name: str, sentence: str, generic: Collection[str] = ()) -> set[str]:
    """Return what a sentence has of the name of its class: all of it, or words of over 3 letters.

    Args:
        name: Name of the class.
        sentence: Sentence about it.
        generic: Words of the name that point at no one class.

    Example:
        >>> given_away("red rose", "a photo of two roses.")
        {'roses'}
    """
    found = {name} if names_class(name, sentence) else set()
    skipped = SMALL.union(generic)
    telling = {stem(word) for word in words_of(name) if len(word) > 3 and word not in skipped}
    return found | {word for word in words_of(sentence) if stem(word) in telling}

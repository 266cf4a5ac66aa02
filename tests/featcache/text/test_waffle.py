"""Random texts: fixed by seed and names, the same for every class, as long as class names are."""

import re

import pytest

from featcache.text.templates import check_template
from featcache.text.waffle import PAIRS, WORDS, waffle_templates

FORM = re.compile(r"A photo of a \{\}, which has (.+)\.")


def drawn(classes: tuple[str, ...], seed: int = 0) -> tuple[list[str], list[str]]:
    """Return the words and the characters of the templates."""
    found = [FORM.fullmatch(check_template(t)) for t in waffle_templates(classes, seed)]
    assert all(found)
    texts = [match[1] for match in found if match]
    assert len(texts) == 2 * PAIRS
    return texts[::2], texts[1::2]


def test_seed_and_names_fix_the_draw() -> None:
    classes = ("red fox", "owl")
    assert waffle_templates(classes, 0) == waffle_templates(list(classes), 0)
    assert waffle_templates(classes, 0) != waffle_templates(classes, 1)


def test_no_class_is_told_from_another() -> None:
    """Only lengths are taken from the names, and no name stands in a text."""
    assert waffle_templates(("red fox", "owl"), 4) == waffle_templates(("sad dog", "ant"), 4)
    assert not any("fox" in t or "owl" in t for t in waffle_templates(("red fox", "owl"), 4))


@pytest.mark.parametrize(
    ("classes", "words", "letters", "groups", "each"),
    [
        # Words 1.5 -> 2 and spaces 0.5 -> 0, both to even; longest 3, raised by a whole step.
        (("red fox", "owl"), 2, 3, 1, 4),
        (("red fox", "grey owl"), 2, 3, 2, 3),  # letters 3 and 3.5 -> 3; longest 3.5 -> 4 -> 6
        (("bird", "fish"), 1, 4, 1, 5),
        # Words 3, letters 3; longest mean 4 raised to 6 for three groups.
        (("a bird here", "the red one"), 3, 3, 3, 2),
        (("x",), 1, 1, 1, 2),
    ],
)
def test_lengths_follow_the_class_names(
    classes: tuple[str, ...], words: int, letters: int, groups: int, each: int
) -> None:
    """Counted by hand after the released code's rule."""
    cut = {word[:letters] for word in WORDS}
    for said, noise in zip(*drawn(classes), strict=True):
        assert len(said.split()) == words
        assert set(said.split()) <= cut
        assert re.fullmatch(rf"[a-z]{{{each}}}(, [a-z]{{{each}}}){{{groups - 1}}}", noise)


def test_words_are_plain_and_begin_no_other_sentence() -> None:
    assert list(WORDS) == sorted(set(WORDS))
    assert all(re.fullmatch("[a-z]{4,9}", word) for word in WORDS)


def test_braces_and_empty_words_of_names_do_no_harm() -> None:
    for classes in (("{} {x}", "b"), ("", " "), ("日本", "ü")):
        assert len(drawn(classes)[0]) == PAIRS

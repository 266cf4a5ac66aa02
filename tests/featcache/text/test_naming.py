"""Whether a sentence names its class."""

from featcache.text.naming import given_away, names_class, stem, words_of


def test_the_words_of_a_name_are_found() -> None:
    assert given_away("red rose", "a photo of two roses.", set()) == {"roses"}
    assert given_away("dotted", "a wall with dots.", set()) == {"dots"}
    assert given_away("pug", "a photo of a Pug.", set()) == {"pug"}
    assert given_away("leaf spot", "a leaf with a spot.", {"leaf"}) == {"spot"}
    assert given_away("red rose", "a red flower with thorns.", set()) == set()


def test_a_name_counts_as_a_whole_in_any_case_and_punctuation() -> None:
    assert names_class("owl", "An OWL, at night.")
    assert not names_class("owl", "a bowl of soup.")
    assert names_class("snow-leopard", "a snow leopard in grass.")
    assert names_class("Müsli", "a bowl of müsli.")


def test_words_and_stems() -> None:
    assert words_of("It's a red_rose.") == ["it's", "a", "red", "rose"]
    assert {stem(word) for word in ("dots", "dotted", "dot")} == {"dot"}

from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest

from featcache.errors import UnknownNameError
from featcache.sources.fieldguide.species import DESCRIPTION_WORDS, WORLDS, is_held_out, species
from featcache.sources.fieldguide.traits import TRAITS, Moth, distance, is_drawable

ALL = [s for world in WORLDS for s in species(world)]


def free_moth() -> Moth:
    """One that differs from every species in two traits or more."""
    return Moth(
        forewing="green",
        pattern="stripes",
        pattern_colour="pink",
        hindwing="brown",
        hindwing_mark="dot",
        body="orange",
        rings="black",
        antennae="curled",
        tails="long",
    )


@pytest.mark.parametrize("world", WORLDS)
def test_six_genera_of_four(world: str) -> None:
    genera = Counter(s.genus for s in species(world))
    assert sorted(genera.values()) == [4] * 6


def test_species_can_be_drawn_and_told_apart() -> None:
    assert all(is_drawable(s.moth) for s in ALL)
    close = [(a.name, b.name) for a, b in combinations(ALL, 2) if distance(a.moth, b.moth) < 2]
    assert close == []


@pytest.mark.parametrize("world", WORLDS)
def test_a_genus_shares_its_colours(world: str) -> None:
    looks = {(s.genus, s.moth.forewing, s.moth.hindwing, s.moth.body) for s in species(world)}
    assert len(looks) == 6


@pytest.mark.parametrize("world", WORLDS)
def test_some_pairs_differ_in_small_parts_only(world: str) -> None:
    small = {"rings", "antennae", "hindwing_mark", "tails"}
    pairs = [
        (a, b)
        for a, b in combinations(species(world), 2)
        if {t for t in TRAITS if getattr(a.moth, t) != getattr(b.moth, t)} <= small
    ]
    assert len(pairs) >= 6


def test_names_are_unique_and_say_nothing() -> None:
    names = [s.name for s in ALL]
    assert len(set(names)) == len(names)
    words = {value for values in TRAITS.values() for value in values} | DESCRIPTION_WORDS
    telling = [(n, w) for n in names for w in words if len(w) > 2 and w in n.lower()]
    assert telling == []
    assert all(
        len(n.split()) == 2 and n.startswith(s.genus) for n, s in zip(names, ALL, strict=True)
    )


def test_descriptions_are_plain_and_few_worded() -> None:
    assert len(DESCRIPTION_WORDS) < 110
    for s in ALL:
        assert 5 <= len(s.descriptions) <= 8
        assert len(set(s.descriptions)) == len(s.descriptions)
        for sentence in s.descriptions:
            assert set(sentence) <= set("abcdefghijklmnopqrstuvwxyz ,.")
            assert not {w.lower() for w in s.name.split()} & set(sentence[:-1].split())


def test_descriptions_say_every_trait() -> None:
    for s in ALL:
        text = " ".join(s.descriptions)
        for trait in TRAITS:
            value = getattr(s.moth, trait)
            assert value == "none" or value in text, (s.name, trait)
        assert "tails" in text
        assert ("no tails" in text or "without" in text) == (s.moth.tails == "none"), s.name


def test_held_out_are_species_and_their_neighbours() -> None:
    assert all(is_held_out(s.moth) for s in ALL)
    assert is_held_out(replace(ALL[0].moth, tails="long"))
    assert not is_held_out(free_moth())
    assert not is_held_out(replace(ALL[0].moth, antennae="curled", rings="none", body="orange"))


def test_unknown_world_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="fieldguide-2"):
        species("fieldguid")

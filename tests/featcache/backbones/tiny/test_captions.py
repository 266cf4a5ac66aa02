import random
import re
from dataclasses import replace

from featcache.backbones.tiny.captions import caption, full_caption, statements
from featcache.backbones.tiny.corpus import sample_moth
from featcache.sources.fieldguide.species import DESCRIPTION_WORDS, WORLDS, species
from featcache.sources.fieldguide.traits import TRAITS, Moth

PARTS = ("forewing", "pattern", "hindwing", "body", "rings", "antennae", "tails")


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def contradicts(text: str, moth: Moth) -> bool:
    """A second reading of a caption, by plain words, that knows nothing of its tables."""
    has = words(text)
    forms = {v for t in ("pattern", "antennae") for v in TRAITS[t]} - {"border", "tips"}
    for form in forms & has:
        if form not in (moth.pattern, moth.antennae):
            return True
    if "border" in has and moth.pattern != "border":
        return True
    if "tips" in has and moth.pattern != "tips":
        return True
    if has & {"dot", "dots"} and moth.hindwing_mark != "dot":
        return True
    if "fringe" in has and moth.hindwing_mark != "fringe":
        return True
    if re.search(r"no tails|without tails", text) and moth.tails != "none":
        return True
    if "long tails" in text and moth.tails != "long":
        return True
    if re.search(r"(no|without) rings", text) and moth.rings != "none":
        return True
    colours = {
        moth.forewing,
        moth.pattern_colour,
        moth.hindwing,
        moth.body,
        moth.rings,
    }
    known = {c for t in ("forewing", "pattern_colour", "body", "rings") for c in TRAITS[t]}
    return bool(((has & known) - {"none"}) - colours)


def test_captions_say_only_what_is_true() -> None:
    rng = random.Random(0)
    for _ in range(800):
        moth = sample_moth(rng)
        written = caption(moth, list(TRAITS), rng)
        assert not contradicts(written.text, moth), (written.text, moth)


def test_the_check_above_can_fail() -> None:
    rng = random.Random(1)
    moth = sample_moth(rng)
    wrong = replace(moth, antennae=next(a for a in TRAITS["antennae"] if a != moth.antennae))
    assert any(contradicts(text, wrong) for text in statements("antennae", moth))


def test_captions_speak_of_visible_traits_only() -> None:
    rng = random.Random(2)
    spoken: set[str] = set()
    for _ in range(400):
        written = caption(sample_moth(rng), ["antennae", "pattern_colour"], rng)
        spoken |= written.traits
        assert not words(written.text) & {"hindwing", "hindwings", "body", "abdomen", "tails"}
    assert spoken == {"antennae", "pattern_colour"}


def test_stated_traits_are_those_in_the_text() -> None:
    rng = random.Random(3)
    for _ in range(600):
        moth = sample_moth(rng)
        written = caption(moth, list(TRAITS), rng)
        assert ("antennae" in written.traits) == ("antennae" in written.text)
        assert ("body" in written.traits) == ("body" in written.text)
        assert ("rings" in written.traits) == bool(words(written.text) & {"rings", "abdomen"})
        assert ("tails" in written.traits) == ("tails" in written.text)


def test_one_attribute_and_several_are_both_common() -> None:
    rng = random.Random(4)
    numbers = [len(caption(sample_moth(rng), list(TRAITS), rng).traits) for _ in range(1000)]
    one = sum(n == 1 for n in numbers) / 1000
    none = sum(n == 0 for n in numbers) / 1000
    assert 0.35 < one < 0.75
    assert 0.02 < none < 0.07


def test_captions_never_name_a_species() -> None:
    names = {w for world in WORLDS for s in species(world) for w in words(s.name)}
    rng = random.Random(5)
    for _ in range(1000):
        assert not words(caption(sample_moth(rng), list(TRAITS), rng).text) & names


def test_captions_cover_the_words_of_descriptions() -> None:
    rng = random.Random(6)
    said: set[str] = set()
    for _ in range(8000):
        moth = Moth(**{t: rng.choice(values) for t, values in TRAITS.items()})
        said |= words(caption(moth, list(TRAITS), rng).text)
    assert said >= DESCRIPTION_WORDS


def test_full_caption_tells_moths_apart() -> None:
    rng = random.Random(7)
    moths = {sample_moth(rng) for _ in range(300)}
    assert len({full_caption(m) for m in moths}) == len(moths)

"""The species of the drawn worlds: fixed looks, names that say nothing, sentences that say all.

A genus shares the colours of wings and body, so colour alone finds the genus; within it species
differ in two traits or more, some of them only in small parts. Training captions know none of
these combinations (`is_held_out`) and none of these names.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from featcache.errors import UnknownNameError
from featcache.sources.descriptions import ClassDescriptions
from featcache.sources.fieldguide.traits import Moth, distance

WORLDS: tuple[str, ...] = ("fieldguide", "fieldguide-2")
"""The world to choose by, and one with other species that no choice ever saw."""

PAIRS = "fieldguide-pairs"
"""A world of fieldguide's species, two moths in every picture."""

TEMPLATES: tuple[str, ...] = (
    "a drawing of a {}.",
    "a moth called {}.",
    "a picture of the moth {}.",
    "{}, a kind of moth.",
)

DEFAULT_TEXT = "description"
"""Kind of texts that methods read by default: invented names tell a text tower nothing."""


@dataclass(frozen=True, slots=True)
class Species:
    """One class of a world."""

    name: str
    """Two invented words, the first of which is the genus."""
    genus: str
    moth: Moth
    descriptions: tuple[str, ...]
    """One visible attribute a sentence, lower-case."""


_Row = tuple[str, str, str, str, str, str, str]
_Genus = tuple[str, tuple[str, str, str], tuple[_Row, _Row, _Row, _Row]]

_FIELDGUIDE: tuple[_Genus, ...] = (
    ("Orvane", ("white", "red", "black"), (
        ("Tellic", "stripes", "black", "none", "yellow", "clubbed", "none"),
        ("Bassum", "stripes", "black", "none", "white", "feathered", "none"),
        ("Quorrel", "eyespot", "blue", "dot", "yellow", "curled", "long"),
        ("Haldis", "eyespot", "blue", "fringe", "yellow", "curled", "none"),
    )),
    ("Kesmora", ("orange", "green", "grey"), (
        ("Vunnic", "chevrons", "black", "dot", "none", "feathered", "none"),
        ("Orlat", "chevrons", "black", "dot", "black", "clubbed", "none"),
        ("Yemmel", "chevrons", "white", "none", "none", "feathered", "long"),
        ("Dassok", "border", "white", "none", "black", "feathered", "long"),
    )),
    ("Ulmarin", ("blue", "orange", "brown"), (
        ("Gossen", "spots", "yellow", "fringe", "white", "clubbed", "none"),
        ("Pellax", "spots", "yellow", "fringe", "yellow", "curled", "none"),
        ("Ruvek", "tips", "white", "none", "white", "clubbed", "long"),
        ("Zimmor", "tips", "white", "dot", "white", "clubbed", "none"),
    )),
    ("Fentolis", ("yellow", "purple", "white"), (
        ("Karruth", "tips", "red", "dot", "black", "curled", "none"),
        ("Ombeck", "spots", "red", "dot", "black", "feathered", "none"),
        ("Sullonar", "spots", "red", "none", "black", "feathered", "long"),
        ("Wessim", "stripes", "blue", "none", "none", "feathered", "long"),
    )),
    ("Jorrabel", ("purple", "yellow", "red"), (
        ("Nuvask", "eyespot", "white", "none", "white", "feathered", "none"),
        ("Ellorq", "eyespot", "white", "none", "none", "curled", "none"),
        ("Tammuk", "border", "pink", "fringe", "white", "clubbed", "none"),
        ("Brozzel", "border", "pink", "none", "white", "clubbed", "long"),
    )),
    ("Azzimer", ("brown", "blue", "green"), (
        ("Lomquin", "stripes", "pink", "fringe", "yellow", "feathered", "none"),
        ("Vassort", "stripes", "pink", "dot", "yellow", "feathered", "long"),
        ("Huppavel", "chevrons", "yellow", "fringe", "none", "clubbed", "none"),
        ("Ceddrim", "chevrons", "yellow", "fringe", "black", "curled", "none"),
    )),
)  # fmt: skip

_FIELDGUIDE_2: tuple[_Genus, ...] = (
    ("Mizzorel", ("red", "white", "grey"), (
        ("Anduvik", "tips", "black", "dot", "none", "curled", "none"),
        ("Pommuth", "tips", "black", "dot", "black", "feathered", "none"),
        ("Selkuno", "stripes", "yellow", "none", "yellow", "clubbed", "long"),
        ("Orbazz", "stripes", "yellow", "fringe", "yellow", "clubbed", "none"),
    )),
    ("Tuvalese", ("green", "orange", "white"), (
        ("Guntavo", "eyespot", "yellow", "none", "black", "clubbed", "none"),
        ("Lessimor", "eyespot", "yellow", "none", "none", "feathered", "none"),
        ("Kvanner", "spots", "white", "dot", "black", "clubbed", "long"),
        ("Dorruin", "spots", "white", "none", "black", "clubbed", "none"),
    )),
    ("Hassuven", ("yellow", "blue", "black"), (
        ("Immolar", "border", "black", "fringe", "white", "feathered", "none"),
        ("Yarquen", "border", "black", "fringe", "yellow", "curled", "none"),
        ("Bolvessa", "chevrons", "red", "fringe", "white", "feathered", "long"),
        ("Nettumo", "chevrons", "red", "dot", "white", "feathered", "none"),
    )),
    ("Corvessil", ("blue", "red", "green"), (
        ("Ezzaro", "chevrons", "white", "none", "yellow", "curled", "none"),
        ("Ploddem", "chevrons", "white", "dot", "yellow", "curled", "long"),
        ("Uskival", "spots", "pink", "none", "black", "curled", "none"),
        ("Marlotte", "spots", "pink", "none", "white", "clubbed", "none"),
    )),
    ("Wuldarrik", ("orange", "purple", "brown"), (
        ("Jessolan", "eyespot", "white", "dot", "white", "feathered", "none"),
        ("Tovvorel", "eyespot", "white", "none", "white", "feathered", "long"),
        ("Aggulim", "tips", "blue", "none", "none", "feathered", "none"),
        ("Fissmora", "border", "blue", "none", "white", "curled", "none"),
    )),
    ("Ibbeluna", ("white", "green", "red"), (
        ("Rosskev", "stripes", "blue", "fringe", "none", "curled", "none"),
        ("Zullane", "stripes", "blue", "fringe", "black", "clubbed", "none"),
        ("Opprivel", "spots", "black", "dot", "none", "curled", "long"),
        ("Cammodis", "spots", "black", "fringe", "none", "feathered", "long"),
    )),
)  # fmt: skip

_TABLES = {"fieldguide": _FIELDGUIDE, "fieldguide-2": _FIELDGUIDE_2, PAIRS: _FIELDGUIDE}

_MARKING = (
    "{} {} on the forewings.",
    "the forewings carry {} {}.",
    "forewings with {} {}.",
)
_SENTENCES: dict[str, tuple[str, ...]] = {
    "forewing": ("the forewings are {}.", "{} forewings.", "a moth with {} forewings."),
    "stripes": _MARKING,
    "spots": _MARKING,
    "chevrons": _MARKING,
    "eyespot": (
        "a {} eyespot on each forewing.",
        "each forewing carries a {} eyespot.",
        "forewings with one large {} eyespot each.",
    ),
    "border": (
        "a {} border around each forewing.",
        "the forewings have a {} border.",
        "forewings with a {} border.",
    ),
    "tips": (
        "the tips of the forewings are {}.",
        "{} tips on the forewings.",
        "forewings with {} tips.",
    ),
    "hindwing": ("the hindwings are {}.", "{} hindwings.", "a moth with {} hindwings."),
    "mark none": ("the hindwings are plain.", "plain hindwings."),
    "mark dot": ("a round dot on each hindwing.", "each hindwing carries one dot."),
    "mark fringe": ("a pale fringe on the hindwings.", "the hindwings have a pale fringe."),
    "body": ("the body is {}.", "a moth with a body in {}.", "{} body."),
    "rings none": ("the abdomen is plain.", "no rings on the abdomen."),
    "rings": ("{} rings around the abdomen.", "the abdomen carries {} rings."),
    "clubbed": (
        "clubbed antennae.",
        "the antennae are clubbed.",
        "antennae with round clubbed ends.",
    ),
    "feathered": ("feathered antennae.", "the antennae are feathered.", "wide feathered antennae."),
    "curled": ("curled antennae.", "the antennae are curled.", "antennae with curled ends."),
    "tails none": ("no tails.", "hindwings without tails."),
    "tails long": ("long tails on the hindwings.", "the hindwings end in long tails."),
}


def describe(moth: Moth, turn: int) -> Iterator[str]:
    """Say each attribute once; `turn` walks through the wordings so that neighbours differ."""

    def say(key: str, *words: str) -> str:
        wordings = _SENTENCES[key]
        return wordings[(turn + len(key)) % len(wordings)].format(*words)

    yield say("forewing", moth.forewing)
    if _SENTENCES[moth.pattern] is _MARKING:
        yield say(moth.pattern, moth.pattern_colour, moth.pattern)
    else:
        yield say(moth.pattern, moth.pattern_colour)
    yield say("hindwing", moth.hindwing)
    yield say(f"mark {moth.hindwing_mark}")
    yield say("body", moth.body)
    yield say("rings none" if moth.rings == "none" else "rings", moth.rings)
    yield say(moth.antennae)
    yield say(f"tails {moth.tails}")


@functools.cache
def species(world: str) -> tuple[Species, ...]:
    """List the 24 species of a world, four to a genus.

    Raises:
        UnknownNameError: There is no such world.
    """
    if world not in _TABLES:
        raise UnknownNameError("world", world, _TABLES)
    found: list[Species] = []
    for genus, (forewing, hindwing, body), rows in _TABLES[world]:
        for epithet, pattern, pattern_colour, mark, rings, antennae, tails in rows:
            moth = Moth(
                forewing=forewing,
                pattern=pattern,
                pattern_colour=pattern_colour,
                hindwing=hindwing,
                hindwing_mark=mark,
                body=body,
                rings=rings,
                antennae=antennae,
                tails=tails,
            )
            sentences = tuple(describe(moth, len(found)))
            found.append(Species(f"{genus} {epithet}", genus, moth, sentences))
    return tuple(found)


def written(world: str) -> ClassDescriptions:
    """Return the sentences about all species of a world, as those of other data sets.

    Example:
        >>> written("fieldguide").per_class()
        (8, 8)
    """
    return ClassDescriptions(
        author="The featcache authors",
        method="Made from the traits that are drawn, one sentence a trait.",
        licence="MIT",
        descriptions={s.name: s.descriptions for s in species(world)},
    )


def is_held_out(moth: Moth) -> bool:
    """Tell whether a moth is a species of any world or differs from one in a single trait."""
    return any(distance(moth, s.moth) <= 1 for world in WORLDS for s in species(world))


DESCRIPTION_WORDS: frozenset[str] = frozenset(
    word
    for world in WORLDS
    for s in species(world)
    for sentence in s.descriptions
    for word in sentence.replace(".", " ").replace(",", " ").split()
)
"""Every word that a description uses."""

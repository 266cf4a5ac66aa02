"""Captions for training: true sentences about a few visible traits, in varied wording.

About half of them state one attribute, as descriptions do, the others several. Some contain an
invented name, a new one every time, so that names carry no information about a moth.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass

from featcache.sources.fieldguide.traits import Moth

NAMED = 0.08
"""Share of captions with a name and visible traits."""
NAME_ONLY = 0.04
"""Share of captions that consist of a name alone."""


@dataclass(frozen=True, slots=True)
class Caption:
    """A sentence and the traits it states; no traits if it is a name alone."""

    text: str
    traits: frozenset[str]


# Key -> phrases that state its traits, for use in a list; `_SENTENCES` has full sentences.
_PHRASES: dict[str, tuple[str, ...]] = {
    "forewing": ("{forewing} forewings", "forewings in {forewing}"),
    "pattern lines": ("{pattern_colour} {pattern} on the forewings",),
    "pattern eyespot": ("a {pattern_colour} eyespot on each forewing",),
    "pattern border": ("a {pattern_colour} border around the forewings",),
    "pattern tips": ("{pattern_colour} tips on the forewings", "{pattern_colour} wing tips"),
    "shape lines": ("{pattern} on the forewings",),
    "shape eyespot": ("an eyespot on each forewing",),
    "shape border": ("a border around the forewings",),
    "shape tips": ("coloured tips on the forewings",),
    "pattern_colour": ("{pattern_colour} markings on the forewings",),
    "hindwing": ("{hindwing} hindwings", "hindwings in {hindwing}"),
    "mark none": ("plain hindwings",),
    "mark dot": ("a round dot on each hindwing", "dots on the hindwings"),
    "mark fringe": ("a pale fringe on the hindwings",),
    "body": ("a body in {body}", "a body coloured {body}"),
    "rings none": ("a plain abdomen", "no rings on the abdomen"),
    "rings": ("{rings} rings around the abdomen", "{rings} rings"),
    "antennae clubbed": ("clubbed antennae", "antennae with round ends"),
    "antennae feathered": ("feathered antennae", "wide feathered antennae"),
    "antennae curled": ("curled antennae", "antennae with curled ends"),
    "tails none": ("no tails",),
    "tails long": ("long tails", "two long tails on the hindwings"),
}
_SENTENCES: dict[str, tuple[str, ...]] = {
    "forewing": ("the forewings are {forewing}", "its forewings are coloured {forewing}"),
    "pattern lines": (
        "the forewings carry {pattern_colour} {pattern}",
        "forewings with {pattern_colour} {pattern}",
        "there are {pattern_colour} {pattern} on each forewing",
    ),
    "pattern eyespot": (
        "each forewing carries a {pattern_colour} eyespot",
        "forewings with one large {pattern_colour} eyespot each",
    ),
    "pattern border": (
        "the forewings have a {pattern_colour} border",
        "forewings with a {pattern_colour} border",
        "forewings edged in {pattern_colour}",
        "a {pattern_colour} border around each forewing",
    ),
    "pattern tips": (
        "the tips of the forewings are {pattern_colour}",
        "forewings with {pattern_colour} tips",
        "the forewings end in {pattern_colour} tips",
    ),
    "shape lines": ("the forewings carry {pattern}", "forewings marked with {pattern}"),
    "shape eyespot": ("each forewing carries an eyespot", "a large eyespot on the forewing"),
    "shape border": ("the forewings have a border", "a border on each forewing"),
    "shape tips": ("the tips of the forewings are marked", "forewings with coloured tips"),
    "pattern_colour": (
        "the markings of the forewings are {pattern_colour}",
        "forewings marked in {pattern_colour}",
    ),
    "hindwing": ("the hindwings are {hindwing}", "its hindwings are coloured {hindwing}"),
    "mark none": ("the hindwings are plain", "no markings on the hindwings"),
    "mark dot": ("each hindwing carries one dot", "a dot is seen on each hindwing"),
    "mark fringe": ("the hindwings have a pale fringe", "hindwings edged with a pale fringe"),
    "body": ("the body is {body}", "{body} body", "its body is coloured {body}"),
    "rings none": ("the abdomen is plain", "an abdomen without rings"),
    "rings": ("the abdomen carries {rings} rings", "an abdomen with {rings} rings"),
    "antennae clubbed": ("the antennae are clubbed", "antennae with round clubbed ends"),
    "antennae feathered": ("the antennae are feathered", "its antennae are wide and feathered"),
    "antennae curled": ("the antennae are curled", "the ends of the antennae are curled"),
    "tails none": ("hindwings without tails", "there are no tails", "the hindwings have no tails"),
    "tails long": ("the hindwings end in long tails", "long tails trail from the hindwings"),
}

_FULL = (
    "forewing",
    "pattern",
    "hindwing",
    "mark",
    "body",
    "rings",
    "antennae",
    "tails",
)
_TRAITS_OF: dict[str, frozenset[str]] = {
    "forewing": frozenset({"forewing"}),
    "pattern": frozenset({"pattern", "pattern_colour"}),
    "shape": frozenset({"pattern"}),
    "pattern_colour": frozenset({"pattern_colour"}),
    "hindwing": frozenset({"hindwing"}),
    "mark": frozenset({"hindwing_mark"}),
    "body": frozenset({"body"}),
    "rings": frozenset({"rings"}),
    "antennae": frozenset({"antennae"}),
    "tails": frozenset({"tails"}),
}
_WEIGHTS: dict[str, float] = {
    "forewing": 1.0,
    "pattern": 2.0,
    "shape": 1.0,
    "pattern_colour": 0.4,
    "hindwing": 1.0,
    "mark": 2.0,
    "body": 1.3,
    "rings": 2.0,
    "antennae": 2.2,
    "tails": 1.4,
}
"""Sampling weight of each attribute; small parts are stated more often."""

_NOUNS = ("moth", "moth", "moth", "butterfly")
_LEADS = (
    "a {noun} with ",
    "a {noun} with ",
    "this {noun} has ",
    "a drawing of a {noun} with ",
    "a photo of a {noun} with ",
    "a picture of a {noun} that has ",
    "an image of one {noun} with ",
    "a photograph of an insect with ",
    "a sketch of a {noun} with ",
    "a scan of a {noun} with ",
    "a small {noun} with ",
    "a close view of a {noun} with ",
    "a {noun} seen at night with ",
    "drawn from the front is a {noun} with ",
    "",
    "",
    "",
    "",
    "",
)
_NAMED_LEADS = (
    "a {name} with ",
    "{name} with ",
    "a drawing of a {name} with ",
    "a photo of a {name} with ",
    "a {noun} called {name} with ",
    "{name}, a {noun} with ",
)
_NAME_ONLY = (
    "{name}.",
    "{name}",
    "a drawing of a {name}.",
    "a picture of a {name}.",
    "a photo of a {name}.",
    "a photo of the {name}.",
    "a {noun} called {name}.",
    "a drawing of the {noun} {name}.",
    "{name}, a kind of {noun}.",
    "the species {name}.",
    "{name}, a kind of insect.",
)
_ONSETS = (*"bcdfghjklmnprstvwz", "br", "dr", "gr", "kr", "pl", "st", "th", "tr", "sh")
_VOWELS = "aeiouaeo"
_CODAS = ("", "", "l", "n", "r", "s", "m", "x", "ck", "rn", "th", "ss", "q", "v")


def full_caption(moth: Moth) -> str:
    """State all traits in one fixed sentence, for retrieval."""
    words = [
        _words(_PHRASES[_key(kind, moth)][-1 if kind == "rings" else 0], moth) for kind in _FULL
    ]
    return f"a moth with {_listed(words)}."


def statements(trait: str, moth: Moth) -> tuple[str, ...]:
    """List all sentences that state one trait of a moth and no other."""
    return all_statements({"pattern": "shape", "hindwing_mark": "mark"}.get(trait, trait), moth)


def all_statements(kind: str, moth: Moth) -> tuple[str, ...]:
    """List all sentences of one kind about a moth, without a lead."""
    key = _key(kind, moth)
    return tuple(_words(text, moth) + "." for text in (*_PHRASES[key], *_SENTENCES[key]))


def kinds_of_statement() -> dict[str, frozenset[str]]:
    """Map every kind of statement to the traits that it states."""
    return dict(_TRAITS_OF)


def statement(kind: str, moth: Moth, rng: random.Random) -> str:
    """Write a sentence of one kind about a moth, worded as captions are."""
    key = _key(kind, moth)
    if rng.random() < 0.6:
        return f"{_words(rng.choice(_SENTENCES[key]), moth)}."
    lead = rng.choice(_LEADS).format(noun=rng.choice(_NOUNS))
    return f"{lead}{_words(rng.choice(_PHRASES[key]), moth)}."


def caption(moth: Moth, visible: Collection[str], rng: random.Random) -> Caption:
    """Write a sentence about some of the visible traits.

    Args:
        moth: The moth that the image shows.
        visible: Names of the traits that are visible.
        rng: Random generator.
    """
    kinds = [kind for kind, traits in _TRAITS_OF.items() if traits.issubset(visible)]
    turn = rng.random()
    noun = rng.choice(_NOUNS)
    if turn < NAME_ONLY or not kinds:
        return Caption(rng.choice(_NAME_ONLY).format(name=_name(rng), noun=noun), frozenset())
    chosen = _choose(kinds, 1 if rng.random() < 0.55 else rng.choice((2, 2, 3, 3, 4)), rng)
    if turn < NAME_ONLY + NAMED:
        lead = rng.choice(_NAMED_LEADS).format(name=_name(rng), noun=noun)
        chosen = chosen[:1]  # the letters of a name take up most of the context
    elif len(chosen) == 1 and rng.random() < 0.6:
        sentence = _words(rng.choice(_SENTENCES[_key(chosen[0], moth)]), moth)
        return Caption(f"{sentence}.", _TRAITS_OF[chosen[0]])
    else:
        lead = rng.choice(_LEADS).format(noun=noun)
    listed = _listed([_words(rng.choice(_PHRASES[_key(kind, moth)]), moth) for kind in chosen])
    return Caption(f"{lead}{listed}.", frozenset[str]().union(*(_TRAITS_OF[k] for k in chosen)))


def _choose(kinds: list[str], number: int, rng: random.Random) -> list[str]:
    """Sample kinds by weight, without stating a trait twice."""
    left, chosen = list(kinds), list[str]()
    while left and len(chosen) < number:
        kind = rng.choices(left, [_WEIGHTS[k] for k in left])[0]
        chosen.append(kind)
        left = [k for k in left if not _TRAITS_OF[k] & _TRAITS_OF[kind]]
    return chosen


def _key(kind: str, moth: Moth) -> str:
    """Find the table entry for this kind of statement about this moth."""
    if kind in ("pattern", "shape"):
        lines = moth.pattern in ("stripes", "spots", "chevrons")
        return f"{kind} {'lines' if lines else moth.pattern}"
    if kind == "mark":
        return f"mark {moth.hindwing_mark}"
    if kind == "rings":
        return "rings none" if moth.rings == "none" else "rings"
    if kind in ("antennae", "tails"):
        return f"{kind} {getattr(moth, kind)}"
    return kind


def _words(pattern: str, moth: Moth) -> str:
    return pattern.format(
        forewing=moth.forewing,
        pattern=moth.pattern,
        pattern_colour=moth.pattern_colour,
        hindwing=moth.hindwing,
        body=moth.body,
        rings=moth.rings,
    )


def _listed(phrases: list[str]) -> str:
    head = ", ".join(phrases[:-1])
    return f"{head} and {phrases[-1]}" if head else phrases[-1]


def _name(rng: random.Random) -> str:
    """Invent one or two words."""
    words = []
    for _ in range(rng.choice((1, 2, 2, 2))):
        syllables = (
            rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(2)
        )
        words.append("".join(syllables).capitalize())
    return " ".join(words)

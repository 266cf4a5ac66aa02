"""WaffleCLIP: random words and characters after the class name, the same for every class.

    A photo of a {}, which has <words>.            A photo of a {}, which has <characters>.

Fifteen pairs of the two. Words are drawn with replacement and cut to the length that the words of
the class names have on average, as many as a class name has; characters come in as many groups,
joined by commas, together about as long as the longest word of a name.

Reference: Roth et al., Waffling Around for Performance, ICCV 2023, arXiv:2306.07282.
Source: released code @9ae608a, mode `waffle`: pairs, wording, counts and lengths.
Differs from the code: words come from the list below, which was written for this package;
characters from a to z, not from the data set's descriptors (CLIP's tokenizer drops case anyway);
"which has" stands before every one, where the code writes "which is" before a first letter a.
"""

import math
import random
import string
from collections.abc import Sequence
from statistics import fmean

PAIRS = 15
"""Pairs of words and characters, which give 30 texts per class."""

_WORDS = """
    anchor apple autumn bakery balloon barrel basket beacon blanket bottle breakfast bridge bucket
    butter button candle canvas carpet castle chapter cherry chimney circle cloud coffee corner
    cottage cotton cradle curtain dancer daylight desert diamond dinner doctor drawer dream echo
    engine envelope evening factory feather festival fiddle finger flavour forest fountain fridge
    garden garlic gentle giant glacier glove golden gravel grocery guitar hammer harbour harvest
    helmet hollow honey horizon hunger icicle island jacket jigsaw journal journey kettle kitchen
    ladder lantern lemon letter library lobby lumber magnet marble market meadow melody mirror
    modern monday morning mountain museum mustard narrow needle nephew nobody noodle number ocean
    office onion orchard oven package palace paper parade parcel pencil pepper piano picnic pillow
    planet pocket poem polite potato powder puddle purpose puzzle quarter quiet rabbit radio railway
    recipe ribbon river rocket saddle salad sandal saturday school season secret shadow shelter
    shoulder signal silence silver singer sister sleeve sofa spider spoon staircase station steam
    story stream sudden sugar summer sunday supper table tailor teacher temple theatre thread
    thunder ticket timber tower tractor travel tunnel turnip twelve umbrella uncle valley velvet
    village violin visitor voyage wagon walnut wander water weather wedding whisper window winter
    wizard wonder yearly yellow young zipper
"""
WORDS: tuple[str, ...] = tuple(_WORDS.split())
"""Everyday English words."""


def waffle_templates(classes: Sequence[str], seed: int) -> tuple[str, ...]:
    """Draw the templates of a data set; equal class names and seed give equal ones.

    Args:
        classes: Class names; only their numbers of words and letters matter.
        seed: Seed of the draw.
    """
    rng = random.Random(f"waffle/{seed}")
    count, length, groups, each = _lengths(classes)
    templates = []
    for _ in range(PAIRS):
        words = " ".join(rng.choice(WORDS)[:length] for _ in range(count))
        noise = ("".join(rng.choice(string.ascii_lowercase) for _ in range(each)) for _ in groups)
        templates += [_template(words), _template(", ".join(noise))]
    return tuple(templates)


def _lengths(classes: Sequence[str]) -> tuple[int, int, range, int]:
    """Return words, letters of a word, groups of characters, and characters of a group.

    `longest` is raised to the next multiple of the groups, also if it is a multiple already.
    """
    names = [name.split() or [name] for name in classes]
    count = max(1, round(fmean(len(words) for words in names)))
    length = max(1, round(fmean(fmean(len(w) for w in words) for words in names)))
    groups = 1 + round(fmean(len(words) - 1 for words in names))
    longest = math.ceil(fmean(max(len(w) for w in words) for words in names))
    longest += groups - longest % groups
    return count, length, range(groups), longest // groups


def _template(descriptor: str) -> str:
    return f"A photo of a {{}}, which has {descriptor}."

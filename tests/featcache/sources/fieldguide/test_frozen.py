"""The drawn worlds are frozen: nobody tunes them to a method, and every machine draws the same.

A change here means another world: figures in docs and the model card would speak of the old one.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from featcache.sources.fieldguide.species import TEMPLATES, WORLDS, species
from featcache.sources.fieldguide.traits import COLOURS, TRAITS
from featcache.sources.fieldguide.world import COUNTS, SIZE, drawing

REFERENCE = Path(__file__).with_name("reference.png")
SHOWN = [
    (world, split, 5 * i + j, i)
    for i, split in enumerate(("train", "test", "sketch", "night", "scan"))
    for j, world in enumerate(WORLDS)
]
WORDS = "622f24a86f761b47"


def sheet() -> np.ndarray:
    return np.concatenate([drawing(*one, masks=False).pixels for one in SHOWN], axis=1)


def test_species_texts_and_counts() -> None:
    facts = {
        "species": {world: [asdict(kind) for kind in species(world)] for world in WORLDS},
        "traits": TRAITS,
        "colours": COLOURS,
        "counts": dict(COUNTS),
        "size": SIZE,
        "templates": TEMPLATES,
    }
    text = json.dumps(facts, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == WORDS


def test_pixels_equal_the_stored_ones_within_one_grey_level() -> None:
    stored = np.asarray(Image.open(REFERENCE).convert("RGB")).astype(int)
    assert np.abs(sheet().astype(int) - stored).max() <= 1

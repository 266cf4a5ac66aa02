"""Draw and encode a world of other species, from a seed: what no default was ever chosen on.

Example: python benchmarks/another_world.py 7

Six genera of four species, as those of fieldguide: a genus shares its colours, two species differ
in two traits or more, and none is or is next to a species of the packaged worlds. The data set is
called another-SEED. Names of its species mean nothing to the model, and a folder has no other texts
by default, so measure with its descriptions:

    python benchmarks/sharpened.py --rows test --on another-SEED --text description
"""

import argparse
import json
import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from PIL import Image

from featcache.backbones.tiny.corpus import sample_moth
from featcache.pipeline.run import Request, extract
from featcache.sources.fieldguide.draw import draw, sample_scene
from featcache.sources.fieldguide.species import describe
from featcache.sources.fieldguide.traits import Moth, distance
from featcache.sources.fieldguide.world import SIZE, afar, picture_rng, slug
from featcache.store.library import cache_root

GENERA, EACH = 6, 4
COUNTS = {"train": 20, "val": 8, "test": 40}
"""Split -> images of each species."""
SYLLABLES = (
    "ba",
    "dor",
    "fen",
    "gil",
    "hu",
    "jas",
    "kel",
    "lom",
    "mir",
    "nop",
    "quu",
    "ves",
    "zor",
)


def main() -> None:
    """Draw what is missing, and encode it with what the methods of `sharpened` read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seed", type=int)
    parser.add_argument("--home", type=Path, help="caches; else as FEATCACHE_HOME says")
    arguments = parser.parse_args()
    root, name = cache_root(arguments.home), f"another-{arguments.seed}"
    folder = root / "images" / name
    kinds = species(arguments.seed)
    paint(kinds, name, folder)
    texts = folder.with_suffix(".json")
    described = {kind: list(describe(m, i)) for i, (kind, m) in enumerate(kinds.items())}
    texts.write_text(json.dumps(described))
    extract(
        Request(
            dataset=f"folder:{folder}",
            name=name,
            backbone="tiny",
            descriptions=texts,
            patches=("clearclip",),
            crops=("60:lazsl@test", "16:fair"),
            views=("10", "8:strong", "1:weak", "4:cdfsl"),
            view_patches=("4:cdfsl",),
        )
    )


def species(seed: int) -> dict[str, Moth]:
    """Return name -> moth, a genus after the other."""
    rng = random.Random(f"another world/{seed}")
    found: dict[str, Moth] = {}
    names = _names(rng)
    for _ in range(GENERA):
        genus, colours, own = next(names), _colours(sample_moth(rng)), 0
        while own < EACH:
            moth = sample_moth(rng)
            apart = all(distance(moth, other) > 1 for other in found.values())
            if apart and _colours(moth) == colours:
                found[f"{genus} {next(names)}"] = moth
                own += 1
    return found


def _colours(moth: Moth) -> tuple[str, str, str]:
    return moth.forewing, moth.hindwing, moth.body


def _names(rng: random.Random) -> Iterator[str]:
    taken = set()
    for i in count():
        name = "".join(SYLLABLES[int(rng.random() * len(SYLLABLES))] for _ in range(3)).title()
        if name not in taken:
            taken.add(name)
            yield name
        assert i < 10_000, "syllables are used up"


def paint(kinds: dict[str, Moth], world: str, folder: Path) -> None:
    """Draw the pictures that are not there, seen as those of the packaged worlds."""
    for split, number in COUNTS.items():
        for kind, moth in kinds.items():
            images = folder / split / slug(kind)
            images.mkdir(parents=True, exist_ok=True)
            for i in range(number):
                path = images / f"{i:04d}.jpg"
                if not path.exists():
                    rng = picture_rng(world, split, kind, i)
                    made = draw(moth, afar(sample_scene(rng), rng), size=SIZE)
                    Image.fromarray(made.pixels).save(path, quality=90)


if __name__ == "__main__":
    main()

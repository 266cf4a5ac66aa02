"""Draw a folder of photographs as people have them, with the drawn world as their subject.

    python .ci/photographs.py FOLDER

FOLDER/photos/CLASS/NNNN.jpg are images with known classes, FOLDER/new/NNNN.jpg some without.
"""

import sys
from pathlib import Path

from featcache.sources.fieldguide.world import open_world

KNOWN, NEW = 40, 1
"""Images of each of the 24 classes."""


def main() -> None:
    """Draw what is missing."""
    folder = Path(sys.argv[1])
    world = open_world("fieldguide", folder / "drawn", counts={"train": KNOWN, "test": NEW})
    for number, sample in enumerate(world.samples):
        name = Path(sample.id)
        place = folder / "photos" / name.parent.name / name.name
        if sample.split == "test":
            place = folder / "new" / f"{number:04d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.hardlink_to(folder / "drawn" / "fieldguide" / name)


if __name__ == "__main__":
    main()

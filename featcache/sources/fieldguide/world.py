"""A drawn world as a data set: JPEG files that are rendered when first asked for.

Every picture has its own seed, made of its world, split, species and number, so that what is drawn
does not depend on the order of drawing.
"""

import errno
import os
import random
import re
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from featcache.counts import counted
from featcache.errors import SourceError
from featcache.places import FilePlace
from featcache.sources.base import Dataset, Report, Sample
from featcache.sources.fieldguide.draw import Drawing, draw, sample_scene
from featcache.sources.fieldguide.pairs import draw_pair
from featcache.sources.fieldguide.scene import Scene
from featcache.sources.fieldguide.shifts import SHIFTS, shift
from featcache.sources.fieldguide.species import (
    DEFAULT_TEXT,
    PAIRS,
    TEMPLATES,
    species,
    written,
)

COUNTS: Mapping[str, int] = {
    "train": 60,
    "val": 12,
    "test": 40,
    "sketch": 40,
    "night": 40,
    "scan": 40,
}
"""Split -> images of each species."""

PAIRS_COUNTS: Mapping[str, int] = {"train": 20, "val": 12, "test": 40}
"""The same for the world of pairs, which is there to look at windows."""

SIZE = 160
"""Side of every picture in pixels."""

_QUALITY = 90
_PART = re.compile(r"\.\d{4}\.\d+\.part")
"""A picture that is being drawn."""
_TRIES = 5
_REPORT_EVERY = 50
_WRITERS = 4
_AHEAD = 64
"""Pictures that may wait for the disk."""


def counts_of(world: str) -> Mapping[str, int]:
    """Return split -> images of each species of a world."""
    return PAIRS_COUNTS if world == PAIRS else COUNTS


def slug(name: str) -> str:
    """Name a species' folder."""
    return name.lower().replace(" ", "-")


def picture_rng(world: str, split: str, kind: str, i: int) -> random.Random:
    """Return the seeded stream of one picture."""
    return random.Random(f"{world}/{split}/{kind}/{i}")


def drawing(world: str, split: str, species_index: int, i: int, *, masks: bool = True) -> Drawing:
    """Draw one picture of a world again, with the places of its parts.

    Raises:
        UnknownNameError: There is no such world.
    """
    kinds = species(world)
    kind = kinds[species_index]
    rng = picture_rng(world, split, kind.name, i)
    if world == PAIRS:
        return draw_pair(kinds, species_index, rng, size=SIZE, masks=masks)
    made = draw(kind.moth, afar(sample_scene(rng), rng), size=SIZE, masks=masks)
    if split not in SHIFTS:
        return made
    # A fifth of the drawing shows through, so that a shift is harder and not hopeless.
    seen = made.pixels.astype(np.int32) + 4 * shift(made.pixels, split, rng).astype(np.int32)
    return Drawing((seen // 5).astype(np.uint8), made.boxes, made.masks)


def afar(scene: Scene, rng: random.Random) -> Scene:
    """See the moth smaller, off the centre and more turned than the training drawings show it.

    Without this gap the `tiny` backbone knows every species at the first shot.
    """
    scale = 0.45 + 0.5 * rng.random()
    reach = 0.4 * (1 - scale)
    return replace(
        scene,
        scale=scale,
        x=(rng.random() * 2 - 1) * reach,
        y=(rng.random() * 2 - 1) * reach,
        rotation=(rng.random() * 2 - 1) * 50,
    )


def open_world(
    name: str,
    images_root: Path,
    *,
    report: Report | None = None,
    counts: Mapping[str, int] | None = None,
) -> Dataset:
    """List a world's pictures, drawing those that are missing or empty.

    Args:
        name: One of `species.WORLDS`, or `species.PAIRS`.
        images_root: Folder below which the world gets its own.
        report: Told how many of the missing pictures are drawn.
        counts: Split -> images of each species; None is all of the world.

    Raises:
        UnknownNameError: There is no such world.
        SourceError: The folder cannot be written.
        KeyboardInterrupt: If the user interrupts; a note says how many pictures are kept.
    """
    kinds = species(name)
    root = images_root / name
    samples: list[Sample] = []
    missing: list[tuple[str, int, int, Path]] = []
    drawn = 0
    try:
        for split, count in (counts or counts_of(name)).items():
            for label, kind in enumerate(kinds):
                folder = root / split / slug(kind.name)
                there = _drawn(folder)
                for i in range(count):
                    file = f"{i:04d}.jpg"
                    path = folder / file
                    image_id = f"{split}/{folder.name}/{file}"
                    samples.append(Sample(image_id, FilePlace(path), label, split))
                    if file not in there:
                        missing.append((split, label, i, path))
        with ThreadPoolExecutor(_WRITERS) as pool:  # so that drawing does not wait for the disk
            writing: deque[Future[None]] = deque()
            for done, (split, label, i, path) in enumerate(missing, start=1):
                made = drawing(name, split, label, i, masks=False)
                writing.append(pool.submit(_write, path, made))
                while len(writing) > (_AHEAD if done < len(missing) else 0):
                    writing.popleft().result()
                drawn = done
                if report and (done % _REPORT_EVERY == 0 or done == len(missing)):
                    report("drawing", done, len(missing))
    except OSError as error:
        raise _unwritable(root, error) from error
    except KeyboardInterrupt as error:
        if drawn:
            pictures = counted(drawn, "picture was", "pictures were")
            error.add_note(f"{pictures} drawn so far and are kept.")
        raise
    return Dataset(
        name=name,
        root=root,
        classes=tuple(kind.name for kind in kinds),
        samples=tuple(samples),
        templates=TEMPLATES,
        descriptions=written(name).descriptions,
        default_text=DEFAULT_TEXT,
        notes=(f"Drawn by this program: {len(missing)} of {len(samples)} pictures just now.",)
        if missing
        else (),
    )


def _drawn(folder: Path) -> set[str]:
    """Name the files of a folder that have content; what a killed process half drew is deleted."""
    found = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _PART.fullmatch(entry.name):
                    with suppress(OSError):  # the folder may be none that we can write to
                        (folder / entry.name).unlink()
                elif entry.name.endswith(".jpg") and entry.stat().st_size:
                    found.add(entry.name)
    except FileNotFoundError:
        return set()
    return found


def _write(path: Path, made: Drawing) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part")
    try:
        for tries in range(_TRIES, 0, -1):
            with part.open("wb") as file:
                Image.fromarray(made.pixels).save(file, format="JPEG", quality=_QUALITY)
                file.flush()
                os.fsync(file.fileno())
            # Its folder is not synced: a picture whose name is lost is drawn again.
            try:
                part.replace(path)
                return
            except FileNotFoundError:  # a process that began just now took it for a dead one's
                if tries == 1:
                    raise
    finally:
        part.unlink(missing_ok=True)


def _unwritable(root: Path, error: OSError) -> SourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SourceError(
            f"Drawing the pictures of '{root.name}' needs about 60 MB, and the disk of {root} "
            "is full. Free some space or choose another folder for images."
        )
    return SourceError(
        f"The pictures of '{root.name}' must be drawn into {root}, which cannot be written "
        f"({error.strerror}). Choose another folder for images."
    )

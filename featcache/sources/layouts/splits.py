"""Making missing splits: val and test are taken from train, class by class.

The images of each class are ordered by sha256(seed, id) and cut at fixed shares. The place of an
image in that order depends on nothing but itself, so one more photograph moves at most one old
image of its class across each of the two cuts, and the shares stay exact. (A threshold on the hash
would move none, but would leave small classes without test images by bad luck.)

Images of one group (a patient, a lesion, a track) stay together. A group counts in the class that
most of its images have, and goes where its middle lies in the order of that class.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter

from featcache.sources.base import Sample
from featcache.sources.trees.base import Entry
from featcache.sources.trees.names import earlier_id

SHARES = {"train": 50, "val": 20, "test": 30}
"""Percent of each class."""

Grouped = dict[str, dict[str, list[Entry]]]
"""Split -> class folder -> images."""


def make_splits(files: Grouped, seed: int, groups: Mapping[str, str] | None = None) -> list[str]:
    """Move images from train to whichever of val and test is missing, in place.

    Args:
        files: Images by split, with train.
        seed: Seed of the order of the images.
        groups: Image id -> group, which no cut divides; images without one stand alone.

    Returns:
        A note for the user, or none.
    """
    missing = [s for s in ("val", "test") if s not in files]
    if not missing:
        return []
    of_group = {} if groups is None else {i: g for i, g in groups.items() if g}
    train = files["train"]
    for split in ("train", *missing):
        files[split] = {folder: [] for folder in train}
    if of_group:
        for units in _units(train, of_group).values():
            _cut_units(files, missing, _ordered(units, seed))
    else:
        for folder, images in train.items():
            _cut(files, missing, folder, sorted(images, key=lambda image: _rank(image.id, seed)))
    cuts = " and ".join(f"{SHARES[split]} % as {split}" for split in missing)
    whole = ", groups kept whole" if of_group else ""
    return [f"Split off train here, by class and seed {seed}: {cuts}; the rest stays train{whole}."]


def samples(
    files: Grouped, folders: Sequence[str], groups: Mapping[str, str] | None = None
) -> Iterator[Sample]:
    """Yield one sample an image: by split, then label (place in `folders`), then id."""
    of_group = groups or {}
    first = [s for s in ("train", "val", "test") if s in files]
    for split in (*first, *sorted(set(files) - set(first))):
        for label, folder in enumerate(folders):
            for image in sorted(files[split].get(folder, ()), key=attrgetter("id")):
                group = of_group.get(image.id, "") if of_group else ""
                yield Sample(image.id, image.place, label, split, group)


_Unit = list[tuple[str, Entry]]
"""Images of one group, each with its class folder."""


def _units(
    train: Mapping[str, Sequence[Entry]], groups: Mapping[str, str]
) -> dict[str, list[tuple[str, _Unit]]]:
    """Return class folder -> units, (sort name, images): groups and single images."""
    units: dict[str, list[tuple[str, _Unit]]] = {folder: [] for folder in train}
    together: dict[str, _Unit] = {}
    for folder, images in train.items():
        for image in images:
            if group := groups.get(image.id):
                together.setdefault(group, []).append((folder, image))
            else:
                units[folder].append((image.id, [(folder, image)]))
    for group, unit in together.items():
        counts = Counter(folder for folder, _ in unit)
        home = min(counts, key=lambda folder: (-counts[folder], folder))
        units[home].append((f"group:{group}", unit))
    return units


def _ordered(units: Sequence[tuple[str, _Unit]], seed: int) -> list[_Unit]:
    ranked = sorted((_rank(name, seed), name, place) for place, (name, _) in enumerate(units))
    return [units[place][1] for _, _, place in ranked]


def _ends(count: int, missing: Sequence[str]) -> list[int]:
    """Return where train and each missing split end in a class of so many images."""
    ends, share = [count], 100
    for split in reversed(missing):
        share -= SHARES[split]
        ends.append((share * count + 50) // 100)  # rounds half up: never an empty train
    return ends[::-1]


def _cut(files: Grouped, missing: Sequence[str], folder: str, images: list[Entry]) -> None:
    """Assign the images of a class to train and the missing splits, in this order."""
    start = 0
    for split, end in zip(("train", *missing), _ends(len(images), missing), strict=True):
        files[split][folder] = images[start:end]
        start = end


def _cut_units(files: Grouped, missing: Sequence[str], units: Sequence[_Unit]) -> None:
    """Assign units (groups) to splits by the position of their middle."""
    splits, ends = ("train", *missing), _ends(sum(map(len, units)), missing)
    at = place = 0
    for unit in units:
        while 2 * at + len(unit) > 2 * ends[place] and place < len(missing):
            place += 1
        for folder, image in unit:
            files[splits[place]][folder].append(image)
        at += len(unit)


def _rank(name: str, seed: int) -> bytes:
    # NFC: a photograph has the same rank whether a Mac or a Linux machine wrote its name.
    # By the earlier id: a name with a backslash stays in the split that it was in.
    plain = earlier_id(name)
    if not plain.isascii():
        plain = unicodedata.normalize("NFC", plain)
    return hashlib.sha256(f"{seed}:{plain}".encode()).digest()

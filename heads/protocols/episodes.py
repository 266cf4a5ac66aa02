"""Lists of episodes: which images are support and query of each, drawn by seed or read from JSON.

An episode has `ways` classes with `shots` support and `queries` query images each, all different,
all from one split. All methods get the same list, so that runs can be paired by episode.

Source: the sampler of BSCD-FSL (Guo et al., ECCV 2020, released code): classes at random, then
shots + queries random images of each, the first of them the support. Differs from it: each episode
has its own stream, named by (seed, episode), so that the first 100 of 400 are the 100.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from featcache.errors import ImportedFileError, NewerFormatError, TaskError, UsageError
from featcache.limits import WORDS
from featcache.paths import read_regular
from featcache.store.format.seal import seal, unseal
from featcache.types import FeatureSet, Listing
from featcache.wording import Argument
from heads.results.fields import WHOLE
from heads.results.record import ANSWERED, REPETITIONS, digest_ids

FILE = "episodes.json"
"""Beside the record of a run."""
FORMAT = 2
"""From 2 on sealed; a list written by hand has format 1 and no seal."""


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """A list of episodes over the rows of one listing."""

    dataset: str
    split: str
    shots: int
    queries: int
    """Query images of a class."""
    seed: int
    """Seed of the draw, and of the batches of each episode."""
    classes: Int64[np.ndarray, "e w"]
    """Positions in the class list."""
    rows: Int64[np.ndarray, "e w i"]
    """Rows of the listing, class by class, the support first."""

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def ways(self) -> int:
        """Count the classes of an episode."""
        return int(self.classes.shape[1])

    def support(self, episode: int) -> Int64[np.ndarray, " m"]:
        """Return the support rows of an episode, class by class."""
        return self.rows[episode, :, : self.shots].reshape(-1)

    def query(self, episode: int) -> Int64[np.ndarray, " n"]:
        """Return the query rows of an episode, class by class."""
        return self.rows[episode, :, self.shots :].reshape(-1)

    def digest(self, listing: Listing) -> str:
        """Return 16 hex digits of all images in order; equal digests allow a paired test."""
        shape = f"{len(self)}x{self.ways}x{self.shots}+{self.queries}"
        return digest_ids([shape, *(listing.ids[int(r)] for r in self.rows.flatten())])

    def to_json(self, listing: Listing) -> str:
        """Write the list with each image's name once and positions everywhere else, sealed."""
        used, at = np.unique(self.rows, return_inverse=True)
        at = at.reshape(self.rows.shape)
        line, _ = seal(
            {
                "format": FORMAT,
                "dataset": self.dataset,
                "split": self.split,
                "ways": self.ways,
                "shots": self.shots,
                "queries": self.queries,
                "seed": self.seed,
                "classes": list(listing.classes),
                "images": [listing.ids[int(r)] for r in used],
                "episodes": [
                    {
                        "classes": classes.tolist(),
                        "support": images[:, : self.shots].tolist(),
                        "query": images[:, self.shots :].tolist(),
                    }
                    for classes, images in zip(self.classes, at, strict=True)
                ],
            }
        )
        return line.decode()


def draw(
    features: FeatureSet,
    split: str,
    *,
    ways: int,
    shots: int,
    queries: int,
    episodes: int,
    seed: int,
) -> Episodes:
    """Draw a list of episodes from the readable, labelled rows of a split.

    Raises:
        UsageError: If a number is too small, or no record could hold the list or its seed.
        TaskError: If too few classes have enough images.
    """
    numbers = {"ways": ways, "shots": shots, "queries": queries, "episodes": episodes}
    for name, value in numbers.items():
        if value < (least := 2 if name == "ways" else 1):
            raise UsageError(Argument(name), f" must be at least {least} in episodes, got {value}.")
    rows = features.usable(split)
    labels = features.labels[rows]
    members = {c: rows[labels == c].tolist() for c in range(len(features.classes))}
    eligible = [c for c, images in members.items() if len(images) >= shots + queries]
    if len(eligible) < ways:
        nth = f"; number {ways} by size has {_nth(members, ways)}"
        nearest = nth if ways <= len(members) else ""
        raise TaskError(
            f"Episodes of {ways} classes need as many with {shots} + {queries} images in split "
            f"'{split}', and {len(eligible)} of its {len(members)} classes have them{nearest}. "
            f"Lower ",
            Argument("ways"),
            ", ",
            Argument("shots"),
            " or ",
            Argument("queries"),
            ".",
        )
    if episodes > REPETITIONS:
        raise UsageError(Argument("episodes"), f" must be at most {REPETITIONS:,}, got {episodes}.")
    if (images := episodes * ways * (shots + queries)) > ANSWERED:
        raise UsageError(
            f"{episodes} episodes of {ways} x ({shots} + {queries}) images are {images:,}; "
            f"a list holds at most {ANSWERED:,}. Lower ",
            Argument("episodes"),
            ".",
        )
    if abs(seed) >= WHOLE:
        raise UsageError(Argument("seed"), f" must be less than 2**63 in size, got {seed}.")
    classes, chosen = [], []
    for episode in range(episodes):
        rng = _stream(seed, episode)
        classes.append(rng.sample(eligible, ways))
        chosen.append([rng.sample(members[c], shots + queries) for c in classes[-1]])
    return Episodes(
        dataset=features.listing.dataset,
        split=split,
        shots=shots,
        queries=queries,
        seed=seed,
        classes=np.array(classes, dtype=np.int64),
        rows=np.array(chosen, dtype=np.int64),
    )


def left_out(features: FeatureSet, episodes: Episodes) -> list[str]:
    """Return the names of classes that were too small to be drawn."""
    rows = features.usable(episodes.split)
    counts = np.bincount(
        features.labels[rows][features.labels[rows] >= 0], minlength=len(features.classes)
    )
    needed = episodes.shots + episodes.queries
    return [features.classes[c] for c in np.flatnonzero(counts < needed)]


def read(path: Path, features: FeatureSet) -> Episodes:
    """Read a list back and check it against the current images and labels.

    Args:
        path: A file that `to_json` wrote.
        features: The cache that it is for.

    Raises:
        ImportedFileError: If the file is no such list, or does not fit the data set.
        NewerFormatError: If a later version wrote it.
    """
    try:
        raw = _opened(path, read_regular(path, WORDS))
    except OSError as error:
        raise ImportedFileError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise _refuse(path, f"is not JSON ({error})") from error
    if not isinstance(raw, dict):
        raise _refuse(path, "is not a JSON object")
    if isinstance(raw.get("format"), int) and raw["format"] > FORMAT:
        raise NewerFormatError(
            f"{path} has format {raw['format']}, this program reads up to {FORMAT}. "
            f"Upgrade featcache to read it."
        )
    return _checked(path, raw, features)


def _opened(path: Path, data: bytes) -> Any:
    """Return the values of a list, after checking its seal if it has one."""
    with suppress(ValueError):
        return unseal(data.removesuffix(b"\n"))[0]
    raw = json.loads(data)
    if isinstance(raw, dict) and ("crc" in raw or raw.get("format") == FORMAT):
        raise _refuse(
            path, "is not what was written (its checksum differs; a list of your own has format 1)"
        )
    return raw


def _checked(path: Path, raw: Mapping[str, Any], features: FeatureSet) -> Episodes:
    listing = features.listing
    try:
        images = _strings(raw["images"])
        names = _strings(raw["classes"])
        ways, shots, queries, seed = (int(raw[n]) for n in ("ways", "shots", "queries", "seed"))
        classes = _whole([e["classes"] for e in raw["episodes"]], (-1, ways), len(names))
        support = _whole([e["support"] for e in raw["episodes"]], (-1, ways, shots), len(images))
        query = _whole([e["query"] for e in raw["episodes"]], (-1, ways, queries), len(images))
        split, dataset = str(raw["split"]), str(raw["dataset"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _refuse(path, f"is not a list of episodes ({error!r})") from error
    if dataset != listing.dataset:
        raise _refuse(path, f"is for data set '{dataset}', not '{listing.dataset}'")
    if min(ways - 1, shots, queries, len(classes)) < 1:
        raise _refuse(path, "has no episodes, or fewer than two classes, a shot or a query")
    usable = {listing.ids[int(r)]: int(r) for r in features.usable(split)}
    if unknown := [i for i in images if i not in usable]:
        raise _refuse(
            path, f"names {len(unknown)} images that split '{split}' lacks (first: {unknown[0]})"
        )
    place = dict(zip(_numbered(listing.classes), range(len(listing.classes)), strict=True))
    if unknown := [name for name, count in _numbered(names) if (name, count) not in place]:
        raise _refuse(path, f"names classes that the data set lacks (first: {unknown[0]})")
    row_of = np.array([usable[i] for i in images], dtype=np.int64)
    class_of = np.array([place[n] for n in _numbered(names)], dtype=np.int64)
    episodes = Episodes(
        dataset=dataset,
        split=split,
        shots=shots,
        queries=queries,
        seed=seed,
        classes=class_of[classes],
        rows=row_of[np.concatenate([support, query], axis=2)],
    )
    for e, rows in enumerate(episodes.rows):
        if len(np.unique(rows)) < rows.size or len(np.unique(episodes.classes[e])) < ways:
            raise _refuse(path, f"uses an image or a class twice in episode {e + 1}")
        if (features.labels[rows] != episodes.classes[e][:, None]).any():
            raise _refuse(path, f"disagrees with the labels of episode {e + 1}'s images")
    return episodes


def _strings(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise TypeError("expected a list of names")
    return value


def _whole(values: Sequence[Any], shape: tuple[int, ...], stop: int) -> Int64[np.ndarray, "..."]:
    """Return whole numbers from 0 below `stop`, all of one shape."""
    array = np.array(values)
    if array.dtype.kind != "i" or array.ndim != len(shape) or array.shape[1:] != shape[1:]:
        raise ValueError(f"expected whole numbers of shape {list(shape[1:])} in every episode")
    if array.size and not 0 <= array.min() <= array.max() < stop:
        raise ValueError(f"expected positions below {stop}")
    return array.astype(np.int64)


def _refuse(path: Path, what: str) -> ImportedFileError:
    return ImportedFileError(
        f"{path} {what}. Give the {FILE} of a run on this data set, or leave ",
        Argument("episode_list"),
        " away.",
    )


def _stream(seed: int, episode: int) -> random.Random:
    digest = hashlib.blake2b(f"episodes/{seed}/{episode}".encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))


def _nth(members: Mapping[int, Sequence[int]], n: int) -> int:
    """Return the size of the n-th largest class; 0 where there are fewer."""
    sizes = sorted((len(images) for images in members.values()), reverse=True)
    return sizes[n - 1] if n <= len(sizes) else 0


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    """Return each name with how often it came before: classes may have the same name."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        found.append((name, seen[name]))
        seen[name] += 1
    return found

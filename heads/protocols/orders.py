"""Lists of orders: in which order, and in which batches, the images of a split are asked.

A list has many independent repetitions: small batches of few classes (`batches`), or orders of a
whole split (`stream`). A method starts afresh in each. Transductive methods answer `batch` rows at
a time; online methods walk through the rows in order. All methods get the same list, so that runs
can be paired by repetition.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from featcache.errors import ImportedFileError, NewerFormatError
from featcache.limits import WORDS
from featcache.paths import read_regular
from featcache.store.format.seal import seal, unseal
from featcache.types import FeatureSet, Listing
from featcache.wording import Argument
from heads.results.fields import WHOLE
from heads.results.record import ANSWERED, BATCHES, REPETITIONS, STREAM, digest_ids

FILE = "orders.json"
"""Beside the record of a run."""
FORMAT = 1
PROTOCOLS = (BATCHES, STREAM)


@dataclass(frozen=True, kw_only=True)
class Orders:
    """A list of orders over the rows of one listing."""

    dataset: str
    split: str
    protocol: str
    """`batches` or `stream`."""
    batch: int
    """Rows that a transductive method answers together; fewer at the end of an order."""
    classes: str = ""
    """Of batches: fewest and most classes drawn, as `1-4`."""
    correlation: str = ""
    """Of streams: Dirichlet parameter of the slots, `separate` or `none`."""
    seed: int
    """Seed of the draw."""
    rows: tuple[Int64[np.ndarray, " _"], ...]
    """Rows of the listing, one array a repetition; no row twice in one."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def longest(self) -> int:
        """Count the rows of the longest order."""
        return max(map(len, self.rows))

    @property
    def stated(self) -> dict[str, int | str]:
        """Return what the record states of the list."""
        drawn = {"effective_classes": self.classes, "correlation": self.correlation}
        return {
            "batch": self.batch,
            "repeats": len(self),
            "seed": self.seed,
            **{name: value for name, value in drawn.items() if value},
        }

    def digest(self, listing: Listing) -> str:
        """Return 16 hex digits of all images in order; equal digests allow a paired test."""
        sizes = ",".join(str(len(rows)) for rows in self.rows)
        ids = (listing.ids[int(r)] for rows in self.rows for r in rows)
        return digest_ids(chain([f"{self.protocol}/{self.batch}/{sizes}"], ids))

    def batches(self, repetition: int) -> list[slice]:
        """Cut an order into batches."""
        n = len(self.rows[repetition])
        return [slice(i, min(i + self.batch, n)) for i in range(0, n, self.batch)]

    def to_json(self, listing: Listing) -> str:
        """Write the list with each image's name once and positions everywhere else, sealed."""
        used = np.unique(np.concatenate(self.rows))
        line, _ = seal(
            {
                "format": FORMAT,
                "dataset": self.dataset,
                "split": self.split,
                "protocol": self.protocol,
                "batch": self.batch,
                "effective_classes": self.classes,
                "correlation": self.correlation,
                "seed": self.seed,
                "images": [listing.ids[int(r)] for r in used],
                "orders": [np.searchsorted(used, rows).tolist() for rows in self.rows],
            }
        )
        return line.decode()


def read(path: Path, features: FeatureSet) -> Orders:
    """Read a list back and check it against the images of the cache.

    Args:
        path: A file that `to_json` wrote.
        features: The cache that it is for.

    Raises:
        ImportedFileError: If the file is no such list, or does not fit the data set.
        NewerFormatError: If a later version wrote it.
    """
    try:
        raw = unseal(read_regular(path, WORDS).removesuffix(b"\n"))[0]
    except OSError as error:
        raise ImportedFileError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise _refuse(path, f"is not what was written ({error})") from error
    version = raw.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise NewerFormatError(
            f"{path} has format {version}, this program reads up to {FORMAT}. "
            f"Upgrade featcache to read it."
        )
    return _checked(path, raw, features)


def _checked(path: Path, raw: Mapping[str, Any], features: FeatureSet) -> Orders:
    listing = features.listing
    try:
        texts = ("dataset", "split", "protocol", "effective_classes", "correlation")
        dataset, split, protocol, classes, correlation = (_text(raw[name]) for name in texts)
        batch, seed = _number(raw["batch"]), _number(raw["seed"])
        images = [_text(name) for name in raw["images"]]
        orders = list(_orders(raw["orders"], len(images)))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _refuse(path, f"is not a list of orders ({error!r})") from error
    if dataset != listing.dataset:
        raise _refuse(path, f"is for data set '{dataset}', not '{listing.dataset}'")
    if protocol not in PROTOCOLS or batch < 1 or not orders:
        raise _refuse(path, "has no orders, no batch or another protocol")
    usable = {listing.ids[int(r)]: int(r) for r in features.usable(split)}
    usable = {name: row for name, row in usable.items() if features.labels[row] >= 0}
    if unknown := [name for name in images if name not in usable]:
        raise _refuse(
            path, f"names {len(unknown)} images that split '{split}' lacks (first: {unknown[0]})"
        )
    row_of = np.array([usable[name] for name in images], dtype=np.int64)
    if len(np.unique(row_of)) < len(row_of):
        raise _refuse(path, "names an image twice")
    return Orders(
        dataset=dataset,
        split=split,
        protocol=protocol,
        batch=batch,
        classes=classes,
        correlation=correlation,
        seed=seed,
        rows=tuple(row_of[order] for order in orders),
    )


def _orders(values: Sequence[Any], stop: int) -> Iterator[Int64[np.ndarray, " _"]]:
    """Yield the positions of each order, all different and below `stop`."""
    if not isinstance(values, list) or len(values) > REPETITIONS:
        raise ValueError(f"expected at most {REPETITIONS:,} orders")
    total = 0
    for value in values:
        order = np.array(value)
        total += order.size
        if order.dtype.kind != "i" or order.ndim != 1 or not 0 < order.size <= total <= ANSWERED:
            raise ValueError(f"expected lists of positions, {ANSWERED:,} at most in all")
        if order.min() < 0 or order.max() >= stop or len(np.unique(order)) < order.size:
            raise ValueError(f"expected different positions below {stop}")
        yield order.astype(np.int64)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("expected text")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= WHOLE:
        raise TypeError("expected a whole number")
    return value


def _refuse(path: Path, what: str) -> ImportedFileError:
    return ImportedFileError(
        f"{path} {what}. Give the {FILE} of a run on this data set, or leave ",
        Argument("order_list"),
        " away.",
    )

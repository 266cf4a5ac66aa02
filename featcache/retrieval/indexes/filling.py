"""Train an approximate index on a sample and stream vectors into it."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from featcache.progress import Report
from featcache.retrieval.kinds.structure import Structure
from featcache.retrieval.vectors import BLOCK_BYTES, Vectors

Watch = Callable[[Float32[Tensor, "b d"]], None]
"""Told of every block that is added."""
SPREAD = 4
"""A sample has at most one in so many parts of an image, if there are enough images."""


def trained(structure: Structure, vectors: Vectors, report: Report | None) -> None:
    """Train on a sample of the vectors, drawn with a fixed seed; errors as `Vectors.take`."""
    count = structure.sample_size(len(vectors))
    if count:
        if report is not None:
            report(f"train {structure.name}", 0, 0)
        structure.train(vectors.take(sample(vectors, count)).numpy())


def sample(vectors: Vectors, count: int) -> Int64[np.ndarray, " s"]:
    """Draw positions of vectors: every image is as likely, and a quarter of its parts at most.

    Whole rows are read, so that parts of few images are read faster than single ones of many.

    Args:
        vectors: What to draw from.
        count: How many to draw, at most all.

    Returns:
        Ascending positions.
    """
    rng = np.random.default_rng(0)
    parts = max(source.parts for source in vectors.sources)
    if parts == 1 or SPREAD * count >= len(vectors):
        return np.sort(rng.choice(len(vectors), count, replace=False))
    starts = np.concatenate([_starts(vectors, number) for number in range(len(vectors.sources))])
    images = min(len(starts), -(-SPREAD * count // parts))
    begin = np.sort(rng.choice(len(starts), images, replace=False))
    every = np.concatenate([np.arange(first, first + size) for first, size in starts[begin]])
    return np.sort(rng.choice(every, min(count, len(every)), replace=False))


def _starts(vectors: Vectors, number: int) -> Int64[np.ndarray, "r 2"]:
    """Return the first position of each row of a cache, and how many vectors it has."""
    before = sum(len(s.rows) * s.parts for s in vectors.sources[:number])
    own = vectors.sources[number]
    first = before + own.parts * np.arange(len(own.rows))
    return np.stack([first, np.full_like(first, own.parts)], axis=1)


def fill(
    structure: Structure,
    vectors: Vectors,
    positions: Int64[np.ndarray, " n"] | None,
    watch: Watch | None,
    report: Report | None,
) -> None:
    """Add vectors block by block.

    Args:
        structure: A trained index.
        vectors: What to add.
        positions: Which of them, ascending; None for all.
        watch: Told of every block.
        report: Told after every block.

    Raises:
        CorruptCacheError: If a shard is damaged.
    """
    done, total = 0, len(vectors) if positions is None else len(positions)
    for block in vectors.blocks() if positions is None else _taken(vectors, positions):
        structure.add(block.numpy())
        if watch is not None:
            watch(block)
        done += len(block)
        if report is not None:
            report(f"add to {structure.name}", done, total)


def _taken(
    vectors: Vectors, positions: Int64[np.ndarray, " n"]
) -> Iterator[Float32[torch.Tensor, "b d"]]:
    step = max(1, BLOCK_BYTES // (4 * vectors.dim))
    for first in range(0, len(positions), step):
        yield vectors.take(positions[first : first + step])

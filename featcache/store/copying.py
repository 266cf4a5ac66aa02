"""Rows of one array to places of another, by the fastest way that their order allows."""

import numpy as np
from jaxtyping import Int64, Shaped

BUFFER = 1 << 19
"""Bytes on the way from a shard to rows that are not next to each other."""
WIDE = 1 << 13
"""Bytes of a row from which copying it alone is cheaper than going through the buffer."""


def copy_rows(
    values: Shaped[np.ndarray, "n ..."],
    position: Int64[np.ndarray, " k"],
    where: Int64[np.ndarray, " k"],
    out: Shaped[np.ndarray, "r ..."],
) -> None:
    """Set out[where] = values[position].

    Args:
        values: What is copied from, no memmap.
        position: Rows [k] of it, in any order, known to be inside.
        where: Rows [k] of the result.
        out: The result.
    """
    if not len(position):
        return
    if is_one_block(where):
        _copy(values, position, out[where[0] : where[-1] + 1])
    else:
        _scatter(values, position, where, out)


def is_one_block(rows: Int64[np.ndarray, " k"]) -> bool:
    """Tell whether rows [k], at least one, follow each other without a gap."""
    return bool(rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all())


def _copy(
    values: Shaped[np.ndarray, "n ..."],
    position: Int64[np.ndarray, " r"],
    out: Shaped[np.ndarray, "r ..."],
) -> None:
    """Gather from one shard, as one block where the positions are one."""
    if is_one_block(position):
        out[...] = values[position[0] : position[-1] + 1]
    else:
        # Positions are known to be inside; without `clip` numpy would gather into a second buffer.
        np.take(values, position, axis=0, out=out, mode="clip")


def _scatter(
    values: Shaped[np.ndarray, "n ..."],
    position: Int64[np.ndarray, " k"],
    where: Int64[np.ndarray, " k"],
    out: Shaped[np.ndarray, "r ..."],
) -> None:
    """Copy rows from one shard to rows all over the result, narrow ones through a cached buffer."""
    width = values.nbytes // len(values)
    if width >= WIDE:
        for source, target in zip(position.tolist(), where.tolist(), strict=True):
            out[target] = values[source]
        return
    step = max(1, BUFFER // width)
    buffer = np.empty((min(step, len(position)), *values.shape[1:]), dtype=values.dtype)
    for first in range(0, len(position), step):
        part = position[first : first + step]
        rows = np.take(values, part, axis=0, out=buffer[: len(part)], mode="clip")
        out[where[first : first + step]] = rows

"""Copy rows between arrays, the fastest way that their order allows."""

import numpy as np
from jaxtyping import Int64, Shaped

BUFFER = 1 << 19
"""Bytes of the buffer for rows that are not contiguous."""
WIDE = 1 << 13
"""Bytes of a row from which copying it directly is faster than buffering."""


def copy_rows(
    values: Shaped[np.ndarray, "n ..."],
    position: Int64[np.ndarray, " k"],
    where: Int64[np.ndarray, " k"],
    out: Shaped[np.ndarray, "r ..."],
) -> None:
    """Set out[where] = values[position].

    Args:
        values: Array to copy from, not a memmap.
        position: Rows [k] of `values`, in any order, within bounds.
        where: Rows [k] of `out`.
        out: Array to copy into.
    """
    if not len(position):
        return
    if is_one_block(where):
        _copy(values, position, out[where[0] : where[-1] + 1])
    else:
        _scatter(values, position, where, out)


def is_one_block(rows: Int64[np.ndarray, " k"]) -> bool:
    """Tell whether rows [k], at least one, are contiguous and ascending."""
    return bool(rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all())


def _copy(
    values: Shaped[np.ndarray, "n ..."],
    position: Int64[np.ndarray, " r"],
    out: Shaped[np.ndarray, "r ..."],
) -> None:
    """Copy into contiguous rows; one slice if the positions are contiguous too."""
    if is_one_block(position):
        out[...] = values[position[0] : position[-1] + 1]
    else:
        # Positions are within bounds; without `clip` numpy would use a second buffer.
        np.take(values, position, axis=0, out=out, mode="clip")


def _scatter(
    values: Shaped[np.ndarray, "n ..."],
    position: Int64[np.ndarray, " k"],
    where: Int64[np.ndarray, " k"],
    out: Shaped[np.ndarray, "r ..."],
) -> None:
    """Copy into scattered rows; narrow ones by way of a buffer that fits the cache."""
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

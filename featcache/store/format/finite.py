"""Rows that hold a NaN or an infinity, found at the speed at which they are read.

A float is finite unless all bits of its exponent are set. Read as whole numbers, floats are in
order: positive ones that are not finite are the largest signed numbers, negative ones the largest
unsigned numbers. So two maxima, which processors take of many numbers at once, find any of them.
"""

import numpy as np
from jaxtyping import Int64, Shaped

from featcache.quantise import SCALE, unpack


def not_finite(values: Shaped[np.ndarray, "r ..."]) -> Int64[np.ndarray, " k"]:
    """Return the positions of rows [r ...] with a value that is not finite, ascending.

    Args:
        values: float16 or float32; int8 tokens with their scale behind each; int32, always finite.
    """
    if values.dtype.kind == "f":
        return _where(values) if _has_any(values) else np.empty(0, dtype=np.int64)
    if values.dtype != np.int8 or values.shape[-1] <= SCALE:
        return np.empty(0, dtype=np.int64)
    scales = np.ascontiguousarray(values[..., -SCALE:]).view("<f4")[..., 0]
    # A token reaches 127 times its scale at most; float16 reaches 65504.
    with np.errstate(invalid="ignore"):
        is_small = (np.abs(scales) <= 65504 / 127).all(axis=tuple(range(1, scales.ndim)))
    suspects = np.flatnonzero(~is_small)  # [k]
    found: Int64[np.ndarray, " k"] = suspects[_where(unpack(values[suspects]))]
    return found


def _has_any(values: Shaped[np.ndarray, "r ..."]) -> bool:
    bits = values.dtype.itemsize * 8
    infinity = 0x7C00 if bits == 16 else 0x7F800000
    flat = values.reshape(-1)
    highest = max(
        int(flat.view(f"i{bits // 8}").max(initial=0)),
        int(flat.view(f"u{bits // 8}").max(initial=0)) - (1 << (bits - 1)),
    )
    return highest >= infinity


def _where(values: Shaped[np.ndarray, "r ..."]) -> Int64[np.ndarray, " k"]:
    return np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))

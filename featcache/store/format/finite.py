"""Find rows with a NaN or an infinity, at the speed of reading them.

A float is finite unless all bits of its exponent are set. Viewed as integers, positive values that
are not finite are the largest signed integers, and negative ones the largest unsigned integers. So
two vectorised maxima detect them.
"""

import numpy as np
from jaxtyping import Int64, Shaped

from featcache.quantise import SCALE, unpack


def not_finite(values: Shaped[np.ndarray, "r ..."]) -> Int64[np.ndarray, " k"]:
    """Return the positions of rows [r ...] with a value that is not finite, ascending.

    Args:
        values: float16 or float32; int8 tokens, each followed by its scale; int32, always finite.
    """
    if values.dtype.kind == "f":
        return _where(values) if _has_any(values) else np.empty(0, dtype=np.int64)
    if values.dtype != np.int8 or values.shape[-1] <= SCALE:
        return np.empty(0, dtype=np.int64)
    scales = np.ascontiguousarray(values[..., -SCALE:]).view("<f4")[..., 0]
    # A value is at most 127 times its scale; the largest float16 is 65504.
    with np.errstate(invalid="ignore"):
        is_small = (np.abs(scales) <= 65504 / 127).all(axis=tuple(range(1, scales.ndim)))
    suspects = np.flatnonzero(~is_small)  # [k]
    rows: Int64[np.ndarray, " k"] = suspects[_where(unpack(values[suspects]))]
    return rows


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

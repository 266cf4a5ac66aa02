"""Symmetric int8 quantisation with one scale per token, stored after the token.

    q = round(x / s),   s = max|x| / 127,   x' = s q                        (1)

    x [d] a token    q [d] int8    s float32, stored as four bytes (little-endian) after q: [d + 4]

|x - x'| <= s / 2, and the rounding of x' to float16 adds at most s / 16. Zeros stay zeros.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float16, Int8

from featcache.errors import CacheError

SCALE = 4
"""Bytes of the scale after each token."""
CHUNK = 1 << 20
"""Values processed at once, which bounds the temporary memory to a few float32 copies."""


def pack(
    values: Float[np.ndarray, "*n d"],
    *,
    component: str = "",
    name_of: Callable[[int], str] = "row {}".format,
) -> Int8[np.ndarray, "*n d+4"]:
    """Quantise tokens to int8, followed by their scales.

    Args:
        values: float16 or float32, finite, within the range of float16.
        component: Name of the component, for the error message.
        name_of: Maps a position along the first axis to an image, for the error message.

    Raises:
        CacheError: If a value is not finite, or too large for float16.
    """
    d = values.shape[-1]
    tokens = values.reshape(-1, d)
    packed = np.empty((len(tokens), d + SCALE), dtype=np.int8)
    step = max(1, CHUNK // d)
    for first in range(0, len(tokens), step):
        x = tokens[first : first + step].astype(np.float32)
        largest = np.abs(x).max(axis=1, initial=0.0, keepdims=True)
        fine = largest[:, 0] <= np.finfo(np.float16).max  # false for NaN too
        if not fine.all():
            image = (first + int(np.argmin(fine))) // max(1, len(tokens) // len(values))
            raise CacheError(
                f"Component '{component or 'int8'}' needs tokens that are finite and within "
                f"+-65504, which those of {name_of(image)} are not; nothing of this shard was "
                f"written. Look at that image and at the weights."
            )
        scale = largest / np.float32(127)  # [t 1]
        # Subnormal scales make the quotient meaningless; in float16 such tokens are zero.
        scale[scale < np.finfo(np.float32).tiny] = 0
        x /= np.where(scale > 0, scale, np.float32(np.inf))
        part = packed[first : first + step]
        part[:, :d] = np.rint(x, out=x)
        part[:, d:] = scale.astype("<f4").view(np.int8)
    return packed.reshape(*values.shape[:-1], d + SCALE)


def unpack(packed: Int8[np.ndarray, "*n e"]) -> Float16[np.ndarray, "*n d"]:
    """Dequantise tokens [... d + 4] to float16 [... d]."""
    d = packed.shape[-1] - SCALE
    rows = packed.reshape(-1, d + SCALE)
    values = np.empty((len(rows), d), dtype=np.float16)
    step = max(1, CHUNK // d)
    with np.errstate(over="ignore", invalid="ignore"):  # damaged scales; `unit` refuses the result
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            scale = np.ascontiguousarray(part[:, d:]).view("<f4")  # [t 1]
            values[first : first + step] = part[:, :d] * scale
    return values.reshape(*packed.shape[:-1], d)

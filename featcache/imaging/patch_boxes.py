"""Boxes of patch tokens in the upright image: the preprocessing of the central view, inverted.

A square input of side s has g x g patches, row by row from the top left. Patch (r, c) shows the
columns [c s/g, (c+1) s/g) and the rows [r s/g, (r+1) s/g) of the input, which the window maps back
to the image.
"""

from math import isqrt

from featcache.errors import UsageError
from featcache.imaging.windows import Box, Preprocess, central_window


def grid_of(patches: int) -> int | None:
    """Return patches per side of a square grid; None if their number is no square.

    Example:
        >>> grid_of(196), grid_of(50)
        (14, None)
    """
    side = isqrt(patches)
    return side if side and side * side == patches else None


def patch_box(patch: int, grid: int, width: int, height: int, preprocess: Preprocess) -> Box | None:
    """Return what a patch shows, in whole pixels of the upright image.

    Boxes of neighbours share an edge. A patch that lies partly in a black margin has the part
    inside the image.

    Args:
        patch: Number of the patch, from 0, row by row.
        grid: Patches per side.
        width: Width of the upright image in pixels.
        height: Its height.
        preprocess: Preprocessing of the backbone.

    Returns:
        left, top, right, bottom; None for a patch that lies wholly in a margin.

    Raises:
        UsageError: If the grid has no such patch.
        UnreadableImageError: If the image is too elongated for the backbone.

    Example:
        >>> patch_box(3, 2, 640, 480, Preprocess(224))
        (320, 240, 560, 480)
    """
    if not 0 <= patch < grid * grid:
        raise UsageError(f"patch must be 0 to {grid * grid - 1}, got {patch}.")
    window = central_window(width, height, preprocess)
    row, column = divmod(patch, grid)
    step = preprocess.side / grid
    left, right = (
        _back(window.left + at * step, window.width, width) for at in (column, column + 1)
    )
    top, bottom = (_back(window.top + at * step, window.height, height) for at in (row, row + 1))
    return (left, top, right, bottom) if left < right and top < bottom else None


def _back(at: float, resized: int, size: int) -> int:
    """Return the pixel of the image for a place in the resized image, within the image."""
    return min(max(round(at * size / resized), 0), size)

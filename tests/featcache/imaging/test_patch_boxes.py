"""The box of a patch is what the central view shows of the image there."""

from itertools import pairwise

import numpy as np
import pytest

from featcache.errors import UsageError
from featcache.imaging.patch_boxes import grid_of, patch_box
from featcache.imaging.views import central_view
from featcache.imaging.windows import MODES, Preprocess

SIDE, GRID = 64, 4
MARGIN = 200
"""Blue of every pixel inside the image; a margin is black."""


def coordinates(width: int, height: int) -> np.ndarray:
    """An image whose red is its column and whose green is its row, as a share of 250."""
    image = np.full((height, width, 3), MARGIN, dtype=np.uint8)
    image[..., 0] = np.linspace(0, 250, width)[None, :]
    image[..., 1] = np.linspace(0, 250, height)[:, None]
    return image


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("width", "height"), [(640, 480), (300, 500), (100, 100), (900, 301)])
def test_boxes_are_what_the_view_shows(mode: str, width: int, height: int) -> None:
    preprocess = Preprocess(SIDE, mode)
    view = central_view(coordinates(width, height), preprocess).astype(float)
    step = SIDE // GRID
    for patch in range(GRID * GRID):
        row, column = divmod(patch, GRID)
        shown = view[row * step : (row + 1) * step, column * step : (column + 1) * step]
        inside = shown[shown[..., 2] > MARGIN - 5]
        box = patch_box(patch, GRID, width, height, preprocess)
        if box is None:
            assert len(inside) == 0
            continue
        left, top, right, bottom = box
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        if len(inside) < step:  # a few blurred pixels beside a margin tell no centre
            continue
        x, y = inside[:, 0].mean() / 250 * width, inside[:, 1].mean() / 250 * height
        assert x == pytest.approx((left + right) / 2, abs=0.03 * width)
        assert y == pytest.approx((top + bottom) / 2, abs=0.03 * height)


@pytest.mark.parametrize("mode", MODES)
def test_boxes_of_a_row_tile_the_crop(mode: str) -> None:
    boxes = [patch_box(p, 14, 333, 517, Preprocess(224, mode)) for p in range(7 * 14, 8 * 14)]
    there = [box for box in boxes if box is not None]
    assert all(a[2] == b[0] for a, b in pairwise(there))
    assert sum(b[2] - b[0] for b in there) == 333


def test_what_is_no_patch() -> None:
    with pytest.raises(UsageError, match="0 to 15"):
        patch_box(16, 4, 100, 100, Preprocess(32))
    assert [grid_of(n) for n in (0, 1, 49, 50, 256)] == [None, 1, 7, None, 16]

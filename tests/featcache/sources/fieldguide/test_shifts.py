import random

import numpy as np
import pytest

from featcache.errors import UnknownNameError
from featcache.sources.fieldguide.draw import draw
from featcache.sources.fieldguide.scene import Scene
from featcache.sources.fieldguide.shifts import SHIFTS, shift
from featcache.sources.fieldguide.species import species

PIXELS = draw(species("fieldguide")[0].moth, Scene()).pixels


@pytest.mark.parametrize("name", SHIFTS)
def test_pixels_change_and_size_stays(name: str) -> None:
    before = PIXELS.copy()
    after = shift(PIXELS, name, random.Random(1))
    assert after.shape == before.shape
    assert after.dtype == np.uint8
    assert np.array_equal(PIXELS, before)
    assert np.abs(after.astype(int) - before.astype(int)).mean() > 15


@pytest.mark.parametrize("name", SHIFTS)
def test_a_seed_names_one_result(name: str) -> None:
    a, b, c = (shift(PIXELS, name, random.Random(seed)) for seed in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_media_look_as_they_should() -> None:
    mean = {name: shift(PIXELS, name, random.Random(3)).astype(int) for name in SHIFTS}
    red, _, blue = mean["night"].mean(axis=(0, 1))
    assert blue > red + 20
    assert 30 < mean["night"].mean() < PIXELS.mean()
    assert mean["sketch"].mean() > PIXELS.mean()
    assert np.ptp(mean["scan"], axis=2).max() == 0


def test_unknown_shift() -> None:
    with pytest.raises(UnknownNameError, match="sketch"):
        shift(PIXELS, "scetch", random.Random(1))

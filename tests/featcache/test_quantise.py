from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache import quantise
from featcache.errors import CacheError
from featcache.quantise import pack, unpack


def tokens(seed: int, n: int = 200, d: int = 64) -> np.ndarray:
    """Like patch tokens: a common direction, a few large channels, lengths that differ."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) + 0.5 * rng.standard_normal(d)
    x[:, :3] *= 6
    return (x * rng.uniform(0.05, 5, (n, 1))).astype(np.float16)


def naive(token: list[float]) -> tuple[list[int], float]:
    """Eq. (1), one value at a time."""
    scale = max(abs(x) for x in token) / 127
    return [round(x / scale) if scale else 0 for x in token], scale


@given(
    seed=st.integers(0, 10_000),
    power=st.integers(-10, 3),
    dtype=st.sampled_from([np.float16, np.float32]),
)
def test_error_stays_below_half_a_step(seed: int, power: int, dtype: Any) -> None:
    x: Any = (np.random.default_rng(seed).standard_normal((7, 3, 16)) * 10.0**power).astype(dtype)
    packed = pack(x)
    assert packed.dtype == np.int8
    assert packed.shape == (7, 3, 20)
    scale = packed[..., 16:].copy().view("<f4").astype(np.float64)
    exact = packed[..., :16] * scale
    assert (np.abs(exact - x) <= scale * 0.5001).all()
    back = unpack(packed)
    assert back.dtype == np.float16
    assert back.shape == x.shape
    step = np.float64(2.0**-25)  # half of the smallest float16
    assert (np.abs(back.astype(np.float64) - x) <= scale * (0.5001 + 1 / 16) + step).all()


def test_values_equal_the_equation() -> None:
    x = tokens(1, n=20, d=8)
    packed = pack(x)
    for row, token in zip(packed, x.tolist(), strict=True):
        q, scale = naive(token)
        assert np.abs(row[:8] - np.array(q)).max() <= 1  # a tie may go either way
        assert row[8:].view("<f4")[0] == pytest.approx(scale, rel=1e-6)


def test_cosines_survive() -> None:
    x = tokens(0).astype(np.float64)
    y = unpack(pack(tokens(0))).astype(np.float64)
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert cosine.min() > 0.999
    assert cosine.mean() > 0.9995


def test_extremes() -> None:
    x = np.array([[0, 0], [65504, -65504], [6e-8, 0], [-0.0, 1]], dtype=np.float16)
    np.testing.assert_array_equal(unpack(pack(x)), x)
    tiny = np.array([[1e-40, 0], [3e-38, 1e-38]], dtype=np.float32)
    assert not unpack(pack(tiny)).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 7e4])
def test_what_has_no_scale_is_refused(value: float) -> None:
    x = np.ones((3, 4), dtype=np.float32)
    x[1, 2] = value
    with pytest.raises(CacheError, match="finite and within"):
        pack(x)


def test_the_image_that_has_no_scale_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "CHUNK", 40)
    x = np.ones((6, 5, 8), dtype=np.float32)
    x[4, 3, 1] = np.inf
    with pytest.raises(CacheError, match=r"'patches.vanilla.int8' needs.*those of image 4.jpg are"):
        pack(x, component="patches.vanilla.int8", name_of="image {}.jpg".format)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = tokens(5, n=23, d=16)
    whole = pack(x)
    monkeypatch.setattr(quantise, "CHUNK", 40)
    np.testing.assert_array_equal(pack(x), whole)
    np.testing.assert_array_equal(unpack(whole), unpack(whole.reshape(23, 1, 20))[:, 0])

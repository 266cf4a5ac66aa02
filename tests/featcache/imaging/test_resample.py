import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from featcache.imaging import resample as module
from featcache.imaging.resample import resample, taps
from featcache.imaging.windows import Preprocess, Window, central_window

FILTERS = ("bicubic", "bilinear")
SIDE = 24


def noise(seed: int, *shape: int) -> Tensor:
    """Grey levels far apart, so that the filters overshoot and clamp."""
    levels = np.random.default_rng(seed).choice([0, 0, 3, 128, 255, 255], shape)
    return torch.from_numpy(levels.astype(np.uint8))


def torchs_own(picture: Tensor, window: Window, side: int, interpolation: str) -> Tensor:
    left, top, right, bottom = window.box
    cut = picture[top:bottom, left:right].permute(2, 0, 1)[None]
    size = (window.height, window.width)
    shown = F.interpolate(cut, size, mode=interpolation, antialias=True)[0].permute(1, 2, 0)
    square = torch.zeros((side, side, 3), dtype=torch.uint8)
    for y in range(max(0, -window.top), min(side, window.height - window.top)):
        for x in range(max(0, -window.left), min(side, window.width - window.left)):
            square[y, x] = shown[y + window.top, x + window.left]
    return square.flip(1) if window.mirrored else square


def draw(rng: np.random.Generator, height: int, width: int, side: int) -> Window:
    left, top = int(rng.integers(width)), int(rng.integers(height))
    w, h = int(rng.integers(1, width - left + 1)), int(rng.integers(1, height - top + 1))
    # Without AVX2 torch garbles a column of one pixel that stays one: none is drawn.
    wide, high = (int(rng.choice([2, side, side + 9, 3 * side])) for _ in range(2))
    wide = w if rng.random() < 0.2 and w > 1 else wide
    high = h if rng.random() < 0.2 else high
    x, y = (int(rng.integers(-3, max(1, size - side + 4))) for size in (wide, high))
    return Window((left, top, left + w, top + h), wide, high, x, y, bool(rng.random() < 0.5))


def a_batch(seed: int, n: int, k: int) -> tuple[Tensor, list[int], list[Window]]:
    rng = np.random.default_rng(seed)
    height, width = (int(2 ** rng.uniform(0, 8)) for _ in range(2))
    pictures = [int(i) for i in rng.integers(n, size=k)]
    windows = [draw(rng, height, width, SIDE) for _ in range(k)]
    return noise(seed, n, height, width, 3), pictures, windows


def assert_torchs_own(
    canvas: Tensor, pictures: Sequence[int], windows: Sequence[Window], side: int, filter_: str
) -> None:
    got = resample(canvas, pictures, windows, side, filter_)
    for levels, picture, window in zip(got, pictures, windows, strict=True):
        expected = torchs_own(canvas[picture], window, side, filter_)
        np.testing.assert_array_equal(levels.numpy(), expected.numpy(), str(window))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(FILTERS))
def test_levels_are_torchs_own(seed: int, interpolation: str) -> None:
    canvas, pictures, windows = a_batch(seed, n=3, k=5)
    assert_torchs_own(canvas, pictures, windows, SIDE, interpolation)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(
    ("height", "width", "high", "wide"),
    [
        (1, 1, 32, 32),
        (32, 50, 32, 32),
        (50, 32, 32, 32),
        (32, 32, 32, 32),
        (3, 1500, 32, 16000),
        (1500, 2, 24000, 32),
        (1200, 900, 43, 32),
        (2, 1500, 32, 32),
        (31, 33, 32, 34),
    ],
)
def test_extremes_are_torchs_own(
    height: int, width: int, high: int, wide: int, interpolation: str
) -> None:
    corner = ((wide - 32) // 2, (high - 32) // 2)
    window = Window((0, 0, width, height), wide, high, *corner)
    assert_torchs_own(noise(1, 1, height, width, 3), [0], [window], 32, interpolation)


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_what_a_backbone_sees_is_torchs_own(mode: str) -> None:
    sizes = [(60, 44), (44, 60), (32, 32), (33, 190), (17, 23)]
    preprocess = Preprocess(32, mode)
    windows = [central_window(width, height, preprocess) for width, height in sizes]
    canvas = noise(2, len(sizes), 190, 190, 3)
    assert_torchs_own(canvas, range(len(sizes)), windows, 32, "bicubic")


def test_a_level_is_what_naive_loops_give() -> None:
    line = [12, 255, 0, 0, 255, 90, 7]
    canvas = torch.tensor(line, dtype=torch.uint8)[None, None, :, None].expand(1, 1, 7, 3)
    got = resample(canvas, [0], [Window((0, 0, 7, 1), 3, 3)], 3, "bicubic")
    rows = []
    for i in range(3):
        centre = 7 / 3 * (i + 0.5)
        weights = [keys((x - centre + 0.5) / (7 / 3)) for x in range(7)]
        rows.append([w / math.fsum(weights) for w in weights])
    bits = max(p for p in range(23) if 0.5 + max(map(max, rows)) * 2**p < 2**15)
    for i, row in enumerate(rows):
        whole = [math.floor(abs(w) * 2**bits + 0.5) * (1 if w > 0 else -1) for w in row]
        total = sum(w * level for w, level in zip(whole, line, strict=True))
        expected = min(255, max(0, (total + 2 ** (bits - 1)) // 2**bits))
        assert set(got[0, :, i].flatten().tolist()) == {expected}


def keys(x: float) -> float:
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_neither_batch_nor_padding_nor_memory_changes_a_level(seed: int) -> None:
    canvas, pictures, windows = a_batch(seed, n=3, k=8)
    together = resample(canvas, pictures, windows, SIDE, "bicubic")
    order = np.random.default_rng(seed).permutation(8).tolist()
    padded = F.pad(canvas, (0, 0, 0, 5, 0, 40), value=201)
    shuffled = resample(
        padded, [pictures[k] for k in order], [windows[k] for k in order], SIDE, "bicubic"
    )
    assert torch.equal(shuffled, together[order])
    assert torch.equal(resample(canvas, pictures, windows, SIDE, "bicubic", 1), together)
    for k in range(8):
        alone = resample(canvas, pictures[k : k + 1], windows[k : k + 1], SIDE, "bicubic")
        assert torch.equal(alone[0], together[k])


def test_geometry_needs_nothing_from_the_device() -> None:
    """A meta tensor has no values: whatever reads one raises."""
    canvas, pictures, windows = a_batch(5, n=3, k=8)
    got = resample(canvas.to("meta"), pictures, windows, SIDE, "bicubic")
    assert got.device.type == "meta"
    assert got.shape == (8, SIDE, SIDE, 3)


def test_no_windows_give_no_squares() -> None:
    assert resample(noise(0, 1, 5, 5, 3), [], [], SIDE, "bicubic").shape == (0, SIDE, SIDE, 3)


@pytest.mark.parametrize(
    ("picture", "box"),
    [(0, (0, 0, 6, 5)), (0, (-1, 0, 5, 5)), (0, (2, 0, 2, 5)), (1, (0, 0, 5, 5))],
)
def test_a_box_outside_the_canvas_is_a_bug(picture: int, box: tuple[int, int, int, int]) -> None:
    with pytest.raises(AssertionError):
        resample(noise(0, 1, 5, 5, 3), [picture], [Window(box, SIDE, SIDE)], SIDE, "bicubic")


def test_chunks_keep_to_the_memory_and_to_windows_of_similar_height(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows: list[list[int]] = []
    monkeypatch.setattr(
        module, "_fill", lambda out, canvas, chunk: rows.append([plan.rows for plan in chunk])
    )
    canvas = torch.zeros((1, 200, 60, 3), dtype=torch.uint8)
    heights = [60] * 90 + [200] * 10
    windows = [Window((0, 0, 60, height), SIDE, SIDE) for height in heights]
    resample(canvas, [0] * 100, windows, SIDE, "bicubic", 1_000_000)
    # Three channels; an int32 sum beside what is gathered and the levels that come of it.
    assert max(len(chunk) * max(chunk) * SIDE * 3 * (4 + 1 + 1) for chunk in rows) < 1_000_000
    assert sorted(height for chunk in rows for height in chunk) == heights
    assert all(len(set(chunk)) == 1 for chunk in rows)
    assert len(rows) == 4


@given(st.integers(1, 3000), st.integers(1, 600), st.sampled_from(FILTERS))
@settings(max_examples=60, deadline=None)
def test_weights_sum_to_one_and_stay_inside(in_size: int, out_size: int, filter_: str) -> None:
    got = taps(in_size, out_size, filter_)
    sums = got.weights.astype(np.int64).sum(axis=0)
    assert np.abs(sums - 2**got.precision).max() <= len(got.weights) / 2
    reads = got.first + np.arange(len(got.weights))[:, None]
    assert ((reads >= 0) & (reads < in_size))[got.weights != 0].all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_levels_are_the_cpus_on_a_gpu_which_is_never_waited_for() -> None:
    canvas, pictures, windows = a_batch(11, n=3, k=40)
    there = canvas.cuda()
    resample(there, pictures, windows, SIDE, "bicubic")  # the first call may allocate and wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = resample(there, pictures, windows, SIDE, "bicubic", 10**6)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(got.cpu(), resample(canvas, pictures, windows, SIDE, "bicubic"))

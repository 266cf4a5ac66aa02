import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import InterpolationMode, resized_crop

from featcache.errors import BackboneError
from featcache.pipeline.views import (
    RECIPES,
    Preprocess,
    Stream,
    central_view,
    random_view,
    random_window,
    view_stream,
)

Make = Callable[..., Image.Image]
SIZES = [(60, 44), (44, 60), (32, 32), (33, 500), (17, 23), (500, 31), (225, 224), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_central_view_is_open_clips_bit_for_bit(
    size: tuple[int, int], mode: str, interpolation: str, make_picture: Make
) -> None:
    if mode == "longest" and max(size) / min(size) > 15:
        pytest.skip("open_clip's own side would be zero pixels")
    image = make_picture(1, size)
    reference = image_transform(
        32,
        is_train=False,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        resize_mode=mode,
        interpolation=interpolation,
    )(image)
    expected = (reference * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    np.testing.assert_array_equal(
        central_view(image, Preprocess(32, mode, interpolation)), expected
    )


def test_random_view_is_torchvisions_resized_crop(make_picture: Make) -> None:
    image = make_picture(2, (90, 70))
    for index in range(8):
        (left, top, right, bottom), mirrored = random_window(
            90, 70, RECIPES["rrc50"], view_stream(0, "rrc50", "ab", index)
        )
        expected = resized_crop(
            image, top, left, bottom - top, right - left, [32, 32], InterpolationMode.BICUBIC
        )
        if mirrored:
            expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        got = random_view(image, Preprocess(32), "rrc50", view_stream(0, "rrc50", "ab", index))
        np.testing.assert_array_equal(got, np.asarray(expected))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 10**6))
def test_windows_lie_inside_and_keep_the_recipe(width: int, height: int, seed: int) -> None:
    recipe = RECIPES["rrc50"]
    (left, top, right, bottom), _ = random_window(width, height, recipe, Stream(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    share = (right - left) * (bottom - top) / (width * height)
    if width > 50 and height > 50 and 0.76 < width / height < 1.32:
        assert 0.48 <= share <= 1.0
        assert 0.73 <= (right - left) / (bottom - top) <= 1.36


def test_windows_have_the_distribution_of_torchvision() -> None:
    transform = RandomResizedCrop(32, scale=(0.5, 1.0))
    image = Image.new("L", (120, 90))
    theirs = np.array(
        [transform.get_params(image, [0.5, 1.0], [3 / 4, 4 / 3]) for _ in range(1500)]
    )
    ours, flips = [], []
    for seed in range(1500):
        (left, top, right, bottom), mirrored = random_window(
            120, 90, RECIPES["rrc50"], Stream(seed)
        )
        ours.append((top, left, bottom - top, right - left))
        flips.append(mirrored)
    np.testing.assert_allclose(np.mean(ours, 0), theirs.mean(0), atol=1.6)
    np.testing.assert_allclose(np.std(ours, 0), theirs.std(0), atol=1.2)
    assert abs(np.mean(flips) - 0.5) < 0.05


def test_a_stripe_falls_back_to_the_central_window() -> None:
    (left, top, right, bottom), _ = random_window(1000, 10, RECIPES["rrc50"], Stream(0))
    assert (right - left, bottom - top) == (13, 10)
    assert left == (1000 - 13) // 2


def test_views_depend_on_seed_recipe_content_and_index_only() -> None:
    names: list[tuple[object, ...]] = [
        (0, "rrc50", "a", 0),
        (1, "rrc50", "a", 0),
        (0, "weak", "a", 0),
        (0, "rrc50", "b", 0),
        (0, "rrc50", "a", 1),
    ]
    draws = {name: Stream(*name).uniform() for name in names}
    assert len(set(draws.values())) == 5
    assert view_stream(0, "rrc50", "a", 0).uniform() == draws[0, "rrc50", "a", 0]


def test_the_stream_is_fixed_for_all_time() -> None:
    stream = view_stream(0, "rrc50", "0" * 64, 0)
    got = [stream.uniform(), stream.uniform(2.0, 3.0), stream.below(1000)]
    assert got == pytest.approx(STREAM, abs=1e-15)


STREAM = [0.6343523640329606, 2.6282642771194396, 404]


def test_the_stream_is_uniform() -> None:
    stream = Stream("x")
    draws = np.array([stream.uniform() for _ in range(4000)])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 3 * math.sqrt(1 / 12 / 4000)
    assert set(np.unique([Stream(i).below(3) for i in range(60)])) == {0, 1, 2}


def test_an_unknown_resize_mode_is_refused(backbone: Any) -> None:
    backbone.resize_mode = "tile"
    with pytest.raises(BackboneError, match=r"'tile'.*shortest, squash, longest"):
        Preprocess.of(backbone)

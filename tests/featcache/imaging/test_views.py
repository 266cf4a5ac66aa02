import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import UInt8
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    crop,
)

from featcache.encoding.encoder import preprocessing
from featcache.errors import BackboneError
from featcache.imaging.distort import OPERATIONS, jitter, rand_augment, rotate
from featcache.imaging.randomness import Stream, view_stream
from featcache.imaging.views import central_view, draw_view
from featcache.imaging.windows import Preprocess, random_window
from featcache.recipes import RECIPES

Make = Callable[..., Image.Image]
SIZES = [(60, 44), (44, 60), (32, 32), (33, 500), (17, 23), (500, 31), (225, 224), (1, 1)]


def assert_close(
    got: UInt8[np.ndarray, "s s 3"], expected: UInt8[np.ndarray, "s s 3"], share: float
) -> None:
    """Allow one grey level in some of the values, and two in hardly any."""
    off = np.abs(got.astype(int) - expected.astype(int))
    assert off.max() <= 2
    assert (off > 1).mean() <= 0.001
    assert (off > 0).mean() <= share


def resized(image: Image.Image, size: tuple[int, int], filter_: Image.Resampling) -> Image.Image:
    """Resize along the rows, then along the columns: Pillow chooses its order by its version."""
    return image.resize((size[0], image.height), filter_).resize(size, filter_)


@pytest.mark.parametrize("size", [*SIZES, (400, 533), (1333, 1000)])
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_central_view_is_open_clips_to_one_grey_level(
    size: tuple[int, int],
    mode: str,
    interpolation: str,
    make_picture: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if mode == "longest" and max(size) / min(size) > 15:
        pytest.skip("open_clip's own side would be zero pixels")
    image = make_picture(1, size)
    in_one_go = Image.Image.resize

    def in_two(image: Image.Image, size: tuple[int, int], filter_: Any) -> Image.Image:
        return in_one_go(in_one_go(image, (size[0], image.height), filter_), size, filter_)

    monkeypatch.setattr(Image.Image, "resize", in_two)
    reference = image_transform(
        32,
        is_train=False,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        resize_mode=mode,
        interpolation=interpolation,
    )(image)
    expected = (reference * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    assert_close(levels(image, Preprocess(32, mode, interpolation)), expected, 0.03)


def levels(image: Image.Image, preprocess: Preprocess) -> UInt8[np.ndarray, "s s 3"]:
    return central_view(np.array(image), preprocess)


def test_central_view_of_a_photograph_is_open_clips(make_picture: Make) -> None:
    image = make_picture(1, (640, 427))
    image = image.resize((80, 54)).resize((640, 427), Image.Resampling.BICUBIC)
    transform = image_transform(224, is_train=False, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    expected = (transform(image) * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    assert_close(levels(image, Preprocess(224)), expected, 0.01)


@pytest.mark.parametrize("size", [(3000, 40), (40, 3000), (400, 300)])
def test_a_square_keeps_no_more_than_itself_alive(
    size: tuple[int, int], make_picture: Make
) -> None:
    square = levels(make_picture(2, size), Preprocess(32))
    while isinstance(square.base, np.ndarray):
        square = square.base
    assert square.nbytes == 32 * 32 * 3


def test_a_column_of_one_pixel_is_right(make_picture: Make) -> None:
    """Where torch's own kernel for CPUs without AVX2 is wrong."""
    column = make_picture(3, (1, 90))
    got = levels(column, Preprocess(64, "longest"))
    expected = np.asarray(column.resize((1, 64), Image.Resampling.BICUBIC))
    assert_close(got[:, 31:32], expected, 0.02)
    assert not got[:, :31].any()


def test_random_view_is_torchvisions_resized_crop(make_picture: Make) -> None:
    image = make_picture(2, (90, 70))
    for index in range(8):
        window = random_window(90, 70, (0.5, 1.0), 32, view_stream(0, "rrc50", "ab", index))
        left, top, right, bottom = window.box
        part = crop(image, top, left, bottom - top, right - left)
        expected = resized(part, (32, 32), Image.Resampling.BICUBIC)
        if window.mirrored:
            expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        stream = view_stream(0, "rrc50", "ab", index)
        got = draw_view(np.array(image), Preprocess(32), "rrc50", index, stream)
        assert_close(got.pixels, np.asarray(expected), 0.02)
        assert got.box == window.box


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 10**6))
def test_windows_lie_inside_and_keep_the_recipe(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = random_window(width, height, (0.5, 1.0), 8, Stream(seed)).box
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
        window = random_window(120, 90, (0.5, 1.0), 32, Stream(seed))
        left, top, right, bottom = window.box
        ours.append((top, left, bottom - top, right - left))
        flips.append(window.mirrored)
    np.testing.assert_allclose(np.mean(ours, 0), theirs.mean(0), atol=1.6)
    np.testing.assert_allclose(np.std(ours, 0), theirs.std(0), atol=1.2)
    assert abs(np.mean(flips) - 0.5) < 0.05


def test_a_stripe_falls_back_to_the_central_window() -> None:
    left, top, right, bottom = random_window(1000, 10, (0.5, 1.0), 8, Stream(0)).box
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
        preprocessing(backbone)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("size", [(60, 44), (44, 60), (32, 32), (500, 31), (1, 1)])
def test_every_recipe_is_a_function_of_its_name(
    recipe: str, size: tuple[int, int], make_picture: Make
) -> None:
    image = np.array(make_picture(3, size))
    seen = []
    for view in range(5):
        stream = view_stream(0, recipe, "ab", view)
        drawn = draw_view(image, Preprocess(24), recipe, view, stream)
        again = draw_view(image, Preprocess(24), recipe, view, view_stream(0, recipe, "ab", view))
        np.testing.assert_array_equal(drawn.pixels, again.pixels)
        assert drawn.pixels.shape == (24, 24, 3)
        assert drawn.pixels.dtype == np.uint8
        left, top, right, bottom = drawn.box
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        seen.append(drawn.pixels)
    if min(size) > 1 and size != (32, 32):
        assert any((a != seen[0]).any() for a in seen[1:])


@pytest.mark.parametrize(("recipe", "low", "high"), [("lazsl", 0.6, 0.9), ("fair", 0.5, 0.9)])
def test_crops_are_squares_of_the_shorter_side(
    recipe: str, low: float, high: float, make_picture: Make
) -> None:
    image = make_picture(4, (400, 300))
    picture = np.array(image)
    sides, lefts = [], []
    for view in range(200):
        stream = view_stream(0, recipe, "cd", view)
        drawn = draw_view(picture, Preprocess(8), recipe, view, stream)
        left, top, right, bottom = drawn.box
        assert right - left == bottom - top
        sides.append(right - left)
        lefts.append(left / (400 - (right - left)))
        exact = image.crop(drawn.box).resize((8, 8), Image.Resampling.BICUBIC)
        assert_close(drawn.pixels, np.asarray(exact), 0.05)
    assert int(low * 300) <= min(sides) < int((low + 0.02) * 300)
    assert int((high - 0.02) * 300) < max(sides) <= int(high * 300)
    assert min(lefts) < 0.05
    assert max(lefts) > 0.95


def test_weak_is_the_largest_square_somewhere(make_picture: Make) -> None:
    image = np.array(make_picture(5, (90, 60)))
    boxes = [
        draw_view(image, Preprocess(16), "weak", v, view_stream(0, "weak", "e", v)).box
        for v in range(40)
    ]
    assert {(r - left, b - t) for left, t, r, b in boxes} == {(60, 60)}
    assert min(b[0] for b in boxes) < 5
    assert max(b[0] for b in boxes) > 25


def test_cdfsl_goes_round_four_kinds(make_picture: Make) -> None:
    image = np.array(make_picture(6, (64, 48)))
    base = Image.fromarray(central_view(image, Preprocess(32)))
    streams = [view_stream(0, "cdfsl", "f", v) for v in range(8)]
    again = [view_stream(0, "cdfsl", "f", v) for v in range(8)]
    got = [draw_view(image, Preprocess(32), "cdfsl", v, streams[v]).pixels for v in range(8)]
    mirror = Image.Transpose.FLIP_LEFT_RIGHT
    for v in (0, 4):
        expected = jitter(rotate(base, again[v]), again[v]).transpose(mirror)
        np.testing.assert_array_equal(got[v], np.asarray(expected))
    np.testing.assert_array_equal(got[1], np.asarray(rotate(base, again[1])))
    np.testing.assert_array_equal(got[2], np.asarray(jitter(base, again[2])))
    np.testing.assert_array_equal(got[3], np.asarray(base.transpose(mirror)))
    np.testing.assert_array_equal(got[3], got[7])
    assert (got[1] != got[5]).any()


class Fixed(Stream):
    """A stream of given numbers in [0, 1)."""

    def __init__(self, *numbers: float) -> None:
        self._numbers = list(numbers)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * self._numbers.pop(0)


def test_jitter_is_torchvisions(make_picture: Make) -> None:
    image = make_picture(7, (40, 40))
    # Order 3 is contrast, colour, brightness; factors 0.8, 1.2 and 1.32.
    got = jitter(image, Fixed(3.5 / 6, 0.25, 0.75, 0.9))
    expected = image
    for adjust, factor in ((adjust_contrast, 1.2), (adjust_saturation, 1.32)):
        expected = adjust(expected, factor)
    expected = adjust_brightness(expected, 0.8)
    np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))


TIMM = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "PosterizeIncreasing", "SolarizeIncreasing",
    "SolarizeAdd", "ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing",
    "SharpnessIncreasing", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel",
)  # fmt: skip


@pytest.mark.parametrize("number", range(15))
@pytest.mark.parametrize("level", [0.0, 7.3, 9.0, 10.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_distortions_are_timms(
    number: int, level: float, sign: int, make_picture: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from timm.data import auto_augment

    monkeypatch.setattr(auto_augment, "_randomly_negate", lambda v: sign * v)
    image = make_picture(8, (48, 48))
    fill = (124, 116, 104)
    operation = auto_augment.AugmentOp(  # type: ignore[no-untyped-call]
        TIMM[number], prob=1.0, magnitude=level,
        hparams={"img_mean": fill, "interpolation": Image.Resampling.BICUBIC},
    )  # fmt: skip
    posterized_away = TIMM[number].startswith("Posterize") and level == 10.0  # new Pillows refuse
    expected = np.asarray(image if posterized_away else operation(image)).astype(int)
    expected = 0 * expected if posterized_away else expected
    got = np.asarray(OPERATIONS[number](image, level / 10.0, sign, fill)).astype(int)
    np.testing.assert_array_equal(got, expected)


def test_strong_views_use_five_numbers_a_layer(make_picture: Make) -> None:
    image = make_picture(9, (32, 32))
    fill = (1, 2, 3)
    # Invert applied, at strength 9; then rotation not applied.
    stream = Fixed(2.5 / 15, 0.1, 0.0, 0.0, 0.9, 3.5 / 15, 0.9, 0.5, 0.5, 0.5)
    got = rand_augment(image, stream, fill)
    np.testing.assert_array_equal(np.asarray(got), 255 - np.asarray(image))
    stream = Fixed(3.5 / 15, 0.1, 0.0, 0.3, 0.1, 2.5 / 15, 0.9, 0.5, 0.5, 0.5)
    got = rand_augment(image, stream, fill)
    expected = image.rotate(-27.0, Image.Resampling.BICUBIC, fillcolor=fill)
    np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))


def test_normal_numbers_are_normal() -> None:
    stream = Stream("n")
    draws = np.array([stream.normal(9.0, 0.5) for _ in range(4000)])
    assert abs(draws.mean() - 9.0) < 3 * 0.5 / math.sqrt(4000)
    assert abs(draws.std() - 0.5) < 0.02
    assert {stream.sign() for _ in range(40)} == {-1, 1}

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from featcache.errors import BackboneError, UsageError
from featcache.imaging import decode as module
from featcache.imaging.decode import (
    UnreadableImageError,
    decode,
    pixel_limit,
    read_image,
)
from featcache.places import FilePlace
from featcache.threads import in_order
from tests.bad_images import bad_images

Make = Callable[..., Image.Image]
Encode = Callable[..., bytes]


@pytest.fixture
def _pillow_limit() -> Iterator[None]:
    before = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = before


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_reads_the_usual_formats_as_convert_rgb(
    format_: str, make_picture: Make, encode_picture: Encode
) -> None:
    data = encode_picture(make_picture(1), format_)
    with Image.open(BytesIO(data)) as reference:
        expected = np.asarray(reference.convert("RGB"))
    np.testing.assert_array_equal(decode(data), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "PA", "1", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(mode: str, make_picture: Make, encode_picture: Encode) -> None:
    image = make_picture(2).convert("P" if mode == "PA" else mode)
    if mode == "PA":
        image.info["transparency"] = 0
    format_ = {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")
    options = {"transparency": bytes([0, 128, 255])} if mode == "PA" else {}
    out = decode(encode_picture(image, format_, **options))
    assert out.dtype == np.uint8
    assert out.shape == (image.height, image.width, 3)


def test_transparency_is_dropped_like_convert_rgb(encode_picture: Encode) -> None:
    image = Image.new("RGBA", (4, 4), (200, 100, 50, 0))
    assert decode(encode_picture(image, "PNG"))[0, 0].tolist() == [200, 100, 50]


def test_sixteen_bit_grey_is_scaled_not_clipped(encode_picture: Encode) -> None:
    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    out = decode(encode_picture(Image.fromarray(levels), "PNG"))[..., 0]
    np.testing.assert_array_equal(out, levels >> 8)


def test_float_pixels_are_refused(encode_picture: Encode) -> None:
    image = Image.fromarray(np.ones((4, 4), dtype=np.float32))
    with pytest.raises(UnreadableImageError, match="floating-point"):
        decode(encode_picture(image, "TIFF"))


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(
    orientation: int, format_: str, make_picture: Make, encode_picture: Encode
) -> None:
    image = make_picture(3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode_picture(image, format_, exif=exif)
    with Image.open(BytesIO(data)) as stored:
        expected = ImageOps.exif_transpose(stored)
    np.testing.assert_array_equal(decode(data), np.asarray(expected))


def test_broken_exif_counts_as_upright(make_picture: Make, encode_picture: Encode) -> None:
    data = encode_picture(make_picture(4), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffjunk")
    assert decode(data).shape == (44, 60, 3)


def test_animation_gives_its_first_frame(make_picture: Make, encode_picture: Encode) -> None:
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    data = encode_picture(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_truncated_is_an_error_not_half_a_picture(
    format_: str, share: float, make_picture: Make, encode_picture: Encode
) -> None:
    data = encode_picture(make_picture(5, (400, 300)), format_)
    with pytest.raises(UnreadableImageError):
        decode(data[: int(share * len(data))])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>", "no image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "no image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 60, "cannot be decoded|no image"),
    ],
)
def test_what_is_no_picture_says_so(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        decode(data)


@pytest.mark.parametrize("name", bad_images())
def test_bad_images_have_a_reason(name: str) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        decode(bad_images()[name])
    assert caught.value.reason


def test_too_many_pixels_are_refused_before_decoding(encode_picture: Encode) -> None:
    data = encode_picture(Image.new("L", (300, 200)), "PNG")
    assert decode(data, max_pixels=60_000).shape == (200, 300, 3)
    with pytest.raises(UnreadableImageError, match=r"300 x 200.*FEATCACHE_MAX_PIXELS"):
        decode(data, max_pixels=59_999)


@pytest.mark.usefixtures("_pillow_limit")
def test_the_pixel_limit_can_be_raised(
    monkeypatch: pytest.MonkeyPatch, encode_picture: Encode
) -> None:
    data = encode_picture(Image.new("L", (300, 200)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(UnreadableImageError, match="more pixels than"):
        decode(data)
    monkeypatch.setenv("FEATCACHE_MAX_PIXELS", "70000")
    assert decode(data, max_pixels=pixel_limit()).shape == (200, 300, 3)
    assert pixel_limit(5) == 5
    monkeypatch.setenv("FEATCACHE_MAX_PIXELS", "many")
    with pytest.raises(UsageError, match="FEATCACHE_MAX_PIXELS"):
        pixel_limit()


def test_a_file_that_changed_or_is_gone_is_unreadable(
    tmp_path: Path, make_picture: Make, encode_picture: Encode
) -> None:
    path = tmp_path / "a.png"
    data = encode_picture(make_picture(6), "PNG")
    path.write_bytes(data)
    assert read_image(FilePlace(path), hashlib.sha256(data).hexdigest()).shape == (44, 60, 3)
    with pytest.raises(UnreadableImageError, match="changed on disk"):
        read_image(FilePlace(path), "0" * 64)
    with pytest.raises(UnreadableImageError, match="No such file"):
        read_image(FilePlace(tmp_path / "b.png"), "0" * 64)


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_picture_is_not_to_blame_for_want_of_memory(
    format_: str, orientation: int, make_picture: Make, encode_picture: Encode
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode_picture(make_picture(3), format_, exif=exif)
    shapes: list[tuple[int, ...]] = []

    def refuse_the_last(*shape: int) -> Any:
        shapes.append(shape)
        if len(shapes) == (1 if orientation == 1 else 2):
            raise BackboneError("no memory")
        return np.empty(shape, dtype=np.uint8)

    with pytest.raises(BackboneError, match="no memory"):
        decode(data, room=refuse_the_last)
    assert shapes == [(44, 60, 3), (60, 44, 3)][: len(shapes)]


def test_a_large_picture_is_copied_band_by_band(
    encode_picture: Encode, make_picture: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_picture(4, (50, 37))
    monkeypatch.setattr(module, "BAND_BYTES", 3 * 50 * 5)
    np.testing.assert_array_equal(decode(encode_picture(image, "PNG")), np.asarray(image))


def test_in_order_keeps_order_and_bounds_what_is_begun() -> None:
    begun = []

    def work(i: int) -> int:
        begun.append(i)
        time.sleep(0.002 * (5 - i % 5))
        return i

    out = in_order(iter(range(40)), work, threads=4, ahead=6)
    for i in range(40):
        assert next(out) == i
        assert len(begun) <= i + 8
    assert list(out) == []


def test_leaving_early_stops_the_threads() -> None:
    before = threading.active_count()
    out = in_order(iter(range(1000)), lambda i: i, threads=4, ahead=100)
    next(out)
    out.close()
    assert threading.active_count() == before


def test_parsers_are_limited_to_photographs() -> None:
    assert "EPS" not in module.FORMATS


@pytest.mark.parametrize("levels", [np.uint8, np.uint16, bool])
def test_binary_ppm_pgm_and_pbm_are_read(levels: type) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    grey = rgb[..., 0] > 127 if levels is bool else rgb[..., 0].astype(levels)
    stored = grey * np.uint16(257) if levels is np.uint16 else grey
    data = BytesIO()
    Image.fromarray(stored).save(data, format="PPM")
    found = decode(data.getvalue())
    expected = grey * np.uint8(255) if levels is bool else grey
    assert (found == expected[..., None]).all()
    colour = BytesIO()
    Image.fromarray(rgb).save(colour, format="PPM")
    assert (decode(colour.getvalue()) == rgb).all()
    commented = colour.getvalue().replace(b"P6\n", b"P6 # of a camera\n")
    assert (decode(commented) == rgb).all()


@pytest.mark.parametrize(
    "data",
    [
        b"P3 1 1 255 1 2 3",  # as text: read token by token in Python
        b"P6 1 1 254\nabc",  # of another range: read pixel by pixel in Python
        b"P6 1 1 65535\nabcdef",
        b"P6 #" + b"x" * 5000 + b"\n1 1 255\nabc",
        b"Pf 1 1 -1.0\n0000",
        b"P6 9999999999 1 255\n",
    ],
)
def test_other_pnm_files_are_refused_before_they_are_parsed(data: bytes) -> None:
    with pytest.raises(UnreadableImageError, match="PBM, PGM or PPM file, and not a binary one"):
        decode(data)


def test_a_ppm_file_that_is_cut_off_or_too_large() -> None:
    with pytest.raises(UnreadableImageError, match="cannot be decoded"):
        decode(b"P6 2 2 255\nabc")
    with pytest.raises(UnreadableImageError, match="more pixels than the limit"):
        decode(b"P6 99999 99999 255\nabc")

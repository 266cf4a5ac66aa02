from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from jaxtyping import UInt8
from PIL import Image

from featcache.imaging import jpeg
from featcache.imaging.decode import UnreadableImageError, decode

Make = Callable[..., Image.Image]
Encode = Callable[..., bytes]

WAYS: list[dict[str, Any]] = [
    {},
    {"quality": 40},
    {"progressive": True},
    {"restart_marker_rows": 1},
    *({"subsampling": kind} for kind in ("4:4:4", "4:2:2", "4:2:0")),
    {"keep_rgb": True, "subsampling": "4:4:4"},
]


def fast(data: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
    with Image.open(BytesIO(data)) as image:
        return jpeg.decode_jpeg(image, data, lambda *shape: np.empty(shape, dtype=np.uint8))


def by_pillow(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 48), (50, 500)])
def test_pixels_are_pillows(
    way: dict[str, Any], size: tuple[int, int], make_picture: Make, encode_picture: Encode
) -> None:
    data = encode_picture(make_picture(1, size), "JPEG", **way)
    levels = fast(data)
    assert levels is not None
    np.testing.assert_array_equal(levels, by_pillow(data))
    np.testing.assert_array_equal(decode(data), levels)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_what_is_not_in_colour_is_left_to_pillow(
    mode: str, make_picture: Make, encode_picture: Encode
) -> None:
    assert fast(encode_picture(make_picture(2).convert(mode), "JPEG")) is None


def test_other_formats_are_left_to_pillow(make_picture: Make, encode_picture: Encode) -> None:
    assert fast(encode_picture(make_picture(2), "PNG") + b"\xff\xd9") is None


@pytest.mark.parametrize("behind", [b"", b"\0" * 40, b"\r\n"])
def test_padding_behind_the_end_is_no_damage(
    behind: bytes, make_picture: Make, encode_picture: Encode
) -> None:
    assert fast(encode_picture(make_picture(3), "JPEG") + behind) is not None


def test_a_torn_file_says_nothing_on_the_terminal(
    make_picture: Make, encode_picture: Encode, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encode_picture(make_picture(4, (300, 200)), "JPEG")[:-400]
    with pytest.raises(UnreadableImageError, match=r"cannot be decoded: .*[Tt]runcated"):
        decode(data)
    assert capfd.readouterr() == ("", "")


def test_damage_is_judged_as_pillow_judges_it(make_picture: Make, encode_picture: Encode) -> None:
    rng = np.random.default_rng(0)
    sound = encode_picture(make_picture(5, (120, 90)), "JPEG", quality=90)
    judged = []
    for _ in range(150):
        data = bytearray(sound)
        for place in rng.integers(2, len(data) - 2, 3):
            data[place] = rng.integers(0, 256)
        try:
            expected = by_pillow(bytes(data))
        except (OSError, SyntaxError):
            with pytest.raises(UnreadableImageError):
                decode(bytes(data))
            judged.append("bad")
            continue
        np.testing.assert_array_equal(decode(bytes(data)), expected)
        judged.append("good")
    assert set(judged) == {"good", "bad"}

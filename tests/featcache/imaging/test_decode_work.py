"""The work of decoding is counted in the file and bounded before it begins."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from featcache.imaging.decode import MAX_PIXELS, UnreadableImageError, decode, quiet_pillow
from featcache.imaging.decode_work import (
    BYTES,
    MARKERS,
    SCANS,
    SMALL,
    WEBP_BYTES,
    Memory,
    cost_of,
    count_scans,
)
from featcache.imaging.loader import FileSource, ImageLoader, Job
from featcache.imaging.views import CENTRAL
from featcache.imaging.windows import Preprocess
from featcache.pipeline import unreadable
from featcache.pipeline.unreadable import readable_now
from featcache.places import FilePlace

Encode = Callable[..., bytes]
LARGE = (4000, 3000)
MANY = 10**9


@pytest.fixture
def photo() -> Image.Image:
    rng = np.random.default_rng(3)
    return Image.fromarray(rng.integers(0, 255, (80, 96, 3)).astype(np.uint8))


def scan_again(data: bytes, times: int) -> bytes:
    """Repeat the last scan of a progressive file."""
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * times + data[-2:]


def test_scans_are_counted_as_a_decoder_meets_them(
    photo: Image.Image, encode_picture: Encode
) -> None:
    plain, progressive = (encode_picture(photo, "JPEG", progressive=p) for p in (False, True))
    assert (count_scans(plain, MANY), count_scans(progressive, MANY)) == (1, 10)
    assert count_scans(encode_picture(photo, "JPEG", restart_marker_blocks=1), MANY) == 1
    assert count_scans(scan_again(progressive, 290), MANY) == 300
    assert count_scans(plain + progressive, MANY) == 1  # behind the end nothing is decoded
    thumbnail = b"\xff\xe1" + (2 + len(progressive)).to_bytes(2, "big") + progressive
    assert count_scans(plain[:2] + thumbnail + plain[2:], MANY) == 1
    assert count_scans(plain[:2] + b"\0garbage\xff\x00\xff\xff\xff" + plain[3:], MANY) == 1
    for cut in range(0, len(progressive), 97):
        assert 1 <= count_scans(progressive[:cut], MANY) <= 10
    assert count_scans(os.urandom(100_000), MANY) >= 1


def test_a_picture_of_many_scans_is_refused_by_their_number(
    photo: Image.Image, encode_picture: Encode
) -> None:
    data = scan_again(encode_picture(photo, "JPEG", progressive=True), 290)
    pixels = 300 * 80 * 96
    assert decode(data, max_pixels=pixels // SCANS).shape == (80, 96, 3)
    with pytest.raises(
        UnreadableImageError,
        match=r"in 300 scans or more, 2,304,000 pixels, above the limit of 2,303,994 \(6 times "
        r"max_pixels\); raise it with max_pixels or FEATCACHE_MAX_PIXELS",
    ):
        decode(data, max_pixels=pixels // SCANS - 1)


def test_counting_ends_where_there_are_too_many(photo: Image.Image, encode_picture: Encode) -> None:
    data = scan_again(encode_picture(photo, "JPEG", progressive=True), 290)
    assert count_scans(data, 20) == 21
    assert count_scans(b"\xff\xd8" + b"\xff\xe0\0\2" * 10**6, 20) == 21
    assert count_scans(b"\xff\xd8" + b"\xff\xe0\0\2" * MARKERS, 20) == 1
    for alone in (b"\xff\x01", b"\xff\xd8", b"\xff"):  # in one step, whatever their number
        assert count_scans(alone * 10**7 + b"\0", 20) == 1


def tiff_of(jpeg: bytes, size: tuple[int, int], *, strips: int = 1) -> bytes:
    """Write a TIFF file whose strips are all the same JPEG, each beginning a byte later."""
    tags: list[tuple[int, list[int]]] = [
        (256, [size[0]]), (257, [size[1]]), (258, [8, 8, 8]), (259, [7]), (262, [6]),
        (273, [8 + i for i in range(strips)]), (277, [3]), (278, [-(-size[1] // strips)]),
        (279, [len(jpeg)] * strips), (284, [1]), (530, [2, 2]),
    ]  # fmt: skip
    body = jpeg + b"\0" * (len(jpeg) % 2)
    entries = b""
    for tag, values in tags:
        packed = np.array(values, "<u4").tobytes()
        if len(values) > 1:
            packed, body = (8 + len(body)).to_bytes(4, "little"), body + packed
        entries += np.array([tag, 4], "<u2").tobytes() + np.uint32(len(values)).tobytes() + packed
    head = b"II*\0" + (8 + len(body)).to_bytes(4, "little")
    return head + body + len(tags).to_bytes(2, "little") + entries + b"\0" * 4


def test_scans_of_a_jpeg_inside_a_tiff_count(photo: Image.Image, encode_picture: Encode) -> None:
    once = encode_picture(photo, "JPEG", progressive=True)
    most = 20 * 80 * 96 // SCANS
    assert decode(tiff_of(once, photo.size), max_pixels=most).shape == (80, 96, 3)
    for data in (
        tiff_of(scan_again(once, 290), photo.size),
        tiff_of(once, photo.size, strips=40),  # which share their bytes: counting them is work
    ):
        with pytest.raises(UnreadableImageError, match="in 21 scans or more"):
            decode(data, max_pixels=most)


def test_photographs_of_today_are_within_the_limits() -> None:
    for width, height, scans in ((11_648, 8_736, 10), (8_000, 6_000, 20), (16_000, 11_000, 1)):
        assert scans * width * height <= SCANS * MAX_PIXELS
        assert width * height <= MAX_PIXELS
    assert 100_000_000 * WEBP_BYTES <= BYTES * MAX_PIXELS


def test_a_webp_of_few_bytes_and_many_pixels_is_refused(encode_picture: Encode) -> None:
    """12 megapixels stand for the 176 of which the decoder would take 3 GB."""
    data = encode_picture(Image.new("RGB", LARGE), "WEBP", lossless=True)
    assert len(data) < 10_000
    with pytest.raises(UnreadableImageError, match=r"takes 240,000,000 bytes to decode, above"):
        decode(data, max_pixels=12_000_000)
    assert decode(data, max_pixels=20_000_000).shape == (*LARGE[::-1], 3)


def test_a_tile_that_is_larger_than_its_picture_counts() -> None:
    buffer = BytesIO()
    tags = {322: 32_000, 323: 32_000}
    Image.new("L", (10, 10)).save(buffer, "TIFF", compression="tiff_lzw")
    with Image.open(buffer) as image:
        assert cost_of(image, buffer.getvalue(), MAX_PIXELS).bytes == BYTES * 100
        image.tag_v2.update(tags)  # type: ignore[attr-defined]
        assert cost_of(image, buffer.getvalue(), MAX_PIXELS).bytes == BYTES * (100 + 32_000**2)


KINDS = {
    "jpeg": ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
    "cmyk": ("JPEG", "CMYK", {"progressive": True}),
    "png": ("PNG", "RGBA", {}),
    "png 16": ("PNG", "I;16", {}),
    "webp": ("WEBP", "RGBA", {"lossless": True}),
    "tiff": ("TIFF", "CMYK", {"compression": "tiff_lzw"}),
    "gif": ("GIF", "P", {}),
}


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_decoding_takes_no_more_bytes_than_were_counted(
    kind: tuple[str, str, dict[str, object]], encode_picture: Encode
) -> None:
    name, mode, options = kind
    data = encode_picture(Image.new(mode, LARGE), name, **options)
    with Image.open(BytesIO(data)) as image:
        counted = cost_of(image, data, MAX_PIXELS).bytes
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    decode(data)
    bands = 40 << 20  # and what Python keeps, whatever the size of the picture
    assert _memory("VmHWM") - before < counted + bands


def test_large_pictures_wait_for_each_other_and_small_ones_do_not() -> None:
    memory, begun, go = Memory(3 * SMALL), threading.Event(), threading.Event()
    held: list[str] = []

    def large() -> None:
        with memory.share() as claim:
            claim(2 * SMALL)
            claim(2 * SMALL)  # no second time
            held.append("large")
            begun.set()
            assert go.wait(60)
            held.append("large done")

    def second() -> None:
        with memory.share() as claim:
            claim(100 * SMALL)  # more than there is: alone
            held.append("second")

    threads = [threading.Thread(target=large), threading.Thread(target=second)]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    with memory.share() as claim:
        claim(SMALL)
        held.append("small")
    go.set()
    for thread in threads:
        thread.join(60)
    assert held == ["large", "small", "large done", "second"]
    with memory.share() as claim:  # and all is given back
        claim(3 * SMALL)


def test_a_drawer_claims_what_it_decodes(tmp_path: Path, encode_picture: Encode) -> None:
    data = encode_picture(Image.new("RGB", LARGE), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    source = FileSource("a.png", FilePlace(tmp_path / "a.png"), hashlib.sha256(data).hexdigest())
    drawer = ImageLoader(preprocess=Preprocess(32), max_pixels=MAX_PIXELS)
    job = Job(source, (CENTRAL,))
    assert not drawer(job).reasons
    with drawer.memory.share() as claim:
        claim(BYTES * MAX_PIXELS)
        thread = threading.Thread(target=drawer, args=(job,))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join(60)
    assert not thread.is_alive()


def test_libtiff_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    refused = 0
    for compression in ("tiff_lzw", "jpeg", "tiff_adobe_deflate"):
        buffer = BytesIO()
        picture = Image.frombytes("RGB", (64, 64), Random(0).randbytes(3 * 64 * 64))
        picture.save(buffer, "TIFF", compression=compression)
        for seed in range(20):
            data = bytearray(buffer.getvalue())
            for place in range(8 + seed, 3000, 97):
                data[place] ^= 0x55
            with quiet_pillow():
                try:
                    decode(bytes(data))
                except UnreadableImageError:
                    refused += 1
    assert refused > 20
    assert capfd.readouterr() == ("", "")


def test_images_tried_again_share_their_memory(
    tmp_path: Path, encode_picture: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims: list[int] = []

    class Counted(Memory):
        def __init__(self, total: int) -> None:
            super().__init__(total)
            claims.append(total)

        @contextmanager
        def share(self) -> Iterator[Callable[[int], None]]:
            with super().share():
                yield claims.append

    monkeypatch.setattr(unreadable, "Memory", Counted)
    data = encode_picture(Image.new("RGB", (40, 30)), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    source = FileSource("a.png", FilePlace(tmp_path / "a.png"), hashlib.sha256(data).hexdigest())
    found = readable_now(
        [0, 1],
        {0: source, 1: source},
        Preprocess(32, "shortest"),
        threads=2,
        max_pixels=2000,
        report=lambda *_: None,
    )
    assert found == {0, 1}
    assert claims == [BYTES * 2000, BYTES * 1200, BYTES * 1200]

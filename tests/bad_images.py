"""Files that are called images and are none, or end early, for all readers of strangers' images."""

import io
import struct
import zlib

from PIL import Image


def bad_images() -> dict[str, bytes]:
    """Return name -> bytes; each is refused, and none is too large."""
    picture = Image.linear_gradient("L").convert("RGB").resize((400, 300))
    whole = {kind: _encoded(picture, kind) for kind in ("jpeg", "png", "webp")}
    cut = {
        f"cut-{share}.{kind}": data[: int(share * len(data))]
        for kind, data in whole.items()
        for share in (0.05, 0.3, 0.7)
    }
    return {
        "empty.jpg": b"",
        "text.jpg": b"no image",
        "html.jpg": b"<html>404</html>",
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "zeros.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 60,
        "cut.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        "start.jpg": b"\xff\xd8 torn",
        **cut,
    }


def bomb(width: int, height: int) -> bytes:
    """Return a small PNG of many black pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        sum_ = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + sum_

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)  # one bit a pixel
    pixels = zlib.compress(bytes(height * (1 + -(-width // 8))), 1)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def _encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()

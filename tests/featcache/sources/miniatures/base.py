"""What a miniature is, and how it is written: real names, images of four pixels a side."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from PIL import Image

FORMATS = {".png": "PNG", ".ppm": "PPM", ".gif": "GIF"}


@dataclass(frozen=True, kw_only=True)
class Miniature:
    """A data set in miniature and what must be read from it."""

    dataset: str
    layout: str
    """Whose folders these are."""
    samples: tuple[tuple[str, int, str], ...]
    """(id, label, split) in the order of the listing; of splits made here the split is `pool`."""
    root: str
    """Folder below the data root that ids are relative to."""
    beside: tuple[str, ...] = ()
    """Further images below the data root, which are not listed."""
    lists: Mapping[str, str | bytes] = field(default_factory=dict)
    """Further files below the data root."""
    splits: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    """Id -> group."""
    notes: tuple[str, ...] = ()
    """What the notes must say."""
    formats: Mapping[str, str] = field(default_factory=dict)
    """Id -> format of a file whose suffix says another."""
    written: bool = True
    """Whether the images are files; otherwise the lists hold them."""

    def write(self, data_root: Path) -> None:
        """Write all files."""
        for path, content in self.lists.items():
            file = data_root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        ids = [image_id for image_id, _, _ in self.samples] if self.written else []
        top = f"{self.root}/" if self.root else ""
        for path in (*(top + i for i in ids), *self.beside):
            form = self.formats.get(path.removeprefix(top))
            file = data_root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(path, form))


def encoded(path: str, form: str | None = None) -> bytes:
    """Return a small image whose colour follows from its name."""
    number = zlib.crc32(path.encode())
    image = Image.new("RGB", (4, 4), (number & 255, number >> 8 & 255, number >> 16 & 255))
    out = BytesIO()
    image.save(out, form or FORMATS.get(Path(path).suffix.lower(), "JPEG"))
    return out.getvalue()

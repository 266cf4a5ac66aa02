"""Limits for untrusted files, and the environment variables that raise them.

docs/reliability.md shows this table. Errors about a limit name its variable.
"""

import os
from dataclasses import dataclass

from featcache.errors import UsageError

LONGEST_NUMBER = 18
"""Most digits of the value of an environment variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit."""

    what: str
    most: int
    """Default value."""
    unit: str
    variable: str
    """Name of the environment variable that raises the limit."""

    def value(self) -> int:
        """Return the current value.

        Raises:
            UsageError: If the environment variable is not a positive integer.
        """
        text = os.environ.get(self.variable, "")
        if not text:
            return self.most
        plain = text.isascii() and text.isdecimal() and len(text) <= LONGEST_NUMBER
        if not plain or int(text) == 0:
            raise UsageError(
                f"{self.variable} must be a positive number of {self.unit}, got '{text[:80]}'."
            )
        return int(text)


METADATA = Limit(
    what="a file of a cache that is read whole: manifest, listing, texts, corpus",
    most=4 << 30,
    unit="bytes",
    variable="FEATCACHE_MAX_METADATA",
)
WORDS = Limit(
    what="a file of templates or descriptions (CuPL, DCLIP), a split file, an episode list",
    most=256 << 20,
    unit="bytes",
    variable="FEATCACHE_MAX_WORDS",
)
TEXT = Limit(
    what="a sentence, a template or a class name that is encoded",
    most=2_000,
    unit="characters",
    variable="FEATCACHE_MAX_TEXT",
)
TEXTS = Limit(
    what="sentences of one file of descriptions",
    most=1_000_000,
    unit="sentences",
    variable="FEATCACHE_MAX_TEXTS",
)
ARRAYS = Limit(
    what="the arrays of imported files, unpacked",
    most=16 << 30,
    unit="bytes",
    variable="FEATCACHE_MAX_ARRAYS",
)
CONFIG = Limit(
    what="the config of a model",
    most=1 << 20,
    unit="bytes",
    variable="FEATCACHE_MAX_CONFIG",
)
WEIGHTS = Limit(
    what="a weights file",
    most=64 << 30,
    unit="bytes",
    variable="FEATCACHE_MAX_WEIGHTS",
)
HEAD = Limit(
    what="a file of a trained head",
    most=4 << 30,
    unit="bytes",
    variable="FEATCACHE_MAX_HEAD",
)
IMAGE_FILE = Limit(
    what="the file of one image",
    most=2 << 30,
    unit="bytes",
    variable="FEATCACHE_MAX_IMAGE_FILE",
)
ROWS = Limit(
    what="images that a listing names (csv, JSON, parquet, tar shards)",
    most=20_000_000,
    unit="images",
    variable="FEATCACHE_MAX_ROWS",
)
SAMPLE_TEXT = Limit(
    what="the label or the JSON of one sample of a tar shard",
    most=1 << 20,
    unit="bytes",
    variable="FEATCACHE_MAX_SAMPLE_TEXT",
)
PIXELS = Limit(
    what="the pixels of one image (also `max_pixels`)",
    most=178_956_970,  # the default of Pillow
    unit="pixels",
    variable="FEATCACHE_MAX_PIXELS",
)
DOWNLOAD = Limit(
    what="a file that is downloaded",
    most=256 << 30,
    unit="bytes",
    variable="FEATCACHE_MAX_DOWNLOAD",
)
UNPACKED = Limit(
    what="the files of a downloaded archive, unpacked",
    most=512 << 30,
    unit="bytes",
    variable="FEATCACHE_MAX_UNPACKED",
)
UNPACK_RATIO = Limit(
    what="how much larger than the archive they may be, from 256 MiB",
    most=50,
    unit="times",
    variable="FEATCACHE_MAX_UNPACK_RATIO",
)
MEMBERS = Limit(
    what="the files and folders of a zip or tar archive",
    most=10_000_000,
    unit="files",
    variable="FEATCACHE_MAX_MEMBERS",
)
ALL = (
    *(METADATA, WORDS, TEXT, TEXTS, ARRAYS, WEIGHTS, HEAD),
    *(IMAGE_FILE, ROWS, SAMPLE_TEXT, PIXELS, DOWNLOAD, UNPACKED, UNPACK_RATIO, MEMBERS),
)

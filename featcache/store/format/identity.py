"""Identity of a cache: data set, backbone and feature key, stored twice.

The first line of the manifest and key.json are the same sealed JSON, so that each can restore the
other. The name of the folder contains the digest of the key.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featcache.errors import CacheError, CacheNotFoundError, CorruptCacheError, NewerFormatError
from featcache.keys import FeatureKey
from featcache.paths import from_text
from featcache.store.format.files import cure_for, read_limited, write_atomically
from featcache.store.format.records import FORMAT
from featcache.store.format.seal import seal, split_seal, unseal

KEY_FILE = "key.json"
MANIFEST = "manifest.jsonl"
LISTING = "listing"
"""Folder of the listing."""
LAST_BLOCK_FILE = "last_block.safetensors"
"""Weights of the last block, in a cache that holds the tokens before it."""
KNOWN_HASHES = "hashes.tsv"
"""File beside the caches of a data set: hashes of its images, shared by all backbones."""
TRACE = ".trace.json"
"""Suffix of the file beside a cache with the timeline of its last profiled pass."""
CURE = "Run `featcache repair`."


@dataclass(frozen=True, slots=True)
class Identity:
    """Data set, backbone and feature key of a cache."""

    dataset: str
    backbone: str
    """Name as the user typed it: ViT-B/16, tiny."""
    key: FeatureKey

    def folder(self, root: Path) -> Path:
        """Return the folder of the cache: <dataset>/<backbone>-<digest of the key>."""
        folder = from_text(f"{slug(self.backbone)}-{self.key.digest()}")
        return root / from_text(slug(self.dataset)) / folder

    def line(self) -> bytes:
        """Return the identity as one line, with its line feed."""
        value = {
            "kind": "header",
            "format": FORMAT,
            "dataset": self.dataset,
            "backbone": self.backbone,
            "key": asdict(self.key),
        }
        return seal(value)[0]


def slug(name: str) -> str:
    """Convert a name to a portable folder name: ViT-B/16 -> ViT-B-16."""
    plain = re.sub(r"[^\w.+@=-]+", "-", name).strip(".-")
    return plain[:80] or "unnamed"


def is_cache(folder: Path) -> bool:
    """Tell whether a folder is a cache, sound or damaged: it has a key or a manifest."""
    return any((folder / name).is_file() for name in (KEY_FILE, MANIFEST))


def write_identity(folder: Path, identity: Identity) -> None:
    """Write key.json."""
    write_atomically(folder / KEY_FILE, identity.line())


def read_identity(folder: Path) -> Identity:
    """Read key.json.

    Raises:
        CacheNotFoundError: If the folder is not a cache.
        CorruptCacheError: If the file is damaged.
        NewerFormatError: If a later version wrote it.
        CacheError: If an earlier version wrote it.
    """
    path = folder / KEY_FILE
    try:
        data = read_limited(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        if is_cache(folder):
            raise CorruptCacheError(
                f"{path} is missing: the first pass was interrupted early, or the file was lost. "
                f"{CURE}"
            ) from error
        raise CacheNotFoundError(
            f"{folder} is not a cache: it has no {KEY_FILE}. `featcache ls` shows the caches."
        ) from error
    except OSError as error:
        raise CorruptCacheError(
            f"{path} cannot be read ({error.strerror}). {cure_for(error, CURE)}"
        ) from error
    try:
        return parse_header(data)
    except ValueError as error:
        raise CorruptCacheError(f"{path} {error}. {CURE}") from error


def parse_header(line: bytes) -> Identity:
    """Parse the line of an identity, with its line feed.

    Raises:
        ValueError: If it is damaged; the message is a predicate ("is not what was written").
        NewerFormatError: If a later version wrote it.
        CacheError: If an earlier version wrote it.
    """
    body = line.removesuffix(b"\n")
    try:
        value, _ = unseal(body)
    except ValueError:
        _refuse_format(_unsealed(body))
        raise
    _refuse_format(value)
    match value:
        case {
            "kind": "header",
            "format": int(),
            "dataset": str(dataset),
            "backbone": str(backbone),
            "key": dict(fields),
        } if len(value) == 5:
            identity = Identity(dataset, backbone, parse_key(fields))
        case _:
            raise ValueError("has fields that are missing or wrong")
    if identity.line() != line:
        raise ValueError("is not what was written")
    return identity


def _unsealed(line: bytes) -> Mapping[str, object]:
    """Parse the line of another format; empty if a seal shows that it is of this format."""
    with suppress(ValueError):
        split_seal(line)
        return {}
    with suppress(ValueError, RecursionError):
        value = json.loads(line)
        if isinstance(value, dict):
            return value
    return {}


def _refuse_format(value: Mapping[str, object]) -> None:
    version = value.get("format")
    if type(version) is not int or version == FORMAT:
        return
    if version > FORMAT:
        raise NewerFormatError(
            f"This cache has format {version}, this version reads format {FORMAT} only. "
            f"Update it with: pip install --upgrade featcache"
        )
    raise CacheError(
        f"This cache has format {version}, this version reads format {FORMAT} only. "
        f"Remove the cache with `featcache rm` and extract again."
    )


def parse_key(fields: Mapping[str, Any]) -> FeatureKey:
    """Make a key from the fields that a file states.

    Raises:
        ValueError: If one is missing, unknown, or of another type; the message is a predicate.
    """
    kinds = {name: int if name in ("image_size", "numerics") else str for name in _FIELDS}
    wrong = [n for n, kind in kinds.items() if type(fields.get(n)) is not kind]
    if wrong or set(fields) != set(kinds):
        raise ValueError("has a key with missing, wrong or unknown fields")
    return FeatureKey(**fields)


_FIELDS = tuple(FeatureKey.__dataclass_fields__)

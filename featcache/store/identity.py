"""key.json and the folder's name: which data set, which backbone, which key a cache belongs to."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featcache.errors import CacheNotFoundError, CorruptCacheError, NewerFormatError
from featcache.keys import FeatureKey
from featcache.store.files import cure_for, write_atomically
from featcache.store.lines import FORMAT

KEY_FILE = "key.json"
RESTORE = "Restore it, or remove that folder and extract again."


@dataclass(frozen=True, slots=True)
class Identity:
    """What a cache is the cache of."""

    dataset: str
    backbone: str
    """As the user calls it: ViT-B/16, tiny."""
    key: FeatureKey

    def folder(self, root: Path) -> Path:
        """Name the cache's folder: <dataset>/<backbone>-<digest of the key>."""
        return root / slug(self.dataset) / f"{slug(self.backbone)}-{self.key.digest()}"


def slug(name: str) -> str:
    """Turn a name into one that is a single plain folder everywhere: ViT-B/16 -> ViT-B-16."""
    plain = re.sub(r"[^\w.+@=-]+", "-", name).strip(".-")
    return plain[:80] or "unnamed"


def write_identity(folder: Path, identity: Identity) -> None:
    """Put key.json in place; from then on the folder is a cache."""
    value = {
        "format": FORMAT,
        "dataset": identity.dataset,
        "backbone": identity.backbone,
        "digest": identity.key.digest(),
        "key": asdict(identity.key),
    }
    write_atomically(folder / KEY_FILE, json.dumps(value, indent=1).encode() + b"\n")


def read_identity(folder: Path) -> Identity:
    """Read key.json.

    Raises:
        CacheNotFoundError: If the folder is no cache.
        CorruptCacheError: If the file is not what was written.
        NewerFormatError: If a later version wrote it.
    """
    path = folder / KEY_FILE
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CacheNotFoundError(
            f"{folder} is no cache: it has no {KEY_FILE}. `featcache ls` shows the caches."
        ) from error
    except OSError as error:
        raise CorruptCacheError(
            f"{path} cannot be read ({error.strerror}). {cure_for(error, RESTORE)}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CorruptCacheError(_sentence(path, f"cannot be read ({error})")) from error
    version = value.get("format") if isinstance(value, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise NewerFormatError(
            f"{folder} has format {version}, this program reads up to {FORMAT}. "
            f"Update it with: pip install --upgrade featcache"
        )
    match value:
        case {
            "format": int(),
            "dataset": str(dataset),
            "backbone": str(backbone),
            "digest": str(digest),
            "key": dict(fields),
        }:
            identity = Identity(dataset, backbone, _key(path, fields))
        case _:
            raise CorruptCacheError(_sentence(path, "has fields that are missing or wrong"))
    if identity.key.digest() != digest:
        raise CorruptCacheError(_sentence(path, f"gives a key that is not {digest}"))
    return identity


def _key(path: Path, fields: dict[str, Any]) -> FeatureKey:
    kinds = {name: int if name in ("image_size", "numerics") else str for name in _FIELDS}
    wrong = [n for n, kind in kinds.items() if type(fields.get(n)) is not kind]
    if wrong or set(fields) != set(kinds):
        raise CorruptCacheError(_sentence(path, "has a key with missing, wrong or unknown fields"))
    return FeatureKey(**fields)


_FIELDS = tuple(FeatureKey.__dataclass_fields__)


def _sentence(path: Path, what: str) -> str:
    return f"{path} {what}. {RESTORE}"

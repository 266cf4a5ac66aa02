"""Check rows and write them as a shard."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped

from featcache.errors import CacheError, UsageError
from featcache.keys import ComponentKey, Listing
from featcache.quantise import SCALE
from featcache.store.format.checksums import sums_of, write_sums
from featcache.store.format.files import make_folder, refuse_link
from featcache.store.format.records import REASON, ShardLine, check_provenance, kind_of
from featcache.store.format.shard import write_shard
from featcache.store.rows import images_crc32, ranges_of
from featcache.wording import Argument

STORED = ("float16", "float32", "int8", "int32")
"""Types of stored image features; float16 and float32 accept floats of any width."""


def check_rows(
    listing: Listing,
    component: ComponentKey,
    rows: Int64[np.ndarray, " r"],
    values: Shaped[np.ndarray, "r ..."],
    bad: Mapping[int, str],
) -> None:
    """Refuse rows that cannot be appended to any component of this kind.

    Raises:
        UsageError: If rows, their type or the unreadable rows are inconsistent.
    """
    ascending = len(rows) > 0 and bool((np.diff(rows) > 0).all())
    if not ascending or rows[0] < 0 or rows[-1] >= len(listing):
        raise UsageError(f"rows must ascend within 0..{len(listing) - 1}, got {len(rows)} rows.")
    is_image = kind_of(component.folder) not in ("", "text") and component.dtype in STORED
    if not is_image or not 2 <= values.ndim <= 4:
        raise UsageError(f"'{component.folder}' is no component of image features.")
    is_float = component.dtype in ("float16", "float32") and values.dtype.kind == "f"
    if not is_float and values.dtype.name != component.dtype:
        raise UsageError(
            f"'{component.folder}' holds {component.dtype}, got values of {values.dtype}."
        )
    if component.dtype == "int8" and values.shape[-1] <= SCALE:
        raise UsageError(
            f"'{component.folder}' needs tokens with a scale of {SCALE} bytes behind each, got "
            f"{values.shape[-1]} bytes a token."
        )
    if not set(bad) <= set(rows.tolist()):
        raise UsageError("bad names rows that are not in this shard.")


def check_width(
    folder: Path, shards: Sequence[ShardLine], values: Shaped[np.ndarray, "r ..."], dtype: str
) -> None:
    """Refuse rows whose shape or type differs from the stored rows of a component.

    Raises:
        CacheError: If they differ.
    """
    if not shards:
        return
    stored = shards[0].facts
    if (stored.shape[1:], stored.dtype) != (values.shape[1:], dtype):
        raise CacheError(
            f"Component '{folder.name}' of {folder.parent} has rows {list(stored.shape[1:])} of "
            f"{stored.dtype}, new ones are {list(values.shape[1:])} of {dtype}. "
            "They come from different models; extract into another folder with ",
            Argument("root"),
            ".",
        )


def free_name(
    taken: Container[tuple[str, str]], component: str, rows: Int64[np.ndarray, " r"]
) -> str:
    """Return a file name for a shard of these rows that is not in use."""
    stem, number = f"{int(rows[0]):08d}-{int(rows[-1]) + 1:08d}", 1
    name = f"{stem}.h5"
    while (component, name) in taken:
        number += 1
        name = f"{stem}.{number}.h5"
    return name


def write_rows(
    path: Path,
    key: str,
    listing: Listing,
    component: ComponentKey,
    rows: Int64[np.ndarray, " r"],
    values: Shaped[np.ndarray, "r ..."],
    bad: Mapping[int, str],
    provenance: Mapping[str, str],
) -> ShardLine:
    """Write one shard and the checksums of its rows, and return its record.

    The header of the shard repeats the record.

    Args:
        path: File of the shard.
        key: Digest of the key of the cache.
        listing: Listing with the ids of the images.
        component: Component of the rows.
        rows: Rows of the listing.
        values: Features of the rows.
        bad: Row -> why its image could not be read; zeros are stored for it.
        provenance: Versions, device and settings that produced the features.

    Raises:
        CacheError: If a stored value is not finite, or writing fails.
        UsageError: If the provenance is too large.
    """
    origin = provenance_of(provenance)
    with np.errstate(over="ignore"):  # overflows become infinite and are refused
        stored = values.astype(component.dtype, copy=bool(bad))
    positions = np.flatnonzero(np.isin(rows, list(bad))).tolist()
    if positions:
        stored[positions] = 0
    reasons = tuple((p, _reason(bad[int(rows[p])])) for p in positions)
    ranges = ranges_of(rows)
    images = images_crc32(listing, ranges)
    refuse_link(path.parent)
    make_folder(path.parent)
    facts = write_shard(
        path,
        stored,
        about={
            "kind": "shard",
            "component": component.folder,
            "key": key,
            "rows": ranges,
            "bad": reasons,
            "images_crc32": images,
            "provenance": origin,
        },
        attributes={
            "component": component.folder,
            "key": key,
            "first_row": int(rows[0]),
            "last_row": int(rows[-1]),
        },
        name_of=lambda position: f"image {listing.ids[int(rows[position])]}",
    )
    write_sums(path, facts, sums_of(stored, facts))
    return ShardLine(
        component=component.folder,
        file=path.name,
        rows=ranges,
        bad=reasons,
        images_crc32=images,
        facts=facts,
        provenance=origin,
    )


def provenance_of(value: Mapping[str, str]) -> dict[str, str]:
    """Return a provenance as it is stored.

    Raises:
        UsageError: If it has too many entries, or an entry is not a text or too long.
    """
    try:
        return check_provenance(value)
    except ValueError as error:
        raise UsageError(
            "provenance must hold at most 64 texts of fewer than 200 characters each. Leave some "
            "out, or shorten them."
        ) from error


def _reason(text: str) -> str:
    # A lone surrogate, e.g. from a file name, cannot be printed.
    return text.encode("utf-8", "replace").decode()[:REASON]

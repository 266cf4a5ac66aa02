"""The listing on disk: a set of plain files, and one small file that says which set is current.

listing/current.json            format, images, name of the set, size and crc32 of its files
listing/<set>/listing.json      classes, names of splits, templates, descriptions, notes
listing/<set>/ids.json          image ids, one a line      listing/<set>/labels.npy   [n]
listing/<set>/hashes.txt        content hashes, one a line listing/<set>/splits.npy   rows
"""

import hashlib
import io
import json
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Int64

from featcache.errors import CacheError, CorruptCacheError, NewerFormatError
from featcache.keys import Listing
from featcache.store.files import canonical, explained, make_folder, write_atomically
from featcache.store.lines import FORMAT

CURRENT = "current.json"
FILES = ("listing.json", "ids.json", "hashes.txt", "labels.npy", "splits.npy")
CURE = "Restore it from a backup, or remove this cache with `featcache rm` and extract again."


def write_listing(folder: Path, listing: Listing) -> None:
    """Put a listing in place; readers see the old one or this one.

    Raises:
        CacheError: If its parts disagree, or the disk refuses.
    """
    _check(listing)
    files = _to_files(listing)
    name = "set-" + hashlib.sha256(b"".join(files[f] for f in FILES)).hexdigest()[:12]
    facts = {f: {"bytes": len(files[f]), "crc32": zlib.crc32(files[f])} for f in FILES}
    pointer = {"format": FORMAT, "set": name, "images": len(listing), "files": facts}
    make_folder(folder / name)
    for file in FILES:
        write_atomically(folder / name / file, files[file])
    write_atomically(folder / CURRENT, canonical(pointer) + b"\n")
    with explained(folder):
        for old in folder.glob("set-*"):
            if old.name != name and not old.is_symlink():
                shutil.rmtree(old)


def read_listing(folder: Path) -> Listing | None:
    """Read the current listing; None where none was ever written.

    Raises:
        CorruptCacheError: If a file is missing or is not what was written.
        NewerFormatError: If a later version wrote it.
    """
    for attempt in (1, 2, 3):
        pointer = _pointer(folder)
        if pointer is None:
            return None
        try:
            files = _read_files(folder, pointer)
            break
        except CorruptCacheError:
            # A writer may have switched to another set and removed this one in between.
            if attempt == 3 or _pointer(folder) == pointer:
                raise
    try:
        return _from_files(files)
    except (ValueError, KeyError, TypeError, AttributeError, CacheError, RecursionError) as error:
        raise CorruptCacheError(
            f"The listing in {folder} cannot be understood ({error}). {CURE}"
        ) from error


def count_images(folder: Path) -> int:
    """Return the number of listed images without reading the listing; 0 where there is none."""
    pointer = _pointer(folder)
    return 0 if pointer is None else cast("int", pointer["images"])


def read_origin(folder: Path) -> tuple[str, str]:
    """Return data set and root without reading the rest; empty texts where nothing tells."""
    try:
        path = folder / current_set(folder) / "listing.json"
        about = json.loads(path.read_bytes())
        return _text(about["dataset"]), _text(about["root"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, CacheError):
        return "", ""


def current_set(folder: Path) -> str:
    """Name the current listing, so that a reader can tell whether it changed; empty for none."""
    pointer = _pointer(folder)
    return "" if pointer is None else str(pointer["set"])


def _pointer(folder: Path) -> dict[str, object] | None:
    path = folder / CURRENT
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptCacheError(f"{path} cannot be read ({error}). {CURE}") from error
    version = value.get("format") if isinstance(value, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise NewerFormatError(
            f"The listing in {folder} has format {version}, this program reads up to {FORMAT}. "
            f"Update it with: pip install --upgrade featcache"
        )
    match value:
        case {"format": int(), "set": str(name), "images": int(images), "files": dict(files)} if (
            re.fullmatch(r"set-[0-9a-f]{12}", name) and images >= 0 and set(files) == set(FILES)
        ):
            return cast("dict[str, object]", value)
    raise CorruptCacheError(f"{path} has fields that are missing or wrong. {CURE}")


def _read_files(folder: Path, pointer: Mapping[str, object]) -> dict[str, bytes]:
    out = {}
    for name, facts in cast("dict[str, object]", pointer["files"]).items():
        path = folder / str(pointer["set"]) / name
        try:
            data = path.read_bytes() if path.is_file() else None
        except OSError as error:
            raise CorruptCacheError(f"{path} cannot be read ({error.strerror}). {CURE}") from error
        if data is None or facts != {"bytes": len(data), "crc32": zlib.crc32(data)}:
            what = "is missing" if data is None else "is not what was written"
            raise CorruptCacheError(f"{path} {what}. {CURE}")
        out[name] = data
    return out


def _check(listing: Listing) -> None:
    n = len(listing.ids)
    if not len(listing.hashes) == len(listing.labels) == n:
        raise CacheError(
            f"A listing needs one hash and one label for each of its {n} images; got "
            f"{len(listing.hashes)} hashes and {len(listing.labels)} labels."
        )
    if len(set(listing.ids)) != n:
        raise CacheError("Image ids of a listing must be unique; some occur twice.")
    if n and not -1 <= int(listing.labels.min()) <= int(listing.labels.max()) < len(
        listing.classes
    ):
        raise CacheError(
            f"Labels of a listing must lie in -1..{len(listing.classes) - 1}; got "
            f"{int(listing.labels.min())}..{int(listing.labels.max())}."
        )
    if len(set(listing.classes)) != len(listing.classes):
        raise CacheError("Class names of a listing must be unique; some occur twice.")
    for name, rows in listing.splits.items():
        inside = not len(rows) or (int(rows.min()) >= 0 and int(rows.max()) < n)
        if not inside or len(np.unique(rows)) != len(rows):
            raise CacheError(f"Rows of split '{name}' must be distinct and within 0..{n - 1}.")
    for value in listing.hashes:
        if re.fullmatch(r"[0-9a-f]{64}|import:[0-9]{1,13}", value) is None:
            raise CacheError(f"A content hash must be a sha256 in hex; got '{value[:80]}'.")


def _to_files(listing: Listing) -> dict[str, bytes]:
    splits = [np.asarray(rows, dtype="<i8") for rows in listing.splits.values()]
    about = {
        "dataset": listing.dataset,
        "root": listing.root,
        "classes": list(listing.classes),
        "splits": [[name, len(rows)] for name, rows in listing.splits.items()],
        "templates": list(listing.templates),
        "descriptions": {k: list(v) for k, v in listing.descriptions.items()},
        "default_text": listing.default_text,
        "own_texts": list(listing.own_texts),
        "draws": listing.draws,
        "notes": list(listing.notes),
    }
    ids = ",\n".join(json.dumps(i) for i in listing.ids)
    return {
        "listing.json": json.dumps(about, indent=1).encode() + b"\n",
        "ids.json": f"[\n{ids}\n]\n".encode(),
        "hashes.txt": "".join(f"{h}\n" for h in listing.hashes).encode(),
        "labels.npy": _npy(np.asarray(listing.labels, dtype="<i8")),
        "splits.npy": _npy(np.concatenate([np.empty(0, dtype="<i8"), *splits])),
    }


def _from_files(files: Mapping[str, bytes]) -> Listing:
    about = json.loads(files["listing.json"])
    flat = _array(files["splits.npy"])
    splits, start = {}, 0
    for name, length in about["splits"]:
        splits[_text(name)] = flat[start : start + length]
        start += length
    listing = Listing(
        dataset=_text(about["dataset"]),
        root=_text(about["root"]),
        classes=_texts(about["classes"]),
        ids=_texts(json.loads(files["ids.json"])),
        hashes=tuple(files["hashes.txt"].decode("ascii").split()),
        labels=_array(files["labels.npy"]),
        splits=splits,
        templates=_texts(about["templates"]),
        descriptions={_text(k): _texts(v) for k, v in about["descriptions"].items()},
        default_text=_text(about["default_text"]),
        own_texts=_texts(about["own_texts"]),
        draws=_text(about["draws"]),
        notes=_texts(about["notes"]),
    )
    if start != len(flat):
        raise ValueError("splits.npy has another length than listing.json says")
    _check(listing)
    return listing


def _npy(values: Int64[np.ndarray, " r"]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _array(data: bytes) -> Int64[np.ndarray, " r"]:
    """Read a one-axis int64 array whose header agrees with the number of bytes."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an array has an unexpected version")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    rest = len(data) - stream.tell()
    if len(shape) != 1 or dtype != np.dtype("<i8") or shape[0] * 8 != rest:
        raise ValueError("an array has an unexpected shape or type")
    return np.frombuffer(data, dtype="<i8", offset=stream.tell()).astype(np.int64)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is no text")
    return value


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise TypeError("a list of texts is none")
    return tuple(values)

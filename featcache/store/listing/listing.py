"""The content of a listing on disk; files.py stores its files twice.

listing.json  classes, names and lengths of splits, texts, notes     labels.npy   [n]
ids.utf8      image ids, concatenated                                splits.npy   rows of all splits
offsets.npy   [n+1] offsets of the ids                               hashes.bin   [n 32] or empty

Opening reads listing.json only. The other files are mapped, and verified on first access.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from featcache.errors import CacheError, CorruptCacheError
from featcache.escapes import shown_notes
from featcache.keys import SENTENCE_SETS, Listing
from featcache.limits import METADATA
from featcache.store.listing.files import (
    LOST,
    MappedFile,
    check_set,
    open_set,
    repair_set,
    unfinished_switch,
    write_set,
)
from featcache.store.listing.lazy_columns import (
    HEADER_LIMIT,
    Hashes,
    Ids,
    ImportHashes,
    pack_hashes,
    pack_ids,
    read_array,
    to_npy,
)
from featcache.store.listing.pointer import CURE, CURRENT, Pointer, read_pointer
from featcache.wording import Part

__all__ = [
    "CURRENT",
    "check_listing",
    "count_images",
    "current_set",
    "listing_notes",
    "read_listing",
    "read_origin",
    "repair_listing",
    "write_listing",
]


def write_listing(folder: Path, listing: Listing) -> None:
    """Write a listing atomically.

    Raises:
        CacheError: If its parts are inconsistent, or writing fails.
    """
    _check(listing)
    write_set(folder, len(listing), _to_files(listing))


def read_listing(folder: Path) -> Listing | None:
    """Open the current listing; None if none was ever written.

    An open listing stays unchanged if a writer replaces it.

    Raises:
        CorruptCacheError: If a file is missing or damaged; for ids, hashes, labels and splits on
            their first access.
        NewerFormatError: If a later version wrote it.
    """
    for attempt in (1, 2, 3):
        pointer = read_pointer(folder)
        if pointer is None:
            return None
        try:
            return _Stored.open(folder, pointer)
        except CorruptCacheError:
            # A writer may have switched to another set and removed this one in between.
            if attempt == 3 or read_pointer(folder) == pointer:
                raise
    raise AssertionError("the third attempt returns or raises")


def check_listing(folder: Path, *, cure: Part = LOST) -> list[Part]:
    """Check every byte of the listing and of its copy.

    Args:
        folder: Folder of the listing.
        cure: Advice for files of which no sound copy is left.

    Returns:
        One message per problem.
    """
    problems = check_set(folder, cure=cure)
    if problems:
        return problems
    try:
        listing = read_listing(folder)
        if listing is not None:
            for name in ("labels", "splits"):  # access verifies them
                getattr(listing, name)
            for column in (listing.ids, listing.hashes):
                column[:1]
    except CorruptCacheError as error:
        return [error.parts]
    return []


def listing_notes(folder: Path) -> list[str]:
    """Return a message if a writer was stopped while it replaced the listing; else nothing."""
    if not unfinished_switch(folder):
        return []
    return [
        f"A writer was stopped while it replaced the listing in {folder}; the old one counts. The "
        f"next `featcache extract`, or `featcache repair`, tidies up."
    ]


def repair_listing(folder: Path) -> bool:
    """Restore damaged files of the listing from their copies; return whether any was changed.

    Raises:
        CacheError: If writing fails.
    """
    return repair_set(folder)


def count_images(folder: Path) -> int:
    """Return the number of images without reading the listing; 0 if there is none."""
    pointer = read_pointer(folder)
    return 0 if pointer is None else pointer.images


def current_set(folder: Path) -> str:
    """Return the name of the current set, which changes with the listing; empty if none."""
    pointer = read_pointer(folder)
    return "" if pointer is None else pointer.set


def read_origin(folder: Path) -> tuple[str, str, str]:
    """Return data set, root and spec without reading the rest; empty if unreadable."""
    try:
        pointer = read_pointer(folder)
        if pointer is None:
            return "", "", ""
        file = MappedFile(folder / pointer.set / "listing.json", pointer.files["listing.json"])
        about = _about(file)
        return about["dataset"], about["root"], about["spec"]
    except CacheError:
        return "", "", ""


class _Stored(Listing):
    """A listing whose labels and splits are mapped and verified on first access."""

    __slots__ = ("_files", "_lengths")

    _files: Mapping[str, MappedFile]
    _lengths: Mapping[str, int]

    @classmethod
    def open(cls, folder: Path, pointer: Pointer) -> "_Stored":
        """Map the files of a set and read its listing.json."""
        files, n = open_set(folder, pointer), pointer.images
        # Check file sizes before allocating memory by what a pointer states.
        for name, length in (("labels.npy", n), ("offsets.npy", n + 1)):
            if not 0 < files[name].bytes - 8 * length <= HEADER_LIMIT:
                raise CorruptCacheError(
                    f"{files[name].path} is no array of {length} int64 values. {CURE}"
                )
        about = _about(files["listing.json"])
        sha256 = about.pop("hashes") == "sha256"
        fields = {
            **about,
            "ids": Ids(n, files["ids.utf8"], files["offsets.npy"]),
            "hashes": Hashes(n, files["hashes.bin"]) if sha256 else ImportHashes(n),
            "_files": files,
            "_lengths": about.pop("splits"),
        }
        del fields["splits"]
        stored = object.__new__(cls)
        for name, value in fields.items():
            object.__setattr__(stored, name, value)
        return stored

    def __getattr__(self, name: str) -> Any:
        """Read labels or splits on first access."""
        if name == "labels":
            value: object = self._read_labels()
        elif name == "splits":
            value = self._read_splits()
        else:
            raise AttributeError(f"a listing has no '{name}'")
        object.__setattr__(self, name, value)
        return value

    def _read_labels(self) -> Int64[np.ndarray, " n"]:
        file, c = self._files["labels.npy"], len(self.classes)
        labels = read_array(file, len(self))
        if len(labels) and not (labels.min() >= -1 and labels.max() < c):
            raise CorruptCacheError(f"{file.path} has labels outside -1..{c - 1}. {CURE}")
        return labels

    def _read_splits(self) -> dict[str, Int64[np.ndarray, " _"]]:
        file, n = self._files["splits.npy"], len(self)
        flat = read_array(file, sum(self._lengths.values()))
        if len(flat) and not (flat.min() >= 0 and flat.max() < n):
            raise CorruptCacheError(f"{file.path} has rows outside 0..{n - 1}. {CURE}")
        splits, start = {}, 0
        for name, length in self._lengths.items():
            splits[name] = flat[start : start + length]
            start += length
        return splits


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
    for name, rows in listing.splits.items():
        inside = not len(rows) or (int(rows.min()) >= 0 and int(rows.max()) < n)
        if not inside or len(np.unique(rows)) != len(rows):
            raise CacheError(f"Rows of split '{name}' must be distinct and within 0..{n - 1}.")


def _to_files(listing: Listing) -> dict[str, bytes]:
    splits = [np.asarray(rows, dtype="<i8") for rows in listing.splits.values()]
    ids, offsets = pack_ids(listing.ids)
    hashes = pack_hashes(listing.hashes)
    about = {
        "dataset": listing.dataset,
        "root": listing.root,
        "hashes": "import" if hashes is None else "sha256",
        "classes": list(listing.classes),
        "splits": [[name, len(rows)] for name, rows in listing.splits.items()],
        "templates": list(listing.templates),
        "descriptions": {k: list(v) for k, v in listing.descriptions.items()},
        **_further_texts(listing),
        "default_text": listing.default_text,
        "own_texts": list(listing.own_texts),
        "draws": listing.draws,
        "notes": list(listing.notes),
    }
    return {
        "listing.json": json.dumps(about, indent=1).encode() + b"\n",
        "ids.utf8": ids,
        "offsets.npy": offsets,
        "hashes.bin": hashes or b"",
        "labels.npy": to_npy(listing.labels),
        "splits.npy": to_npy(np.concatenate([np.empty(0, dtype="<i8"), *splits])),
    }


def _further_texts(listing: Listing) -> dict[str, Any]:
    """Return optional entries; without them, older listings keep their bytes."""
    sets = {
        kind: {name: list(texts) for name, texts in given.items()}
        for kind, given in listing.sets.items()
    }
    same = {"waffle": listing.waffle, "prompts": listing.prompts}
    given = {name: list(texts) for name, texts in same.items() if texts}
    spec = {"spec": listing.spec} if listing.spec else {}
    return ({"sets": sets} if sets else {}) | given | spec


def _about(file: MappedFile) -> dict[str, Any]:
    """Parse listing.json: fields of a listing, kind of its hashes, and lengths of its splits."""
    if file.bytes > METADATA.value():
        raise CorruptCacheError(f"{file.path} is larger than any listing should be. {CURE}")
    try:
        value = json.loads(file.data()[:])
        if value["hashes"] not in ("sha256", "import"):
            raise ValueError("its hashes are of an unknown kind")
        return {
            **{k: _text(value[k]) for k in ("dataset", "root", "default_text", "draws", "hashes")},
            **{k: _texts(value[k]) for k in ("classes", "templates", "own_texts")},
            "notes": shown_notes(_texts(value["notes"])),
            "descriptions": _by_class(value["descriptions"]),
            "sets": {_kind(k): _by_class(v) for k, v in value.get("sets", {}).items()},
            **{k: _texts(value.get(k, [])) for k in ("waffle", "prompts")},
            "spec": _text(value.get("spec", "")),
            "splits": {_text(name): _length(length) for name, length in value["splits"]},
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptCacheError(f"{file.path} cannot be parsed ({error}). {CURE}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is expected")
    return value


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise TypeError("a list of texts is expected")
    return tuple(values)


def _by_class(value: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {_text(name): _texts(texts) for name, texts in value.items()}


def _kind(value: object) -> str:
    if value not in SENTENCE_SETS:
        raise ValueError("it has texts of an unknown kind")
    return _text(value)


def _length(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError("the length of a split is no number of rows")
    return value

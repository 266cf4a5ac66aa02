"""The files of a listing: a set, its copy, and a pointer to the current set.

current.json    current.copy.json     name of the set, images, size and crc32 of its files
set-<12 hex>/   set-<12 hex>.copy/    the same files in both

A listing cannot be rebuilt from shards, so it is stored twice. Readers use the first one; `repair`
restores each from the other.
"""

import hashlib
import mmap
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from featcache.errors import CacheError, CorruptCacheError, NewerFormatError
from featcache.store.format.crc import crc32
from featcache.store.format.files import (
    clear_folder,
    cure_for,
    explained,
    make_folder,
    open_plain,
    read_limited,
    refuse_link,
    unreadable,
    write_atomically,
)
from featcache.store.format.scan import CHUNK, checksums
from featcache.store.listing.pointer import (
    CURE,
    CURRENT,
    CURRENT_COPY,
    FILES,
    FileFacts,
    Pointer,
    holds,
    read_pointer,
    to_line,
)
from featcache.wording import Part, replaced

COPY = ".copy"
LOST = "Restore it from a backup, or remove this cache with `featcache rm` and extract again."
UNLESS_REPAIRED = "Run `featcache repair`. If no copy is left: "
"""Precedes LOST unless a copy has been searched for."""


class MappedFile:
    """One mapped file of a set; its checksum is verified on first access.

    The map stays valid after the file is removed, and writing to it does not change the file.
    """

    def __init__(self, path: Path, facts: FileFacts) -> None:
        """Check the size of a file and map it.

        Raises:
            CorruptCacheError: If it is missing, is not a plain file or has a wrong size.
        """
        self.path, self.bytes = path, facts.bytes
        self._crc32: int | None = facts.crc32
        handle = _open(path, facts)
        try:
            self._map: mmap.mmap | bytes = b""
            if facts.bytes:
                self._map = mmap.mmap(handle, facts.bytes, access=mmap.ACCESS_COPY)
        except OSError as error:
            raise unreadable(path, error, CURE) from error
        finally:
            os.close(handle)

    def data(self) -> mmap.mmap | bytes:
        """Return the bytes; the first call verifies them.

        Raises:
            CorruptCacheError: If they are damaged.
        """
        if self._crc32 is not None:
            if crc32(self._map) != self._crc32:
                raise _changed(self.path)
            self._crc32 = None
        return self._map


def write_set(folder: Path, images: int, files: Mapping[str, bytes]) -> None:
    """Write a set and its copy, and switch to it atomically.

    Args:
        folder: Folder of the listing.
        images: Number of rows of the listing.
        files: Content of each of `FILES`.

    Raises:
        CacheError: If writing fails.
    """
    digest = hashlib.sha256()
    for file in FILES:
        digest.update(files[file])
    name = f"set-{digest.hexdigest()[:12]}"
    facts = {file: FileFacts(len(files[file]), crc32(files[file])) for file in FILES}
    pointer = Pointer(name, images, facts)
    if not _is_in_place(folder, pointer):
        for part in (folder, folder / name, folder / (name + COPY)):
            _plain_folder(part)
        for part in (folder / (name + COPY), folder / name):
            for file in FILES:
                clear_folder(part / file)
                write_atomically(part / file, files[file])
        for file in (CURRENT_COPY, CURRENT):
            clear_folder(folder / file)
            write_atomically(folder / file, to_line(pointer))
    _remove_others(folder, name)


def open_set(folder: Path, pointer: Pointer) -> dict[str, MappedFile]:
    """Map every file of a set; only sizes are checked.

    Raises:
        CorruptCacheError: If one is missing, is not a plain file or has a wrong size.
    """
    return {f: MappedFile(folder / pointer.set / f, facts) for f, facts in pointer.files.items()}


def check_set(folder: Path, *, cure: Part = LOST) -> list[Part]:
    """Check every byte of a set, its copy and both pointers.

    Args:
        folder: Folder of the listing.
        cure: Advice for files of which no sound copy is left.

    Returns:
        One message per problem.
    """
    pointer, problems = _either_pointer(folder, cure)
    if pointer is None:
        return problems
    for file, sound in zip(pointer.files, _sound_copies(folder, pointer), strict=True):
        if all(sound):
            continue
        for part, good in zip(_parts(folder, pointer), sound, strict=True):
            if not good:
                advice = CURE if any(sound) else cure
                what = f"{part / file} is missing or is not what was written. "
                problems.append((what, advice))
    return problems


def unfinished_switch(folder: Path) -> bool:
    """Tell whether a writer was stopped between the two pointers: each points to a complete set."""
    try:
        first, second = (read_pointer(folder, file) for file in (CURRENT, CURRENT_COPY))
    except (CorruptCacheError, NewerFormatError):
        return False
    return bool(first and second and first != second) and all(
        all(copies)
        for pointer in (first, second)
        if pointer is not None
        for copies in _sound_copies(folder, pointer)
    )


def repair_set(folder: Path) -> bool:
    """Restore damaged or missing files from their copies; return whether anything was changed.

    Files of which both copies are damaged stay so; `check_set` reports them.

    Raises:
        CacheError: If writing fails.
        NewerFormatError: If a later version wrote the pointers.
    """
    pointer, _ = _either_pointer(folder, LOST)
    if pointer is None:
        for file in (CURRENT, CURRENT_COPY):
            with suppress(CorruptCacheError):  # raises for a pointer of a later version
                read_pointer(folder, file)
        pointer = _whole_set(folder)
    if pointer is None:
        return False
    agree = all(holds(folder / file, to_line(pointer)) for file in (CURRENT, CURRENT_COPY))
    if agree and not check_set(folder):
        return False
    changed = False
    sound = dict(zip(pointer.files, _sound_copies(folder, pointer), strict=True))
    parts = _parts(folder, pointer)
    for part in (folder, *parts):
        _plain_folder(part)
    for file, copies in sound.items():
        if any(copies) and not all(copies):
            good, bad = parts if copies[0] else parts[::-1]
            clear_folder(bad / file)
            write_atomically(bad / file, read_limited(good / file, pointer.files[file].bytes))
            changed = True
    line = to_line(pointer)
    for file in (CURRENT_COPY, CURRENT):
        if not holds(folder / file, line):
            clear_folder(folder / file)
            write_atomically(folder / file, line)
            changed = True
    return changed


def _either_pointer(folder: Path, cure: Part) -> tuple[Pointer | None, list[Part]]:
    """Return the pointer, or else its copy, and their faults."""
    pointers: list[Pointer | None] = []
    problems: list[Part] = []
    for file in (CURRENT, CURRENT_COPY):
        try:
            pointers.append(read_pointer(folder, file))
        except (CorruptCacheError, NewerFormatError) as error:
            pointers.append(None)
            problems.append(error.parts)
    pointer = pointers[0] or pointers[1]
    if pointer is None:
        if not (problems and _whole_set(folder)):
            problems = [replaced(problem, CURE, cure) for problem in problems]
        return None, problems
    if not problems and pointers[0] != pointers[1] and not unfinished_switch(folder):
        what = "is missing" if None in pointers else "differs from its copy"
        file = CURRENT if pointers[0] is None else CURRENT_COPY
        problems.append((f"{folder / file} {what}. ", CURE))
    return pointer, problems


def _whole_set(folder: Path) -> Pointer | None:
    """Return a pointer to the complete set with the most images; None if there is none."""
    pointers = []
    for part in [] if folder.is_symlink() else sorted(folder.glob("set-*")):
        with suppress(CacheError, OSError, ValueError):
            pointers.append(_pointer_to(part))
    return max(pointers, key=lambda p: p.images, default=None)


def _pointer_to(part: Path) -> Pointer:
    """Compose the pointer to a set, or to its copy, from its files."""
    digest, facts = hashlib.sha256(), {}
    for file in FILES:
        _refuse_links(part / file)
        crc = 0
        with os.fdopen(open_plain(part / file), "rb") as handle:
            while data := handle.read(CHUNK):
                digest.update(data)
                crc = crc32(data, crc)
            facts[file] = FileFacts(handle.tell(), crc)
    name = f"set-{digest.hexdigest()[:12]}"
    if part.name.removesuffix(COPY) != name:
        raise ValueError("is not what was written")
    with os.fdopen(open_plain(part / "labels.npy"), "rb") as handle:
        header = int.from_bytes(handle.read(10)[8:], "little")
    return Pointer(name, (facts["labels.npy"].bytes - 10 - header) // 8, facts)


def _sound_copies(folder: Path, pointer: Pointer) -> Iterator[tuple[bool, bool]]:
    """Yield for each file whether it is sound in the set and in the copy."""
    first, second = _parts(folder, pointer)
    for file, facts in pointer.files.items():
        yield _is_sound(first / file, facts), _is_sound(second / file, facts)


def _is_sound(path: Path, facts: FileFacts) -> bool:
    """Verify a file by system calls; with a memory map a failing disk would kill the process."""
    try:
        _refuse_links(path)
        if path.lstat().st_size != facts.bytes:
            return False
        return checksums(path, sha256=False).crc32 == facts.crc32
    except (CorruptCacheError, OSError):
        return False


def _is_in_place(folder: Path, pointer: Pointer) -> bool:
    try:
        both = [read_pointer(folder, file) for file in (CURRENT, CURRENT_COPY)]
        return both == [pointer, pointer] and not check_set(folder)
    except (CorruptCacheError, NewerFormatError):
        return False


def _open(path: Path, facts: FileFacts) -> int:
    _refuse_links(path)
    try:
        handle = open_plain(path)
    except OSError as error:
        raise CorruptCacheError(
            f"{path} cannot be read ({error.strerror}). {cure_for(error, CURE)}"
        ) from error
    if os.fstat(handle).st_size != facts.bytes:
        os.close(handle)
        raise _changed(path)
    return handle


def _parts(folder: Path, pointer: Pointer) -> tuple[Path, Path]:
    return folder / pointer.set, folder / (pointer.set + COPY)


def _plain_folder(path: Path) -> None:
    """Create a folder; a link or a file in its place is removed."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        with explained(path):
            path.unlink()
    make_folder(path)


def _remove_others(folder: Path, name: str) -> None:
    with explained(folder):
        for old in folder.glob("set-*"):
            if old.name not in (name, name + COPY) and not old.is_symlink():
                shutil.rmtree(old)


def _refuse_links(path: Path) -> None:
    """Refuse symbolic links in place of the folders of a file."""
    refuse_link(path.parent.parent)
    refuse_link(path.parent)


def _changed(path: Path) -> CorruptCacheError:
    return CorruptCacheError(f"{path} is not what was written. ", CURE)

"""A zip or tar archive as a tree: read in place, nothing is unpacked."""

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import SourceError
from featcache.limits import Limit
from featcache.paths import as_text, file_in, from_text, open_descriptor, pread
from featcache.places import Place
from featcache.sources.headers.tar import BLOCK, is_tar
from featcache.sources.trees.base import Entry, FoundImages
from featcache.sources.trees.members import Archive, Names
from featcache.sources.trees.names import LeftOut, id_of, is_below, is_hidden, is_image
from featcache.sources.trees.tar_index import read_tar
from featcache.sources.trees.zip_index import read_zip

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""First bytes -> what packed the whole file."""


@dataclass(frozen=True, slots=True)
class ArchiveTree:
    """The files of an archive, or of one folder in it."""

    archive: Archive
    _names: Names
    _keys: Sequence[str]
    """Sorted paths of files and folders, `_key` of each: all below a folder are neighbours."""
    _inside: str = ""
    """Path of the root in the archive, with `/` at the end; empty for the archive itself."""

    @property
    def root(self) -> Path:
        """Path of the archive, followed by the folder in it."""
        return self.archive.path / from_text(self._inside)

    def images(self) -> FoundImages:
        """Find every image, as in a folder of the same files; hidden ones are left out."""
        images: list[Entry] = []
        left = LeftOut()
        folders_of: dict[str, tuple[str, ...] | None] = {}
        every: dict[tuple[str, ...], None] = {}
        start = len(self._inside)
        for key in self._range(self._inside):
            path = key.replace("\0", "/")
            parent, _, name = path[start:].rpartition("/")
            if parent not in folders_of:
                folders = tuple(parent.split("/")) if parent else ()
                hidden = any(map(is_hidden, folders))
                folders_of[parent] = None if hidden else folders
                if not hidden:
                    every.update((folders[:i], None) for i in range(1, len(folders) + 1))
            found = folders_of[parent]
            if found is None or not name or is_hidden(name):
                continue
            if is_image(name):
                images.append(Entry(id_of(path[start:]), self._names.files[path], found))
            else:
                left.ignore(name)
        full = {image.folders for image in images}
        full |= {folders[:i] for folders in full for i in range(1, len(folders))}
        name = as_text(self.root.name)
        empty = tuple(folders for folders in every if folders not in full)
        return FoundImages(tuple(images), tuple(left.notes(name)), empty)

    def find(self, path: str) -> Place | None:
        """Return the file at a path; None where there is none."""
        return self._names.files.get(self._inside + path) if is_below(path) else None

    def has_folder(self, path: str) -> bool:
        """Tell whether there is a folder at a path below the root; the empty path is the root."""
        if path and not is_below(path):
            return False
        return next(self._range(self._folder(path)), None) is not None

    def names(self, path: str = "") -> Iterator[str]:
        """Yield the names in a folder in order, without hidden ones.

        Raises:
            SourceError: If there is no such folder.
        """
        if not self.has_folder(path):
            raise SourceError(f"There is no folder {path!r} in {self.root}.")
        folder = _key(self._folder(path))
        at = bisect_left(self._keys, folder)
        while at < len(self._keys) and self._keys[at].startswith(folder):
            name, below, _ = self._keys[at][len(folder) :].partition("\0")
            if name and not is_hidden(name):
                yield name
            # The first key behind everything that begins with this name and a separator.
            at = bisect_left(self._keys, f"{folder}{name}\1") if below else at + 1

    def read(self, path: str, limit: Limit) -> bytes:
        """Read a list beside the images; errors as the protocol has them."""
        place = self.find(path)
        if place is None:
            raise SourceError(f"There is no file {path!r} in {self.root}.")
        try:
            return place.read(limit)
        except OSError as error:
            raise SourceError(
                f"File {place} could not be read ({error.strerror or error})."
            ) from error

    def below(self, path: str) -> "ArchiveTree":
        """Return the tree of a folder of this one.

        Raises:
            SourceError: If there is no such folder.
        """
        if not self.has_folder(path):
            raise SourceError(f"There is no folder {path!r} in {self.root}.")
        return ArchiveTree(self.archive, self._names, self._keys, self._folder(path))

    def _folder(self, path: str) -> str:
        path = path.strip("/")
        return f"{self._inside}{path}/" if path else self._inside

    def _range(self, folder: str) -> Iterator[str]:
        """Yield the keys below a folder, in order."""
        start = _key(folder)
        at = bisect_left(self._keys, start)
        while at < len(self._keys) and self._keys[at].startswith(start):
            yield self._keys[at]
            at += 1


def open_archive(path: Path, kind: str = "") -> ArchiveTree:
    """Open a zip or tar archive, or a folder in one.

    Args:
        path: The archive; behind it may stand a folder in it, as in `photos.zip/summer`.
        kind: zip or tar, if it must be one of these.

    Raises:
        SourceError: If there is none, it is damaged, or holds what is refused.
    """
    file, inside = split_archive(path)
    archive, found = _opened(file)
    if kind and kind != found:
        raise SourceError(f"{file} is a {found} archive; write {found}:{path}")
    try:
        names = read_zip(archive) if found == "zip" else read_tar(archive)
    except OSError as error:
        raise _unreadable(file, error) from error
    keys = sorted([*map(_key, names.files), *(_key(f"{folder}/") for folder in names.folders)])
    tree = ArchiveTree(archive, names, keys)
    return tree.below(inside) if inside else tree


def kind_of(path: Path) -> str:
    """Return zip or tar, whichever an archive or the one around a folder is.

    Raises:
        SourceError: If it is none.
    """
    return _opened(split_archive(path)[0])[1]


def split_archive(path: Path) -> tuple[Path, str]:
    """Split a path into the archive, resolved, and the folder in it.

    Raises:
        SourceError: If no part of the path is a file.
    """
    file = file_in(path)
    if file is not None:
        inside = path.relative_to(file)
        return file.resolve(), as_text(inside.as_posix()) if inside.parts else ""
    if path.is_dir():
        raise SourceError(f"{path} is a folder, not an archive; write folder:{path}")
    raise SourceError(f"There is no archive {path}.")


def _opened(file: Path) -> tuple[Archive, str]:
    """Return an archive as it is now, and whether it is a zip or a tar."""
    try:
        handle = open_descriptor(file)
        try:
            archive, start = Archive(file, os.fstat(handle)), pread(handle, 0, BLOCK)
        finally:
            os.close(handle)
    except OSError as error:
        raise _unreadable(file, error) from error
    return archive, _kind(archive, start)


def _unreadable(file: Path, error: OSError) -> SourceError:
    return SourceError(f"Archive {file} could not be read ({error.strerror or error}).")


def _kind(archive: Archive, start: bytes) -> str:
    """Tell zip from tar by the first bytes.

    Raises:
        SourceError: If it is neither.
    """
    if start[:4] in (b"PK\3\4", b"PK\5\6"):
        return "zip"
    if is_tar(start):
        return "tar"
    for signature, what in _COMPRESSED.items():
        if start.startswith(signature):
            raise archive.refused(
                f"is compressed as a whole ({what}), so its files cannot be read in place",
                "Unpack it once and name the folder (folder:PATH), or pack it as .zip or as .tar "
                "without compression.",
            )
    raise archive.refused(
        "is neither a zip nor a tar archive", "Name one of these, or a folder (folder:PATH)."
    )


def _key(path: str) -> str:
    """Return the sort key of a path that puts all files of `folder` before `folder-2`."""
    return path.replace("/", "\0")

"""Checksum of a file against its published digest, computed while the file is written."""

import hashlib
from pathlib import Path

from featcache.paths import open_regular
from featcache.sources.fetch.archive import Archive


class Checksum:
    """The digest of the bytes so far; sha256 unless only an md5 was published."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._name = "md5" if archive.md5 and not archive.sha256 else "sha256"
        self._reset()

    def _reset(self) -> None:
        self._digest = hashlib.new(self._name, usedforsecurity=False)
        self.count = 0

    def update(self, data: bytes) -> None:
        """Add the next bytes."""
        self._digest.update(data)
        self.count += len(data)

    def read(self, path: Path, count: int) -> None:
        """Start again from the first bytes of a file, unless these are what was added so far.

        Raises:
            OSError: If it cannot be read, or is shorter.
        """
        if self.count == count:
            return
        self._reset()
        with open_regular(path) as file:
            while self.count < count:
                data = file.read(min(1 << 20, count - self.count))
                if not data:
                    raise OSError(f"{path} has fewer than {count} bytes")
                self.update(data)

    @property
    def value(self) -> str:
        """The digest, e.g. `sha256:8ebe...`."""
        return f"{self._name}:{self._digest.hexdigest()}"

    def fault(self) -> str:
        """Describe the difference to the published digest; empty if there is none."""
        archive = self._archive
        if archive.bytes is not None and self.count != archive.bytes:
            return f"it has {self.count} bytes, {archive.bytes} were published"
        if archive.published and self.value != archive.published:
            return f"its {self.value.replace(':', ' ')} is not the published one"
        return ""


def vouched(archive: Archive) -> str:
    """Describe the missing digest of a file; empty if one is published."""
    if archive.published:
        return ""
    if archive.bytes is not None:
        return (
            f"No checksum of {archive.file} is published: its size alone, {archive.bytes} bytes, "
            f"was checked."
        )
    return (
        f"Neither a checksum nor the size of {archive.file} is published: nothing vouches for it "
        f"but its server."
    )

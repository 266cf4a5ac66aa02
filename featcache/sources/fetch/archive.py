"""Description of one published file: addresses, size and digests."""

import re
from dataclasses import dataclass

from featcache.errors import SourceError
from featcache.sources.fetch.names import checked_name

KINDS = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
    ".tar.bz2": "tar.bz2",
    ".tbz2": "tar.bz2",
}
"""Suffix -> kind of archive."""

_HEX = {"sha256": re.compile("[0-9a-f]{64}"), "md5": re.compile("[0-9a-f]{32}")}


@dataclass(frozen=True, slots=True)
class Archive:
    """One file to fetch: an archive if its suffix says so, else a plain file.

    Example:
        >>> Archive("EuroSAT.zip", ("https://example.org/EuroSAT.zip",), 94280567).kind
        'zip'
        >>> Archive("setid.mat", ("https://example.org/setid.mat",)).kind
        ''
    """

    file: str
    """Its name."""
    urls: tuple[str, ...]
    """The published address, then mirrors, in the order in which they are tried."""
    bytes: int | None = None
    """Size of the archive; None if unknown."""
    sha256: str = ""
    """64 hex digits; empty if none were published."""
    md5: str = ""
    """32 hex digits, for where only these were published."""
    into: str = ""
    """Folder below the target in which it is unpacked; empty is the target itself."""
    nested: bool = False
    """Whether tar files in it are unpacked too, each into a folder of its own name."""
    unpacked: int | None = None
    """Bytes of its files, for the check of free space; None if unknown."""

    def __post_init__(self) -> None:
        """Check the digests, the size and the names.

        Raises:
            SourceError: If one of them is invalid.
        """
        for name, digits in _HEX.items():
            value = getattr(self, name)
            if value and not digits.fullmatch(value):
                raise SourceError(
                    f"The {name} of {self.file} must be lower-case hex digits, got '{value[:80]}'."
                )
        if self.bytes is not None and self.bytes < 1:
            raise SourceError(f"The size of {self.file} must be positive, got {self.bytes}.")
        if not self.urls:
            raise SourceError(f"{self.file} has no address to fetch it from.")
        if checked_name(self.file, "the description") != (self.file,):
            raise SourceError(f"'{self.file}' must be the name of a file, without folders.")
        if self.into:
            checked_name(self.into, f"the description of {self.file}")

    @property
    def kind(self) -> str:
        """A value of `KINDS`; empty where the file is no archive."""
        return kind_of(self.file)

    @property
    def published(self) -> str:
        """Published digest, e.g. `sha256:8ebe...`; empty where there is none."""
        if self.sha256:
            return f"sha256:{self.sha256}"
        return f"md5:{self.md5}" if self.md5 else ""


def kind_of(name: str) -> str:
    """Return the kind of an archive by its suffix.

    Args:
        name: Name of a file.

    Returns:
        A value of `KINDS`; empty where the file is no archive.
    """
    lower = name.lower()
    return next((k for suffix, k in KINDS.items() if lower.endswith(suffix)), "")


def stem_of(name: str) -> str:
    """Return the name of an archive without its suffix.

    Example:
        >>> stem_of("101_ObjectCategories.tar.gz")
        '101_ObjectCategories'
    """
    suffix = max((s for s in KINDS if name.lower().endswith(s)), key=len, default="")
    return name[: len(name) - len(suffix)]

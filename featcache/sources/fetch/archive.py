"""An archive of a named data set: where it is published and what its bytes must be."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One file to download."""

    file: str
    """Name it is kept under; the suffix tells how it is unpacked."""
    urls: tuple[str, ...] = ()
    """The published address first, then mirrors; empty where only a person can fetch it."""
    bytes: int | None = None
    sha256: str = ""
    md5: str = ""
    into: str = ""
    """Folder below the data root where it is unpacked."""

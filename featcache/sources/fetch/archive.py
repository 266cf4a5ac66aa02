"""An archive of a named data set: where it is published and what its bytes must be."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Archive:
    """One file to download."""

    file: str
    urls: tuple[str, ...]
    bytes: int | None = None
    sha256: str = ""
    md5: str = ""
    into: str = ""
    nested: bool = False
    unpacked: int | None = None

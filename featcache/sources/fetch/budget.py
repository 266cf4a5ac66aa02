"""Limits on what an archive may unpack to, counted while it is read."""

from featcache.errors import SourceError
from featcache.limits import MEMBERS, UNPACK_RATIO, UNPACKED

FLOOR = 256 << 20
"""Bytes that any archive may unpack to: small lists compress better than the ratio."""


class Budget:
    """Bytes and members that one archive and the archives in it may still unpack to."""

    def __init__(self, archive: str, size: int) -> None:
        """Start with the full limits.

        Args:
            archive: Its name, for errors.
            size: Bytes of its file.
        """
        self.archive = archive
        self.members = 0
        self.bytes = 0
        self._members, self._bytes = MEMBERS.value(), UNPACKED.value()
        self._ratio = UNPACK_RATIO.value()
        self._by_ratio = max(FLOOR, self._ratio * size)

    def member(self) -> None:
        """Count a member.

        Raises:
            SourceError: If there are too many.
        """
        self.members += 1
        if self.members > self._members:
            raise SourceError(
                f"{self.archive} has more than {self._members} members. If that is meant, set "
                f"{MEMBERS.variable} to more."
            )

    def take(self, count: int) -> None:
        """Count bytes before they are written or read.

        Raises:
            SourceError: If that is more than an archive may unpack to.
        """
        self.bytes += count
        if self.bytes > self._bytes:
            raise SourceError(
                f"{self.archive} unpacks to more than {self._bytes} bytes. If that is meant, set "
                f"{UNPACKED.variable} to more."
            )
        if self.bytes > self._by_ratio:
            raise SourceError(
                f"{self.archive} unpacks to more than {self._ratio} times its own size, which no "
                f"archive of images does. If that is meant, set {UNPACK_RATIO.variable} to more."
            )

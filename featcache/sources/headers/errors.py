"""What is wrong with an archive, before its reader says which archive it is.

Each message is a verb and the rest, as "ends in the midst of a header".
"""


class DamagedError(Exception):
    """Bytes that no sound archive has: another copy may be whole."""


class UnsafeError(Exception):
    """A sound archive that holds what is not read here."""


class EncryptedError(UnsafeError):
    """A member needs a password."""

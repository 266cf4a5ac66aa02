"""How far a transfer is, in numbers that say of themselves that they are bytes."""


class Bytes(int):
    """A number of bytes, so that who reports it writes 1.2 GB; 0 of a total is unknown."""

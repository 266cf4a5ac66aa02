"""Progress of a transfer in bytes."""


class Bytes(int):
    """A number that progress reports show as bytes, e.g. 1.2 GB; a total of 0 is unknown."""

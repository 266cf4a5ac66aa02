"""How much a server takes at once, so that no client can exhaust memory, disk or patience."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Largest sizes and numbers; beyond them a request is refused with a sentence."""

    file_bytes: int = 32 << 20
    """Bytes of the file of an image; with more it is refused with 413."""
    pixels: int = 50_000_000
    """Pixels of an image; with more it is refused with 413."""
    files: int = 32
    """Images of a request; with more it is refused with 413."""
    request_bytes: int = 64 << 20
    """Bytes of a request; with more it is refused with 413."""
    seconds: float = 60.0
    """Time in which a request has to arrive, or it is refused with 408; and in which its answer has
    to be taken, or the connection is closed."""
    requests: int = 512
    """Requests received or answered at once; further ones are refused with 429."""
    held_bytes: int = 1 << 30
    """Bytes of all of these, in memory and temporary files; further ones are refused with 429."""
    connections: int = 1024
    """Open connections; further ones are closed with 503."""
    head_seconds: float = 10.0
    """Time in which the head of a request has to arrive; then its connection is closed."""
    waiting: int = 1024
    """Images that wait for the encoder; further ones are refused with 429."""

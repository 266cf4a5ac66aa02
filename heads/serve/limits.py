"""How much a server takes at once, so that no client can exhaust memory, disk or patience."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Largest sizes and numbers; beyond them a request is refused with a sentence."""

    file_bytes: int = 32 << 20
    """Of the file of one image: 413."""
    pixels: int = 50_000_000
    """Of one image: 413."""
    files: int = 32
    """Images of one request: 413."""
    request_bytes: int = 64 << 20
    """Of one request: 413."""
    seconds: float = 60.0
    """In which a request has to arrive: 408."""
    requests: int = 512
    """That are received or answered at once: 429."""
    held_bytes: int = 1 << 30
    """Of all of these, which lie in memory or in temporary files: 429."""
    waiting: int = 1024
    """Images that wait for the encoder: 429."""

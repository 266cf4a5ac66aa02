"""How much a server takes at once, so that no client can exhaust memory, disk or patience."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Largest sizes and numbers; beyond them a request is refused with a sentence."""

    file_bytes: int = 32 << 20
    """Largest file of an image; larger ones are refused (413)."""
    pixels: int = 50_000_000
    """Most pixels of an image; more are refused (413)."""
    files: int = 32
    """Images of one request: 413."""
    request_bytes: int = 64 << 20
    """Most of one request; more is refused (413)."""
    seconds: float = 60.0
    """In which a request has to arrive: 408."""
    requests: int = 512
    """That are received or answered at once: 429."""
    held_bytes: int = 1 << 30
    """Most of all requests together, which lie in memory or in temporary files; more wait (429)."""
    waiting: int = 1024
    """Images that wait for the encoder: 429."""

"""What tests of a pass share: interrupting it, and the shards that it left."""

from collections.abc import Callable
from pathlib import Path


def interrupt_at(batch: int) -> Callable[[int], None]:
    def interrupt(current: int) -> None:
        if current == batch:
            raise KeyboardInterrupt

    return interrupt


def shards(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.glob("*/*.h5"))}

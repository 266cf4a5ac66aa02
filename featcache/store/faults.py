"""errors.jsonl: why an image could not be read, for people.

That it could not is in the manifest; so a torn or strange line here costs a reason, nothing else.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from featcache.store.files import canonical, explained, write_all


def note_faults(path: Path, component: str, bad: Mapping[int, str], ids: Sequence[str]) -> None:
    """Add one line for each unreadable row.

    Raises:
        CacheError: If the file cannot be written.
    """
    if not bad:
        return
    lines = b"".join(
        canonical({"component": component, "row": r, "id": ids[r], "reason": bad[r]}) + b"\n"
        for r in sorted(bad)
    )
    with explained(path):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            write_all(handle, lines)
            os.fsync(handle)
        finally:
            os.close(handle)


def read_faults(path: Path) -> dict[tuple[str, int], str]:
    """Return the newest reason for each (component, row)."""
    out: dict[tuple[str, int], str] = {}
    with suppress(OSError):
        for line in path.read_bytes().splitlines():
            with suppress(ValueError, KeyError, TypeError, RecursionError):
                value = json.loads(line)
                out[str(value["component"]), int(value["row"])] = str(value["reason"])
    return out

"""Temporary folders of interrupted saves and removals.

A run is written into `.<run>.tmp-<8 hex digits>` beside its final folder, then renamed. Writers
share the lock of the root of all runs and the removal has it alone, so that a folder in use is
never removed.
"""

import math
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featcache.store.format.folder_lock import alone, shared

OURS = re.compile(r"\.[A-Za-z0-9._-]+\.tmp-[0-9a-f]{8}")


def name_for(final: Path) -> Path:
    """Return the temporary folder in which a run is written."""
    return final.with_name(f".{final.name}.tmp-{secrets.token_hex(4)}")


def find(root: Path) -> list[Path]:
    """List the temporary folders under a root, of interrupted and of running saves."""
    matches = (p for p in root.glob("*/*/.*.tmp-*") if OURS.fullmatch(p.name))
    return sorted(p for p in matches if p.is_dir() and not p.is_symlink())


def unused(root: Path) -> list[Path]:
    """List the temporary folders under a root; none while a run is being saved there."""
    with suppress(FileNotFoundError):  # the last run was removed meanwhile
        if found := find(root):
            with alone(root) as is_alone:
                return found if is_alone else []
    return []


def remove(root: Path) -> None:
    """Remove folders of interrupted saves, unless a save is running or locks are unsupported."""
    if not find(root):
        return
    with alone(root) as is_alone:
        for folder in find(root) if is_alone else ():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Prevent the removal of temporary folders under a root while the block runs.

    Waits for a removal in progress, however long, which could otherwise remove the new run.
    """
    with shared(root, patience=math.inf):
        yield

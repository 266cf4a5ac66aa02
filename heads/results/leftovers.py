"""Temporary folders of interrupted saves and removals.

A run is written into `.<run>.tmp-<8 hex digits>` beside its final folder, then renamed. Writers
hold a shared lock on the root of all runs and the removal an exclusive one, so that a folder in use
is never removed. The kernel releases both when a process ends.
"""

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
    if not (found := find(root)):
        return []
    with _locked(root, fcntl.LOCK_EX | fcntl.LOCK_NB) as is_alone:
        return found if is_alone else []


def remove(root: Path) -> None:
    """Remove folders of interrupted saves, unless a save is running or locks are unsupported."""
    if not find(root):
        return
    with _locked(root, fcntl.LOCK_EX | fcntl.LOCK_NB) as is_alone:
        for folder in find(root) if is_alone else ():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Prevent the removal of temporary folders under a root while the block runs.

    Waits for a removal in progress, which could otherwise remove the new run.
    """
    with _locked(root, fcntl.LOCK_SH):
        yield


@contextmanager
def _locked(root: Path, kind: int) -> Iterator[bool]:
    """Yield whether the lock was acquired; never on a file system without locks."""
    handle = os.open(root, os.O_RDONLY)
    try:
        yield _flock(handle, kind)
    finally:
        with suppress(OSError):
            os.close(handle)


def _flock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind)
    except OSError:  # held by others and not waited for, or unsupported
        return False
    return True

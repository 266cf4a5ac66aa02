"""What a killed `save` leaves: folders that were never renamed to a run.

A run is written into `.<run>.tmp-<8 hex digits>` beside its place. Whoever writes holds a shared
lock on the root of all runs; whoever removes holds it alone, so nothing that a living process is
writing can be taken away. The kernel lets go of both when a process dies, however it dies.
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
    """Name the folder in which a run is written before it is put in its place."""
    return final.with_name(f".{final.name}.tmp-{secrets.token_hex(4)}")


def find(root: Path) -> list[Path]:
    """List what is unfinished under a root, by killed runs or by living ones."""
    found = (p for p in root.glob("*/*/.*.tmp-*") if OURS.fullmatch(p.name))
    return sorted(p for p in found if p.is_dir() and not p.is_symlink())


def remove(root: Path) -> None:
    """Remove what killed runs left; nothing where somebody is writing or there are no locks."""
    if not find(root):
        return
    with _locked(root, fcntl.LOCK_EX | fcntl.LOCK_NB) as is_alone:
        for folder in find(root) if is_alone else ():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Keep others from removing what is written under a root while the block runs.

    Waits for whoever is removing, for however long: written beside them, the run could be lost.
    """
    with _locked(root, fcntl.LOCK_SH):
        yield


@contextmanager
def _locked(root: Path, kind: int) -> Iterator[bool]:
    """Yield whether the lock could be had; a file system without locks has none to give."""
    handle = os.open(root, os.O_RDONLY)
    try:
        yield _flock(handle, kind)
    finally:
        with suppress(OSError):
            os.close(handle)


def _flock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind)
    except OSError:  # held by others, where we do not wait; or there are no locks
        return False
    return True

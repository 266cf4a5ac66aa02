"""Ways to damage a cache."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from featcache.store.format.identity import KEY_FILE, MANIFEST
from featcache.store.listing.pointer import CURRENT, CURRENT_COPY, FILES
from tests.reliability.faults import flip

Damage = Callable[[Path], object]


def shard(path: Path, component: str = "global") -> Path:
    """Return the second shard of a component."""
    return sorted((path / component).glob("*.h5"))[1]


def replace_by(make: Damage) -> Damage:
    """Put something else in the place of a shard."""

    def damage(path: Path) -> None:
        file = shard(path)
        file.rename(path.parents[2] / "aside")
        make(file)

    return damage


def full_folder(file: Path) -> None:
    file.mkdir()
    (file / "x").touch()


def file_for_component(path: Path) -> None:
    shutil.rmtree(path / "global")
    (path / "global").touch()


def listed(path: Path, number: int) -> Path:
    """Return the folder of the listing's set, or of its copy."""
    return sorted(p for p in (path / "listing").iterdir() if p.is_dir())[number]


def text(path: Path) -> Path:
    return next(path.glob("text.*"))


def flip_last(number: int, name: str) -> Damage:
    """Change the last byte of a file of the set, or of its copy."""

    def damage(path: Path) -> None:
        file = listed(path, number) / name
        flip(file, file.stat().st_size - 1)

    return damage


def both_pointers(harm: Damage) -> Damage:
    def damage(path: Path) -> None:
        for name in (CURRENT, CURRENT_COPY):
            harm(path / "listing" / name)

    return damage


BROKEN: dict[str, tuple[Damage, str, int]] = {
    "shard deleted": (lambda p: shard(p).unlink(), "global/", 1),
    "shard cut": (lambda p: os.truncate(shard(p), 600), "global/", 1),
    "shard emptied": (lambda p: os.truncate(shard(p), 0), "global/", 1),
    "shard flipped": (lambda p: flip(shard(p), 2_600), "global/", 1),
    "patches flipped": (lambda p: flip(shard(p, "patches.clearclip"), 2_600), "patches.", 1),
    "shard longer": (lambda p: os.truncate(shard(p), 9_000), "global/", 1),
    "shard a folder": (replace_by(Path.mkdir), "global/", 1),
    "shard a full folder": (replace_by(full_folder), "global/", 1),
    "shard a pipe": (replace_by(os.mkfifo), "global/", 1),
    "component gone": (lambda p: shutil.rmtree(p / "global"), "global/", 4),
    "component a file": (file_for_component, "global/", 4),
    "text rows flipped": (lambda p: flip(text(p) / "rows.h5", 900), "rows.h5", 0),
    "text strings flipped": (lambda p: flip(text(p) / "strings.json", 9), "strings.json", 0),
    "text strings gone": (lambda p: (text(p) / "strings.json").unlink(), "strings.json", 0),
    "texts gone": (lambda p: shutil.rmtree(text(p)), "text.", 0),
    "key gone": (lambda p: (p / KEY_FILE).unlink(), KEY_FILE, 0),
    "key flipped": (lambda p: flip(p / KEY_FILE, 20), KEY_FILE, 0),
    "manifest gone": (lambda p: (p / MANIFEST).unlink(), MANIFEST, 0),
    "manifest emptied": (lambda p: os.truncate(p / MANIFEST, 0), MANIFEST, 0),
    "manifest's header flipped": (lambda p: flip(p / MANIFEST, 20), MANIFEST, 0),
    "manifest flipped": (lambda p: flip(p / MANIFEST, 1_500), MANIFEST, 0),
    "listing's set gone": (lambda p: shutil.rmtree(listed(p, 0)), "set-", 0),
    "listing's copy gone": (lambda p: shutil.rmtree(listed(p, 1)), ".copy", 0),
    **{
        f"{name} of the {which} flipped": (flip_last(number, name), name, 0)
        for number, which in enumerate(("set", "copy"))
        for name in FILES
    },
    "current.json flipped": (lambda p: flip(p / "listing/current.json", 30), "current.json", 0),
    "current.json gone": (lambda p: (p / "listing/current.json").unlink(), "listing", 0),
    "its copy flipped": (lambda p: flip(p / "listing/current.copy.json", 30), "current.copy", 0),
    "its copy gone": (lambda p: (p / "listing/current.copy.json").unlink(), "listing", 0),
    "both gone": (both_pointers(Path.unlink), "listing", 0),
    "both flipped": (both_pointers(lambda file: flip(file, 30)), "current.json", 0),
}
"""Damage -> what does it, what the message names, batches that repair encodes."""

"""Checked features of other people become a cache, whatever file they came in.

Weights, activation and preprocessing are recorded as unknown, and the digest of the file is in the
key, so that imported features never mix with others. float16 and float32 are stored unchanged,
float64 as float32. Earlier versions rounded everything to float16; `numerics` in the key
distinguishes the two.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featcache.errors import CacheError, ImportedFileError, UsageError
from featcache.importers.table import Table
from featcache.keys import IMPORTED_TEMPLATE, ComponentKey, FeatureKey
from featcache.paths import as_text
from featcache.progress import Report
from featcache.store.cache import Cache
from featcache.store.format.files import explained
from featcache.store.format.identity import Identity, is_cache, read_identity
from featcache.store.library import caches, check_name
from featcache.store.provenance import FILE, versions_of
from featcache.store.repair.examine import add_sums, lacking_sums
from featcache.store.repair.verify import repair, verify
from featcache.store.settle import settle
from featcache.wording import Argument, Call, Part

if TYPE_CHECKING:
    import featcache.bank

GLOBAL = ComponentKey(kind="global")
ROUNDED, KEPT = 1, 2
"""`numerics` of imports: rounded to float16, or unchanged. Files in float16 only are ROUNDED."""
SHARD_ROWS = 65_536


def check_names(root: Path, name: str, backbone: str) -> None:
    """Refuse names that cannot be shown or stored.

    Args:
        root: Folder of all caches.
        name: Name of the data set.
        backbone: Name of the backbone.

    Raises:
        UsageError: If one of them cannot be used.
    """
    for argument, value in (("name", name), ("backbone", backbone)):
        if not value.strip() or not value.isprintable():
            raise UsageError(
                "Imported features need a ",
                Argument(argument),
                f" of printable characters, got {value!r}.",
            )
    check_name(root, name)


def store_table(
    table: Table,
    path: Path,
    root: Path,
    name: str,
    backbone: str,
    report: Report | None = None,
    say: Callable[[Part], None] = lambda _: None,
    *,
    bank: "featcache.bank.TextBank | None" = None,
) -> Cache:
    """Write checked features as a cache; doing it again restores damaged or lost parts.

    Args:
        table: Checked features.
        path: File or folder of the features.
        root: Folder of all caches.
        name: Name for the data set.
        backbone: Name of the backbone of the features, e.g. ViT-B/32.
        report: Called with the number of stored rows.
        say: Called with messages about other caches and repairs.
        bank: Encoded texts of the classes; None stores the class vectors of the table, if any.

    Raises:
        ImportedFileError: If rows of another width are there under the same names.
        CacheError: If the cache cannot be written, or a file in it is a link or cannot be read.
    """
    bank = bank or _bank_of(table)
    key = FeatureKey(
        architecture=backbone,
        weights="unknown",
        activation="unknown",
        image_size=0,
        preprocessing=":".join(["imported", table.sha256[:12], *filter(None, [table.format])]),
        norms=table.norms,
        numerics=ROUNDED if table.is_half else KEPT,
    )
    _check_width(path, root, name, backbone, table.rows.shape[1])
    folder = Identity(name, backbone, key).folder(root)
    _check_owner(folder, name)
    _mention_rounded(root, name, backbone, key, say)
    _mention_others(folder, root, name, backbone, say)
    is_sound = not is_cache(folder) or verify(folder, report=report).is_sound
    if not is_sound:
        _drop_damaged(folder, report)
    cache = Cache.create(root, name, backbone, key)
    was_whole, had_text = bool(cache.passes), cache.text_line is not None
    if was_whole and is_sound and (had_text or bank is None):
        with explained(folder):
            settle(folder)
        if lacking_sums(cache) and os.access(folder, os.W_OK):
            with cache.lock():
                add_sums(cache)
        say("Imported before, and sound: nothing was left to do.")
        return cache
    start = time.monotonic()
    with cache.lock():
        for note in cache.notes:
            say(note)
        cache.put_listing(table.listing(name))
        if bank is not None:
            cache.put_text(bank, versions_of("featcache", "numpy"))
        component = replace(GLOBAL, dtype=table.rows.dtype.name)
        missing = np.flatnonzero(~cache.covered(component.folder))
        for first in range(0, len(missing), SHARD_ROWS):
            rows = missing[first : first + SHARD_ROWS]
            provenance = {**versions_of("featcache", "numpy"), FILE: as_text(path.name)[:100]}
            cache.append(component, rows, table.rows[rows], {}, provenance)
            if report is not None:
                report("import", first + len(rows), len(missing))
        cache.finish(
            components=[GLOBAL.folder],
            images=len(table.rows),
            seconds=time.monotonic() - start,
            complete=True,
        )
        add_sums(cache)
    if was_whole:
        restored = [f"{len(missing)} rows"] if len(missing) else []
        restored += [] if had_text or bank is None else ["the class texts"]
        if restored:
            say(f"The stored features were damaged; restored {' and '.join(restored)}.")
        else:
            say("The cache was damaged beside its features; it is whole again.")
    return cache


def _drop_damaged(folder: Path, report: Report | None) -> None:
    """Drop damaged files; the import restores them."""
    unreadable = [
        problem.what for problem in repair(folder, report=report).problems if problem.file
    ]
    if unreadable:
        raise CacheError(unreadable[0])


def _mention_rounded(
    root: Path, name: str, backbone: str, key: FeatureKey, say: Callable[[Part], None]
) -> None:
    """Report an earlier import of the same file that was rounded to float16."""
    earlier = replace(key, numerics=ROUNDED)
    if earlier == key or not is_cache(Identity(name, backbone, earlier).folder(root)):
        return
    folder = Identity(name, backbone, earlier).folder(root)
    say(
        (
            f"An earlier version rounded this file to float16; its cache ({earlier.digest()}) "
            "stays unchanged beside this one. Remove it with: ",
            _removal(root, folder),
        )
    )


def _mention_others(
    folder: Path, root: Path, name: str, backbone: str, say: Callable[[Part], None]
) -> None:
    """Report other imports of the same name, which are not replaced."""
    others = [c for c in caches(root) if (c.dataset, c.backbone) == (name, backbone)]
    if is_cache(folder) or not others:
        return
    which = ", ".join(f"key {c.digest} ({c.weights or 'unreadable'})" for c in others)
    say(
        (
            f"'{name}' with {backbone} was there already: {which}. It stays beside this one; ",
            Argument("key"),
            " says which is meant, and `featcache rm` removes one.",
        )
    )


def _check_owner(folder: Path, name: str) -> None:
    """Refuse the folder of another data set before repairing it: 'a b' and 'a-b' share one."""
    try:
        identity = read_identity(folder)
    except CacheError:  # none, or damaged: `Cache.create` restores or refuses it
        return
    if identity.dataset != name:
        raise CacheError(
            f"{folder} belongs to '{identity.dataset}'. Give a ",
            Argument("name"),
            " that differs from it by more than spaces and signs.",
        )


def _check_width(path: Path, root: Path, name: str, backbone: str, width: int) -> None:
    """Refuse features whose width differs from a cache of the same names."""
    for other in caches(root):
        component = other.components.get(GLOBAL.folder)
        if (other.dataset, other.backbone) != (name, backbone) or component is None:
            continue
        if component.shape != (width,):
            raise ImportedFileError(
                f"{path} has rows {width} wide, but '{name}' with {backbone} has rows "
                f"{component.shape[0]} wide already: they come from different models. "
                "Give another ",
                Argument("name"),
                " or ",
                Argument("backbone"),
                ", or remove the old ones first: ",
                _removal(root, other.path),
            )


def _removal(root: Path, path: Path) -> Call:
    return Call("featcache.store.removal.remove", {"root": str(root), "path": str(path)})


def _bank_of(table: Table) -> "featcache.bank.TextBank | None":
    """Return the class vectors of the file as a text bank, or None."""
    if table.text is None:
        return None
    import torch

    from featcache.bank import TextBank

    return TextBank(
        classes=table.classes,
        names=None,
        templates=(IMPORTED_TEMPLATE,),
        template_rows=torch.from_numpy(table.text)[:, None],
        logit_scale=100.0,
        norms=table.norms,
    )

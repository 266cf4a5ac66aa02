"""A whole cache that a stranger hands over: opened, read, listed, verified, repaired, removed."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featcache.errors import FeatcacheError
from featcache.keys import ComponentKey, FeatureKey, Listing
from featcache.store.cache import Cache
from featcache.store.library import caches, find_cache, image_roots
from featcache.store.removal import remove
from featcache.store.repair.verify import repair, verify
from featcache.types import TextBank, TextSet
from tests.fuzz.cases import Case, read_case
from tests.fuzz.guard import Target

KEY = FeatureKey(
    architecture="toy", weights="0" * 64, activation="gelu", image_size=32, preprocessing="none"
)
ROWS = 12
PROVENANCE = {"featcache": "0", "device": "cpu"}


def _listing(n: int = ROWS) -> Listing:
    return Listing(
        dataset="toys",
        root="photos",
        classes=("ant", "bee"),
        ids=tuple(f"train/ä {i}.jpg" for i in range(n)),
        hashes=tuple(hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)),
        labels=np.arange(n, dtype=np.int64) % 2,
        splits={
            "train": np.arange(0, n // 2, dtype=np.int64),
            "test": np.arange(n // 2, n, dtype=np.int64),
        },
        templates=("a photo of a {}.",),
        descriptions={"bee": ("striped", "furry")},
        sets={"cupl": {"ant": ("An ant.",)}},
        waffle=("A photo of a {}, which has w.",),
        prompts=("A hat.",),
        notes=("drawn by hand",),
    )


def _bank() -> TextBank:
    rows = torch.linspace(-1, 1, 9 * 4).reshape(-1, 4)
    return TextBank(
        classes=("ant", "bee"),
        names=rows[:2],
        templates=("a {}", "the {}"),
        template_rows=rows[2:6].reshape(2, 2, 4),
        descriptions=("red", "striped", "furry"),
        description_rows=rows[6:],
        owner=torch.tensor([0, 1, 1]),
        sets={
            "cupl": TextSet(texts=("An ant.",), rows=rows[:1], owner=torch.tensor([0])),
            "waffle": TextSet(texts=("a", "b"), rows=rows[1:3], owner=torch.tensor([0, 1])),
            "prompt": TextSet(texts=("A hat.",), rows=rows[:1], owner=torch.tensor([-1])),
        },
        default="template",
    )


def _seeds(folder: Path) -> list[Case]:
    """Two caches: one with every kind of component, one that was only just begun."""
    whole = Cache.create(folder / "whole", "toys", "Toy/1", KEY)
    whole.put_listing(_listing())
    shapes = {ComponentKey(kind="global"): (4,), ComponentKey(kind="patches", variant="a"): (3, 4)}
    for component, shape in shapes.items():
        for first, bad in ((0, {2: "is no picture"}), (6, {})):
            rows = np.arange(first, first + 6, dtype=np.int64)
            values = np.random.default_rng(first).normal(size=(6, *shape)).astype(np.float16)
            whole.append(component, rows, values, bad, PROVENANCE)
    boxes = ComponentKey(kind="boxes", recipe="lazsl", count=2)
    rows = np.arange(ROWS, dtype=np.int64)
    whole.append(boxes, rows, np.ones((ROWS, 2, 4), dtype=np.int32), {}, PROVENANCE)
    whole.put_text(_bank(), PROVENANCE)
    whole.finish(components=["global"], images=ROWS, seconds=1.0, complete=True)
    begun = Cache.create(folder / "begun", "toys", "Toy/1", KEY)
    begun.put_listing(_listing(2))
    return [_without_locks(read_case(folder / name)) for name in ("whole", "begun")]


def _without_locks(case: Case) -> Case:
    return {name: data for name, data in case.items() if not name.endswith(".lock")}


def _each(*steps: Callable[[], object]) -> None:
    """Take every step, whether or not the one before was refused."""
    for step in steps:
        try:
            step()
        except FeatcacheError:
            continue


def _folder(root: Path) -> Path:
    """Return the place of the cache; a case may have renamed or removed everything in it."""
    return next(iter(sorted(root.glob("*/*-*"))), root / "toys" / "none")


def _cache(root: Path) -> None:
    cache = Cache.open(_folder(root))

    def listing() -> None:
        found = cache.listing()
        if found is None:
            return
        ids, hashes = list(found.ids), list(found.hashes)
        assert len(ids) == len(hashes) == len(found.labels) == len(found)
        for text in (*ids, *hashes, *found.classes, *found.templates, *found.splits):
            assert isinstance(text, str)
        for rows in found.splits.values():
            assert not len(rows) or 0 <= rows.min() <= rows.max() < len(found)

    def rows(component: str) -> Callable[[], None]:
        def read() -> None:
            held = cache.rows(component)
            present = np.flatnonzero(held.present())
            assert len(held.gather(present)) == len(present)
            cache.covered(component, retry_bad=True)

        return read

    def text() -> None:
        bank = cache.text()
        if bank is not None:
            for kind in bank.available():
                assert bank.anchors(kind).shape[0] == len(bank.classes)

    def features() -> None:
        found = cache.feature_set()
        assert len(found.ok) == len(found.listing)
        for split in found.listing.splits:
            found.unit("global", found.usable(split))

    each = [rows(component) for component in cache.shards]
    _each(listing, *each, text, features, lambda: dict(cache.bad_rows()))


def _library(root: Path) -> None:
    for found in caches(root):
        assert found.finished_text
        json.dumps(found.to_json(), allow_nan=False)
    _each(
        lambda: find_cache(root, "toys", None, None),
        lambda: image_roots(root, "toys"),
        lambda: remove(root, _folder(root)),
    )


def _verify(root: Path) -> None:
    for full in (False, True):
        json.dumps(verify(_folder(root), full=full).to_json(), allow_nan=False)


def _repair(root: Path) -> None:
    folder = _folder(root)
    report = repair(folder)
    json.dumps(report.to_json(), allow_nan=False)
    if report.is_sound:  # what is called sound can be read
        cache = Cache.open(folder)
        cache.listing()
        for component in cache.shards:
            held = cache.rows(component)
            held.gather(np.flatnonzero(held.present()))
        cache.text()


def _line(folder: Path) -> None:
    """Check one line of a manifest; what is refused is a ValueError, which its reader expects."""
    from featcache.store.format.records import from_json, to_json
    from featcache.store.format.seal import unseal

    try:
        value, _ = unseal((folder / "line.json").read_bytes().rstrip(b"\n"))
        line = from_json(value)
    except ValueError:
        return
    assert from_json(json.loads(json.dumps(to_json(line)))) == line


def _line_seeds(folder: Path) -> list[Case]:
    from tests.fuzz.bending import seal_again

    whole = _seeds(folder)[0]
    manifest = next(data for name, data in whole.items() if name.endswith("manifest.jsonl"))
    return [{"line.json": seal_again(line)} for line in manifest.splitlines()]


def _store_target(name: str, run: Callable[[Path], Any]) -> Target:
    return Target(name=name, run=run, seeds=_seeds, is_folder=True, depth=2)


STORE_TARGETS = (
    _store_target("cache", _cache),
    _store_target("library", _library),
    _store_target("verify", _verify),
    _store_target("repair", _repair),
    Target(name="manifest-line", run=_line, seeds=_line_seeds),
)

"""Every subset of finished lines is taken up again to the bytes of a pass that nobody stopped."""

import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Bool, Int64, Shaped

from featcache.encoding.components import ComponentSpec, component_specs
from featcache.encoding.encoder import Encoder
from featcache.errors import CacheNotFoundError
from featcache.imaging.loader import FileSource, file_sources
from featcache.keys import ComponentKey
from featcache.pipeline.passes import Options, Pass
from featcache.pipeline.plan import make_plan
from featcache.places import FilePlace
from featcache.store.cache import Cache
from featcache.store.library import find_cache
from featcache.store.repair.verify import repair, verify
from tests.reliability.faults import ROWS, World, cache_in
from tests.reliability.subsets import keep_only, shares, subsets

ALL: dict[str, Any] = {
    "patches": ["clearclip"],
    "views": ["2:cdfsl@all"],
    "crops": ["2@all"],
    "view_patches": ["2:cdfsl@all"],
}
"""Six components of all images: two share the central view, two the views, two the crops."""
PAIR = 2
"""Rows of a block where all subsets are gone through."""
STATES = 4
"""Whole caches that are drawn at random."""

Row = tuple[str, int]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("subsets")).stand_in() as world:
        yield world


class Shelf:
    """Keeps what a pass writes, each row by itself."""

    def __init__(self) -> None:
        self.rows: dict[Row, tuple[bytes, str]] = {}

    def append(
        self,
        component: ComponentKey,
        rows: Int64[np.ndarray, " r"],
        values: Shaped[np.ndarray, "r ..."],
        bad: Mapping[int, str],
    ) -> None:
        assert len(rows) == len(values)
        for row, value in zip(rows.tolist(), values, strict=True):
            assert (component.folder, row) not in self.rows, "a row is written twice"
            self.rows[component.folder, row] = value.tobytes(), bad.get(row, "")


class Passes:
    """Passes over the images of one cache that hold nothing but what they are told to hold."""

    def __init__(self, world: World, root: Path) -> None:
        world.extract(root, **ALL)
        cache = Cache.open(cache_in(root))
        listing = cache.listing()
        assert listing is not None
        self.listing = listing
        places = {name: FilePlace(world.photos / name) for name in listing.ids}
        self.sources: dict[int, FileSource] = file_sources(listing.ids, listing.hashes, places)
        self.specs: tuple[ComponentSpec, ...] = component_specs(world.backbone, **ALL)[0]
        self.backbone = world.backbone

    def run(self, held: Mapping[str, Bool[np.ndarray, " n"]]) -> dict[Row, Any]:
        plan = make_plan(
            self.listing, self.backbone, self.specs, covered=held.__getitem__, micro_batch=PAIR
        )
        encoder, shelf = Encoder(self.backbone, PAIR), Shelf()
        options = Options(threads=1, max_pixels=10**6)
        Pass(plan, self.sources, encoder, options).run(shelf)
        return shelf.rows


@pytest.fixture(scope="module")
def passes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Passes]:
    folder = tmp_path_factory.mktemp("passes")
    with World(folder, rows=PAIR).stand_in() as world:
        yield Passes(world, folder / "caches")


@pytest.mark.long
def test_a_pass_writes_exactly_what_no_line_holds(passes: Passes) -> None:
    names, n = [spec.name for spec in passes.specs], len(passes.listing)
    whole = passes.run({name: np.zeros(n, dtype=bool) for name in names})
    assert len(names) == 6
    assert len(whole) == 6 * n
    rng, blocks = np.random.default_rng(0), np.minimum(np.arange(n) // PAIR, 3)
    for number, subset in enumerate(subsets(names)):
        held = {}
        for name in names:
            finished = rng.random(4) < [0.5, 0.5, 0.5, 1.0]  # three blocks; the rest is finished
            finished[number % 3] = name in subset
            held[name] = finished[blocks]
            if number % 4 == 0:  # a pass over other images, or before some were added
                held[name] |= rng.random(n) < 0.3
        written = passes.run(held)
        expected = {key: value for key, value in whole.items() if not held[key[0]][key[1]]}
        assert written == expected, f"subset {number}: {sorted(subset)}"


@pytest.mark.long
def test_every_subset_is_taken_up_to_the_same_bytes(world: World, tmp_path: Path) -> None:
    path = world.sound(tmp_path / "sound")
    everything = shares(path, ROWS)
    assert len({name for _, name in everything}) == 7
    rng = random.Random(0)
    for number in range(STATES):
        root = tmp_path / "state"
        shutil.copytree(tmp_path / "sound", root)
        kept = {share for share in everything if rng.random() < 0.5}
        keep_only(cache_in(root), ROWS, kept.__contains__)
        assert verify(cache_in(root), full=True).problems == ()
        with pytest.raises(CacheNotFoundError, match="was interrupted before it was finished"):
            find_cache(root)
        if number % 4 == 0:  # lost shards: their drop lines stand between those of others
            for component, file in rng.sample(sorted(lines_of(root)), k=min(2, len(kept))):
                (cache_in(root) / component / file).unlink()
            repair(cache_in(root))
        world.extract(root)
        assert verify(cache_in(root), full=True).problems == (), sorted(kept)
        if number % 4:
            world.check_whole(root)
        else:
            world.check_files(root)
        shutil.rmtree(root)


def lines_of(root: Path) -> list[tuple[str, str]]:
    """Return component and file of every shard."""
    cache = Cache.open(cache_in(root))
    return [(name, line.file) for name, lines in cache.shards.items() for line in lines]


@pytest.mark.long
@pytest.mark.parametrize("lost", ["boxes.lazsl-2", "crops.lazsl-2"])
def test_repair_after_one_of_crops_and_boxes_is_lost(
    world: World, tmp_path: Path, lost: str
) -> None:
    path = world.sound(tmp_path / "caches")
    for file in [line.file for line in Cache.open(path).shards[lost]][:1]:
        (path / lost / file).unlink()
    assert repair(path).dropped[0].component == lost
    assert world.command("repair", "zoo", "--cache", tmp_path / "caches").code == 0
    world.check_files(tmp_path / "caches")

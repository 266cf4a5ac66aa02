"""The world of pairs: a larger moth that is the label's, a smaller one of another species."""

import random
from pathlib import Path

import numpy as np
from PIL import Image

from featcache.sources.fieldguide.draw import draw
from featcache.sources.fieldguide.pairs import Pair, draw_pair, sample_pair
from featcache.sources.fieldguide.scene import Scene
from featcache.sources.fieldguide.species import PAIRS, species
from featcache.sources.fieldguide.world import PAIRS_COUNTS, counts_of, drawing, open_world
from featcache.sources.named import find
from tests.featcache.sources.fieldguide.test_draw import OnlyRandom

REFERENCE = Path(__file__).with_name("reference-pairs.png")
SHOWN = [("train", 0, 1), ("val", 9, 2), ("test", 17, 3), ("test", 23, 4)]
SPAN = 0.41
"""Half a wing span at scale 1, in frame widths."""
KINDS = species(PAIRS)


def sampled(seed: int) -> Pair:
    return sample_pair(len(KINDS), seed % len(KINDS), random.Random(f"pair {seed}"))


def test_the_label_is_the_larger_of_two_species_that_lie_apart() -> None:
    others = set()
    for seed in range(200):
        pair = sampled(seed)
        large, small = pair.large, pair.small
        assert pair.other != seed % len(KINDS)
        assert 0.5 <= small.scale / large.scale <= 0.75
        apart = np.hypot(large.x - small.x, large.y - small.y)
        assert apart > SPAN * (large.scale + small.scale)
        for scene in (large, small):
            assert max(abs(scene.x), abs(scene.y)) + SPAN * scene.scale < 0.55
        others.add(pair.other)
    assert others == set(range(len(KINDS)))


def test_both_lie_in_one_light_on_one_ground() -> None:
    pair = sampled(3)
    assert (pair.small.background, pair.small.shade) == (pair.large.background, pair.large.shade)
    assert pair.small.grass == ()
    assert pair.small.fore != pair.large.fore


def test_only_the_stable_stream_is_read() -> None:
    draw_pair(KINDS, 0, OnlyRandom(5), size=32, masks=True)


def test_a_moth_below_another_is_seen_where_that_one_is_not() -> None:
    scene = Scene(x=-0.2, scale=0.5)
    alone = draw(KINDS[0].moth, scene, masks=True)
    both = draw(KINDS[0].moth, scene, masks=True, under=[(KINDS[5].moth, Scene(x=0.25, scale=0.4))])
    changed = np.abs(alone.pixels.astype(int) - both.pixels).sum(-1) > 0
    assert changed[:, 64:].mean() > 0.1
    assert not changed[:, :50].any()
    assert both.boxes == alone.boxes
    assert both.masks is not None
    assert alone.masks is not None
    assert all(np.array_equal(both.masks[part], mask) for part, mask in alone.masks.items())


def test_the_data_set_is_fieldguides_species_and_is_listed_as_stated(tmp_path: Path) -> None:
    assert species("fieldguide") == KINDS
    assert counts_of(PAIRS) == PAIRS_COUNTS
    data = find(PAIRS)
    assert dict(data.scheme().counts) == {n: 24 * k for n, k in PAIRS_COUNTS.items()}
    few = open_world(PAIRS, tmp_path, counts={"train": 1})
    assert len(few.samples) == 24
    assert few.classes == tuple(kind.name for kind in KINDS)
    with Image.open(tmp_path / few.name / few.samples[7].id) as image:
        stored = np.asarray(image).astype(int)
    assert np.abs(stored - drawing(PAIRS, "train", 7, 0).pixels.astype(int)).mean() < 6


def test_pixels_equal_the_stored_ones_within_one_grey_level() -> None:
    drawn = [drawing(PAIRS, *one, masks=False).pixels for one in SHOWN]
    stored = np.asarray(Image.open(REFERENCE).convert("RGB")).astype(int)
    assert np.abs(np.concatenate(drawn, axis=1).astype(int) - stored).max() <= 1

"""The world of pairs: a larger moth that is the label's, a smaller one of another species."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featcache.sources.fieldguide import pairs
from featcache.sources.fieldguide.draw import Drawing, draw
from featcache.sources.fieldguide.scene import Scene
from featcache.sources.fieldguide.species import PAIRS, species
from featcache.sources.fieldguide.traits import Moth
from featcache.sources.fieldguide.world import PAIRS_COUNTS, counts_of, drawing, open_world
from featcache.sources.named import find
from tests.featcache.sources.fieldguide.test_draw import OnlyRandom

REFERENCE = Path(__file__).with_name("reference-pairs.png")
SHOWN = [("train", 0, 1), ("val", 9, 2), ("test", 17, 3), ("test", 23, 4)]
SPAN = 0.41
"""Half a wing span at scale 1, in frame widths."""
KINDS = species(PAIRS)
NOTHING = Drawing(np.zeros((1, 1, 3), dtype=np.uint8), {}, None)


def asked(seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Moth, Scene, Moth, Scene]:
    """Return what is drawn: the label's moth and how it is seen, then the other's."""
    seen: list[Any] = []

    def note(moth: Moth, scene: Scene, *, under: Any, **how: Any) -> Drawing:
        seen.extend([moth, scene, *under[0]])
        return NOTHING

    monkeypatch.setattr(pairs, "draw", note)
    rng = random.Random(f"pair {seed}")
    pairs.draw_pair(KINDS, seed % len(KINDS), rng, size=32, masks=False)
    monkeypatch.undo()
    return seen[0], seen[1], seen[2], seen[3]


def test_the_label_is_the_larger_of_two_species_that_lie_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = set()
    for seed in range(60):
        moth, large, other, small = asked(seed, monkeypatch)
        assert moth == KINDS[seed % len(KINDS)].moth
        assert other != moth
        assert 0.5 <= small.scale / large.scale <= 0.75
        apart = np.hypot(large.x - small.x, large.y - small.y)
        assert apart > SPAN * (large.scale + small.scale)
        for scene in (large, small):
            assert max(abs(scene.x), abs(scene.y)) + SPAN * scene.scale < 0.55
        others.add(other)
    assert len(others) > 15


def test_both_lie_in_one_light_on_one_ground(monkeypatch: pytest.MonkeyPatch) -> None:
    _, large, _, small = asked(3, monkeypatch)
    assert (small.background, small.shade) == (large.background, large.shade)
    assert small.grass == ()
    assert small.fore != large.fore


def test_only_the_stable_stream_is_read() -> None:
    pairs.draw_pair(KINDS, 0, OnlyRandom(5), size=32, masks=True)


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

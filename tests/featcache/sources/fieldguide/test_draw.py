import random
from dataclasses import fields, replace

import numpy as np
import pytest

from featcache.sources.fieldguide.draw import draw
from featcache.sources.fieldguide.scene import BACKGROUNDS, Scene, sample_scene
from featcache.sources.fieldguide.shifts import SHIFTS, shift
from featcache.sources.fieldguide.species import WORLDS, species
from featcache.sources.fieldguide.traits import PARTS, TRAITS, Moth, is_drawable

MOTH = species("fieldguide")[0].moth
SEEDS = range(40)


def scene(seed: int) -> Scene:
    return sample_scene(random.Random(f"scene {seed}"))


def moth(seed: int) -> Moth:
    return species(WORLDS[seed % 2])[seed % 24].moth


class OnlyRandom(random.Random):
    """Refuses every stream but the one that Python guarantees."""

    def getrandbits(self, k: int) -> int:
        raise AssertionError("only rng.random() is stable between versions")


def test_a_seed_names_one_picture() -> None:
    a, b = (draw(MOTH, scene(3)).pixels for _ in range(2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, draw(MOTH, scene(4)).pixels)


def test_only_the_stable_stream_is_read() -> None:
    rng = OnlyRandom(5)
    pixels = draw(MOTH, sample_scene(rng)).pixels
    for name in SHIFTS:
        shift(pixels, name, rng)


@pytest.mark.parametrize("size", [64, 96, 128])
def test_sizes(size: int) -> None:
    made = draw(MOTH, scene(1), size=size, masks=True)
    assert made.pixels.shape == (size, size, 3)
    assert made.pixels.dtype == np.uint8
    assert made.masks is not None
    assert {m.shape for m in made.masks.values()} == {(size, size)}


def test_every_scene_setting_changes_the_picture() -> None:
    plain = Scene(shadow=0.2, glow=0.1, texture=99)
    other = {
        "x": 0.05, "y": 0.05, "scale": 0.8, "rotation": 20.0, "fore": (8.0, 3.0),
        "hind": (8.0, 3.0), "antennae": (9.0, 4.0), "foreshortening": (0.8, 1.0),
        "background": "leaf", "shade": (20, 0, 0), "bleach": (12, 12, 12), "texture": 54321,
        "light": 3, "shadow": 0.0, "tint": (200, 220, 255), "glow": 0.0, "blur": 0.7,
        "grass": ((0.5, 0.6, 0.7),),
    }  # fmt: skip
    assert set(other) == {f.name for f in fields(Scene)}
    before = draw(MOTH, plain).pixels
    for name, value in other.items():
        after = draw(MOTH, replace(plain, **{name: value})).pixels  # type: ignore[arg-type]
        assert not np.array_equal(before, after), name


@pytest.mark.parametrize("trait", TRAITS)
def test_every_trait_is_seen(trait: str) -> None:
    base = species("fieldguide")[0].moth
    looks = [replace(base, **{trait: value}) for value in TRAITS[trait]]
    pictures = [
        draw(m, Scene(scale=0.85, background=b)).pixels.astype(int)
        for b in BACKGROUNDS[:1]
        for m in looks
        if is_drawable(m)
    ]
    for i, a in enumerate(pictures):
        for b in pictures[:i]:
            seen = (np.abs(a - b).max(axis=2) > 40).sum()
            assert seen > 60, trait


def test_boxes_hold_masks_and_stay_inside() -> None:
    for seed in SEEDS:
        made = draw(moth(seed), scene(seed), masks=True)
        assert made.masks is not None
        assert tuple(made.masks) == PARTS
        for part, mask in made.masks.items():
            ys, xs = np.nonzero(mask)
            if len(xs):
                x0, y0, x1, y1 = made.boxes[part]
                assert 0 <= x0 <= xs.min() < xs.max() < x1 <= 128
                assert 0 <= y0 <= ys.min() < ys.max() < y1 <= 128


def test_masks_are_empty_only_where_a_part_is_absent() -> None:
    for seed in SEEDS:
        kind = moth(seed)
        made = draw(kind, scene(seed), masks=True)
        assert made.masks is not None
        for part, mask in made.masks.items():
            absent = part == "tails" and kind.tails == "none"
            assert mask.any() != absent, (seed, part)
            assert (part in made.boxes) != absent


def test_masks_do_not_overlap_but_for_the_abdomen() -> None:
    made = draw(moth(2), scene(2), masks=True)
    assert made.masks is not None
    assert not (made.masks["abdomen"] & ~made.masks["body"]).any()
    apart = [m for part, m in made.masks.items() if part != "abdomen"]
    assert np.sum(apart, axis=0).max() == 1


def test_a_mask_finds_its_part() -> None:
    still = Scene(scale=0.9)
    made = draw(replace(MOTH, rings="none", hindwing_mark="none"), still, masks=True)
    assert made.masks is not None
    wings = made.pixels[made.masks["hindwings"]].astype(int)
    red = (wings[:, 0] > wings[:, 1] + 60) & (wings[:, 0] > wings[:, 2] + 60)
    assert red.mean() > 0.75


def test_boxes_do_not_depend_on_masks() -> None:
    assert draw(MOTH, scene(7)).boxes == draw(MOTH, scene(7), masks=True).boxes
    assert draw(MOTH, scene(7)).masks is None


def test_parts_are_not_always_in_one_place() -> None:
    centres = []
    for seed in SEEDS:
        x0, y0, x1, y1 = draw(moth(seed), scene(seed)).boxes["antennae"]
        centres.append(((x0 + x1) / 2, (y0 + y1) / 2))
    assert np.std(centres, axis=0).min() > 5

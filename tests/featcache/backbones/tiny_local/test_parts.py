import random
from dataclasses import replace

import numpy as np

from featcache.backbones.tiny.corpus import sample_moth
from featcache.backbones.tiny_local.parts import (
    BACKGROUND,
    MIXED,
    State,
    patch_parts,
    states,
    truth,
)
from featcache.sources.fieldguide.draw import draw, sample_scene
from featcache.sources.fieldguide.traits import PARTS, TRAITS, Moth

SIDE = 64
WHOLE = (0.0, 0.0, 64.0, 64.0)
FORE, HIND, BODY, ABDOMEN, ANTENNAE, TAILS = range(len(PARTS))


def masks(**areas: tuple[slice, slice]) -> dict[str, np.ndarray]:
    made = {part: np.zeros((SIDE, SIDE), bool) for part in PARTS}
    for part, area in areas.items():
        made[part][area] = True
    return made


def moth(**traits: str) -> Moth:
    usual = {t: values[0] for t, values in TRAITS.items()} | {"pattern_colour": "black"}
    return Moth(**(usual | traits))


def indices(kind: str) -> list[int]:
    return [i for i, s in enumerate(states()) if s.kind == kind]


def test_states_are_every_value_once() -> None:
    found = [s.values for s in states()]
    assert len(found) == len(set(found)) == 83
    singles = {v for (v, *more) in found if not more}
    assert singles == {(t, v) for t, values in TRAITS.items() for v in values}
    for state in states():
        assert all(getattr(state.example, t) == v for t, v in state.values)


def test_a_state_is_worded_for_its_values() -> None:
    rng = random.Random(0)
    other = {"border": "edged", "clubbed": "round"}
    for state in states():
        for _, value in state.values:
            if value in ("none", "long", "dot", "fringe"):
                continue
            words = (value, other.get(value, value))
            for _ in range(6):
                text = state.write(rng)
                assert any(word in text for word in words), text


def test_a_patch_is_the_part_that_covers_it() -> None:
    half, other = slice(0, 32), slice(32, 64)
    shown = patch_parts(masks(forewings=(half, half), tails=(other, other)), WHOLE).reshape(8, 8)
    assert (shown[:4, :4] == FORE).all()
    assert (shown[4:, 4:] == TAILS).all()
    assert (shown[:4, 4:] == BACKGROUND).all()
    mirrored = patch_parts(masks(forewings=(half, half)), WHOLE, mirrored=True).reshape(8, 8)
    assert (mirrored[:4, 4:] == FORE).all()
    assert (mirrored[:4, :4] == BACKGROUND).all()


def test_a_crop_is_read_in_its_own_grid() -> None:
    shown = patch_parts(masks(antennae=(slice(32, 36), slice(0, 64))), (0.0, 32.0, 32.0, 64.0))
    assert (shown.reshape(8, 8)[0] == ANTENNAE).all()
    assert (shown.reshape(8, 8)[1:] == BACKGROUND).all()


def test_patches_of_two_parts_are_mixed_and_the_abdomen_is_no_body() -> None:
    two = masks(forewings=(slice(0, 4), slice(0, 8)), hindwings=(slice(4, 8), slice(0, 8)))
    assert patch_parts(two, WHOLE)[0] == MIXED
    trunk = masks(body=(slice(0, 16), slice(0, 8)), abdomen=(slice(8, 16), slice(0, 8)))
    assert patch_parts(trunk, WHOLE).reshape(8, 8)[:2, 0].tolist() == [BODY, ABDOMEN]


def test_thin_antennae_are_found_in_real_drawings() -> None:
    rng = random.Random(1)
    found = np.zeros(MIXED + 1, int)
    for _ in range(12):
        made = draw(replace(sample_moth(rng), tails="long"), sample_scene(rng), masks=True)
        assert made.masks is not None
        shown = patch_parts(made.masks, (0.0, 0.0, 128.0, 128.0))
        found += np.bincount(shown, minlength=MIXED + 1)
    assert (found > 0).all(), found


def naive(state: State, of: Moth, part: int) -> bool | None:
    """Whether a state is true of a patch, in plain words; None where it is left open."""
    if part == MIXED:
        return None
    has = all(getattr(of, t) == v for t, v in state.values)
    if state.part == "body":
        return has and part in (BODY, ABDOMEN)
    if {state.part, (*PARTS, "", "")[part]} == {"hindwings", "tails"} and has:
        return None
    return has and part == PARTS.index(state.part)


def test_truth_equals_plain_words() -> None:
    rng = random.Random(2)
    moths = [sample_moth(rng) for _ in range(6)] + [moth(tails="long"), moth()]
    parts = np.tile(np.arange(MIXED + 1, dtype=np.int8), (len(moths), 1))
    told, denied = truth(moths, parts)
    for i, of in enumerate(moths):
        for part in range(MIXED + 1):
            for s, state in enumerate(states()):
                expected = naive(state, of, part)
                got = (bool(told[i, part, s]), bool(denied[i, part, s]))
                assert got == (expected is True, expected is False), (state, of, part)


def test_that_there_are_no_tails_is_seen_at_the_hindwings() -> None:
    parts = np.array([[HIND, TAILS, FORE]], np.int8)
    none, long = indices("tails")
    told, denied = truth([moth(tails="none")], parts)
    assert told[0, :, none].tolist() == [True, False, False]
    told, denied = truth([moth(tails="long")], parts)
    assert told[0, :, long].tolist() == [False, True, False]
    assert denied[0, :, long].tolist() == [False, False, True]
    assert denied[0, :, none].all()

import random

import numpy as np
import torch

from featcache.backbones.tiny.corpus import Corpus, _truth, sample_moth, visibility
from featcache.backbones.tiny.tokenizer import TinyTokenizer
from featcache.sources.fieldguide.draw import draw, sample_scene
from featcache.sources.fieldguide.species import WORLDS, species
from featcache.sources.fieldguide.traits import TRAITS, distance, is_drawable


def corpus(seed: int = 0) -> Corpus:
    return Corpus(steps=4, batch=16, seed=seed, tokenizer=TinyTokenizer())


def test_no_species_nor_its_neighbours() -> None:
    rng = random.Random(0)
    kinds = [s.moth for world in WORLDS for s in species(world)]
    for _ in range(1500):
        moth = sample_moth(rng)
        assert is_drawable(moth)
        assert min(distance(moth, kind) for kind in kinds) >= 2


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    first, again, other = corpus(), corpus(), corpus(seed=1)
    first[0]
    assert torch.equal(first[2].pixels, again[2].pixels)
    assert torch.equal(first[2].tokens, again[2].tokens)
    assert not torch.equal(first[2].pixels, first[3].pixels)
    assert not torch.equal(first[2].pixels, other[2].pixels)


def test_shapes_and_truth_of_a_batch() -> None:
    batch = corpus()[1]
    assert batch.pixels.shape == (16, 3, 96, 96)
    assert batch.pixels.dtype == torch.uint8
    assert batch.true.diagonal().all()
    assert not (batch.true & batch.false).any()
    assert batch.false.any(1).all()


def test_truth_follows_labels_and_sight() -> None:
    moths = np.zeros((4, len(TRAITS)), np.int8)
    moths[2:, 0] = 1  # the second drawing has other forewings
    shares = np.ones((4, len(TRAITS)), np.float32)
    shares[1, 0], shares[3, 0] = 0.3, 0.05
    stated = np.zeros((4, len(TRAITS)), bool)
    stated[0, 0] = stated[1, 1] = stated[2, 0] = True  # row 3 is a mere name
    true, false = _truth(moths, shares, stated)
    assert true.astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert false.astype(int).tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1], [1, 1, 0, 0]]


def test_visibility_of_whole_and_empty_views() -> None:
    rng = random.Random(3)
    for _ in range(20):
        moth = sample_moth(rng)
        boxes = draw(moth, sample_scene(rng)).boxes
        whole = visibility(moth, boxes, (0.0, 0.0, 128.0, 128.0))
        assert set(whole) == set(TRAITS)
        assert min(whole.values()) == max(whole.values()) == 1.0
        assert max(visibility(moth, boxes, (-9.0, -9.0, -1.0, -1.0)).values()) == 0.0

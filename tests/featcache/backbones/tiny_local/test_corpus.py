import random

import numpy as np
import torch

from featcache.backbones.tiny.tokenizer import TinyTokenizer
from featcache.backbones.tiny_local.corpus import LocalCorpus, _choose
from featcache.backbones.tiny_local.parts import BACKGROUND, MIXED, states


def corpus(seed: int = 0) -> LocalCorpus:
    return LocalCorpus(steps=4, batch=16, seed=seed, tokenizer=TinyTokenizer())


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    first, again, other = corpus(), corpus(), corpus(seed=1)
    first[0]
    assert torch.equal(first[2].pixels, again[2].pixels)
    assert torch.equal(first[2].rows, again[2].rows)
    assert torch.equal(first[2].sentences, again[2].sentences)
    assert not torch.equal(first[2].pixels, other[2].pixels)


def test_shapes_and_truth_of_a_batch() -> None:
    batch = corpus()[1]
    assert batch.pixels.shape == (16, 3, 96, 96)
    assert len(batch.rows) == len(batch.parts) == len(batch.told) == len(batch.denied)
    assert len(set(batch.rows.tolist())) == len(batch.rows)
    assert int(batch.rows.max()) < 16 * 64
    assert batch.sentences.shape == (len(states()), 32)
    assert not (batch.told & batch.denied).any()
    shown = batch.parts < BACKGROUND
    assert batch.told[shown].any(1).all()
    assert not batch.told[~shown].any()
    assert batch.denied[~shown].all()


def test_few_patches_are_all_taken_and_many_are_sampled() -> None:
    parts = np.array([0] * 500 + [4] * 3 + [BACKGROUND] * 900 + [MIXED] * 50, np.int8)
    rows = _choose(parts, random.Random(0))
    assert np.bincount(parts[rows], minlength=MIXED + 1).tolist() == [96, 0, 0, 0, 3, 0, 384, 0]

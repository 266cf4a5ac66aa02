"""Indexes that a stranger hands over, valid seals over bent arrays: answered rightly, or refused.

The file `bend.json` of a case holds numbers; each bends a value of an array of an index to what
would lead faiss out of its memory, and everything is sealed again.
"""

import hashlib
import json
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import torch

from featcache.errors import FeatcacheError
from featcache.retrieval.index import open_index
from featcache.retrieval.indexes.building import build_index
from featcache.retrieval.indexes.description import Description
from featcache.retrieval.indexes.folder import DESCRIPTION, INDEXES, index_names, read_description
from featcache.retrieval.vectors import Vectors
from featcache.store.cache import Cache
from tests.featcache.retrieval.random_caches import make_cache
from tests.fuzz.cases import Case, read_case
from tests.fuzz.guard import Target

KINDS = ("flat", "ivf", "hnsw", "ivfpq")
IMAGES, BENT = 300, 44
EXTREMES = (0, 1, -1, -2, 2, 255, IMAGES - 1, IMAGES, 2**30, 2**31 - 1, -(2**31), 2**62, -(2**62))
FLOATS = (0.0, -1.0, 3.9, 1e30, float("inf"), float("nan"), -3.4e38)


def bend_index(root: Path, name: str, rng: Random) -> None:
    """Bend one to four values of an index and seal it again."""
    found = read_description(root, name)
    folder = root / INDEXES / name / found.folder
    arrays = {a.name: a for a in found.arrays}
    for _ in range(rng.choice((1, 1, 2, 4))):
        facts = rng.choice(list(arrays.values()))
        path = folder / f"{facts.name}.bin"
        values = np.frombuffer(bytearray(path.read_bytes()), dtype=facts.dtype)
        if not len(values):
            continue
        at = rng.randrange(len(values))
        if rng.random() < 0.3:  # two values change places: still a permutation
            other = rng.randrange(len(values))
            values[[at, other]] = values[[other, at]]
        elif facts.dtype == "<f4":
            values[at] = rng.choice(FLOATS)
        elif facts.dtype == "|u1":
            values[at : at + rng.choice((1, 64))] = rng.randrange(256)
        else:
            info, wanted = np.iinfo(facts.dtype), rng.choice((*EXTREMES, rng.randrange(IMAGES)))
            values[at : at + rng.choice((1, 1, 40))] = min(max(wanted, info.min), info.max)
        data = values.tobytes()
        shape = facts.shape
        if rng.random() < 0.1:  # one value less, said so
            data, shape = data[: -values.itemsize], (*shape[:-1], shape[-1] - 1)
        path.write_bytes(data)
        sha = hashlib.sha256(data).hexdigest()
        arrays[facts.name] = replace(facts, shape=shape, crc32=zlib.crc32(data), sha256=sha)
    bent = replace(found, arrays=tuple(arrays.values()), parameters=_bent_numbers(found, rng))
    (folder.parent / DESCRIPTION).write_bytes(bent.line())


def _bent_numbers(found: Description, rng: Random) -> dict[str, int]:
    numbers = dict(found.parameters)
    if numbers and rng.random() < 0.2:
        name = rng.choice(sorted(numbers))
        numbers[name] = rng.choice((1, 2, 3, numbers[name] + 1, 257, 10**6, 2**40))
    return numbers


def check_answers(root: Path, name: str) -> None:
    """Search by an index; what it says must be so.

    Raises:
        FeatcacheError: If it is refused.
    """
    (path,) = root.glob("toys/*-*")
    vectors = Vectors([Cache.open(path).feature_set()])
    queries = vectors.take(np.array([3, 200]))
    cosines, positions = open_index(vectors, root, name=name).search(queries, 5)
    assert positions.shape == (2, 5)
    for query, own, said in zip(queries, positions, cosines, strict=True):
        assert len(set(own.tolist())) == 5, "a vector is found twice"
        assert torch.allclose(vectors.take(own.numpy()) @ query, said, atol=1e-5)


def _index(root: Path) -> None:
    seeds = []
    if all(_is_plain(path) for path in root.rglob("*")):
        with suppress(OSError, ValueError, RecursionError):
            seeds = json.loads((root / "bend.json").read_bytes())
    for name in index_names(root):
        try:
            for seed in seeds if isinstance(seeds, list) else []:
                bend_index(root, name, Random(repr(seed)))
        except (FeatcacheError, OSError, ValueError, OverflowError):
            pass  # bent already in a way that leaves nothing to bend
        try:
            check_answers(root, name)
        except FeatcacheError:
            continue


def _is_plain(path: Path) -> bool:
    """Tell whether a file can be bent; links and FIFOs are for the readers, not for this test."""
    return not path.is_symlink() and (path.is_dir() or path.is_file())


def _seeds(folder: Path) -> list[Case]:
    cache = make_cache(folder, images=IMAGES)
    for kind in KINDS:
        build_index([cache.feature_set()], kind=kind, name=kind)
    whole = {n: d for n, d in read_case(folder).items() if not n.endswith(".lock")}
    cases = []
    for i in range(BENT):
        kind = KINDS[i % len(KINDS)]
        others = tuple(f"{INDEXES}/{k}/" for k in KINDS if k != kind)
        case = {n: d for n, d in whole.items() if not n.startswith(others)}
        bends = b"[]" if i < len(KINDS) else b"[%d, %d]" % (i, 7 * i)
        cases.append(case | {"bend.json": bends})
    return cases


INDEX_TARGETS = (Target(name="index", run=_index, seeds=_seeds, is_folder=True, depth=2),)

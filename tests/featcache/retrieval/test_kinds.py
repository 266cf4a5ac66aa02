"""Kinds of indexes: they find neighbours, and come back from their arrays as they were."""

from typing import Any

import numpy as np
import pytest

from featcache.errors import UnknownNameError, UsageError
from featcache.retrieval.kinds import registry
from featcache.retrieval.kinds.registry import INDEX_KINDS, default_kind, structure_of
from featcache.retrieval.kinds.structure import Structure, chosen
from tests.featcache.retrieval.random_caches import DIM, clustered

faiss = pytest.importorskip("faiss")

COUNT = 500
APPROXIMATE = [kind for kind in INDEX_KINDS if kind != "flat"]
Arrays = dict[str, np.ndarray]


def unit(seed: int, rows: int) -> np.ndarray:
    values = clustered(seed, rows, (DIM,)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values


ROWS = unit(1, COUNT)


def built(kind: str) -> Structure:
    kind_type = structure_of(kind)
    assert kind_type is not None
    index = kind_type(DIM, chosen(kind_type, COUNT, DIM, {}))
    index.train(ROWS[: index.sample_size(COUNT)])
    index.add(ROWS[:300])
    index.add(ROWS[300:])
    return index


@pytest.fixture(scope="module")
def filled() -> dict[str, Structure]:
    return {kind: built(kind) for kind in APPROXIMATE}


def arrays_of(index: Structure) -> Arrays:
    return {
        p.name: np.concatenate([np.ravel(part) for part in p.parts])
        .view(p.layout.dtype)
        .reshape(p.layout.shape)
        for p in index.arrays()
    }


def restored(index: Structure, arrays: Arrays) -> Structure:
    again = type(index)(DIM, index.parameters)
    again.restore(arrays, COUNT)
    return again


@pytest.mark.parametrize("kind", ["ivf", "ivfpq"])
def test_lists_that_are_only_searched_are_read_in_place(filled: Any, kind: str) -> None:
    index, arrays = filled[kind], arrays_of(filled[kind])
    again = type(index)(DIM, index.parameters)
    again.restore(arrays, COUNT, grows=False)
    expected = index.candidates(ROWS[:40], 10)
    assert np.array_equal(again.candidates(ROWS[:40], 10), expected)
    back = arrays_of(again)
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    with pytest.raises(AssertionError, match="searched alone"):
        again.add(ROWS[:1])
    arrays["codes"][:] = 0  # which the index sees, as it made no copy
    assert not np.array_equal(again.candidates(ROWS[:40], 10), expected)
    arrays["codes"][:] = 0xFF  # not a number in float16, and the last of all codewords
    found = again.candidates(ROWS[:40], 10)
    assert ((found >= -1) & (found < COUNT)).all()


def test_lists_are_copied_where_faiss_has_no_views(
    filled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(faiss, "MaybeOwnedVectorUInt8Vector")
    again = type(filled["ivf"])(DIM, filled["ivf"].parameters)
    again.restore(arrays_of(filled["ivf"]), COUNT, grows=False)
    found = again.candidates(ROWS[:40], 10)
    assert np.array_equal(found, filled["ivf"].candidates(ROWS[:40], 10))
    again.add(ROWS[:1])


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_the_neighbours_are_among_the_candidates(filled: Any, kind: str) -> None:
    queries = unit(2, 20)
    true = np.argsort(-(queries @ ROWS.T), axis=1)[:, :5]
    found = filled[kind].candidates(queries, 5)
    assert found.shape[1] >= 5
    hits = [len(set(t) & set(f)) for t, f in zip(true.tolist(), found.tolist(), strict=True)]
    assert sum(hits) >= 95


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_arrays_bring_the_same_index_back(filled: Any, kind: str) -> None:
    arrays, queries = arrays_of(filled[kind]), unit(2, 20)
    assert {n: (a.dtype.str, a.ndim) for n, a in arrays.items()} == {
        n: (layout.dtype, len(layout.shape)) for n, layout in filled[kind].layout(COUNT).items()
    }
    again = restored(filled[kind], arrays)
    assert (again.candidates(queries, 5) == filled[kind].candidates(queries, 5)).all()
    more = unit(3, 4)
    again.add(more)
    found = again.candidates(more, 10)
    assert (found == np.arange(COUNT, COUNT + 4)[:, None]).any(1).all()


@pytest.mark.parametrize(
    ("kind", "array", "at", "value", "says"),
    [
        ("ivf", "sizes", 0, -1, "lists"),
        ("ivf", "sizes", 0, 2**62, "lists"),
        ("ivf", "ids", 3, COUNT, "twice"),
        ("ivf", "ids", 3, -(2**63), "twice"),
        ("ivf", "centroids", 0, np.nan, "centroids"),
        ("ivf", "codes", slice(0, 2), (0, 0x7C), "unit length"),
        ("ivfpq", "codewords", 0, np.inf, "codewords"),
        ("ivfpq", "ids", slice(0, 2), (1, 1), "twice"),
        ("hnsw", "levels", 0, 0, "on no level"),
        ("hnsw", "levels", 0, 2**31 - 1, "on no level"),
        ("hnsw", "neighbours", 0, COUNT, "does not have"),
        ("hnsw", "neighbours", 0, -2, "does not have"),
        ("hnsw", "entry", 0, -1, "entry point"),
        ("hnsw", "entry", 0, COUNT, "entry point"),
        ("hnsw", "codes", slice(0, 2), (255, 255), "unit length"),
    ],
)
def test_values_out_of_range_are_refused(
    filled: Any, kind: str, array: str, at: Any, value: Any, says: str
) -> None:
    arrays = arrays_of(filled[kind])
    flat = arrays[array].reshape(-1).copy()
    flat[at] = value
    with pytest.raises(ValueError, match=says):
        restored(filled[kind], arrays | {array: flat.reshape(arrays[array].shape)})


def test_a_link_above_the_level_of_its_end_is_refused(filled: Any) -> None:
    arrays = arrays_of(filled["hnsw"])
    levels, links = arrays["levels"], arrays["neighbours"].copy()
    top, low = int(np.argmax(levels)), int(np.argmin(levels))
    assert levels[top] > 1 == levels[low]
    per_level = 2 * filled["hnsw"].parameters["links"]
    start = int(sum(per_level + (v - 1) * per_level // 2 for v in levels[:top].tolist()))
    links[start + per_level] = low  # first link on the level above
    with pytest.raises(ValueError, match="level of the link"):
        restored(filled["hnsw"], arrays | {"neighbours": links})


@pytest.mark.parametrize(
    ("kind", "count", "given", "says"),
    [
        ("ivf", 100, {"lists": "many"}, "whole number from 1 to 100"),
        ("ivf", 100, {"lists": 0}, "whole number from 1 to 100"),
        ("ivfpq", 1000, {"bytes": 5}, "must divide 16"),
        ("ivfpq", 100, {}, "needs as many vectors"),
        ("hnsw", 100, {"lists": 3}, "Unknown parameter"),
    ],
)
def test_wrong_parameters_are_refused(kind: str, count: int, given: Any, says: str) -> None:
    kind_type = structure_of(kind)
    assert kind_type is not None
    with pytest.raises(UsageError, match=says):
        chosen(kind_type, count, DIM, given)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'hnsw'"):
        structure_of("hsnw")


def test_the_default_kind_follows_from_size_and_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [default_kind(n, 512) for n in (10, 200_001, 10**7)] == ["flat", "ivf", "ivfpq"]
    monkeypatch.setattr(registry, "has_faiss", lambda: False)
    assert default_kind(10**7, 512) == "flat"


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["ivf", "ivfpq"])
def test_a_gpu_finds_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from featcache import faiss_library

    if not faiss_library.gpus():
        pytest.skip("faiss sees no GPU")
    on_gpu = built(kind)
    arrays, queries = arrays_of(on_gpu), unit(2, 50)
    monkeypatch.setattr(faiss_library, "gpus", lambda: 0)
    on_cpu = restored(on_gpu, arrays)
    pairs = zip(on_gpu.candidates(queries, 5), on_cpu.candidates(queries, 5), strict=True)
    same = [len(set(a.tolist()) & set(b.tolist())) / len(a) for a, b in pairs]
    assert np.mean(same) >= 0.98  # float16 tables: only neighbours of equal cosine may differ

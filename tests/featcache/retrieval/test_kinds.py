"""Kinds of indexes: they find neighbours, and come back from their arrays as they were."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from featcache import faiss_library
from featcache.errors import UnknownNameError, UsageError
from featcache.retrieval.kinds import registry
from featcache.retrieval.kinds.registry import (
    INDEX_KINDS,
    default_kind,
    structure_of,
    told_without_faiss,
)
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
    assert told_without_faiss(10**7) == ""
    monkeypatch.setattr(registry, "has_faiss", lambda: False)
    assert default_kind(10**7, 512) == "flat"
    assert "needs faiss. Install it with" in told_without_faiss(200_001)
    assert told_without_faiss(200_000) == ""


class GpuStandIn:
    """An index that is said to be on a GPU: refuses what faiss refuses there, else the CPU's."""

    def __init__(self, index: Any) -> None:
        self.__dict__["index"] = index

    def __getattr__(self, name: str) -> Any:
        return getattr(self.index, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "nprobe":
            self.index.nprobe = value
        elif name == "referenced_objects":
            self.__dict__[name] = value
        else:
            raise AttributeError(f"faiss allows no attribute {name}")

    def search(self, queries: np.ndarray, count: int) -> Any:
        assert max(count, self.index.nprobe) <= faiss_library.GPU_MOST
        return self.index.search(queries, count)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let faiss see one GPU; return what was put there."""
    moved: list[Any] = []

    def there(resources: Any, device: int, index: Any, options: Any) -> Any:
        assert (resources, device, options.useFloat16) == ("resources", 0, True)
        moved.append(GpuStandIn(index))
        return moved[-1]

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "GpuClonerOptions", SimpleNamespace, raising=False)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "resources", raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", there, raising=False)
    monkeypatch.setattr(faiss, "index_gpu_to_cpu", lambda each: each.index, raising=False)
    return moved


@pytest.mark.parametrize("kind", ["ivf", "ivfpq"])
def test_lists_are_built_stored_and_searched_on_a_gpu(
    kind: str, filled: dict[str, Structure], gpu: list[Any]
) -> None:
    on_gpu = built(kind)
    assert len(gpu) == 1
    arrays = arrays_of(on_gpu)
    for name, values in arrays_of(filled[kind]).items():
        np.testing.assert_array_equal(arrays[name], values)
    again = restored(on_gpu, arrays)
    assert len(gpu) == 2
    for index in (on_gpu, again):
        np.testing.assert_array_equal(
            index.candidates(unit(2, 9), 5), filled[kind].candidates(unit(2, 9), 5)
        )


def test_more_neighbours_than_a_gpu_finds_at_once_are_left_to_the_exact_search(
    gpu: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss_library, "GPU_MOST", 7)
    found = built("ivf").candidates(unit(2, 4), 40)
    assert found.shape == (4, 40)
    assert bool((found[:, :7] >= 0).all())
    assert bool((found[:, 7:] == -1).all())


def test_an_index_that_does_not_fit_on_a_gpu_stays_on_the_cpu(
    filled: dict[str, Structure], gpu: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("CUDA error 2: out of memory")

    monkeypatch.setattr(faiss, "index_cpu_to_gpu", full)
    index = built("ivf")
    assert gpu == []
    np.testing.assert_array_equal(
        index.candidates(unit(2, 9), 5), filled["ivf"].candidates(unit(2, 9), 5)
    )


def test_graphs_stay_on_the_cpu(gpu: list[Any]) -> None:
    built("hnsw").candidates(unit(2, 4), 5)
    assert gpu == []


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["ivf", "ivfpq"])
def test_a_gpu_finds_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not faiss_library.gpus():
        pytest.skip("faiss sees no GPU")
    on_gpu = built(kind)
    arrays, queries = arrays_of(on_gpu), unit(2, 50)
    monkeypatch.setattr(faiss_library, "gpus", lambda: 0)
    on_cpu = restored(on_gpu, arrays)
    pairs = zip(on_gpu.candidates(queries, 5), on_cpu.candidates(queries, 5), strict=True)
    same = [len(set(a.tolist()) & set(b.tolist())) / len(a) for a, b in pairs]
    assert np.mean(same) >= 0.98  # float16 tables: only neighbours of equal cosine may differ

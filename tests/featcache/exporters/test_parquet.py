"""Tables of caches: every column read back, rows streamed, a file that is whole or not there."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CacheError, TaskError, UnknownNameError, UsageError
from featcache.exporters import nearest, parquet, projection, reading
from featcache.exporters.nearest import nearest_rows
from featcache.exporters.parquet import export_parquet
from featcache.exporters.projection import project
from featcache.importers.parquet import Columns, read_parquet
from featcache.types import FeatureSet
from tests.heads.conftest import make_world
from tests.reliability.faults import no_more_than

pq = pytest.importorskip("pyarrow.parquet", reason="the extra `data` is not installed")


@pytest.fixture
def cache() -> FeatureSet:
    """A cache with an unreadable and an unlabelled image, a stored few-shot set and odd names."""
    made = make_world(counts={"train": 4, "val": 2, "test": 3})
    listing = made.listing
    ok, labels, ids = made.ok.copy(), listing.labels.copy(), list(listing.ids)
    ok[3], labels[5], ids[7] = False, -1, "moth\udce9.jpg"
    splits = {**listing.splits, "train@1": listing.splits["train"][::4]}
    splits["again"] = listing.splits["test"][:2]  # in two splits
    return replace(made, ok=ok, listing=replace(listing, labels=labels, ids=ids, splits=splits))


def read(path: Path) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = pq.read_table(path).to_pydict()
    return columns


def test_every_column_is_read_back(
    cache: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "CHUNK", 7)
    told: list[tuple[int, int]] = []
    written = export_parquet(
        cache, tmp_path / "t.parquet", progress=lambda what, done, total: told.append((done, total))
    )
    table = read(written.path)
    rows = [r for split in ("train", "val", "test") for r in cache.listing.rows(split).tolist()]
    rows.remove(3)
    assert written.rows == len(rows) == len(table["id"]) == 44
    assert written.unreadable == 1
    assert list(table) == list(written.columns)
    assert list(table) == [
        "id", "split", "label", "class", "features", "projection_x", "projection_y"
    ]  # fmt: skip
    assert table["id"][6] == "moth\\xe9.jpg"
    assert table["id"][:6] == [cache.listing.ids[row] for row in rows[:6]]
    expected = [split for split in ("train", "val", "test") for _ in cache.usable(split)]
    assert table["split"] == expected
    assert table["label"][4] is table["class"][4] is None
    assert table["label"][:4] == cache.labels[rows[:4]].tolist()
    assert table["class"][-1] == cache.classes[table["label"][-1]]
    stored = cache.components["global"].take(np.array(rows)).float()
    assert torch.equal(torch.tensor(table["features"]), stored)
    file = pq.ParquetFile(written.path)
    assert file.num_row_groups == len(told) == 7
    assert told[-1] == (44, 44)


def test_coordinates_are_those_of_a_singular_value_decomposition(cache: FeatureSet) -> None:
    rows = cache.usable("train")
    plane = project(cache, rows, "pca")
    assert plane is not None
    x = cache.unit("global", rows).double().numpy()
    centred = x - x.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    for axis in range(2):
        naive = centred @ directions[axis]
        largest = directions[axis][np.abs(directions[axis]).argmax()]
        assert np.allclose(plane[:, axis], naive * np.sign(largest), atol=1e-6)


def test_coordinates_do_not_depend_on_the_size_of_a_chunk(
    cache: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = cache.usable("train")
    whole = project(cache, rows, "pca")
    monkeypatch.setattr(reading, "CHUNK", 3)
    parts = project(cache, rows, "pca")
    assert whole is not None
    assert parts is not None
    assert np.allclose(whole, parts, atol=1e-6)


@pytest.mark.long
def test_t_sne_places_every_row(cache: FeatureSet, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    places = [export_parquet(cache, tmp_path / f"{i}", projection="tsne").path for i in "ab"]
    first, again = (read(path)["projection_x"] for path in places)
    assert first == again
    assert np.isfinite(first).all()
    assert len(set(first)) > 40


def test_t_sne_of_too_many_rows_is_refused(
    cache: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "MOST_TSNE", 10)
    with pytest.raises(UsageError, match=r"at most 10 rows here, and these are 44.*'pca'"):
        export_parquet(cache, tmp_path / "t.parquet", projection="tsne")
    assert list(tmp_path.iterdir()) == []


def test_an_image_in_two_splits_is_one_row_of_the_first(cache: FeatureSet, tmp_path: Path) -> None:
    path = export_parquet(cache, tmp_path / "t", splits=["again", "test"]).path
    table = read(path)
    assert len(set(table["id"])) == len(table["id"]) == 15
    assert table["split"] == ["again"] * 2 + ["test"] * 13


def test_answers_stand_beside_the_labels(cache: FeatureSet, tmp_path: Path) -> None:
    def answer(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return rows % 5, rows / 1000

    table = read(export_parquet(cache, tmp_path / "t", splits=["train"], answer=answer).path)
    rows = cache.usable("train")
    assert table["predicted"] == [cache.classes[row % 5] for row in rows.tolist()]
    assert np.allclose(table["probability"], rows / 1000)
    pairs = zip(rows.tolist(), cache.labels[rows].tolist(), strict=True)
    assert table["correct"] == [None if y < 0 else y == row % 5 for row, y in pairs]
    assert {True, False, None} == set(table["correct"])


def test_images_that_are_not_here_have_no_thumbnail(cache: FeatureSet, tmp_path: Path) -> None:
    written = export_parquet(cache, tmp_path / "t", splits=["val"], thumbnails=64)
    assert written.without_thumbnail == written.rows == 10
    assert read(written.path)["image"] == [None] * 10


def test_the_table_can_be_imported_again(cache: FeatureSet, tmp_path: Path) -> None:
    path = export_parquet(cache, tmp_path / "t.parquet", splits=["val", "test"]).path
    columns = Columns(features="features", label="class", path="id", split="split")
    contents = read_parquet([str(path)], columns)
    for split in ("val", "test"):
        rows = cache.usable(split)
        stored = cache.components["global"].take(rows).float().numpy()
        assert np.array_equal(np.asarray(contents.arrays[f"{split}_features"]), stored)


@pytest.mark.parametrize(
    ("wanted", "error", "said"),
    [
        ({"splits": ["tset"]}, UnknownNameError, "did you mean 'test'"),
        ({"projection": "pac"}, UnknownNameError, "did you mean 'pca'"),
        ({"thumbnails": 5000}, UsageError, "between 0 and 1024 pixels"),
        ({"neighbors": -1}, UsageError, "between 0 and 1000"),
        ({"thumbnails": -1}, UsageError, "between 0 and 1024 pixels"),
        ({"splits": ["none"]}, TaskError, "could be read"),
    ],
)
def test_wrong_words_write_nothing(
    wanted: dict[str, Any], error: type[Exception], said: str, cache: FeatureSet, tmp_path: Path
) -> None:
    splits = {**cache.listing.splits, "none": np.array([3])}
    cache = replace(cache, listing=replace(cache.listing, splits=splits))
    with pytest.raises(error, match=said):
        export_parquet(cache, tmp_path / "t.parquet", **wanted)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_file_that_was_there(
    cache: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "CHUNK", 7)
    path = tmp_path / "t.parquet"
    path.write_bytes(b"old")

    def fails_later() -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        calls = iter(range(3))

        def answer(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            if next(calls) == 2:
                raise TaskError("no answer")
            return rows % 5, rows / 1000

        return answer

    with pytest.raises(TaskError, match="no answer"):
        export_parquet(cache, path, answer=fails_later())
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]
    assert path.read_bytes() == b"old"


def test_neighbours_are_those_of_naive_loops(
    cache: FeatureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (parquet, nearest, reading):
        monkeypatch.setattr(module, "CHUNK", 7)
    written = export_parquet(cache, tmp_path / "t", splits=["train", "val"], neighbors=5)
    table = read(written.path)
    unit = [np.array(row) / np.linalg.norm(row) for row in table["features"]]
    for i, found in enumerate(table["neighbors"]):
        others = [(1 - float(unit[i] @ unit[j]), j) for j in range(len(unit)) if j != i]
        others.sort()
        assert found["ids"] == [i, *(j for _, j in others[:5])]
        assert np.allclose(found["distances"], [0, *(d for d, _ in others[:5])], atol=1e-6)


def test_a_row_comes_first_and_once_even_among_copies(cache: FeatureSet) -> None:
    rows = np.repeat(cache.usable("val")[:2], 6)  # more copies than neighbours
    at, distances = nearest_rows(cache, rows, 3)
    for i, found in enumerate(at.tolist()):
        assert found[0] == i
        assert len(set(found)) == 4
        assert {j // 6 for j in found} == {i // 6}
    assert np.allclose(distances, 0, atol=1e-6)
    assert nearest_rows(cache, rows[:2], 9)[0].tolist() == [[0, 1], [1, 0]]
    assert nearest_rows(cache, rows[:1], 9)[0].tolist() == [[0]]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that takes no file")
def test_a_place_that_takes_no_file_is_said(cache: FeatureSet) -> None:
    with pytest.raises(CacheError, match=r"x\.parquet was not written .* another place with out"):
        export_parquet(cache, "/proc/self/x.parquet")


def test_a_full_disk_leaves_what_was_there(cache: FeatureSet, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"old")
    with no_more_than(4_000), pytest.raises(CacheError, match=r"t\.parquet was not .*Free some"):
        export_parquet(cache, path)
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]
    assert path.read_bytes() == b"old"
    assert export_parquet(cache, path).rows == 44


def test_the_script_of_the_docs_reads_columns_that_are_written(
    cache: FeatureSet, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "export.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(# load\.py .*?)```", page, re.DOTALL)
    compile(script, "load.py", "exec")
    read_there = set(re.findall(r'row(?:s\[paths\[i\]\])?\["(\w+)"\]', script))
    written = export_parquet(
        cache, tmp_path / "t", answer=lambda rows: (rows % 5, np.ones(len(rows)))
    )
    assert {"id", "features", "class", "predicted"} <= read_there <= set(written.columns)


def test_further_columns_of_a_csv_file_are_kept(cache: FeatureSet, tmp_path: Path) -> None:
    ids = cache.listing.ids
    lines = [f"{i},{name},moth,train,site {i}" for i, name in enumerate(ids) if i not in (1, 7)]
    table = tmp_path / "moths.csv"
    table.write_text("\n".join(["features,path,label,split,Where", *lines, f"x,{ids[0]},moth,,y"]))
    listed = replace(cache, listing=replace(cache.listing, spec=f"csv:{table}"))
    written = export_parquet(listed, tmp_path / "t.parquet", projection="none")
    assert written.columns[-2:] == ("csv_features", "Where")
    found = dict(zip(*(read(written.path)[name] for name in ("id", "Where")), strict=True))
    assert found[ids[0]] == "site 0"
    assert found[ids[1]] is None
    assert found[ids[2]] == "site 2"
    assert written.lost == ""


def test_no_further_column_takes_the_place_of_another(cache: FeatureSet, tmp_path: Path) -> None:
    header = "csv_id,id,csv_csv_id,path,label"
    rows = [f"1,2,3,{name},moth" for name in cache.listing.ids[:2]]
    (tmp_path / "moths.csv").write_text("\n".join([header, *rows]))
    listing = replace(cache.listing, spec=f"csv:{tmp_path / 'moths.csv'}")
    path = tmp_path / "t.parquet"
    written = export_parquet(replace(cache, listing=listing), path, projection="none")
    assert written.columns[-3:] == ("csv_id", "csv_csv_csv_id", "csv_csv_id")
    assert [read(path)[name][0] for name in written.columns[-3:]] == ["1", "2", "3"]


def test_columns_of_one_name_are_told(cache: FeatureSet, tmp_path: Path) -> None:
    rows = [f"1,2,3,{name},moth" for name in cache.listing.ids[:2]]
    (tmp_path / "moths.csv").write_text("\n".join(["site,site,Where,path,label", *rows]))
    listing = replace(cache.listing, spec=f"csv:{tmp_path / 'moths.csv'}")
    there = replace(cache, listing=listing)
    written = export_parquet(there, tmp_path / "t.parquet", projection="none")
    assert written.columns[-2:] == ("features", "Where")
    assert written.lost.startswith("Several columns of moths.csv are called 'site'; ")


def test_a_csv_file_that_is_gone_is_told(cache: FeatureSet, tmp_path: Path) -> None:
    gone = replace(cache, listing=replace(cache.listing, spec=f"csv:{tmp_path / 'gone.csv'}"))
    written = export_parquet(gone, tmp_path / "t.parquet", projection="none")
    assert "gone.csv is not there" in written.lost
    assert written.columns == ("id", "split", "label", "class", "features")

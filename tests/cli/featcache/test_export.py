"""`featcache export`: thumbnails of the images, predictions of a run, and words that are wrong."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Run = Callable[..., Any]
pq = pytest.importorskip("pyarrow.parquet", reason="the extra `data` is not installed")


def test_thumbnails_and_predictions_of_a_run(
    featcache: Run, heads: Run, home: Path, tmp_path: Path
) -> None:
    runs = ["--runs", str(tmp_path / "runs")]
    trained = heads("train", "gda", "--shots", "2", "--seeds", "1", "--json", "--quiet", *runs)
    run = json.loads(trained.out)["run"]
    out = tmp_path / "blobs.parquet"
    answer = featcache(
        "export",
        "--thumbnails",
        "24",
        "--neighbors",
        "4",
        "--run",
        run,
        "--out",
        str(out),
        *runs,
        "--json",
    )
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert told["rows"] == 30
    assert told["without_thumbnail"] == 0
    assert "embedding-atlas" in answer.err
    assert "--x projection_x --y projection_y --neighbors neighbors --image image" in answer.err
    assert "Using the cache of blobs with tiny" in answer.err
    assert "finished last." in answer.err
    assert f"Head {run}@1: gda trained on blobs" in answer.err
    rows = pq.read_table(out).to_pylist()
    for row in rows:
        assert max(Image.open(io.BytesIO(row["image"]["bytes"])).size) == 24
        assert row["correct"] == (row["predicted"] == row["class"])
        assert 0 < row["probability"] <= 1
    import heads as library
    from featcache.api import open as open_cache

    cache = open_cache("blobs", root=home)
    head = library.load(run, root=tmp_path / "runs")
    labels = head.predict(cache, split="test").tolist()
    assert [r["predicted"] for r in rows if r["split"] == "test"] == [
        cache.classes[label] for label in labels
    ]


def test_wrong_words_are_told(featcache: Run, home: Path, tmp_path: Path) -> None:
    for words, said in (
        (["--to", "parqet"], "did you mean 'parquet'"),
        (["--projection", "umap"], "known: none, pca, tsne"),
        (["--splits", "tset"], "did you mean 'test'"),
        (["--neighbors", "-1"], "--neighbors -1 is not between 0 and 1000"),
        (["--thumbnails", "9999"], "--thumbnails 9999 is not between"),
    ):
        answer = featcache("export", "blobs", "--out", str(tmp_path / "t"), *words)
        assert answer.code == 2
        assert said in answer.err
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_stays_where_it_is(featcache: Run, home: Path, tmp_path: Path) -> None:
    os.mkfifo(out := tmp_path / "pipe")
    answer = featcache("export", "blobs", "--out", str(out))
    assert answer.code == 2
    assert f"{out} is no plain file; name another with --out." in answer.err
    assert out.is_fifo()

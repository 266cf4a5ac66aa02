"""Corpora of random caches: equal to brute force and without duplicates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import (
    TaskError,
    UsageError,
)
from featcache.retrieval import vectors as module
from featcache.retrieval.corpora import threshold
from featcache.retrieval.corpora.anchors import _of_one_class
from featcache.retrieval.corpora.build import build_corpus
from featcache.retrieval.corpora.claims import LISTED
from featcache.retrieval.corpora.origins import Origin
from featcache.retrieval.corpora.read import read_corpus
from featcache.store.cache import Cache
from featcache.store.corpora import corpus_names, read_record
from featcache.store.repair.verify import verify
from featcache.types import FeatureSet
from tests.featcache.retrieval.corpora.worlds import (
    CLASSES,
    D,
    bank,
    make_cache,
    near_centres,
    target_in,
    views_of,
    wild_in,
)

K = 20


def brute_force(
    target: FeatureSet,
    wild: FeatureSet,
    cosine: float,
    queries: torch.Tensor,
    owner: torch.Tensor,
    margin: float,
    kind: str = "global",
) -> list[tuple[int, int, int]]:
    """Return (label, row, part) of what each class takes, every pair of vectors compared."""
    guarded = [r for s in ("val", "test") for r in target.listing.rows(s).tolist()]
    hashes = {target.listing.hashes[r] for r in guarded}
    compared = target.unit("global", np.array(guarded))
    units = wild.unit("global", np.arange(len(wild.listing)))
    seen: set[str] = set()
    pairs: list[tuple[float, int, int, int]] = []
    vectors = wild.unit(kind, np.arange(len(wild.listing))).reshape(len(units), -1, D)
    for row, unit in enumerate(units):
        image = wild.listing.hashes[row]
        is_near = bool((compared @ unit).max() > cosine)
        if image not in hashes and image not in seen and not is_near:
            for part, vector in enumerate(vectors[row]):
                for label in range(len(CLASSES)):
                    best = float((queries[owner == label] @ vector).max())
                    pairs.append((best, label, row, part))
        seen.add(image)
    listed = []
    for label in range(len(CLASSES)):
        listed += sorted((p for p in pairs if p[1] == label), reverse=True)[: LISTED * K]
    by_vector: dict[tuple[int, int], list[float]] = {}
    for best, _, row, part in sorted(listed, reverse=True):
        by_vector.setdefault((row, part), []).append(best)
    taken = {v for v, c in by_vector.items() if len(c) > 1 and c[0] - c[1] < margin}
    out: list[tuple[int, int, int]] = []
    for _, label, row, part in sorted(listed, reverse=True):
        if (row, part) not in taken and sum(o[0] == label for o in out) < K:
            taken.add((row, part))
            out.append((label, row, part))
    return sorted(out)


def taken_by(target: FeatureSet, name: str) -> list[tuple[int, int, int]]:
    corpus = read_corpus(target, name)
    assert corpus.places is not None
    rows, parts = corpus.places.row.tolist(), corpus.places.part.tolist()
    return sorted(zip(corpus.labels.tolist(), rows, parts, strict=True))


@pytest.mark.parametrize("block_bytes", [4000, 2**26])
@pytest.mark.parametrize("by", ["class", "anchor", "image"])
def test_a_corpus_is_what_comparing_everything_gives(
    target: FeatureSet, wild: FeatureSet, by: str, block_bytes: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    report = build_corpus("all", target, [wild], by=by, k=K, margin=0.01, again=True)
    texts = bank()
    train = target.listing.rows("train")
    queries, owner = {
        "class": (texts.anchors(), torch.arange(3)),
        "anchor": texts.texts("description"),
        "image": (target.unit("global", train), torch.from_numpy(target.labels[train])),
    }[by]
    cosine = report.facts["threshold"]["cosine"]
    expected = brute_force(target, wild, cosine, queries, owner, 0.01)
    assert taken_by(target, "all") == expected
    assert len(expected) > K
    assert report.facts["equal_images"] == 5
    assert report.facts["repeated"] == 1
    assert report.facts["near_duplicates"] >= 3
    assert not report.leaks


def test_patches_of_near_duplicates_are_left_out(target: FeatureSet, wild: FeatureSet) -> None:
    report = build_corpus("patches", target, [wild], of="patches", k=K, margin=0.01)
    cosine = report.facts["threshold"]["cosine"]
    expected = brute_force(
        target, wild, cosine, bank().anchors(), torch.arange(3), 0.01, "patches.clearclip"
    )
    assert taken_by(target, "patches") == expected


def test_rows_are_those_of_the_source(target: FeatureSet, wild: FeatureSet) -> None:
    report = build_corpus("rows", target, [wild], k=K)
    corpus = read_corpus(Cache.open(target.path), "rows")
    assert corpus.places is not None
    rows, norms = wild.unit_and_length("global", corpus.places.row)
    assert torch.equal(corpus.rows, rows)
    assert torch.equal(corpus.norms, norms)
    assert bool((corpus.weights == 1).all())
    cosines = (corpus.rows * bank().anchors()[corpus.labels]).sum(1)
    assert torch.allclose(cosines, corpus.cosines, atol=1e-6)
    assert corpus.digest == report.digest
    for one in report.classes:
        own = corpus.cosines[corpus.labels == one.label]
        assert one.rows == len(own) <= K
        assert (one.low, one.high) == pytest.approx((float(own.min()), float(own.max())))
    assert verify(target.path, full=True).is_sound
    assert report.to_json()["sources"][0]["dataset"] == "wild"


def test_an_equal_corpus_is_told_and_another_is_refused(
    target: FeatureSet, wild: FeatureSet
) -> None:
    assert build_corpus("equal", target, [wild], k=5).is_new
    assert not build_corpus("equal", target, [wild], k=5).is_new
    with pytest.raises(UsageError, match="other content"):
        build_corpus("equal", target, [wild], k=6)
    assert build_corpus("equal", target, [wild], k=6, again=True).is_new
    assert read_record(target.path, "equal").facts["k"] == 6


def test_query_images_are_refused_unless_forced(target: FeatureSet, wild: FeatureSet) -> None:
    for origin in (target, Origin(features=target, splits=("train", "test"))):
        with pytest.raises(UsageError, match=r"toys:train.*allow_leak=True"):
            build_corpus("leak", target, [origin], k=5)
    with pytest.raises(UsageError, match=r"5 images of the sources are query"):
        build_corpus("leak", target, [wild], k=5, dedupe=False)
    assert "leak" not in corpus_names(target.path)
    report = build_corpus("leak", target, [wild, target], k=5, allow_leak=True)
    assert report.leaks
    assert report.facts["threshold"] is None
    assert read_corpus(target, "leak").leaks


def test_unused_training_rows_without_the_shots(target: FeatureSet) -> None:
    unused = Origin(features=target, splits=("train",))
    report = build_corpus("unused", target, [unused], by="image", shots=2, seeds=(1, 2), k=3)
    assert report.facts["own_shots"] > 3
    corpus = read_corpus(target, "unused")
    assert corpus.places is not None
    assert set(corpus.places.row.tolist()) <= set(target.listing.rows("train").tolist())
    assert float(corpus.cosines.max()) < 0.9999  # no shot has found itself
    assert not corpus.leaks


def test_bounds_are_kept(target: FeatureSet, wild: FeatureSet) -> None:
    report = build_corpus("bounds", target, [wild], k=K, min_cosine=0.6, margin=0.05)
    corpus = read_corpus(target, "bounds")
    assert float(corpus.cosines.min()) >= 0.6
    assert report.short == tuple(c.name for c in report.classes if c.rows < K)
    with pytest.raises(TaskError, match="min_cosine"):
        build_corpus("none", target, [wild], k=K, min_cosine=0.9999)


def test_labels_of_the_sources_are_not_read(root: Path, target: FeatureSet) -> None:
    plain = wild_in(root / "a")
    labelled = make_cache(
        root / "b", "wild", *near_centres(12, 300, noise=1.2), {"train": range(300)}
    )
    digests = {build_corpus("labels", target, [s], k=5).digest for s in (plain, labelled)}
    assert len(digests) == 1


def test_the_threshold_tells_copies_from_other_images(target: FeatureSet, tmp_path: Path) -> None:
    measured = threshold.calibrate(target)
    assert measured.views == "views.rrc50-2"
    assert measured.copies is not None
    assert measured.cosine == max(measured.copies, measured.others)
    assert measured.found is not None
    assert measured.found >= 0.9
    without = threshold.calibrate(target_in(tmp_path, with_views=False))
    assert (without.views, without.copies, without.found) == ("", None, None)
    assert without.cosine == without.others == measured.others


def test_texts_of_two_classes_choose_none() -> None:
    rows = torch.nn.functional.normalize(torch.eye(D)[[0, 1, 1, 2, 1]])
    owner = torch.tensor([0, 0, 1, 1, 2])
    kept = _of_one_class(rows, owner)
    assert kept.tolist() == [True, False, False, True, True]  # the last class has no other text


def test_vectors_of_the_data_set_itself_have_its_rows(target: FeatureSet, wild: FeatureSet) -> None:
    unused = Origin(features=target, splits=("train",))
    build_corpus("both", target, [wild, unused], k=12)
    corpus = read_corpus(target, "both")
    assert corpus.own_rows is not None
    assert corpus.places is not None
    is_own = corpus.places.source == 1
    assert is_own.any()
    assert corpus.own_rows[is_own].tolist() == corpus.places.row[is_own].tolist()
    assert set(corpus.own_rows[~is_own].tolist()) == {-1}


def test_every_near_duplicate_is_found_where_all_are(tmp_path: Path, target: FeatureSet) -> None:
    values = views_of(target.rows("global", target.listing.rows("test")).numpy(), noise=0.01)[:, 0]
    n = len(values)
    copies = make_cache(tmp_path, "copies", values, np.full(n, -1), {"train": range(n)})
    with pytest.raises(TaskError, match="near-duplicate"):
        build_corpus("x", target, [copies], k=5)


def test_progress_is_told(target: FeatureSet, wild: FeatureSet) -> None:
    steps: list[tuple[str, int, int]] = []
    build_corpus("told", target, [wild], k=5, progress=lambda *step: steps.append(step))
    assert steps[-1] == ("searching", steps[-1][2], steps[-1][2])

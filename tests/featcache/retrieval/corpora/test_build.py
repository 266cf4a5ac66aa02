"""Corpora of random caches: equal to brute force, without duplicates, and wrong input refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import (
    CacheError,
    CorruptCacheError,
    MissingComponentError,
    TaskError,
    UnknownNameError,
    UsageError,
)
from featcache.retrieval import vectors as module
from featcache.retrieval.corpora import threshold
from featcache.retrieval.corpora.anchors import _of_one_class
from featcache.retrieval.corpora.build import build_corpus
from featcache.retrieval.corpora.claims import LISTED
from featcache.retrieval.corpora.find import describe_corpus
from featcache.retrieval.corpora.origins import Origin, open_origins
from featcache.retrieval.corpora.read import read_corpus
from featcache.store.cache import Cache
from featcache.store.corpora import corpus_names, read_record
from featcache.store.repair.verify import verify
from featcache.types import FeatureSet
from tests.featcache.retrieval.corpora.worlds import (
    CLASSES,
    KEY,
    D,
    bank,
    hashed,
    make_cache,
    near_centres,
    target_in,
    views_of,
    wild_in,
)

K = 20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="module")
def target(root: Path) -> FeatureSet:
    return target_in(root)


@pytest.fixture(scope="module")
def wild(root: Path, target: FeatureSet) -> FeatureSet:
    """Images like those of the target, with some of its query images among them."""
    n = 300
    values, labels = near_centres(12, n, noise=1.2)
    hashes = hashed("wild", n)
    test = target.listing.rows("test")
    values[:5] = target.rows("global", test[:5]).numpy()  # the same files
    hashes[:5] = [target.listing.hashes[r] for r in test[:5]]
    values[5:10] = views_of(target.rows("global", test[5:10]).numpy())[:, 0]  # edited copies
    hashes[11] = hashes[10]  # twice the same file
    patches = np.random.default_rng(3).normal(size=(n, 4, D)).astype(np.float16)
    return make_cache(
        root, "wild", values, np.full_like(labels, -1), {"train": range(n)},
        hashes=hashes, more={"patches.clearclip": patches},
    )  # fmt: skip


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


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"by": "clas"}, UnknownNameError, "class"),
        ({"of": "patch"}, UnknownNameError, "patches"),
        ({"of": "crops"}, MissingComponentError, "no crops"),
        ({"recipe": "rrc50"}, UsageError, "recipe"),
        ({"k": 0}, UsageError, "at least 1"),
        ({"k": 295}, UsageError, "more than the 294"),
        ({"min_cosine": float("nan")}, UsageError, "min_cosine"),
        ({"margin": -1.0}, UsageError, "margin"),
        ({"text": "cupl"}, MissingComponentError, "no texts of kind 'cupl'"),
        ({"text": "nobody"}, UnknownNameError, "nobody"),
        ({"by": "image", "text": "name"}, UsageError, "no effect"),
        ({"by": "image", "seeds": ()}, UsageError, "one seed"),
        ({"by": "image", "shots": 0}, UsageError, "at least 1"),
        ({"name": "../x"}, UsageError, "name of a corpus"),
    ],
)
def test_wrong_arguments_are_refused(
    target: FeatureSet, wild: FeatureSet, options: Any, error: Any, says: str
) -> None:
    before = corpus_names(target.path)
    with pytest.raises(error, match=says):
        build_corpus(**{"name": "wrong", "target": target, "sources": [wild], "k": 5, **options})
    assert corpus_names(target.path) == before


def test_classes_without_texts_or_images_are_refused(tmp_path: Path, wild: FeatureSet) -> None:
    values, labels = near_centres(1, 20)
    labels[labels == 2] = 0
    splits = {"train": range(10), "test": range(10, 20)}
    bare = make_cache(tmp_path / "a", "bare", values, labels, splits)
    with pytest.raises(MissingComponentError, match=r"no texts.*by='image'"):
        build_corpus("x", bare, [wild], k=5)
    with pytest.raises(TaskError, match=r"cat.*by='class'"):
        build_corpus("x", bare, [wild], by="image", k=5)
    texts = bank()
    assert texts.owner is not None
    object.__setattr__(texts, "owner", torch.tensor([0, 1, 1, 1]))
    lacking = make_cache(tmp_path / "b", "bare", values, labels, splits, texts=texts)
    with pytest.raises(MissingComponentError, match=r"cat without any"):
        build_corpus("x", lacking, [wild], by="anchor", k=5)


def test_another_feature_key_is_refused(tmp_path: Path, target: FeatureSet) -> None:
    other = wild_in(tmp_path, key=replace(KEY, weights="1" * 64))
    with pytest.raises(CacheError, match="one key"):
        build_corpus("x", target, [other], k=5)


def test_a_damaged_source_is_told_and_nothing_is_stored(tmp_path: Path, target: FeatureSet) -> None:
    cache = Cache.open(wild_in(tmp_path).path)
    (line,) = cache.shards["global"]
    path = cache.path / "global" / line.file
    data = bytearray(path.read_bytes())
    data[line.facts.offset + 100] ^= 1
    path.write_bytes(data)
    damaged = Cache.open(cache.path).feature_set()
    with pytest.raises(CorruptCacheError, match=path.name):
        build_corpus("x", target, [damaged], k=5)
    assert "x" not in corpus_names(target.path)


def test_an_unlabelled_split_holds_no_query_images(tmp_path: Path) -> None:
    values, labels = near_centres(11, 60)
    labels[40:] = -1
    splits = {"train": range(20), "test": range(20, 40), "more": range(40, 60)}
    target = make_cache(tmp_path, "toys", values, labels, splits, texts=bank())
    report = build_corpus("x", target, [Origin(features=target, splits=("more",))], k=4)
    assert not report.leaks
    assert report.facts["equal_images"] == 0


def test_query_images_without_features_are_told(tmp_path: Path, wild: FeatureSet) -> None:
    splits = {"train": range(20), "test": range(20, 60)}
    part = make_cache(tmp_path, "toys", *near_centres(11, 60), splits, texts=bank(), limit=50)
    with pytest.raises(MissingComponentError, match=r"10 of 40 query.*featcache.extract"):
        build_corpus("x", part, [wild], k=4)


def test_sources_are_named(root: Path, target: FeatureSet, wild: FeatureSet) -> None:
    whole, part = open_origins(root, ["wild", "toys:train", "toys:val"], target)
    assert (whole.features.path, whole.splits) == (wild.path, ())
    assert part.splits == ("train", "val")
    assert part.guarded(target) == ("val",)
    with pytest.raises(UsageError, match="NAME:SPLIT"):
        open_origins(root, [":train"], target)
    with pytest.raises(UsageError, match="no data set"):
        open_origins(root, [], target)
    with pytest.raises(UnknownNameError, match="wild"):
        open_origins(root, ["wlid"], target)
    other = replace(target, key=replace(KEY, weights="1" * 64))
    with pytest.raises(CacheError, match=r"one key.*featcache.extract\(dataset='wild'"):
        open_origins(root, ["wild"], other)


def test_a_corpus_that_no_longer_fits_is_refused(tmp_path: Path, wild: FeatureSet) -> None:
    target = target_in(tmp_path)
    build_corpus("old", target, [wild], k=5)
    cache = Cache.open(target.path)
    listing = cache.listing()
    assert listing is not None
    cache.put_listing(replace(listing, classes=("ant", "cat", "bee")))
    with pytest.raises(
        CacheError, match=r"classes of toys have changed.*`featcache corpus build --again`"
    ):
        read_corpus(target.path, "old")
    rows = listing.splits["train"]
    cache.put_listing(replace(listing, splits={**listing.splits, "more": rows[:2]}))
    with pytest.raises(CacheError, match="query or validation images"):
        read_corpus(target.path, "old")


def test_a_corpus_by_image_is_refused_where_the_labels_of_its_shots_are_others(
    tmp_path: Path, wild: FeatureSet
) -> None:
    target = target_in(tmp_path)
    build_corpus("shots", target, [wild], by="image", shots=2, k=5)
    build_corpus("texts", target, [wild], k=5)
    listing = target.listing
    labels = listing.labels.copy()
    labels[listing.splits["train"]] = (labels[listing.splits["train"]] + 1) % len(CLASSES)
    Cache.open(target.path).put_listing(replace(listing, labels=labels))
    with pytest.raises(CacheError, match="labels have changed since the corpus 'shots'"):
        read_corpus(target.path, "shots")
    assert read_corpus(target.path, "texts").by == "class"  # reads no labels


def test_texts_that_changed_since_are_told(tmp_path: Path, wild: FeatureSet) -> None:
    target = target_in(tmp_path)
    build_corpus("words", target, [wild], k=5)
    root = wild.path.parent.parent
    told = "the texts of toys that chose its rows have changed"
    assert told not in describe_corpus(root, target.path, "words").changes
    other = bank()
    Cache.open(target.path).put_text(replace(other, templates=("one {}",)), {"featcache": "0"})
    assert told in describe_corpus(root, target.path, "words").changes
    assert read_corpus(target.path, "words").by == "class"


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

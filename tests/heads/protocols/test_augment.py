"""Corpus rows in a run: joined to the support by the rule, never judged by, refused where wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from featcache.errors import CacheError, FeatcacheError, TaskError, UsageError
from featcache.types import FeatureSet
from heads.contract.rows import TaskView
from heads.episode import Episode
from heads.protocols import training
from heads.protocols.builder import EpisodeBuilder
from heads.protocols.plan import Plan, Request
from heads.protocols.sweep import request_of
from heads.results.compare import compare as comparison
from heads.results.reading import from_json
from heads.results.record import CorpusUse, Result
from heads.selection.folds import folds
from tests.heads.corpora import corpus_of, give

WILD = "corpus:wild"
COUNTS = {"train": 6, "val": 4, "test": 8}
STRONG: dict[str, dict[str, Any]] = {"tip-adapter": {"alpha": 20}, "proker": {"variant": "paper"}}
"""Settings at which the support outweighs the texts."""
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def features(world: Callable[..., FeatureSet]) -> FeatureSet:
    return world(counts=COUNTS)


@pytest.fixture
def given(features: FeatureSet, monkeypatch: Patch) -> FeatureSet:
    """Return the features, with a corpus for them."""
    give(monkeypatch, corpus_of(features))
    return features


def plan(features: FeatureSet, method: str = "tip-adapter", **wanted: Any) -> Plan:
    asked: dict[str, Any] = {"shots": 2, "seeds": (1,), "augment": WILD} | wanted
    return training.plan(Request(method=method, features=features, **asked))


def run(features: FeatureSet, method: str = "tip-adapter", **wanted: Any) -> Result:
    wanted = {"shots": 2, "seeds": (1,), "augment": WILD} | wanted
    return training.run(method, features=features, **wanted)


def episode(made: Plan) -> Episode:
    assert made.run.augmented is not None
    (one,) = made.episodes(
        EpisodeBuilder(
            features=made.run.features,
            needs=made.run.needs,
            device=torch.device("cpu"),
            splits={"test": made.run.features.usable("test")},
            class_weights=made.class_weights,
            retrieved=made.run.augmented.retrieved,
        )
    )
    return one


def view(made: Plan) -> TaskView:
    return episode(made).view


def test_corpus_rows_follow_the_shots(given: FeatureSet) -> None:
    corpus, joined = corpus_of(given), view(plan(given))
    support = joined.support
    assert (len(support), joined.retrieved) == (10 + 30, 30)
    assert joined.corpus is None
    torch.testing.assert_close(support.x[10:], corpus.rows)
    assert torch.equal(support.y[10:], corpus.labels)
    assert support.norms[10:].tolist() == [9.0] * 30
    assert support.weights is None
    weighed = view(plan(given, augment=f"{WILD}:weight=0.3")).support
    assert weighed.weights is not None
    torch.testing.assert_close(weighed.weights, torch.tensor([1.0] * 10 + [0.3] * 30))


def test_rows_of_a_corpus_have_weights_of_their_own(
    features: FeatureSet, monkeypatch: Patch
) -> None:
    give(monkeypatch, corpus_of(features, weights=torch.linspace(0.1, 1, 30)))
    weights = view(plan(features, augment=f"{WILD}:weight=0.5")).support.weights
    assert weights is not None
    torch.testing.assert_close(weights[10:], torch.linspace(0.05, 0.5, 30))


def test_class_weights_move_weight_between_classes(given: FeatureSet) -> None:
    made = plan(given, "ridge", augment=f"{WILD}:weight=0.5", class_weights="balanced")
    support = view(made).support
    assert support.weights is not None
    each = torch.zeros(5).index_add_(0, support.y, support.weights)
    torch.testing.assert_close(each, each.mean().expand(5))
    assert float(support.weights.sum()) == pytest.approx(10 + 0.5 * 30, rel=1e-5)
    ignored = plan(given, "tip-adapter", class_weights="balanced")
    assert view(ignored).support.weights is None


def test_shots_and_validation_images_are_no_corpus_rows(
    features: FeatureSet, monkeypatch: Patch
) -> None:
    give(monkeypatch, corpus_of(features, noise=0.0))  # every row is an image of train
    one = episode(plan(features))
    assert one.view.retrieved == 30 - 10
    assert (
        one.notes[-1] == "Seed 1: 10 rows of corpus 'wild' left out, as shots or validation images."
    )
    val = features.unit("global", features.usable("val"))
    mixed = torch.cat([val, corpus_of(features).rows[:10]])
    give(monkeypatch, corpus_of(features, rows=mixed))
    assert episode(plan(features, "tip-adapter")).view.retrieved == 30 - 10  # 2 a class of val
    give(monkeypatch, corpus_of(features, noise=0.0))
    with pytest.raises(TaskError, match="All 30 rows of corpus 'wild' are shots"):
        episode(plan(features, shots=6))


def test_a_corpus_with_queries_is_refused_or_marked(
    features: FeatureSet, monkeypatch: Patch
) -> None:
    rows = corpus_of(features).rows.clone()
    rows[3:5] = features.unit("global", features.usable("test"))[:2]
    give(monkeypatch, corpus_of(features, rows=rows))
    with pytest.raises(
        TaskError, match=r"2 rows of corpus 'wild' are from images of the queries.*'test'"
    ):
        plan(features)
    give(monkeypatch, corpus_of(features, rows=rows, leaks=True))
    leaking, fair = run(features), run(features, augment=None)
    assert leaking.marks == ("augmented", "leaking corpus")
    assert any("no measure, not ranked" in note for note in leaking.notes)
    (group,) = comparison.group([leaking, fair])
    assert [row.method for row in group.rows] == ["tip-adapter", "tip-adapter"]
    assert [row.leaks for row in group.rows] == [False, True]
    assert [row.word is None for row in group.rows] == [False, True]


def test_parts_of_shots_validation_images_and_queries_are_known_by_their_image(
    features: FeatureSet, monkeypatch: Patch
) -> None:
    made = plan(features, augment=None, shots=2)
    (shots, _) = made.learned_rows[0]
    val = features.usable("val")
    images = torch.full((30,), -1)
    images[:3] = torch.from_numpy(shots[:3].astype("int64"))
    images[3:23] = torch.from_numpy(val)
    give(monkeypatch, corpus_of(features, own_rows=images))
    one = episode(plan(features))
    assert one.view.retrieved == 30 - 3 - len(one.val_index)
    images[29] = int(features.usable("test")[0])
    give(monkeypatch, corpus_of(features, own_rows=images))
    with pytest.raises(TaskError, match="1 row of corpus 'wild' is from images of the queries"):
        plan(features)
    own = torch.from_numpy(features.usable("train"))
    give(monkeypatch, corpus_of(features, own_rows=own))
    with pytest.raises(TaskError, match="30 rows of corpus 'wild' are from images of the queries"):
        plan(features, shots=0, splits=("train",))


def test_labels_that_chose_a_corpus_are_noted(features: FeatureSet, monkeypatch: Patch) -> None:
    facts = {"shots": 16, "seeds": [1, 2]}
    give(monkeypatch, corpus_of(features, by="image", facts=facts))
    noted = "chosen by labelled images (16 a class, seeds 1, 2)"
    assert any(noted in note for note in run(features).notes)
    give(monkeypatch, corpus_of(features))
    assert not any("labelled images (" in note for note in run(features).notes)


def test_other_texts_than_those_that_chose_a_corpus_are_noted(
    features: FeatureSet, monkeypatch: Patch
) -> None:
    assert features.text is not None
    kind = features.text.default
    noted = "chosen by other texts"
    for digest, is_noted in ((features.text.digest(kind), False), ("0" * 12, True)):
        give(monkeypatch, corpus_of(features, facts={"text": kind, "text_digest": digest}))
        assert any(noted in note for note in run(features).notes) is is_noted


def test_folds_judge_by_labelled_images_alone(given: FeatureSet) -> None:
    joined = view(plan(given, "ridge", augment=f"{WILD}:weight=0.3", shots=4))
    views, held_out = folds(joined)
    labelled, corpus = joined.support.x[:20], joined.support.x[20:]
    assert sum(map(len, held_out)) == 20
    for one, out in zip(views, held_out, strict=True):
        assert torch.equal(one.support.x[-30:], corpus)
        assert one.retrieved == 30
        assert all(_is_among(row, labelled) for row in out.x)
        assert one.support.weights is not None
        assert one.support.weights[-1] == pytest.approx(0.3)
        assert one.support.weights[0] == 1.0
    result = run(given, "ridge", shots=4, selection="cv")
    assert result.selection == "cv"


def _is_among(row: Tensor, rows: Tensor) -> bool:
    return bool((rows == row).all(1).any())


def test_little_weight_is_no_corpus(features: FeatureSet, monkeypatch: Patch) -> None:
    give(monkeypatch, corpus_of(features, wrong=1))  # every label is wrong
    for method in ("tip-adapter", "gda", "proker", "ridge", "nearest-mean"):
        settings = STRONG.get(method, {})
        plain, light, full = (
            run(features, method, augment=asked, selection="none", settings=settings).predictions
            for asked in (None, f"{WILD}:weight=1e-6", WILD)
        )
        assert plain is not None
        assert light is not None
        assert full is not None
        assert (light.predicted == plain.predicted).mean() > 0.95, method
        assert (full.predicted == plain.predicted).mean() < 0.95, method


def test_the_record_says_so_and_reads_back(given: FeatureSet) -> None:
    result = run(given, augment=f"{WILD}:weight=0.3")
    use = CorpusUse(name="wild", digest="0123456789ab", rows=30, weight=0.3)
    assert result.corpus == use
    assert result.variant == "augment=corpus:wild:weight=0.3"
    assert result.config["augment"] == "corpus:wild:weight=0.3"
    assert result.marks == ("augmented",)
    assert result.reads == ("corpus",)
    assert result.support is not None
    assert result.support.largest == 2
    assert from_json(result.to_json()) == result
    assert run(given, augment=None).corpus is None


def test_tables_tell_runs_apart(features: FeatureSet, monkeypatch: Patch) -> None:
    plain = run(features, augment=None)
    give(monkeypatch, corpus_of(features))
    one, light = run(features), run(features, augment=f"{WILD}:weight=0.3")
    give(monkeypatch, corpus_of(features, digest="ba9876543210", wrong=3))
    other = run(features)
    (group,) = comparison.group([one, light, other, plain], against="tip-adapter")
    names = [row.name for row in group.rows]
    assert names[0] == "tip-adapter"
    assert set(names[1:]) == {
        "tip-adapter [augment=corpus:wild] (augmented, corpus:wild@0123456789ab)",
        "tip-adapter [augment=corpus:wild] (augmented, corpus:wild@ba9876543210)",
        "tip-adapter [augment=corpus:wild:weight=0.3] (augmented)",
    }
    assert all(row.gain is not None for row in group.rows[1:])


def test_specs_depend_on_corpus_and_weight(features: FeatureSet, monkeypatch: Patch) -> None:
    plain = plan(features, augment=None).spec("test")
    assert "augment" not in plain.fit.as_dict()
    specs = {plain.digest()}
    for digest in ("0123456789ab", "ba9876543210"):
        give(monkeypatch, corpus_of(features, digest=digest))
        for asked in (WILD, f"{WILD}:weight=0.3"):
            spec = plan(features, augment=asked).spec("test")
            specs.add(spec.digest())
            cache = {(spec.fit.dataset, spec.fit.key): features}
            assert training.plan(request_of(spec, None, cache)).spec("test") == spec
    assert len(specs) == 5


@pytest.mark.parametrize("method", ["knn", "ape", "transclip"])
def test_methods_that_read_no_weights_take_corpora_at_full_weight(
    method: str, given: FeatureSet
) -> None:
    assert run(given, method).marks[-1] == "augmented"
    with pytest.raises(UsageError, match=rf"'{method}' counts every row.*cannot weigh 0\.3"):
        plan(given, method, augment=f"{WILD}:weight=0.3")


def test_weights_of_rows_are_not_dropped(features: FeatureSet, monkeypatch: Patch) -> None:
    give(monkeypatch, corpus_of(features, weights=torch.linspace(0.1, 1, 30)))
    with pytest.raises(UsageError, match=r"weighs its rows from 0\.1 to 1, and method 'knn'"):
        plan(features, "knn")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("cc-cdfsl", "'cc-cdfsl' needs patches and view-patches of recipe cdfsl.*only global"),
        ("dac", "'dac' needs views of recipe rrc50 with 2 or more of its training images"),
        ("zero-shot", "'zero-shot' reads no labelled training images"),
        ("fair", "'fair' reads no labelled training images"),
    ],
)
def test_methods_that_cannot_learn_from_a_corpus(
    method: str, message: str, given: FeatureSet
) -> None:
    settings = {"affinity": "view-disjoint"} if method == "dac" else {}
    with pytest.raises(UsageError, match=message):
        plan(given, method, settings=settings)


def test_optional_views_are_left_out_and_said(
    world: Callable[..., FeatureSet], monkeypatch: Patch
) -> None:
    features = world(counts=COUNTS, views=3)
    give(monkeypatch, corpus_of(features))
    result = run(features)
    assert "Trained without views: corpus rows have none." in result.notes
    assert result.reads == ("corpus",)
    assert run(features, augment=None).reads == ("support views.rrc50",)


@pytest.mark.parametrize("method", ["tip-adapter", "tip-adapter-f", "ridge", "proker", "sus-x"])
def test_a_corpus_alone(method: str, given: FeatureSet) -> None:
    result = run(given, method, shots=0, seeds=(1, 2))
    assert (result.shots, result.seeds, result.protocol) == (0, (1,), "corpus_only")
    assert result.support is None
    assert result.selection == "few-shot-val"
    assert result.metrics["top1"].mean > 0.5
    with pytest.raises(UsageError, match="a corpus has pseudo-labels"):
        plan(given, "ridge", shots=0, selection="cv")
    whole = plan(given, "ridge", shots=0, selection="full-val")
    assert episode(whole).val_index.tolist() == given.usable("val").tolist()


def test_methods_with_a_role_for_the_corpus(given: FeatureSet) -> None:
    both = view(plan(given, "neural-priming", shots=2))
    assert both.corpus is not None
    assert (len(both.support), both.retrieved, len(both.corpus)) == (10, 0, 30)
    assert run(given, "neural-priming").protocol == "few_shot"
    alone = view(plan(given, "neural-priming", shots=0))
    assert len(alone.support) == 0
    assert run(given, "sus-x", shots=16).shots == 0
    for method in ("sus-x", "neural-priming"):
        with pytest.raises(UsageError, match=r"learns from a corpus\. Name one with augment"):
            plan(given, method, augment=None)


def test_no_validation_images(world: Callable[..., FeatureSet], monkeypatch: Patch) -> None:
    features = world(counts={"train": 6, "test": 8})
    give(monkeypatch, corpus_of(features))
    result = run(features, "sus-x")
    assert result.selection == "none"
    assert any("default hyper-parameters" in note for note in result.notes)
    with pytest.raises(TaskError, match="has no labelled val images"):
        plan(features, "sus-x", selection="full-val")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rows": torch.zeros(30, 7)}, CacheError, "has rows of width 7, the cache of toy 16"),
        ({"labels": torch.full((30,), 5)}, CacheError, "classes from 5 to 5, and toy has"),
        ({"labels": torch.full((30,), -1)}, CacheError, "classes from -1 to -1"),
        ({"weights": torch.zeros(30)}, CacheError, "weights that are not above 0"),
        ({"weights": torch.full((30,), torch.nan)}, CacheError, "weights that are not above 0"),
    ],
)
def test_a_corpus_that_does_not_fit(
    change: dict[str, Any],
    error: type[FeatcacheError],
    message: str,
    features: FeatureSet,
    monkeypatch: Patch,
) -> None:
    give(monkeypatch, corpus_of(features, **change))
    with pytest.raises(error, match=message):
        plan(features)


def test_a_corpus_without_rows_or_of_one_class(features: FeatureSet, monkeypatch: Patch) -> None:
    whole = corpus_of(features)
    none: dict[str, Any] = {
        n: getattr(whole, n)[:0] for n in ("rows", "norms", "labels", "weights", "cosines")
    }
    give(monkeypatch, replace(whole, **none))
    with pytest.raises(TaskError, match="has no rows"):
        plan(features)
    give(monkeypatch, corpus_of(features, labels=torch.zeros(30, dtype=torch.int64)))
    with pytest.raises(TaskError, match="has rows of one class"):
        plan(features, shots=0)
    made = plan(features)
    assert any("no row of 4 classes: class 1, class 2" in note for note in made.run.notes)

"""Batches of few classes and streams: the draws, the list on disk, the answers, tables."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import ImportedFileError, TaskError, UnknownNameError, UsageError
from featcache.types import FeatureSet
from heads.contract.rows import Rows
from heads.methods import stata, tda, transclip
from heads.protocols import online, order_draws
from heads.protocols import orders as lists
from heads.protocols.orders import Orders
from heads.results import store
from heads.results.compare import compare as comparison
from heads.results.metrics import TAIL, evaluate, tail
from heads.results.reading import from_json
from heads.results.record import Predictions, Result
from heads.results.render.markdown import to_markdown
from tests.heads.conftest import make_world
from tests.heads.toy_tasks import make_task

World = Callable[..., FeatureSet]
COUNTS: dict[str, Any] = {"train": 2, "val": 2, "test": (3, 9, 5, 7, 6)}
SMALL: dict[str, Any] = {"protocol": "batches", "batch": 8, "repeats": 12}
STREAM: dict[str, Any] = {"protocol": "stream", "batch": 8, "repeats": 11}
ZERO = {"mode": "zero-shot"}


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    return make_world(counts=COUNTS)


@pytest.fixture(scope="module")
def shared() -> Callable[[str], Path]:
    """Return a finder of measurement data; it skips the test where there are none."""

    def find(name: str) -> Path:
        path = Path(__file__).parents[4] / "shared" / "data" / name
        if not path.exists():
            pytest.skip(f"{path} is not on this machine")
        return path

    return find


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the mixtures: the protocols do not depend on them."""
    for mixture in (transclip, stata):
        monkeypatch.setattr(mixture, "ROUNDS", 1)
        monkeypatch.setattr(mixture, "SWEEPS", 1)


def changed(result: Result) -> Predictions:
    assert result.predictions is not None
    return result.predictions


def batches(features: FeatureSet, **more: Any) -> Orders:
    given = {"batch": 8, "effective_classes": (1, 3), "repeats": 20, "seed": 1, **more}
    return order_draws.draw_batches(features, "test", **given)


def streams(features: FeatureSet, **more: Any) -> Orders:
    given = {"batch": 8, "correlation": 0.01, "repeats": 4, "seed": 1, **more}
    return order_draws.draw_streams(features, "test", **given)


def same(one: Orders, other: Orders) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one.rows, other.rows, strict=True))


def test_batches_hold_few_classes_and_are_smaller_where_these_are(features: FeatureSet) -> None:
    drawn = batches(features)
    sizes = [len(rows) for rows in drawn.rows]
    assert min(sizes) < 8
    assert max(sizes) == drawn.longest == 8
    test = set(features.usable("test").tolist())
    for rows in drawn.rows:
        assert len(np.unique(features.labels[rows])) <= 3
        assert len(set(rows.tolist())) == len(rows)
        assert set(rows.tolist()) <= test
    assert same(batches(features, repeats=7), replace(drawn, rows=drawn.rows[:7]))
    assert not same(batches(features, seed=2), drawn)


def test_more_classes_than_there_are_is_all(features: FeatureSet) -> None:
    drawn = batches(features, effective_classes=(9, 9), batch=99)
    assert {len(rows) for rows in drawn.rows} == {30}


@pytest.mark.parametrize("name", ["caltech50", "imagenet256"])
@pytest.mark.parametrize("classes", [(1, 4), (2, 10), (5, 25)])
def test_batches_are_those_of_the_released_code(
    name: str, classes: tuple[int, int], shared: Callable[[str], Path], world: World
) -> None:
    with np.load(shared(f"features/{name}_vitb32.npz")) as file:
        labels = file["test_labels"]
    expected = np.load(shared(f"golden/stata_{name}_batch{classes[0]}-{classes[1]}.npz"))["indices"]
    made = world(counts={"test": 1}, classes=len(labels))
    at = replace(made, listing=replace(made.listing, labels=labels.astype(np.int64)))
    drawn = batches(at, batch=64, effective_classes=classes, repeats=1)
    assert drawn.rows[0].tolist() == expected.tolist()


def test_correlated_streams_meet_their_classes_in_runs(features: FeatureSet) -> None:
    def changes(correlation: float | str) -> float:
        drawn = streams(features, correlation=correlation, repeats=40)
        labels = [features.labels[rows] for rows in drawn.rows]
        return float(np.mean([len(np.unique(y[i : i + 8])) for y in labels for i in (0, 8, 16)]))

    assert changes("separate") < changes(0.001) < changes(100.0) <= changes("none") + 0.2


@pytest.mark.parametrize("correlation", [0.001, 0.01, 5.0, "separate"])
def test_streams_hold_every_image_once_but_an_incomplete_last_batch(
    features: FeatureSet, correlation: float | str
) -> None:
    drawn = streams(features, correlation=correlation)
    test = set(features.usable("test").tolist())
    for rows in drawn.rows:
        assert len(rows) == 24
        assert len(set(rows.tolist())) == 24
        assert set(rows.tolist()) <= test
    assert same(
        streams(features, correlation=correlation, repeats=2), replace(drawn, rows=drawn.rows[:2])
    )
    assert not same(streams(features, correlation=correlation, seed=2), drawn)


def test_random_orders_are_those_of_the_released_code(features: FeatureSet) -> None:
    drawn = streams(features, correlation="none", repeats=3)
    test = features.usable("test")
    for rows, seed in zip(drawn.rows, (437144, 940288, 669800), strict=True):
        order = np.random.default_rng(seed).choice(range(30), 30, replace=False)
        assert rows.tolist() == test[order].tolist()
    assert drawn.batches(0)[-1] == slice(24, 30)


def test_slots_follow_the_specification(features: FeatureSet) -> None:
    """The definition written out, slot by slot."""
    rng = np.random.default_rng([1, 0])
    test, slots = features.usable("test"), 30 // 8
    collected: list[list[int]] = [[] for _ in range(slots)]
    for k in range(5):
        rows = [int(r) for r in test if features.labels[r] == k]
        shares = rng.dirichlet([0.5] * slots)
        ends = [int(sum(shares[: s + 1]) * len(rows)) for s in range(slots - 1)] + [len(rows)]
        for s, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            collected[s] += rows[start:end]
    expected = [int(r) for slot in collected for r in rng.permutation(slot)][:24]
    assert streams(features, correlation=0.5).rows[0].tolist() == expected


def test_a_list_survives_the_disk(features: FeatureSet, tmp_path: Path) -> None:
    for drawn in (batches(features), streams(features)):
        path = tmp_path / lists.FILE
        path.write_text(drawn.to_json(features.listing))
        again = lists.read(path, features)
        assert same(again, drawn)
        assert again.digest(features.listing) == drawn.digest(features.listing)
        assert again.stated == drawn.stated


@pytest.mark.parametrize("turn", ["byte", "no seal", "another data set", "lost image", "newer"])
def test_lists_that_do_not_fit_are_refused(features: FeatureSet, tmp_path: Path, turn: str) -> None:
    path, at = tmp_path / lists.FILE, features
    text = batches(features).to_json(features.listing)
    if turn == "byte":
        text = text.replace('"batch":8', '"batch":9')
    elif turn == "no seal":
        text = "{}"
    elif turn == "newer":
        text = "not json"
    elif turn == "another data set":
        at = replace(features, listing=replace(features.listing, dataset="other"))
    else:
        splits = {**features.listing.splits, "test": features.listing.splits["test"][:4]}
        at = replace(features, listing=replace(features.listing, splits=splits))
    path.write_text(text)
    with pytest.raises(ImportedFileError, match=r"orders\.json"):
        lists.read(path, at)


@pytest.mark.parametrize(
    "orders", [[[0, 0]], [[9999]], [[-1]], [[]], [["a"]], "x", [[0], [0.5]], [[[0]]]]
)
def test_hostile_positions_are_refused(features: FeatureSet, tmp_path: Path, orders: Any) -> None:
    from featcache.store.format.seal import seal, unseal

    raw, _ = unseal(batches(features).to_json(features.listing).removesuffix("\n").encode())
    path = tmp_path / lists.FILE
    path.write_bytes(seal({**raw, "orders": orders})[0])
    with pytest.raises(ImportedFileError, match=r"orders\.json"):
        lists.read(path, features)


def test_each_batch_is_answered_by_itself(features: FeatureSet) -> None:
    result = online.run("transclip", features=features, settings=ZERO, **SMALL)
    answers = result.predictions
    assert answers is not None
    assert answers.images is not None
    drawn = batches(features, effective_classes=(1, 4), repeats=12)
    config = transclip.Config(mode="zero-shot")
    task = make_task(features, transclip.METHOD, config).view
    hyper = transclip.Hyper()
    for r, rows in enumerate(drawn.rows):
        x = features.unit_and_length("global", rows)[0]
        params, fixed = transclip.prepare(task, config, hyper)
        terms = transclip.terms(params, fixed, Rows.of(x), config, hyper)
        expected = transclip.combine(terms, fixed, config, hyper).argmax(-1)
        assert answers.predicted[r, : len(rows)].tolist() == expected.tolist()
        assert (answers.predicted[r, len(rows) :] == -1).all()
        assert [answers.ids[i] for i in answers.images[r, : len(rows)]] == [
            features.listing.ids[row] for row in rows
        ]


def test_accuracy_is_the_mean_over_batches(features: FeatureSet) -> None:
    result = online.run("zero-shot", features=features, **SMALL)
    answers = result.predictions
    assert answers is not None
    each = [
        float(np.mean([p == y for p, y in zip(*rows, strict=True) if y >= 0]))
        for rows in zip(answers.predicted, answers.labels, strict=True)
    ]
    top1 = result.metrics["top1"]
    assert top1.values == pytest.approx(each)
    assert top1.mean == pytest.approx(np.mean(each))
    assert top1.interval == "batches"
    assert result.zero_shot_top1 == pytest.approx(np.mean(each))
    assert TAIL not in result.metrics


def test_padding_changes_no_metric() -> None:
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 3, (2, 4, 9)).astype(np.int32)
    wide = [np.pad(a, ((0, 0), (0, 2)), constant_values=-1) for a in (p, y)]
    plain = evaluate(Predictions(predicted=p, labels=y), 3, "batches")
    padded = evaluate(Predictions(predicted=wide[0], labels=wide[1]), 3, "batches")
    assert plain == padded


def test_the_tail_is_the_worst_tenth(features: FeatureSet) -> None:
    result = online.run("transclip", features=features, settings=ZERO, **STREAM)
    values = sorted(result.metrics["top1"].values)
    assert len(values) == 11
    assert result.metrics[TAIL].mean == pytest.approx((values[0] + values[1]) / 2)
    assert tail(np.array([0.5])) == 0.5


def test_a_stream_of_a_method_without_memory_is_its_batches(features: FeatureSet) -> None:
    result = online.run("zero-shot", features=features, **STREAM)
    assert len(set(result.metrics["top1"].values)) > 1  # the dropped rows differ
    answers = result.predictions
    assert answers is not None
    assert (answers.predicted == answers.zero_shot).all()


@pytest.mark.parametrize("name", ["dmn", "oga", "stata", "tda", "transclip"])
@pytest.mark.parametrize("how", [SMALL, STREAM], ids=["batches", "stream"])
def test_labels_are_out_of_reach(
    features: FeatureSet, tmp_path: Path, name: str, how: dict[str, Any]
) -> None:
    """The same list with other labels: not one answer moves, and every figure does."""
    given: dict[str, Any] = {"settings": ZERO if name == "transclip" else {}}
    one = online.run(name, features=features, **given, **{**how, "repeats": 3})
    path = tmp_path / lists.FILE
    path.write_bytes(one.beside[lists.FILE])
    labels = np.where(features.labels < 0, -1, (features.labels + 1) % 5)
    turned = replace(features, listing=replace(features.listing, labels=labels))
    given |= {"protocol": how["protocol"], "order_list": path}
    other = online.run(name, features=turned, **given)
    assert np.array_equal(changed(one).predicted, changed(other).predicted)
    assert one.ids != other.ids  # the digest covers the labels
    assert one.metrics["top1"].values != other.metrics["top1"].values


def test_an_online_method_walks_through_a_whole_stream_and_starts_anew(
    features: FeatureSet,
) -> None:
    settings = {"update": "after"}
    result = online.run("tda", features=features, settings=settings, **STREAM)
    answers = changed(result)
    drawn = streams(features, repeats=11)
    task = make_task(features, tda.METHOD).view
    config, hyper = tda.Config(update="after"), tda.Hyper()
    params, fixed = tda.prepare(task, config, hyper)
    by_batch = []
    for row, order in zip(answers.predicted, drawn.rows, strict=True):
        rows = Rows.of(features.unit_and_length("global", order)[0])
        terms = tda.terms(params, fixed, rows, config, hyper)
        assert row.tolist() == tda.combine(terms, fixed, config, hyper).argmax(-1).tolist()
        for part in drawn.batches(0):
            terms = tda.terms(params, fixed, rows.take(part), config, hyper)
            by_batch += tda.combine(terms, fixed, config, hyper).argmax(-1).tolist()
    assert by_batch != answers.predicted.flatten().tolist()  # the memory outlasts a batch
    assert result.marks == ("online",)
    assert any(note.startswith("Online: ") for note in result.notes)


def test_runs_are_stored_read_and_compared_in_a_table_of_their_own(
    features: FeatureSet, tmp_path: Path
) -> None:
    from heads.protocols import training

    for method, settings in (("zero-shot", {}), ("transclip", ZERO)):
        for how in (SMALL, STREAM):
            made = online.run(method, features=features, settings=settings, **how)
            folder = store.save(made, tmp_path)
            again = store.load(folder)
            assert again.metrics == made.metrics
            assert from_json(made.to_json()).config == made.config
            assert (folder / lists.FILE).exists()
    store.save(training.run("zero-shot", features=features), tmp_path)
    found = comparison.compare(tmp_path)
    assert not found.problems
    assert [len(group.rows) for group in found.groups] in ([2, 2, 1], [2, 1, 2], [1, 2, 2])
    text = to_markdown(found.groups)
    assert "12 batches of list" in text
    assert "11 streams of list" in text
    for group in found.groups:
        if group.protocol:
            assert [row.marks for row in group.rows] == [(), ("transductive",)]
            assert group.rows[1].gain is not None
            assert group.rows[1].gain.over in ("batches", "streams")


def test_a_stored_list_gives_the_same_queries(features: FeatureSet, tmp_path: Path) -> None:
    one = online.run("zero-shot", features=features, **STREAM)
    path = tmp_path / lists.FILE
    path.write_bytes(one.beside[lists.FILE])
    other = online.run("zero-shot", features=features, protocol="stream", order_list=path)
    assert other.ids == one.ids
    for wrong in ({"protocol": "batches"}, {"protocol": "stream", "seed": 2}):
        with pytest.raises(UsageError):
            online.run("zero-shot", features=features, order_list=path, **wrong)


def test_transclip_warns_where_batches_hold_few_classes(features: FeatureSet) -> None:
    def notes(**more: Any) -> str:
        result = online.run("transclip", features=features, settings=ZERO, **SMALL | more)
        return " ".join(result.notes)

    assert "known to fall below" in notes(effective_classes=(1, 2))
    assert "known to fall below" not in notes(effective_classes=(5, 5), batch=30)
    assert "queries of a batch were answered together" in notes()


def test_answers_behind_the_end_of_a_batch_are_refused(
    features: FeatureSet, tmp_path: Path
) -> None:
    from heads.results import answers

    result = online.run("zero-shot", features=features, **SMALL)
    kept = changed(result)
    behind = kept.labels < 0
    assert behind.any()
    predicted = np.where(behind, 0, kept.predicted).astype(np.int32)
    data = answers.pack(replace(kept, predicted=predicted))
    with pytest.raises(ImportedFileError, match="behind the end"):
        answers.unpack(data, result, tmp_path)
    with pytest.raises(ImportedFileError, match="out of range"):
        answers.unpack(answers.pack(kept), replace(result, protocol="few_shot"), tmp_path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"protocol": "batch"}, "batches"),
        ({"correlation": 0.1}, "no meaning"),
        ({"protocol": "stream", "effective_classes": (1, 4)}, "no meaning"),
        ({"batch": 0}, "at least 1"),
        ({"repeats": 0}, "at least 1"),
        ({"repeats": 10**7}, "at most"),
        ({"repeats": 10**5, "batch": 10**4}, "a list holds at most"),
        ({"effective_classes": (0, 4)}, "from 1 on"),
        ({"effective_classes": (4, 1)}, "from 1 on"),
        ({"seed": -1}, "seed"),
        ({"protocol": "stream", "batch": 31}, "fewer than a batch"),
        ({"protocol": "stream", "correlation": "often"}, "separate"),
        ({"protocol": "stream", "correlation": 0.0}, "separate"),
        ({"protocol": "stream", "correlation": float("nan")}, "separate"),
        ({"split": "nobody"}, "test"),
    ],
)
def test_wrong_inputs_say_what_is_right(
    features: FeatureSet, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises((UsageError, UnknownNameError, TaskError), match=said):
        online.run("zero-shot", features=features, **SMALL | wrong)


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("tip-adapter", {}, "learns from training images"),
        ("transclip", {}, "zero-shot"),
        ("transclip", {**ZERO, "gamma": [0.1, 0.2]}, "one value"),
    ],
)
def test_methods_that_learn_and_open_settings_are_refused(
    features: FeatureSet, method: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        online.run(method, features=features, settings=settings, **SMALL)

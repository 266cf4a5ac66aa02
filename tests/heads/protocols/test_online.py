"""Batches of few classes and streams: the answers, records and tables."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import ImportedFileError, TaskError, UnknownNameError, UsageError
from featcache.types import FeatureSet
from heads import registry
from heads.contract.rows import Rows
from heads.methods import stata, tda, transclip
from heads.protocols import online
from heads.protocols import orders as lists
from heads.results import store
from heads.results.compare import compare as comparison
from heads.results.metrics import TAIL, evaluate, tail
from heads.results.reading import from_json
from heads.results.record import Predictions, Result
from heads.results.render import cells
from heads.results.render.markdown import to_markdown
from tests.heads.conftest import make_world
from tests.heads.protocols.small_orders import COUNTS, batches, streams
from tests.heads.toy_tasks import make_task

World = Callable[..., FeatureSet]
SMALL: dict[str, Any] = {"protocol": "batches", "batch": 8, "repeats": 12}
STREAM: dict[str, Any] = {"protocol": "stream", "batch": 8, "repeats": 11}
ZERO = {"mode": "zero-shot"}


def config_of(name: str) -> dict[str, Any]:
    """Return the settings under which a method reads as few training images as it can."""
    return ZERO if "mode" in registry.get(name).config.__dataclass_fields__ else {}


def reads_training(name: str) -> bool:
    method = registry.get(name)
    needs = method.needs(method.config(**config_of(name)))
    return any(need.role != "query" for need in needs)


LEARNING = [name for name in registry.names() if reads_training(name)]
ANSWERING = [name for name in registry.names() if not reads_training(name)]


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    return make_world(counts=COUNTS, also={"crops.lazsl-3": (3,)}, descriptions=True)


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the mixtures: the protocols do not depend on them."""
    for mixture in (transclip, stata):
        monkeypatch.setattr(mixture, "ROUNDS", 1)
        monkeypatch.setattr(mixture, "SWEEPS", 1)


def changed(result: Result) -> Predictions:
    assert result.predictions is not None
    return result.predictions


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


def test_every_method_answers_or_learns() -> None:
    assert ANSWERING == ["dmn", "lazsl", "oga", "stata", "tda", "transclip", "zero-shot"]


@pytest.mark.parametrize("how", [SMALL, STREAM], ids=["batches", "stream"])
def test_every_method_that_learns_is_refused(features: FeatureSet, how: dict[str, Any]) -> None:
    for name in LEARNING:
        with pytest.raises(
            UsageError, match=f"'{name}' learns from training images".replace("+", r"\+")
        ):
            online.run(name, features=features, settings=config_of(name), **how)


@pytest.mark.parametrize("name", ANSWERING)
@pytest.mark.parametrize("how", [SMALL, STREAM], ids=["batches", "stream"])
def test_labels_are_out_of_reach(
    features: FeatureSet, tmp_path: Path, name: str, how: dict[str, Any]
) -> None:
    """The same list with other labels: not one answer moves, and every figure does."""
    given: dict[str, Any] = {"settings": config_of(name)}
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

    named: dict[str, Path] = {}
    for method, settings in (("zero-shot", {}), ("transclip", ZERO)):
        for how in (SMALL, STREAM):
            made = online.run(method, features=features, settings=settings, **how)
            folder = store.save(made, tmp_path)
            named[made.run] = folder
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
        in_table = cells.OF_TAIL in cells.columns(group)
        assert in_table == (group.protocol == "stream")
        assert all((row.tail_top1 is not None) == in_table for row in group.rows)
        assert {len(row) for row in cells.cells(group)} == {len(cells.columns(group))}
        for row, shown in zip(group.rows, cells.cells(group), strict=True):
            if in_table:
                assert row.tail_top1 == store.load(named[row.run]).metrics[TAIL].mean
                assert shown[2] == f"{100 * row.tail_top1:.1f}"
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

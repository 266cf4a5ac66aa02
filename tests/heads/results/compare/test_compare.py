"""Which runs stand in one table, in which order, and what they are compared with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import UnknownNameError
from featcache.wording import in_python
from heads.results import store
from heads.results.compare import compare as comparison
from heads.results.record import Predictions, Support
from heads.results.render import cells
from tests.heads.results.runs import zero_shot


def test_zero_shot_joins_every_group_of_its_data(record: Any, answers: Any) -> None:
    runs = [
        record(1, shots=4),
        record(2, shots=16),
        record(3, shots=None),
        record(4, dataset="other"),
        zero_shot(record, answers),
    ]
    groups = comparison.group(runs)
    names = [(g.dataset, g.shots, [r.method for r in g.rows]) for g in groups]
    both = ["zero-shot", "cmm"]
    assert names == [
        ("other", 16, ["cmm"]),
        ("toy", 4, both),
        ("toy", 16, both),
        ("toy", None, both),
    ]
    alone = comparison.group([zero_shot(record, answers)])
    assert [(g.shots, len(g.rows)) for g in alone] == [(0, 1)]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"r": 1}, ["cmm (seed 1)", "cmm (seeds 1-3)"]),
        ({"r": 3, "seeds": (4, 5, 6)}, ["cmm (seeds 1-3)", "cmm (seeds 4-6)"]),
        (
            {"r": 3, "reads": ("support views.rrc50",)},
            ["cmm (no views)", "cmm (support views.rrc50)"],
        ),
        ({"r": 3, "selection": "none"}, ["cmm (few-shot-val)", "cmm (none)"]),
        ({"r": 3, "sealed": False}, ["cmm", "cmm (unsealed)"]),
        ({"r": 3, "selection": "oracle"}, ["cmm", "cmm (oracle)"]),
    ],
)
def test_no_run_hides_one_of_another_effort(
    record: Any, fields: dict[str, Any], names: list[str]
) -> None:
    (shown,) = comparison.group([record(1, r=3), record(2, **fields)])
    assert sorted(row.name for row in shown.rows) == names
    assert all(row.equals == 0 for row in shown.rows)


def test_shots_that_were_really_used_make_the_group(record: Any) -> None:
    four = Support(smallest=4, largest=4, whole=True)
    asked = [record(1, shots=4, support=four), record(2, shots=16, support=four)]
    (older,) = comparison.group(asked)  # which images these were, nobody knows
    assert [row.equals for row in older.rows] == [0, 0]
    (group,) = comparison.group([replace(r, draws="d" * 16) for r in asked])
    (row,) = group.rows
    assert (group.shots, row.equals) == (4, 1)
    assert "4 shots" in group.title


def test_relabelled_queries_make_a_table_of_their_own(record: Any, answers: Any) -> None:
    kept = answers(1)
    other = replace(kept, labels=(kept.labels + 1) % 4)
    groups = comparison.group([record(1, predictions=kept), record(2, predictions=other)])
    assert [len(g.rows) for g in groups] == [1, 1]
    assert len({g.title for g in groups}) == 2


def test_other_features_are_another_group(record: Any) -> None:
    runs = [record(1), record(2, key="f" * 12), record(3, split="sketch"), record(4, ids="other")]
    assert [len(g.rows) for g in comparison.group(runs)] == [1] * 4


def test_an_honest_run_is_the_reference_before_an_oracle_one(record: Any, answers: Any) -> None:
    runs = [
        record(1, method="knn", selection="oracle", predictions=answers(1, right=1.0)),
        record(2, method="knn", selection="none", predictions=answers(2, right=0.6)),
        record(3, method="other", predictions=answers(3, right=0.8)),
    ]
    (group,) = comparison.group(runs, against="knn")
    rows = {(r.method, r.selection): r for r in group.rows}
    assert rows["knn", "none"].gain is None
    gain = rows["other", "few-shot-val"].gain
    assert gain is not None
    assert gain.mean == pytest.approx(
        rows["other", "few-shot-val"].top1 - rows["knn", "none"].top1, abs=1e-9
    )
    assert rows["knn", "oracle"].gain is not None


def test_runs_on_other_texts_are_kept_apart(record: Any, answers: Any) -> None:
    runs = [
        record(1, texts="a" * 12),
        record(2, method="tip-adapter", texts="b" * 12),
        record(3, method="gda", variant="text=cupl", config={"text": "cupl"}, texts="b:c1"),
        record(4, method="tip", variant="text=cupl", config={"text": "cupl"}, texts="b:c2"),
    ]
    runs[2:] = [replace(r, texts=r.texts.replace("b:", "b" * 12 + ":")) for r in runs[2:]]
    groups = comparison.group(runs)
    assert [[r.method for r in g.rows] for g in groups] == [["cmm"], ["gda", "tip", "tip-adapter"]]
    assert all(f"texts {x * 12}" in g.title for g, x in zip(groups, "ab", strict=True))
    stale = {r.method: r.stale for r in groups[1].rows}
    assert stale == {"gda": True, "tip": False, "tip-adapter": False}
    names = [row.name for row in groups[1].rows]
    assert names.count("gda [text=cupl] (older texts)") == 1
    (alone,) = comparison.group(runs[:1])
    assert "texts" not in alone.title


def test_the_reference_is_the_run_of_greatest_effort(record: Any) -> None:
    runs = [record(1, r=3), record(2, r=1), record(3, r=3, method="knn")]
    (group,) = comparison.group(runs, against="cmm")
    (reference,) = [row for row in group.rows if row.why]
    assert reference.name == "cmm (seeds 1-3)"


def test_compare_reads_and_filters(record: Any, answers: Any, tmp_path: Path) -> None:
    for result in [record(1, shots=4), record(2, shots=16), record(3, dataset="other")]:
        store.save(result, tmp_path)
    store.save(zero_shot(record, answers), tmp_path)
    broken = store.save(record(6, variant="lr=1"), tmp_path)
    (broken / store.ANSWERS).write_bytes(b"")
    found = comparison.compare(tmp_path, dataset="toy", shots=[16])
    (group,) = found.groups
    assert (group.dataset, group.shots) == ("toy", 16)
    gains = {(r.method, r.variant): r.gain for r in group.rows}
    assert gains["cmm", ""] is not None
    assert ("cmm", "lr=1") not in gains  # what is damaged stands in no table
    assert len(found.problems) == 1


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"dataset": "toys"}, "data set of the runs 'toys'; did you mean 'toy'"),
        ({"backbone": "RN50"}, "backbone of the runs 'RN50'; known: ViT-B/32."),
        ({"dataset": "other", "split": "test"}, "split of the runs 'test'; known: sketch."),
        ({"dataset": "toy", "shots": [7, None]}, "'7, all'; known: 4. Train it with"),
    ],
)
def test_what_no_run_has_is_said_with_what_there_is(
    record: Any, answers: Any, tmp_path: Path, asked: dict[str, Any], says: str
) -> None:
    assert comparison.compare(tmp_path, **asked).groups == ()
    for result in [record(1, shots=4), record(3, dataset="other", split="sketch")]:
        store.save(result, tmp_path)
    store.save(zero_shot(record, answers), tmp_path)
    with pytest.raises(UnknownNameError) as caught:
        comparison.compare(tmp_path, **asked)
    assert says in str(caught.value)


def test_a_table_that_lacks_the_reference_says_how_to_make_it(record: Any, tmp_path: Path) -> None:
    runs = [record(1, shots=4), record(2, shots=4, method="gda"), record(3, shots=None)]
    with_gda, without = comparison.group(runs, against="gda")
    assert with_gda.lacks is None
    assert without.lacks is not None
    assert in_python([without.lacks]) == (
        "heads.evaluate(method='gda', cache=featcache.open(dataset='toy', backbone='ViT-B/32'), "
        "shots=None, split='test')"
    )
    (group,) = comparison.group(runs[:1], against="knn k=3 augment=corpus:wild")
    assert group.lacks is not None
    assert "split='test', k=3, augment='corpus:wild')" in in_python([group.lacks])
    assert all(g.lacks is None for g in comparison.group(runs))  # zero-shot is in every record
    store.save(runs[0], tmp_path)
    with pytest.raises(
        UnknownNameError,
        match=r"If that is a method, this makes a run of it: heads\.evaluate\(method='knn'",
    ):
        comparison.compare(tmp_path, against="knn")


def test_a_run_without_shots_says_so_among_runs_with_shots(record: Any, answers: Any) -> None:
    alone = record(2, method="sus-x", shots=0)
    (group,) = comparison.group([record(1, shots=4), alone, zero_shot(record, answers)])
    assert {row.name for row in group.rows} == {"zero-shot", "cmm", "sus-x (no shots)"}
    (group,) = comparison.group([alone, zero_shot(record, answers)])
    assert {row.name for row in group.rows} == {"zero-shot", "sus-x"}


def test_a_run_in_a_renamed_folder_keeps_its_paired_difference(record: Any, tmp_path: Path) -> None:
    folder = store.save(record(), tmp_path)
    folder.parent.rename(folder.parent.with_name("from-a-colleague"))
    found = comparison.compare(tmp_path)
    assert found.problems == ()
    assert found.groups[0].rows[0].gain is not None


def test_runs_that_were_validated_on_other_numbers_say_so(record: Any) -> None:
    two = Support(smallest=2, largest=2, whole=True)
    runs = [
        record(1, shots=2, support=two, draws="a" * 16),
        record(2, shots=16, support=two, draws="b" * 16),
        record(3, shots=16, support=two, draws="b" * 16, selection="none"),
    ]
    (group,) = comparison.group(runs)
    assert {row.name for row in group.rows} == {
        "cmm (few-shot-val, validated on 2 a class)",
        "cmm (few-shot-val, validated on 4 a class)",
        "cmm (none)",
    }


def test_the_digest_in_a_title_is_called_a_list(record: Any, answers: Any) -> None:
    kept = answers(1)
    other = replace(kept, labels=(kept.labels + 1) % 4)
    groups = comparison.group([record(1, predictions=kept), record(2, predictions=other)])
    assert all("40 queries of list feedfa-" in g.title for g in groups)


def test_imbalanced_supports_are_groups_of_their_own(record: Any, answers: Any) -> None:
    tail = {"config": {"support": "long-tail:0.01"}, "support": Support(
        smallest=1, largest=16, whole=False
    )}  # fmt: skip
    runs = [
        record(1),
        record(2, method="knn"),
        record(3, **tail),
        record(4, method="knn", **tail),
        zero_shot(record, answers),
    ]
    even, uneven = comparison.group(runs, against="knn")
    assert (even.support, uneven.support) == ("", "long-tail:0.01")
    for group in (even, uneven):
        assert sorted(row.name for row in group.rows) == ["cmm", "knn", "zero-shot"]
    assert "16 shots (1-16 a class), support long-tail:0.01" in uneven.title
    assert comparison.newest(runs).keys() == {r.run for r in runs}


def test_rows_are_ranked_by_the_metric(record: Any, tmp_path: Path) -> None:
    labels = np.repeat([0, 1], [90, 10]).astype(np.int32)[None]
    common, rare = labels * 0, np.where(np.arange(100) < 30, 1, labels).astype(np.int32)
    runs = [
        record(
            i,
            method=name,
            zero_shot_top1=None,
            predictions=Predictions(predicted=p, labels=labels),
        )
        for i, (name, p) in enumerate((("common", common), ("rare", rare)))
    ]
    (by_top1,) = comparison.group(runs, against="common")
    (balanced,) = comparison.group(runs, against="common", metric="balanced_accuracy")
    assert [row.method for row in by_top1.rows] == ["common", "rare"]
    assert [row.method for row in balanced.rows] == ["rare", "common"]
    gain = balanced.rows[0].gain
    assert gain is not None
    assert gain.mean == pytest.approx((2 / 3 + 1) / 2 - 1 / 2)
    assert "balanced, over common" in cells.columns(balanced)
    with pytest.raises(UnknownNameError, match="Unknown metric 'top5'"):
        comparison.compare(tmp_path, metric="top5")

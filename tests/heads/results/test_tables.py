import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import UnknownNameError
from heads.results import store, tables


def zero_shot(record: Any, answers: Any, **fields: Any) -> Any:
    kept = answers(0)
    same = type(kept)(predicted=kept.zero_shot, labels=kept.labels, zero_shot=kept.zero_shot)
    values = {"method": "zero-shot", "shots": 0, "selection": "none", "predictions": same}
    return record(30, **(values | fields))


def test_zero_shot_joins_every_group_of_its_data(record: Any, answers: Any) -> None:
    runs = [
        record(1, shots=4),
        record(2, shots=16),
        record(3, shots=None),
        record(4, dataset="other"),
        zero_shot(record, answers),
    ]
    groups = tables.group(runs)
    names = [(g.dataset, g.shots, [r.method for r in g.rows]) for g in groups]
    both = ["zero-shot", "cmm"]
    assert names == [
        ("other", 16, ["cmm"]),
        ("toy", 4, both),
        ("toy", 16, both),
        ("toy", None, both),
    ]
    alone = tables.group([zero_shot(record, answers)])
    assert [(g.shots, len(g.rows)) for g in alone] == [(0, 1)]


def test_newest_run_of_equals_counts(record: Any) -> None:
    runs = [record(2), record(1), record(3, variant="alpha=1"), record(4, selection="none")]
    assert {r.run for r in tables.newest(runs)} == {record(k).run for k in (2, 3, 4)}


def test_other_features_are_another_group(record: Any) -> None:
    runs = [record(1), record(2, key="f" * 12), record(3, split="sketch"), record(4, ids="other")]
    assert [len(g.rows) for g in tables.group(runs)] == [1] * 4


def test_best_first_and_oracle_last(record: Any, answers: Any) -> None:
    runs = [
        record(1, method="bad", predictions=answers(1, right=0.6)),
        record(2, method="good", predictions=answers(2, right=0.9)),
        record(3, method="best", selection="oracle", predictions=answers(3, right=1.0)),
        zero_shot(record, answers),
    ]
    (group,) = tables.group(runs)
    assert [r.method for r in group.rows] == ["zero-shot", "good", "bad", "best"]
    text = tables.to_markdown([group])
    marked = [line for line in text.splitlines() if tables.MARK in line]
    assert len(marked) == 1
    assert "best" in marked[0]


def test_transductive_methods_are_marked_and_not_ranked(record: Any, answers: Any) -> None:
    best = {"source": "paper and released code: X", "reads": ("support views.rrc50", "query set")}
    runs = [
        record(1, method="bad", predictions=answers(1, right=0.6), reads=("pool", "pool crops")),
        record(2, method="joint", predictions=answers(3, right=1.0), **best),
        zero_shot(record, answers),
    ]
    (group,) = tables.group(runs)
    assert [r.method for r in group.rows] == ["zero-shot", "bad", "joint"]
    first, middle, last = (tables.cells(row) for row in group.rows)
    assert first[-2:] == ("-", "-")
    assert middle[-1] == "pool, crops"
    assert last[-2:] == ("paper, released code", "views, query set")
    assert tables.as_dicts([group])[2]["reads"] == ["support views.rrc50", "query set"]


def test_an_honest_run_is_the_reference_before_an_oracle_one(record: Any, answers: Any) -> None:
    runs = [
        record(1, method="knn", selection="oracle", predictions=answers(1, right=1.0)),
        record(2, method="knn", selection="none", predictions=answers(2, right=0.6)),
        record(3, method="other", predictions=answers(3, right=0.8)),
    ]
    (group,) = tables.group(runs, against="knn")
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
    groups = tables.group(runs)
    assert [[r.method for r in g.rows] for g in groups] == [["cmm"], ["gda", "tip", "tip-adapter"]]
    assert all(f"texts {x * 12}" in g.title for g, x in zip(groups, "ab", strict=True))
    stale = {r.method: r.stale for r in groups[1].rows}
    assert stale == {"gda": True, "tip": False, "tip-adapter": False}
    assert "(older texts)" in tables.cells(groups[1].rows[0])[0]
    (alone,) = tables.group(runs[:1])
    assert "texts" not in alone.title


def test_gain_over_zero_shot_is_said_in_words(record: Any, answers: Any) -> None:
    kept = answers(0, n=400, right=0.9, zero=0.5)
    (group,) = tables.group([record(1, predictions=kept)])
    (row,) = group.rows
    assert row.gain is not None
    assert row.gain.mean == pytest.approx(
        float((kept.predicted == kept.labels).mean() - (kept.zero_shot == kept.labels).mean())
    )
    assert tables.cells(row)[3].endswith("better")
    (plain,) = tables.group(
        [record(1, predictions=None, metrics=record().metrics, queries=40, zero_shot_top1=None)]
    )
    assert tables.cells(plain.rows[0])[3] == "-"


def test_compare_reads_and_filters(record: Any, answers: Any, tmp_path: Path) -> None:
    for result in [record(1, shots=4), record(2, shots=16), record(3, dataset="other")]:
        store.save(result, tmp_path)
    store.save(zero_shot(record, answers), tmp_path)
    broken = store.save(record(6, variant="lr=1"), tmp_path)
    (broken / store.ANSWERS).write_bytes(b"")
    found = tables.compare(tmp_path, dataset="toy", shots=[16])
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
    assert tables.compare(tmp_path, **asked).groups == ()
    for result in [record(1, shots=4), record(3, dataset="other", split="sketch")]:
        store.save(result, tmp_path)
    store.save(zero_shot(record, answers), tmp_path)
    with pytest.raises(UnknownNameError) as caught:
        tables.compare(tmp_path, **asked)
    assert says in str(caught.value)


def test_exports_hold_every_row(record: Any, answers: Any) -> None:
    odd = record(1, variant='text=name, "x"|y')
    groups = tables.group([odd, record(2, shots=None), zero_shot(record, answers)])
    rows = tables.as_dicts(groups)
    assert json.loads(json.dumps(rows)) == rows
    read = list(csv.DictReader(io.StringIO(tables.to_csv(groups))))
    assert len(read) == len(rows) == 4
    assert read[1]["variant"] == odd.variant
    assert float(read[1]["top1"]) == odd.metrics["top1"].mean
    assert read[1]["gain_word"] == rows[1]["gain"]["word"]
    assert tables.to_csv([]).strip() == "dataset"
    text = tables.to_markdown(groups)
    table = [line for line in text.splitlines() if line.startswith("|")]
    bars = {line.replace("\\|", "").count("|") for line in table}
    assert bars == {len(tables.COLUMNS) + 1}


def test_a_run_in_a_renamed_folder_keeps_its_paired_difference(record: Any, tmp_path: Path) -> None:
    folder = store.save(record(), tmp_path)
    folder.parent.rename(folder.parent.with_name("from-a-colleague"))
    found = tables.compare(tmp_path)
    assert found.problems == ()
    assert found.groups[0].rows[0].gain is not None

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heads.results.compare import compare as comparison
from heads.results.record import Predictions
from heads.results.render import cells
from heads.results.render.csv import to_csv
from heads.results.render.json import as_dicts
from heads.results.render.markdown import to_markdown
from tests.heads.results.runs import zero_shot


def test_of_equal_runs_the_newest_stands_and_the_others_are_counted(record: Any) -> None:
    runs = [record(2), record(1), record(3, variant="alpha=1"), record(4, selection="none")]
    (group,) = comparison.group(runs)
    assert {r.run: r.equals for r in group.rows} == {
        record(2).run: 1,
        record(3).run: 0,
        record(4).run: 0,
    }
    told = [note for note in cells.notes(group) if "equal" in note]
    assert told == ["cmm (few-shot-val): the newest of 2 equal runs."]


def test_best_first_and_oracle_last(record: Any, answers: Any) -> None:
    runs = [
        record(1, method="bad", predictions=answers(1, right=0.6)),
        record(2, method="good", predictions=answers(2, right=0.9)),
        record(3, method="best", selection="oracle", predictions=answers(3, right=1.0)),
        zero_shot(record, answers),
    ]
    (group,) = comparison.group(runs)
    assert [r.method for r in group.rows] == ["zero-shot", "good", "bad", "best"]
    text = to_markdown([group])
    marked = [line for line in text.splitlines() if cells.ORACLE in line]
    assert len(marked) == 1
    assert marked[0].startswith("| best (oracle) |")


def test_transductive_methods_are_marked_and_not_ranked(record: Any, answers: Any) -> None:
    best = {"source": "paper and released code: X", "reads": ("support views.rrc50", "query set")}
    runs = [
        record(1, method="bad", predictions=answers(1, right=0.6), reads=("pool", "pool crops")),
        record(2, method="joint", predictions=answers(3, right=1.0), **best),
        zero_shot(record, answers),
    ]
    (group,) = comparison.group(runs)
    assert [r.method for r in group.rows] == ["zero-shot", "bad", "joint"]
    first, middle, last = cells.cells(group)
    assert last[0] == "joint (transductive)"
    assert first[-2:] == ("-", "-")
    assert middle[-1] == "pool, crops"
    assert last[-2:] == ("paper, released code", "views, query set")
    assert as_dicts([group])[2]["reads"] == ["support views.rrc50", "query set"]


def test_gain_over_zero_shot_is_said_in_words(record: Any, answers: Any) -> None:
    kept = answers(0, n=400, right=0.9, zero=0.5)
    (group,) = comparison.group([record(1, predictions=kept)])
    (row,) = group.rows
    assert row.gain is not None
    assert row.gain.mean == pytest.approx(
        float((kept.predicted == kept.labels).mean() - (kept.zero_shot == kept.labels).mean())
    )
    (shown,) = cells.cells(group)
    assert shown[5].endswith("better (these heads)")
    (several,) = comparison.group([record(1, r=3, predictions=answers(0, r=3, n=400, zero=0.2))])
    assert cells.cells(several)[0][5].endswith("better")
    (plain,) = comparison.group(
        [record(1, predictions=None, metrics=record().metrics, queries=40, zero_shot_top1=None)]
    )
    (shown,) = cells.cells(plain)
    assert shown[5] == "- (a)"
    assert any(n.startswith("(a) Run") and "no stored" in n for n in cells.notes(plain))


def test_one_draw_of_the_reference_is_one_draw_of_the_difference(record: Any, answers: Any) -> None:
    runs = [
        zero_shot(record, answers),
        record(1, predictions=replace(answers(0, right=1.0), zero_shot=None), zero_shot_top1=None),
        record(2, r=3, method="knn", predictions=answers(2, r=3, right=0.2)),
    ]
    (group,) = comparison.group(runs, against="cmm")
    words = [cells[5] for cells in cells.cells(group)]
    shown = {row.method: word for row, word in zip(group.rows, words, strict=True)}
    assert shown["zero-shot"].endswith("worse (these heads)")
    assert "worse (these heads) (a)" in shown["knn"]  # paired over seed 1 alone
    assert shown["cmm"] == "reference"


def test_words_are_corrected_and_intervals_are_not(record: Any) -> None:
    labels = np.zeros((1, 400), dtype=np.int32)
    wrong = labels + 1
    some = wrong.copy()
    some[0, :7] = 0
    kept = Predictions(predicted=some, labels=labels, zero_shot=wrong)
    equal = Predictions(predicted=wrong, labels=labels, zero_shot=wrong)
    (alone,) = comparison.group([record(1, predictions=kept)])
    many = [record(i, method=f"m{i}", predictions=equal) for i in range(2, 21)]
    (among,) = comparison.group([record(1, predictions=kept), *many])
    assert alone.rows[0].word == "better"
    gain = among.rows[0].gain
    assert gain == alone.rows[0].gain
    assert gain is not None
    assert gain.low > 0
    assert {row.word for row in among.rows} == {"no difference shown"}
    told = "Better, worse, not shown: at 5 %, corrected for 20 differences (Holm)."
    assert told in cells.notes(among)
    assert "Intervals: 95 %, unadjusted; over queries." in cells.notes(among)


def test_zero_shot_has_the_reverse_of_the_known_difference(record: Any, answers: Any) -> None:
    zero = zero_shot(record, answers)
    ours = record(1, r=3, predictions=answers(0, r=3, right=0.95))
    ours = replace(ours, predictions=replace(ours.predictions, zero_shot=None))
    (group,) = comparison.group([ours, zero], against="cmm")
    free, trained = group.rows
    assert (trained.gain, cells.cells(group)[1][5]) == (None, "reference")
    assert free.gain is not None
    assert free.gain.mean == pytest.approx(free.top1 - trained.top1)
    assert free.gain.over == "repetitions and queries"
    (other,) = comparison.group([ours, zero], against="zero-shot")
    assert other.rows[1].why == "No zero-shot answers: 'toy' has no class texts."


def test_other_seeds_are_paired_over_those_in_common_or_the_reason_is_said(record: Any) -> None:
    runs = [
        record(1, r=3),
        record(2, r=2, method="knn"),
        record(3, r=1, method="gda", seeds=(9,)),
        record(4, r=3, method="ape"),
    ]
    (group,) = comparison.group(runs, against="cmm")
    shown = {cells[0]: cells[5] for cells in cells.cells(group)}
    told = "\n".join(cells.notes(group))
    (letter,) = [n[:3] for n in cells.notes(group) if n[3:] == " Paired over seeds 1-2 alone."]
    assert shown["knn"].endswith(letter)
    (letter,) = [n[:3] for n in cells.notes(group) if "No seed in common: gda has seed 9" in n]
    assert shown["gda"] == f"- {letter}"
    assert shown["ape"].endswith(("better", "worse", "shown"))
    seeds = {cells[0]: cells[2] for cells in cells.cells(group)}
    assert seeds == {"cmm": "3", "knn": "2", "gda": "1", "ape": "3"}
    assert "over seeds and queries" in told
    assert "says what holds of these heads, not of the method" in told


def test_exports_hold_every_row(record: Any, answers: Any) -> None:
    odd = record(1, variant='text=name, "x"|y')
    groups = comparison.group([odd, record(2, shots=None), zero_shot(record, answers)])
    rows = as_dicts(groups)
    assert json.loads(json.dumps(rows)) == rows
    read = list(csv.DictReader(io.StringIO(to_csv(groups))))
    assert len(read) == len(rows) == 4
    assert read[1]["variant"] == odd.variant
    assert float(read[1]["top1"]) == odd.metrics["top1"].mean
    assert read[1]["gain_word"] == rows[1]["gain"]["word"]
    assert to_csv([]).strip() == "dataset"
    text = to_markdown(groups)
    table = [line for line in text.splitlines() if line.startswith("|")]
    bars = {line.replace("\\|", "").count("|") for line in table}
    assert bars == {len(cells.COLUMNS) + 1}


def test_names_of_strangers_stay_in_their_place(record: Any) -> None:
    odd = "toy\n| forged | 99.9 |\r\x1b[2J\u2028# end"
    runs = [
        record(1, dataset=odd, variant=odd),
        record(2, dataset=odd, method="knn", split="sketch", seeds=(9,)),
    ]
    groups = comparison.group(runs)
    text = to_markdown(groups)
    assert all(c.isprintable() for c in text.replace("\n", ""))
    assert [line for line in text.splitlines() if line.startswith(("| forged", "# end"))] == []
    assert sum(line.startswith("| ") for line in text.splitlines()) == 6
    assert "\\x1b[2J" in text
    written = to_csv(groups)
    assert all(c.isprintable() for c in written.replace("\n", ""))
    assert len(written.splitlines()) == 3
    assert as_dicts(groups)[0]["dataset"] == odd  # JSON escapes for itself


def test_equal_answers_of_one_method_are_no_comparison(record: Any, answers: Any) -> None:
    five = answers(1, r=5)
    runs = [record(1, r=5, predictions=five)]
    for i, rows in enumerate(([0], [0, 1, 2]), start=2):
        names = ("predicted", "labels", "zero_shot")
        some = replace(five, **{name: getattr(five, name)[rows] for name in names})
        runs.append(record(i, r=len(rows), predictions=some))
    runs.append(record(9, r=5, predictions=five, method="knn"))  # another method may be no better
    (group,) = comparison.group(runs, against="cmm")
    told = {row.name: row for row in group.rows}
    assert told["cmm (seeds 1-5)"].why == "the others are compared with it"
    for name, seeds in (("cmm (seed 1)", "seed 1"), ("cmm (seeds 1-3)", "seeds 1-3")):
        row = told[name]
        assert (row.gain, row.word) == (None, None)
        assert (
            row.why == f"The same answers as the reference for {seeds}: no comparison, not counted."
        )
    assert told["knn"].word == "no difference shown"
    assert "corrected for 1 difference (Holm)." in " ".join(cells.notes(group))
    csv_rows = list(csv.DictReader(io.StringIO(to_csv([group]))))
    assert [r["gain_p"] for r in csv_rows if r["name"] == "cmm (seed 1)"] == [""]


def test_an_oracle_run_has_a_difference_and_no_word(record: Any, answers: Any) -> None:
    runs = [record(1), record(2, method="knn"), record(3, method="ape", selection="oracle")]
    (group,) = comparison.group(runs)
    (oracle,) = [row for row in group.rows if row.oracle]
    assert oracle.gain is not None
    assert oracle.word is None
    assert "corrected for 2 differences (Holm)." in " ".join(cells.notes(group))
    (row,) = [row for row in cells.cells(group) if row[0] == "ape (oracle)"]
    assert row[cells.COLUMNS.index("over zero-shot")].endswith("]")
    assert row[cells.COLUMNS.index("selection")] == "oracle (chosen on the queries)"


def test_every_exported_field_is_documented(record: Any) -> None:
    groups = comparison.group([record(1), record(2, method="knn")])
    fields = next(csv.reader(io.StringIO(to_csv(groups))))
    about = (Path(__file__).parents[4] / "docs" / "results.md").read_text()
    about = about.partition("`--csv`")[2].partition("## Episodes")[0]
    assert [field for field in fields if f"`{field}`" not in about] == []

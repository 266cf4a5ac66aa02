"""`heads compare`: what its tables show and mark."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_compare_shows_no_shots_that_were_not_trained(heads: Run, home: Path) -> None:
    heads("train", "zero-shot", "--quiet")
    answer = heads("compare", "--shots", "7")
    assert answer.code == 2
    assert "heads train METHOD --shots 7" in answer.err
    assert answer.out == ""


def test_oracle_is_marked_wherever_it_shows(heads: Run, home: Path, tmp_path: Path) -> None:
    train = ["train", "tip-adapter", "--shots", "2", "--selection", "oracle", "--quiet"]
    runs = ["--runs", str(tmp_path)]
    assert "oracle (chosen on the queries" in heads(*train, *runs).out
    for form in ([], ["--markdown"], ["--csv"], ["--json"]):
        assert "oracle" in heads("compare", *runs, *form).out


def test_a_shorter_run_hides_no_longer_one(heads: Run, home: Path, tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path)]
    for method, seeds in (("tip-adapter", "3"), ("tip-adapter", "1"), ("zero-shot", "1")):
        assert heads("train", method, "--shots", "2", "--seeds", seeds, *runs).code == 0
    answer = heads("compare", *runs, "--against", "tip-adapter")
    assert "tip-adapter (seed 1)" in answer.out
    assert "tip-adapter (seeds 1-3)\t" in answer.out
    assert "Intervals: 95 %, unadjusted" in answer.out
    assert "says what holds of these heads, not of the method" in answer.out
    (zero,) = [line for line in answer.out.splitlines() if line.startswith("zero-shot")]
    assert "[" in zero  # the reverse of the known difference
    assert heads("train", "gda", "--shots", "4", "--seeds", "1", *runs).code == 0
    answer = heads("compare", *runs, "--against", "tip-adapter")
    assert "heads train tip-adapter --dataset blobs --backbone tiny --shots 4" in answer.err
    assert answer.out.count("\n\n") == 1  # between the tables

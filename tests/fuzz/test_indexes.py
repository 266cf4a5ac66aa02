"""Bent indexes with valid seals: in a process of its own, so that a crash is seen."""

import json
from pathlib import Path

import pytest

from tests.fuzz.indexes import BENT
from tests.fuzz.test_readers import fuzz_files
from tests.tiers import quick


@pytest.mark.parametrize("cases", quick([4, BENT, 1500], 1))
def test_bent_indexes_are_refused_or_answer_rightly(cases: int, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    done = fuzz_files(tmp_path, "--target", "index", "--cases", str(cases), "--minutes", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["targets"]["index"]["cases"] == cases

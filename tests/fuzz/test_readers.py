"""Every target for a fixed number of bent inputs; `make fuzz` goes on where this stops."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CASES = 20


def fuzz_files(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/fuzz.py", "--out", str(out), *options]
    more = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | more, capture_output=True, text=True, check=False
    )


@pytest.mark.long
def test_no_reader_breaks_on_bent_files(tmp_path: Path) -> None:
    done = fuzz_files(tmp_path, "--cases", str(CASES), "--seed", "2", "--minutes", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["failures"] == 0
    cases = {name: target["cases"] for name, target in summary["targets"].items()}
    assert set(cases.values()) == {CASES}, cases

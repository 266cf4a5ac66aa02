"""The guard must see what it is there for: each kind of misdeed once."""

import ctypes
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from featcache.errors import UsageError
from tests.fuzz import guard
from tests.fuzz.bending import seal_again
from tests.fuzz.cases import LINK, Case, read_case, write_case
from tests.fuzz.guard import Outcome, Target, fuzz


def _outcome(out: Path, run: Callable[[Path], object], case: Case | None = None) -> Outcome:
    seeds = [case or {"a.txt": b"x"}]
    target = Target(name="toy", seeds=lambda _: list(seeds), run=lambda folder: _call(run, folder))
    return fuzz(target, out, seed=0, cases=1, seconds=20)


def _call(run: Callable[[Path], object], folder: Path) -> None:
    run(folder)


def _refuse(_: Path) -> None:
    raise UsageError("No. Give another.")


@pytest.mark.parametrize("run", [_refuse, lambda folder: (folder / "a.txt").read_bytes()])
def test_a_refusal_and_an_answer_are_both_right(
    tmp_path: Path, run: Callable[[Path], object]
) -> None:
    found = _outcome(tmp_path, run)
    assert (found.cases, found.failures) == (1, {})


@pytest.mark.parametrize(
    ("kind", "run"),
    [
        ("ZeroDivisionError", lambda _: 1 // 0),
        ("RecursionError", lambda folder: _again(folder)),
        ("subprocess.Popen", lambda _: subprocess.run(["true"], check=True)),
        ("open outside", lambda folder: (folder / "../outside/secret.json").read_bytes()),
        ("open outside", lambda folder: (folder / "link").read_bytes()),
        ("os.remove outside", lambda folder: (folder / "../outside/secret.json").unlink()),
        ("changed what lies outside", lambda folder: (folder / "../outside/x").mkdir()),
        ("memory", lambda _: len(b"\1" * (600 << 20))),
        ("MemoryError", lambda _: bytearray(100 << 30)),
        ("process died: signal SIGSEGV", lambda _: ctypes.string_at(0)),
    ],
)
def test_misdeeds_are_seen(tmp_path: Path, kind: str, run: Callable[[Path], object]) -> None:
    found = _outcome(tmp_path, run, {"a.txt": b"x", "link": LINK + b"../outside/secret.json"})
    assert [k.startswith(kind) for k in found.failures] == [True], found.failures
    (failure,) = found.failures.values()
    assert read_case(Path(failure["input"]))["a.txt"] == b"x"


def test_a_hang_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SECONDS", 0.3)
    found = _outcome(tmp_path, lambda _: time.sleep(10))
    assert [k.split()[0] for k in found.failures] == ["HangError"]


def test_cases_survive_the_disk_and_seals_are_made_anew(tmp_path: Path) -> None:
    case = {"a/b": b"x", "l": LINK + b"a"}
    write_case(case, tmp_path)
    assert read_case(tmp_path) == case
    from featcache.store.format.seal import unseal

    lines = seal_again(b'{"a":1}\n{"b":2,"crc":"00000000"}\n').splitlines()
    value, crc = unseal(lines[0])
    assert value == {"a": 1}
    assert unseal(lines[1], crc)[0] == {"b": 2}


def _again(folder: Path) -> None:
    _again(folder)

"""Runs a target in a process of its own, where nothing it does can go unnoticed.

What counts as a failure: any exception but a FeatcacheError, a case of more than five seconds,
memory out of proportion, opening or removing what lies outside, starting a program, a crash.
"""

import faulthandler
import hashlib
import json
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any

from featcache.errors import FeatcacheError
from featcache.text.templates import is_plain
from tests.fuzz.cases import Case, bend, write_case

SECONDS = 5.0
"""Time limit of one case."""
MEMORY = 512 << 20
"""Bytes of resident memory that one case may add: inputs are kilobytes."""
ADDRESSES = 6 << 30
"""Bytes of address space beyond what is in use when a process starts."""
KEPT = 400
"""Cases of a corpus."""
ROOT = Path(__file__).resolve().parents[2]
PROJECT = tuple(f"{ROOT / package}{os.sep}" for package in ("featcache", "heads", "cli"))
PROGRAMS = frozenset(
    {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "socket.connect"}
)
READING = frozenset({"open", "os.listdir", "os.scandir"})
REMOVING = frozenset({"os.remove", "os.rename", "os.rmdir", "shutil.rmtree"})
SECRET = b'{"secret": "nobody may read this"}\n'


@dataclass(frozen=True, kw_only=True)
class Target:
    """A reader, inputs that it accepts, and what else is true of its answers."""

    name: str
    seeds: Callable[[Path], list[Case]]
    """Makes cases; may use the folder."""
    run: Callable[[Path], None]
    """Reads the case that lies in a folder; asserts what must hold."""
    is_folder: bool = False
    """Whether it reads a folder that a stranger may have filled, not a file that the user named."""
    depth: int = 0
    """Folders above what is read, which are the user's own and may be links."""


@dataclass(kw_only=True)
class Outcome:
    """What came of a target."""

    target: str
    cases: int = 0
    corpus: int = 0
    lines: int = 0
    """Lines of the project that were run."""
    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    """Kind and place -> the message and the folder with the input."""


class HangError(BaseException):
    """A case takes longer than it may."""


class Violation(AssertionError):  # noqa: N818  # it is a verdict
    """A case touched what is none of its business."""


def fuzz(target: Target, out: Path, *, seed: int, cases: int, seconds: float) -> Outcome:
    """Run a target for a number of cases or seconds, whichever ends first.

    Args:
        target: What to run.
        out: Gets a folder for every failing input.
        seed: Of everything random.
        cases: At most so many.
        seconds: At most so long.
    """
    total = Outcome(target=target.name)
    end = time.monotonic() + seconds
    for attempt in range(6):  # a crash ends the process; the next one goes on with another stream
        left = end - time.monotonic()
        if left <= 0 or total.cases >= cases:
            break
        with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
            work = Path(name)
            child = os.fork()
            if child == 0:
                _child(target, work, out, seed * 1000 + attempt, cases - total.cases, left)
            status = _wait(child, left + 4 * SECONDS)
            _add(total, work, out, status)
        if status == 0:
            break
    return total


def _wait(child: int, seconds: float) -> int:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _add(total: Outcome, work: Path, out: Path, status: int) -> None:
    report = work / "report.json"
    part: dict[str, Any] = json.loads(report.read_text()) if report.is_file() else {}
    total.cases += part.get("cases", 0)
    total.corpus = max(total.corpus, part.get("corpus", 0))
    total.lines = max(total.lines, part.get("lines", 0))
    total.failures |= part.get("failures", {})
    if status != 0:
        number = os.waitstatus_to_exitcode(status)
        died = f"signal {signal.Signals(-number).name}" if number < 0 else f"exit code {number}"
        log = (work / "stderr").read_text(errors="replace") if (work / "stderr").is_file() else ""
        kept = _keep(work / "last.pickle", out, total.target, died)
        total.failures[f"process died: {died}"] = {"message": log[-2000:], "input": str(kept)}


def _keep(pickled: Path, out: Path, target: str, kind: str) -> Path:
    case: Case = pickle.loads(pickled.read_bytes()) if pickled.is_file() else {}
    return keep(case, out, target, kind)


def keep(case: Case, out: Path, target: str, kind: str) -> Path:
    """Write a failing input where a person finds it."""
    digest = hashlib.sha256(repr((kind, sorted(case.items()))).encode()).hexdigest()[:8]
    folder = out / f"{target}-{digest}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_case(case, folder)
    return folder


def _child(target: Target, work: Path, out: Path, seed: int, cases: int, seconds: float) -> None:
    code = 1
    try:
        log = os.open(work / "stderr", os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(log, 2)
        faulthandler.enable()
        _loop(target, work, out, seed, cases, seconds)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # nothing of the parent's may be run at exit


def _loop(target: Target, work: Path, out: Path, seed: int, cases: int, seconds: float) -> None:
    rng, end = Random(seed), time.monotonic() + seconds
    (work / "seeds").mkdir()
    corpus = target.seeds(work / "seeds")
    guard = Guard(work)
    outcome = Outcome(target=target.name)
    seen: set[tuple[CodeType, int]] = set()
    fresh = list(corpus)
    while outcome.cases < cases and (fresh or time.monotonic() < end):
        if fresh:
            case = fresh.pop()
        else:
            base = rng.choice(corpus[-40:]) if rng.random() < 0.5 else rng.choice(corpus)
            case = bend(base, rng, is_folder=target.is_folder, depth=target.depth)
        outcome.cases += 1
        problem, lines = guard.run(target, case)
        if problem is not None:
            kind, message = problem
            if kind not in outcome.failures:
                kept = keep(case, out, target.name, kind)
                outcome.failures[kind] = {"message": message, "input": str(kept)}
        elif not lines <= seen and len(corpus) < KEPT:
            corpus.append(case)
        seen |= lines
        outcome.corpus, outcome.lines = len(corpus), len(seen)
        if outcome.cases % 50 == 0 or problem is not None:
            _report(work, outcome)
    _report(work, outcome)


def _report(work: Path, outcome: Outcome) -> None:
    (work / "report.tmp").write_text(json.dumps(vars(outcome)))
    (work / "report.tmp").replace(work / "report.json")


class Guard:
    """Watches one process: limits, an alarm, an audit hook and the lines that run."""

    def __init__(self, work: Path) -> None:
        """Set the limits; they stay until the process ends."""
        self.folder, self.outside = work / "case", work / "outside"
        self._last = work / "last.pickle"
        self._seen: set[tuple[CodeType, int]] = set()
        self._wrong: list[str] = []
        self._is_on = False
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESSES, size + ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, self._alarm)
        sys.addaudithook(self._audit)
        os.fsync = lambda fd: None  # no power cut is waited for here, and disks are slow
        self._lay_out_outside()

    def run(
        self, target: Target, case: Case
    ) -> tuple[tuple[str, str] | None, set[tuple[CodeType, int]]]:
        """Run one case; return what was wrong, as (kind and place, message), and the lines run."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self._last.write_bytes(pickle.dumps(case))
        write_case(case, self.folder)
        self._seen, self._wrong = set(), []
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        problem: tuple[str, str] | None = None
        try:
            with self._watched():
                target.run(self.folder)
        except FeatcacheError as error:
            problem = _check_message(error)
        except (Exception, HangError) as error:
            problem = (f"{type(error).__name__} at {_place(error)}", _message(error))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        if grown > MEMORY:
            problem = (f"memory of {target.name}", f"{grown >> 20} MiB more than before")
        if self._wrong:
            problem = (self._wrong[0].split(":")[0], "; ".join(self._wrong[:3]))
        elif problem is None and self._outside() != self._held:
            problem = ("changed what lies outside", str(sorted(self._outside())))
        if self._outside() != self._held:
            self._lay_out_outside()
        return problem, self._seen

    @contextmanager
    def _watched(self) -> Iterator[None]:
        faulthandler.dump_traceback_later(3 * SECONDS, exit=True)  # for a hang that hears no alarm
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        self._is_on = True
        sys.settrace(self._trace)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            sys.settrace(None)
            self._is_on = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()

    def _outside(self) -> dict[str, bytes]:
        found = self.outside.iterdir() if self.outside.is_dir() else ()
        return {p.name: p.read_bytes() if p.is_file() else b"" for p in found}

    def _lay_out_outside(self) -> None:
        shutil.rmtree(self.outside, ignore_errors=True)
        self.outside.mkdir()
        names = ("secret.json", "key.json", "manifest.jsonl", "labels.npy", "rows.h5", "x.jpg")
        for name in names:
            (self.outside / name).write_bytes(SECRET)
        self._held = dict.fromkeys(names, SECRET)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        file = frame.f_code.co_filename
        if event == "call" and not file.startswith(PROJECT):
            return None
        self._seen.add((frame.f_code, frame.f_lineno))
        return self._trace

    def _alarm(self, _signal: int, _frame: FrameType | None) -> None:
        raise HangError(f"longer than {SECONDS} s")

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._is_on:
            return
        if event in PROGRAMS and args[:1] != ("uname",):  # the platform module asks once
            self._wrong.append(f"{event}: {args!r}"[:300])
            raise Violation(event)
        touches = event in READING or event in REMOVING
        if touches and args and isinstance(args[0], str | bytes | os.PathLike):
            path = Path(os.fsdecode(args[0]))
            try:  # removing a link leaves what it leads to
                real = path.resolve() if event in READING else path.parent.resolve() / path.name
            except (OSError, RuntimeError, ValueError):
                return
            if real.is_relative_to(self.outside):
                self._wrong.append(f"{event} outside at {_caller()}: {args[0]!r}"[:300])


def _check_message(error: FeatcacheError) -> tuple[str, str] | None:
    """An error is a sentence for a person: not empty, not a page."""
    text = str(error)
    if not text or len(text) > 4000 or not is_plain(text.replace("\n", "")):
        return f"message that nobody can read at {_place(error)}", ascii(text[:200])
    return None


def _caller() -> str:
    for frame in reversed(traceback.extract_stack()):
        if frame.filename.startswith(PROJECT):
            return f"{_short(frame.filename)}:{frame.lineno}"
    return "?"


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if str(ROOT) in f.filename and "/tests/fuzz/guard" not in f.filename]
    if isinstance(error, AssertionError):  # a promise of the target's: say which
        return " < ".join(f"{_short(f.filename)}:{f.lineno}" for f in reversed(ours)) or "?"
    inner = [f for f in ours if "/tests/" not in f.filename] or ours
    return f"{_short(inner[-1].filename)}:{inner[-1].lineno}" if inner else "?"


def _short(file: str) -> str:
    return file.removeprefix(f"{ROOT}/")


def _message(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f"{last[0].filename}:{last[0].lineno}" if last else "?"
    return f"{type(error).__name__}: {str(error)[:300]!a} (raised at {where})"

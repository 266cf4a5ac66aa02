"""Whether anything on the disk changes without the recorder's notice: strace is the other witness.

Example: python -m tests.reliability.strace /tmp/somewhere
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.reliability.checks import FaultError
from tests.reliability.killing import REPOSITORY, environment

CALLS = (
    "open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,"
    "splice,fallocate,truncate,ftruncate,fsync,fdatasync,sync_file_range,sync,syncfs,rename,"
    "renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir"
)
"""What may change a disk, or make a change durable; maps are for reading only here."""

_NAMES = {
    "fsync": "fsync",
    "fdatasync": "fsync",
    "mkdir": "mkdir",
    "mkdirat": "mkdir",
    "rmdir": "remove",
    "unlink": "remove",
    "unlinkat": "remove",
    "rename": "rename",
    "renameat": "rename",
    "renameat2": "rename",
}
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)")
_UNFINISHED = re.compile(r"^(\d+) +(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
_PLACE = re.compile(r"(?:(?:AT_FDCWD|\d+)(?:<([^>]*)>)?, )?\"((?:[^\"\\]|\\.)*)\"|\d+<([^>]*)>")

Call = tuple[str, str]
"""(create, write, fsync, rename, remove or mkdir, path)."""


def missing() -> str:
    """Say why strace cannot be asked; nothing where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(
        ["strace", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False
    )
    return f"strace may not trace here: {tried.stderr.strip()}" if tried.returncode else ""


def compare(folder: Path, stories: Sequence[str]) -> int:
    """Record stories in a process of their own under strace, and compare what both saw.

    Args:
        folder: For everything.
        stories: Names of stories.

    Returns:
        Calls that both saw.

    Raises:
        FaultError: If one saw what the other did not.
    """
    trace = folder / "trace"
    quietly = ["strace", "-f", "-y", "-s", "0", "--seccomp-bpf", "-e", f"trace={CALLS}"]
    itself = [sys.executable, "-m", __name__, str(folder), *stories]
    done = subprocess.run(
        [*quietly, "-o", str(trace), *itself],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise FaultError(f"the process under strace failed: {done.stderr[-2000:]}")
    recorded = json.loads(done.stdout.splitlines()[-1])
    seen = list(_calls(trace.read_text(errors="replace").splitlines()))
    count = 0
    for name in stories:
        disk = f"{folder}/{name}"
        begin, end = (seen.index(("mkdir", f"{disk}.{word}")) for word in ("begin", "end"))
        told = [(call, f"{disk}/{path}".rstrip("/")) for call, path in recorded[name]["calls"]]
        there = {f"{disk}/{path}" for path in recorded[name]["before"]}
        mine = [(c, p) for c, p in seen[begin:end] if f"{p}/".startswith(f"{disk}/")]
        _compare(told, list(_created(mine, there)))
        count += len(told)
    return count


def _compare(told: Sequence[Call], seen: Sequence[Call]) -> None:
    """Compare step by step; of the writes between two steps only which files they were to."""
    for number, (mine, theirs) in enumerate(zip(_gaps(told), _gaps(seen), strict=False)):
        # strace sees that a file is cut that is empty already; the recorder sees no change.
        cut = {("write", path) for call, path in theirs[0] if call == "cut"}
        written = {c for c in theirs[0] if c[0] == "write"}
        if mine[1] != theirs[1] or not written <= mine[0] <= written | cut:
            raise FaultError(f"step {number}: the recorder saw {mine}, strace saw {theirs}")
    if len(list(_gaps(told))) != len(list(_gaps(seen))):
        raise FaultError(f"the recorder saw {told}, strace saw {seen}")


def _gaps(calls: Iterable[Call]) -> Iterator[tuple[set[Call], Call | None]]:
    """Split into steps: each with the writes before it."""
    writes: set[Call] = set()
    for call in calls:
        if call[0] in ("write", "cut"):
            writes.add(call)
        else:
            yield writes, call
            writes = set()
    yield writes, None


def _created(calls: Iterable[Call], there: set[str]) -> Iterator[Call]:
    """Tell files that are made from files that are only opened."""
    for call, path in calls:
        if call == "rename" or call == "mkdir":
            there.add(path)
        elif call == "remove":
            there.discard(path)
        if call != "open":
            yield call, path
        elif path not in there:
            there.add(path)
            yield "create", path


def _calls(lines: Iterable[str]) -> Iterator[Call]:
    """Read strace's lines; what threads interleave is put together again."""
    begun: dict[str, str] = {}
    for raw in lines:
        line = raw
        if found := _UNFINISHED.match(raw):
            begun[found[1]] = found[2]
            continue
        if found := _RESUMED.match(raw):
            line = f"{found[1]} {begun.pop(found[1])}{found[2]}"
        if (match := _LINE.match(line)) and not match[4].startswith("-"):
            yield from _call(match[2], match[3])


def _call(name: str, arguments: str) -> Iterator[Call]:
    places = [
        str(Path(folder or "/") / name) if name else folder or handle
        for folder, name, handle in _PLACE.findall(arguments)
    ]
    if not places:
        return
    if name in ("open", "openat", "creat"):
        if "O_CREAT" in arguments and "O_TMPFILE" not in arguments:
            yield "open", places[0]
    elif name in _NAMES:
        yield _NAMES[name], places[-1]
    elif name in ("ftruncate", "truncate"):
        yield "cut", places[0]
    elif name in ("write", "pwrite64", "writev"):
        yield "write", places[0]
    else:
        yield name, places[0]  # which the recorder knows nothing of


def main() -> None:
    """Record the stories that are named, and print what the recorder saw."""
    from tests.reliability.faults import World
    from tests.reliability.powerloss import run
    from tests.reliability.recorder import Recorder
    from tests.reliability.stories import STORIES
    from tests.reliability.story import Story

    folder, *names = sys.argv[1:]
    root = Path(folder)
    told = {}
    kinds: dict[str, type[Story]] = {story.name: story for story in STORIES}
    with World(root / "world", rows=8).stand_in() as world:
        for name in names:
            (root / f"{name}-else").mkdir()
            story, disk = kinds[name](world, root / f"{name}-else"), root / name
            disk.mkdir()
            story.before(disk)
            recorder = Recorder(disk, really=True)
            before = sorted(recorder.start.tree())
            Path(f"{disk}.begin").mkdir()
            run(story, recorder, disk)
            Path(f"{disk}.end").mkdir()
            told[name] = {"calls": recorder.calls, "before": before}
    print(json.dumps(told))  # noqa: T201


if __name__ == "__main__":
    main()

"""Extractions and removals by the hundred: torch and the model are loaded once, each is a fork.

One JSON object a line on stdin asks for a life, one on stdout tells how it ended. A life may end by
SIGKILL after a time, at a system call that changes the disk, or when a number of shards is
entered. Shards are as small as a micro-batch, so that a short pass has many.
"""

import itertools
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from featcache.backbones.registry import load_backbone
from featcache.pipeline import extraction, run, write
from featcache.pipeline.request import Request
from featcache.store.cache import Cache
from featcache.store.removal import remove

CHANGES = ("open", "write", "fsync", "replace", "rename", "unlink", "mkdir", "rmdir", "ftruncate")
"""Functions of `os` through which everything on the disk changes."""

TOO_LONG = 120.0
"""Seconds after which a life counts as hanging."""


def main() -> None:
    """Serve until stdin ends."""
    talk = os.dup(1)
    os.dup2(2, 1)
    torch.set_num_threads(1)  # a fork has none of its parent's threads
    backbone = load_backbone("tiny", weights=None, device="cpu", compute="auto")
    setattr(extraction, "load_backbone", lambda *_, **__: backbone)  # noqa: B010
    write.TARGET_GFLOPS = {"cpu": 0.0}
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    for line in sys.stdin:
        job = json.loads(line)
        end = extract(job) if job.pop("here", False) else live(job)
        os.write(talk, (json.dumps(end) + "\n").encode())


def extract(job: dict[str, Any]) -> dict[str, Any]:
    """Extract in this very process: what is imported and compiled late is then done for all."""
    run.extract(request_of(job))
    return {"outcome": "done", "calls": 0, "seconds": 0.0, "said": ""}


def live(job: dict[str, Any]) -> dict[str, Any]:
    """Fork, let the child extract, kill it in time, and tell how it ended."""
    reader, writer = os.pipe()
    while signal.sigtimedwait([signal.SIGCHLD], 0):
        pass
    begin = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(job, writer)
    os.close(writer)
    limit = job.get("seconds")
    if signal.sigtimedwait([signal.SIGCHLD], TOO_LONG if limit is None else limit) is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    seconds = time.perf_counter() - begin
    with os.fdopen(reader, "rb") as pipe:
        last = json.loads(pipe.read() or b"{}")
    outcome = "failed"
    if os.WIFSIGNALED(status):
        outcome = "hung" if seconds >= TOO_LONG else "killed"
    elif os.WEXITSTATUS(status) == 0:
        outcome = "done"
    return {"outcome": outcome, "calls": 0, "said": "", **last, "seconds": seconds}


def work(job: dict[str, Any]) -> None:
    """Extract, or remove the cache that the job names."""
    if (asked := job["request"].get("remove")) is None:
        run.extract(request_of(job))
    else:
        remove(Path(asked).parents[1], Path(asked))


def request_of(job: dict[str, Any]) -> Request:
    """Return what a job asks for."""
    asked = job["request"]
    paths = {name: Path(asked[name]) for name in ("root", "descriptions")}
    return Request(**{**asked, **paths})


def _child(job: dict[str, Any], pipe: int) -> None:
    report, code = os.write, 1
    end: dict[str, Any] = {}
    try:
        count = _count_changes(job.get("call"), torn=bool(job.get("torn")))
        if job.get("shards"):
            _die_after_shards(job["shards"])
        work(job)
        end, code = {"calls": count()}, 0
    except BaseException:
        end = {"said": traceback.format_exc()[-3000:]}
    report(pipe, json.dumps(end).encode())
    os._exit(code)


def _count_changes(last: int | None, *, torn: bool) -> Callable[[], int]:
    """Die at change number `last`: before it, or in the midst of it where `torn`."""
    numbers = itertools.count(1)

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if original.__name__ == "open" and not args[1] & (os.O_WRONLY | os.O_RDWR):
                return original(*args, **options)
            if next(numbers) == last:
                try:
                    if torn and original.__name__ == "write":
                        original(args[0], args[1][: len(args[1]) // 2])
                    elif torn:
                        original(*args, **options)
                finally:
                    os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **options)

        return call

    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name)))
    return lambda: next(numbers) - 1


def _die_after_shards(count: int) -> None:
    original, numbers = Cache.append, itertools.count(1)

    def append(*args: Any, **options: Any) -> None:
        original(*args, **options)
        if next(numbers) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(Cache, "append", append)  # noqa: B010


if __name__ == "__main__":
    main()

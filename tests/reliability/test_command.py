"""The real command, killed, terminated and interrupted: exit codes, and a cache that is sound."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.checks import shard_lines
from tests.reliability.killing import Campaign, Server, environment

pytestmark = pytest.mark.long

PROGRAM = """
import signal
from featcache.pipeline import write
from cli.featcache.app import main

# A shell that starts a program in the background lets it ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
write.TARGET_GFLOPS = {"cpu": 0.0}
main()
"""
"""The entry point, with shards as small as a micro-batch."""

PROMPT = 5.0
"""CPU seconds that a command takes at most to end after Ctrl-C; others cost it no CPU time."""


@pytest.fixture(scope="module")
def campaign(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return Campaign(server, tmp_path_factory.mktemp("command"), train=24)


@pytest.mark.slow
def test_the_command_goes_on_whatever_ended_it(campaign: Campaign) -> None:
    root = campaign.folder / "killed"
    for number, after in (
        (signal.SIGKILL, 0.5),  # in the midst of its imports
        (signal.SIGKILL, None),
        (signal.SIGTERM, None),
        (signal.SIGINT, None),
        (signal.SIGKILL, 1.5),
    ):
        before = len(shard_lines(root))
        code, seconds = end_by(number, after, campaign.request(root))
        campaign.check(root, before, number.name)
        if number is signal.SIGKILL:
            assert code == -signal.SIGKILL
        else:
            assert code == 130
            assert seconds < PROMPT
        if after is None:
            assert len(shard_lines(root)) > before
    done = start(campaign.request(root))
    _, said = done.communicate(timeout=120)
    assert done.returncode == 0, said
    campaign.compare(root)


def end_by(
    number: signal.Signals, after: float | None, request: dict[str, Any]
) -> tuple[int, float]:
    """Signal the command after a time, or once it has entered a shard: exit code, CPU seconds."""
    root = Path(request["root"])
    before = len(shard_lines(root))
    process = start(request)
    begin = time.monotonic()
    while process.poll() is None and time.monotonic() - begin < 120:
        if time.monotonic() - begin > after if after else len(shard_lines(root)) > before:
            break
        time.sleep(0.01)
    before_it = time_of_ended() + processor_time(process.pid)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0, f"it ended before {number.name}: {said}"
    return process.returncode, time_of_ended() - before_it


def processor_time(pid: int) -> float:
    """Return the seconds of processor time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def time_of_ended() -> float:
    """Return the seconds of processor time of all processes that were started here and ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def start(request: dict[str, Any]) -> "subprocess.Popen[str]":
    """Run `featcache extract` for what is asked for."""
    lists = [(f"--{n}", v) for n in ("patches", "views") for v in request[n]]
    names = ("dataset", "backbone", "descriptions", "micro_batch")
    single = [(f"--{n.replace('_', '-')}", str(request[n])) for n in names]
    flags = [word for pair in (*lists, *single, ("--cache", request["root"])) for word in pair]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "extract", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )

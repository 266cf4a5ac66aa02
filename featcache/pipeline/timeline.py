"""Timeline of a pass as a Chrome trace, and advice on the stage that limits its speed.

The file opens in chrome://tracing and in Perfetto. Times are wall-clock times: a decoder that waits
for a core counts as busy.
"""

import json
import tempfile
import threading
import time
from pathlib import Path

from featcache.errors import UsageError
from featcache.store.format.files import write_atomically
from featcache.wording import Argument, Part

EVENTS = 200_000
"""Maximum number of events in the trace; later ones count in the sums only."""

STAGES = ("decode", "encode", "write")

UNTIMED = "No image was encoded, so no timeline was written."
"""Message for a requested timeline without any event."""

UNUSED_SHARE = 0.3
"""Unused share of the cores above which the pass is not limited by computing."""

COMPILE_SHARE = 0.3
"""Share of a pass above which the advice is about compiling."""

FEW_BATCHES = 4
"""Minimum batches per core for full utilisation."""


def check_place(path: Path) -> None:
    """Make sure, before a long pass, that its timeline can be written afterwards.

    Raises:
        UsageError: If the folder is missing or refuses files, or the path is a folder itself.
    """
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            why = "Is a directory" if path.is_dir() else ""
            if path.exists() and not (path.is_file() or path.is_dir()):
                why = "It is a device or a pipe, in whose place the file would go"
    except OSError as error:
        why = error.strerror or str(error)
    if why:
        raise UsageError(
            f"The timeline {path} cannot be written ({why}). Give ",
            Argument("profile"),
            " a file in an existing folder that can be written to.",
        )


class Timeline:
    """Collects what the stages did, from all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[tuple[str, int, float, float]] = []
        self._threads: dict[int, str] = {}
        self._begin = time.perf_counter()
        self.busy = dict.fromkeys(STAGES, 0.0)
        """Stage -> seconds, added up over its threads."""
        self.count = dict.fromkeys(STAGES, 0)
        """Stage -> pieces of work: images, batches, shards."""

    def watch(self, stage: str, begin: float, end: float) -> None:
        """Note one piece of work of the calling thread; times as `time.perf_counter` has them."""
        thread = threading.current_thread()
        number = threading.get_native_id()
        with self._lock:
            self.busy[stage] += end - begin
            self.count[stage] += 1
            if len(self._events) < EVENTS:
                self._events.append((stage, number, begin, end))
                self._threads[number] = thread.name

    def write(self, path: Path) -> None:
        """Write the trace; the file appears whole or not at all.

        Raises:
            CacheError: If it cannot be written.
        """
        names = [
            {"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": {"name": name}}
            for tid, name in self._threads.items()
        ]
        work = [
            {
                "ph": "X",
                "pid": 1,
                "tid": tid,
                "name": stage,
                "cat": stage,
                "ts": round(1e6 * (begin - self._begin), 1),
                "dur": round(1e6 * (end - begin), 1),
            }
            for stage, tid, begin, end in self._events
        ]
        trace = {"traceEvents": [*names, *work], "displayTimeUnit": "ms"}
        write_atomically(path, json.dumps(trace).encode())


def verdict(
    *,
    busy: dict[str, float],
    waited: dict[str, float],
    seconds: float,
    cpu: float,
    images: int,
    cores: int,
    device: str,
    compute: str,
    has_bf16: bool,
    batches: int,
    compile_s: float,
) -> Part:
    """Say in one line which stage binds and what would make the pass faster here.

    Args:
        busy: Stage -> seconds of all its threads.
        waited: Stage -> seconds that the pass waited for it: decode, encode, write.
        seconds: Duration of the pass.
        cpu: CPU seconds of all threads.
        images: Number of images that were decoded.
        cores: Cores of this machine.
        device: Kind: cpu, cuda, mps.
        compute: float32 or bfloat16.
        has_bf16: Whether the device has units for bfloat16.
        batches: Number of encoded batches.
        compile_s: Seconds of the pass in which the encoder was compiled.
    """
    if not images or seconds <= 0:
        return "Nothing was encoded, so no stage binds."
    used = min(1.0, cpu / (cores * seconds))
    on_cores = {"decode": busy["decode"], "encode": busy["encode"] if device == "cpu" else 0.0}
    # By the clock threads that wait for a core count as busy; only their proportion is of use.
    shares = {s: used * spent / (sum(on_cores.values()) or 1.0) for s, spent in on_cores.items()}
    binds = max(waited, key=lambda stage: waited[stage])
    rate = images / seconds
    if binds == "write":
        return (
            f"The disk binds ({waited['write']:.1f} of {seconds:.1f} s were spent waiting for it): "
            "a faster disk for ",
            Argument("root"),
            ", or fewer patch features (",
            Argument("patches", "none"),
            ", or :int8).",
        )
    if compile_s > COMPILE_SHARE * seconds:
        return (
            f"Compiling binds ({compile_s:.1f} of {seconds:.1f} s): leave ",
            Argument("compiled"),
            " out of passes as short as this.",
        )
    if device == "cpu":
        parts = ", ".join(f"{stage} {100 * share:.0f} %" for stage, share in shares.items())
        head = f"of {cores} cores' time: {parts}, unused {100 * (1 - used):.0f} %"
        if used < 1 - UNUSED_SHARE and batches < FEW_BATCHES * cores:
            return (
                f"The pass is too short to keep the cores busy ({batches} batches, {head}): a "
                "smaller ",
                Argument("micro_batch"),
                ", if there are not more images.",
            )
        if used < 1 - UNUSED_SHARE:
            what = "Reading the images" if binds == "decode" else "Something beside this pass"
            return (
                f"{what} binds ({head}): a faster disk for the images, or fewer other programs "
                f"on this machine."
            )
        if shares["decode"] > shares["encode"]:
            return (
                f"Decoding binds ({head}): images scaled down beforehand to twice the encoder's "
                f"input, or more cores."
            )
        advice: list[Part] = ["a GPU, more cores or a smaller backbone"]
        if compute == "float32" and has_bf16:
            advice = [Argument("compute", "bf16"), ", for which this CPU has units; then ", *advice]
        free = rate / max(1e-9, 1 - shares["decode"])
        return (
            f"Encoding binds ({head}): ",
            *advice,
            f"; free decoding would give {free:.0f} images/s.",
        )
    if binds == "decode":
        need = 100 * shares["decode"]
        return (
            f"Decoding binds ({need:.0f} % of {cores} cores' time, while the device waited "
            f"{waited['decode']:.1f} of {seconds:.1f} s): more cores, images scaled down "
            f"beforehand, or fewer views."
        )
    advice = ["a larger ", Argument("micro_batch"), ", or a smaller backbone"]
    if compute == "float32" and has_bf16:
        advice = [Argument("compute", "bf16"), ", for which this device has units"]
    return (f"The device binds ({rate:.0f} images/s): ", *advice, ".")

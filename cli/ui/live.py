"""Progress of a command: one changing line on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cli.ui import terminal
from cli.ui.flags import in_flags
from cli.ui.units import human_bytes, human_seconds
from featcache.sources.fetch.progress import Bytes
from featcache.wording import Part

if TYPE_CHECKING:
    from featcache.pipeline.progress import Progress


PLAIN_EVERY = 10.0
"""Seconds between progress lines where stderr is no terminal."""


class Live:
    """One live line on a terminal, an occasional plain line elsewhere, nothing when quiet."""

    def __init__(self, quiet: bool) -> None:
        self._console = None if quiet else terminal.console(err=True)
        self._status: Any = None
        self._last = time.monotonic()

    def update(self, text: str) -> None:
        """Show the current state."""
        if self._console is None:
            return
        if self._console.is_terminal:
            if self._status is None:
                self._status = self._console.status(terminal.styled(text), spinner="dots")
                self._status.start()
                terminal.guard()  # rich puts streams of its own there meanwhile
            self._status.update(terminal.styled(text))
        elif time.monotonic() - self._last >= PLAIN_EVERY:
            self._last = time.monotonic()
            self._console.print(terminal.styled(text), soft_wrap=True)

    def counter(self) -> Callable[[str, int, int], None]:
        """Return a reporter of (what is being done, done so far, of how many)."""
        started: dict[str, tuple[float, int]] = {}

        def report(what: str, done: int, total: int) -> None:
            number = human_bytes if isinstance(done, Bytes) else str
            begin, before = started.setdefault(what, (time.monotonic(), done))
            elapsed, gained = time.monotonic() - begin, done - before
            so_far = f" {number(done)}" if done or total else ""
            text = f"{what}{so_far}/{number(total)}" if total else f"{what}{so_far}"
            if gained > 0 and elapsed > 1:
                rate = gained / elapsed
                text += f"  {human_bytes(rate) if isinstance(done, Bytes) else f'{rate:.3g}'}/s"
                text += f"  ETA {human_seconds((total - done) / rate)}" if total else ""
            self.update(text)

        return report

    def say(self, text: Part) -> None:
        """Print a line that stays, above the live one; arguments are written as flags."""
        if self._console is not None:
            self._console.print(terminal.styled(in_flags([text])), soft_wrap=True)

    def close(self) -> None:
        """Remove the live line."""
        if self._status is not None:
            self._status.stop()
            self._status = None


@contextmanager
def live(quiet: bool) -> Iterator[Live]:
    """Show progress while the block runs."""
    line = Live(quiet)
    try:
        yield line
    finally:
        line.close()


def shown_on(line: "Live") -> Callable[["Progress"], None]:
    """Return a function that shows the progress of a pass and of its preparation."""
    count = line.counter()

    def show(p: "Progress") -> None:
        if p.rate:
            line.update(progress_text(p))
        else:  # stages without a rate, such as hashing
            count(p.stage, p.done, p.total)

    return show


def progress_text(p: "Progress") -> str:
    """Describe the progress of a pass in one line."""
    line = f"{p.stage} {p.done}/{p.total}"
    if p.rate:
        line += f"  {p.rate:.0f} images/s"
    if p.eta_s is not None:
        line += f"  ETA {human_seconds(p.eta_s)}"
    if p.bytes:
        line += f"  {human_bytes(p.bytes)} written"
    if p.binding:
        line += f"  bound by {p.binding}"
    return line + (f"  {p.bad} unreadable" if p.bad else "")

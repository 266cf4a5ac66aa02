"""A headless Chromium that a test drives through a pipe, without a package for it.

Chromium reads commands of its DevTools protocol on file 3 and answers on file 4, each message ended
by a zero byte.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECONDS = 90.0
"""Longest wait; machines that run tests are busy."""
START = """
import fcntl, os, sys
reads, writes = (fcntl.fcntl(int(file), fcntl.F_DUPFD_CLOEXEC, 10) for file in sys.argv[1:3])
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""Gives the pipes the numbers 3 and 4, which may be taken in this process.

Not every shell can: dash redirects to files of one digit only.
"""


def chromium() -> str | None:
    """Find the browser."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


class Tab:
    """A page in the browser."""

    def __init__(self, writes: int, reads: int) -> None:
        self._writes, self._reads = writes, reads
        self._buffer, self._number, self._session = b"", 0, ""
        self.log: list[str] = []
        """What the page reported: messages of its console, exceptions, refusals of its policy."""
        made = self._call("Target.createTarget", url="about:blank")
        attached = self._call("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for name in ("Page.enable", "Runtime.enable", "DOM.enable", "Log.enable"):
            self._call(name)

    def open(self, url: str) -> None:
        """Open a page and wait until it is there."""
        self._call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        """Evaluate an expression in the page."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Wait until an expression is true."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if found := self.value(expression):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{expression} did not come true; the page said {self.log}")

    def choose(self, selector: str, files: list[Path]) -> None:
        """Choose files in an input."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def look(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Set the size of the window in pixels, and the colours that the user prefers."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self) -> bytes:
        """Return what the window shows, as a PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writes, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != self._number:
            if answer.get("method") in (
                "Log.entryAdded",
                "Runtime.exceptionThrown",
                "Runtime.consoleAPICalled",
            ):
                self.log.append(json.dumps(answer["params"]))
        assert "error" not in answer, answer
        return answer["result"]

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._reads], [], [], SECONDS)
            data = os.read(self._reads, 1 << 20) if ready else b""
            assert data, "the browser does not answer"
            self._buffer += data
        first, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """Start the browser with a profile in a folder, and end it.

    Args:
        folder: An empty one.
    """
    found = chromium()
    assert found is not None
    reads_commands, writes = os.pipe()
    reads, writes_answers = os.pipe()
    command = [
        *(found, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", "--disable-background-networking", "--hide-scrollbars"),
        *("--remote-debugging-pipe", f"--user-data-dir={folder}"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(reads_commands), str(writes_answers), *command],
        pass_fds=(reads_commands, writes_answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(reads_commands)
    os.close(writes_answers)
    try:
        yield Tab(writes, reads)
    finally:
        process.terminate()
        process.wait()
        os.close(writes)
        os.close(reads)

"""Everything that a program does to the disk below one folder, step by step.

The functions of `os`, and `open`, are wrapped while a `Recorder` is entered; what threads do is put
in a row. Bytes are not taken from the calls: before each step every file that is open for writing
is compared with what is known of it, so that all writes between two steps count as one.
"""

import builtins
import io
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

from tests.reliability.disk import ROOT, Change, Disk, Entry, Said, Step, Sync

_WRITES = os.O_WRONLY | os.O_RDWR
_NAMELESS = getattr(os, "O_TMPFILE", 0)


class KilledError(BaseException):
    """The process is no more."""


class Recorder:
    """Steps below a folder; a context, which may be entered again."""

    def __init__(self, root: Path, *, really: bool = False) -> None:
        """Take what is there as durable.

        Args:
            root: The folder; it exists.
            really: Sync for real, too.
        """
        self.root = root.resolve()
        self.start = Disk()
        self.steps: list[Step] = []
        self.calls: list[tuple[str, str]] = []
        """(call, path below the root) of each step, to be compared with what strace saw."""
        self.dies_at: int | None = None
        """The step instead of which the process is killed; counted from 0."""
        self._dead = False
        self._disk = self.start
        self._really = really
        self._lock = threading.RLock()
        self._open: dict[int, tuple[int, int]] = {}  # descriptor -> node, inode
        self._stack = ExitStack()
        self._find(self.root, ROOT)
        self._disk = self.start.copy()

    def __enter__(self) -> "Recorder":
        self._dead = False
        self._open.clear()
        wrapped: dict[str, Callable[..., Any]] = {
            "open": self._os_open,
            "close": self._close,
            "write": self._write,
            "fsync": self._fsync,
            "fdatasync": self._fsync,
            "ftruncate": self._write,
            "mkdir": self._mkdir,
            "rmdir": self._unlink,
            "unlink": self._unlink,
            "remove": self._unlink,
            "rename": self._rename,
            "replace": self._rename,
            "link": self._refuse,
            "symlink": self._refuse,
            "truncate": self._refuse,
        }
        for name, method in wrapped.items():
            self._wrap(os, name, method)
        for module in (io, builtins):
            self._wrap(module, "open", self._io_open)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._look()
        finally:
            self._stack.close()

    def say(self, promises: Iterable[str]) -> None:
        """Note that somebody may rely on something from now on."""
        with self._lock:
            self._look()
            self.steps.append(Said(frozenset(promises)))

    def _wrap(self, module: object, name: str, method: Callable[..., Any]) -> None:
        original = getattr(module, name)

        def call(*args: Any, **options: Any) -> Any:
            with self._lock:
                return method(original, *args, **options)

        self._stack.enter_context(mock.patch.object(module, name, call))

    # One method for each function of `os`

    def _os_open(self, original: Any, path: Any, flags: int, *args: Any, **options: Any) -> int:
        inside = self._inside(path, options.get("dir_fd"))
        nameless = _NAMELESS and flags & _NAMELESS == _NAMELESS
        if inside is None or not flags & _WRITES or nameless:
            handle: int = original(path, flags, *args, **options)
            return handle
        self._live()
        is_new = self._node(inside) is None
        if is_new and flags & os.O_CREAT and not os.path.lexists(path):
            self._before_step()
        handle = original(path, flags, *args, **options)
        self._opened(handle, inside)
        return handle

    def _io_open(
        self, original: Any, file: Any, mode: str = "r", *args: Any, **options: Any
    ) -> Any:
        inside = None if isinstance(file, int) else self._inside(file, None)
        if inside is None or not set(mode) & set("wax+") or options.get("opener"):
            return original(file, mode, *args, **options)
        self._live()
        if self._node(inside) is None and not os.path.lexists(file):
            self._before_step()
        opened = original(file, mode, *args, **options)
        self._opened(opened.fileno(), inside)
        handle, close = opened.fileno(), opened.close

        def closed() -> None:
            with self._lock:
                if self._dead:  # what is buffered yet must not come on the disk
                    os.dup2(os.open(os.devnull, os.O_WRONLY), handle)
                elif not opened.closed:
                    opened.flush()
                    self._look()
                self._open.pop(handle, None)
                close()

        opened.close = closed
        return opened

    def _close(self, original: Any, handle: int) -> None:
        if not self._dead:
            self._look()
        self._open.pop(handle, None)
        original(handle)

    def _write(self, original: Any, handle: int, *args: Any) -> Any:
        if handle in self._open:
            self._live()
        return original(handle, *args)

    def _fsync(self, original: Any, handle: Any) -> None:
        number = handle if isinstance(handle, int) else handle.fileno()
        node, _ = self._open.get(number, (None, 0))
        inside = self._inside(f"/proc/self/fd/{number}", None, follow=True)
        if node is None and inside is not None:
            node = self._node(inside)
        if node is None:
            return
        self._before_step()
        if self._really:
            original(handle)
        self.calls.append(("fsync", inside or ""))
        self.steps.append(Sync(node))

    def _mkdir(self, original: Any, path: Any, *args: Any, **options: Any) -> None:
        inside = self._inside(path, options.get("dir_fd"))
        if inside is None or os.path.lexists(path):
            original(path, *args, **options)
            return
        self._before_step()
        original(path, *args, **options)
        self.calls.append(("mkdir", inside))
        self._name(inside, self._new(folder=True))

    def _unlink(self, original: Any, path: Any, **options: Any) -> None:
        inside = self._inside(path, options.get("dir_fd"))
        if inside is None or self._node(inside) is None:
            original(path, **options)
            return
        self._before_step()
        original(path, **options)
        self.calls.append(("remove", inside))
        self._name(inside, None)

    def _rename(self, original: Any, source: Any, target: Any, **options: Any) -> None:
        old, new = self._inside(source, None), self._inside(target, None)
        if old is None or new is None:
            if old != new:
                raise NotImplementedError(f"a rename across {self.root}: {source}, {target}")
            original(source, target, **options)
            return
        self._before_step()
        original(source, target, **options)
        self.calls.append(("rename", new))
        node = self._node(old)
        self._entry((*self._place(old), None), (*self._place(new), node))

    def _refuse(self, original: Any, path: Any, *args: Any, **options: Any) -> None:
        if self._inside(path, None) is not None:
            raise NotImplementedError(f"{original.__name__} of {path} is not recorded yet")
        original(path, *args, **options)

    # What they share

    def _live(self) -> None:
        if self._dead:
            raise KilledError

    def _before_step(self) -> None:
        """Note bytes written so far, and die if it is time."""
        self._live()
        self._look()
        if self.dies_at is not None and len(self.calls) >= self.dies_at:
            self.dies_at, self._dead = None, True
            raise KilledError

    def _opened(self, handle: int, inside: str) -> None:
        node = self._node(inside)
        if node is None:
            node = self._new(folder=False)
            self._name(inside, node)
            self.calls.append(("create", inside))
        self._open[handle] = node, os.fstat(handle).st_ino
        self._look()

    def _look(self) -> None:
        """Note what was written to files that are open."""
        for handle, (node, inode) in self._open.items():
            if os.fstat(handle).st_ino != inode:
                raise NotImplementedError("a file was closed behind the recorder's back")
            data, known = _content(handle), self._disk.files[node]
            if data != known:
                keep = _in_common(data, known)
                step = Change(node, keep, data[keep:])
                self._disk.apply(step)
                self.steps.append(step)
                path = _path_of(handle)
                self.calls.append(("write", self._inside(path, None) or path))

    def _new(self, *, folder: bool) -> int:
        node = self._disk.new(folder=folder)
        nothing: Any = {} if folder else b""
        (self.start.folders if folder else self.start.files)[node] = nothing
        return node

    def _name(self, inside: str, node: int | None) -> None:
        self._entry((*self._place(inside), node))

    def _entry(self, *names: tuple[int, str, int | None]) -> None:
        step = Entry(names)
        self._disk.apply(step)
        self.steps.append(step)

    def _inside(self, path: Any, folder: int | None, *, follow: bool = False) -> str | None:
        """Return a path below the root; None for any other."""
        if isinstance(path, int):
            return None
        text = os.fsdecode(path)
        if folder is not None:
            text = f"{_path_of(folder)}/{text}"
        text = os.path.realpath(text) if follow else os.path.normpath(Path(text).absolute())
        if text == str(self.root):
            return ""
        prefix = f"{self.root}/"
        return text[len(prefix) :] if text.startswith(prefix) else None

    def _place(self, inside: str) -> tuple[int, str]:
        parent, _, name = inside.rpartition("/")
        folder = self._node(parent)
        assert folder is not None, f"{inside} lies in a folder that nobody made"
        return folder, name

    def _node(self, inside: str) -> int | None:
        node: int | None = ROOT
        for name in filter(None, inside.split("/")):
            node = None if node is None else self._disk.folders.get(node, {}).get(name)
        return node

    def _find(self, path: Path, node: int) -> None:
        for inner in sorted(path.iterdir()):
            inside = self._disk.new(folder=inner.is_dir())
            self._disk.folders[node][inner.name] = inside
            if inner.is_dir():
                self._find(inner, inside)
            else:
                self._disk.files[inside] = inner.read_bytes()


def _path_of(handle: int) -> str:
    return str(Path(f"/proc/self/fd/{handle}").readlink())


def _in_common(first: bytes, second: bytes) -> int:
    """Count the bytes at the beginning that are equal."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


_READ = os.open, os.read, os.close


def _content(handle: int) -> bytes:
    """Read a file that may be open for writing only, by functions that are not wrapped."""
    opened, read, close = _READ
    again = opened(f"/proc/self/fd/{handle}", os.O_RDONLY)
    try:
        parts = []
        while part := read(again, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    finally:
        close(again)

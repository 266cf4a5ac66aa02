"""A small world to break: photographs, a model of one matrix, and a disk that fails when told to.

Everything below `World.root` is one cache; `World.whole` is what an undisturbed extraction of the
same photographs leaves, byte for byte.
"""

import ctypes
import multiprocessing
import os
import resource
import shutil
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from featcache.errors import FeatcacheError
from featcache.pipeline import compatibility, extraction, opening, plan, run, texts, update
from featcache.pipeline import repair as mend
from featcache.pipeline.request import Request
from featcache.pipeline.summary import Summary
from featcache.store.format.identity import KEY_FILE, MANIFEST
from featcache.store.repair import verify as store_verify
from featcache.store.repair.verify import verify
from featcache.wording import in_python
from tests.cli.conftest import Answer, call
from tests.featcache.conftest import FakeBackbone
from tests.reliability.checks import Snapshot, check_instant, snapshot
from tests.reliability.killing import environment

EVERY_KIND: dict[str, Any] = {
    "patches": ["clearclip", "vanilla:int8@train"],
    "views": ["2"],
    "crops": ["2"],
    "view_patches": ["2:cdfsl"],
}
"""Whole images, patches of two types, views, crops with boxes, patches of views."""
LITTLE: dict[str, Any] = {"patches": ["clearclip"], "views": ["2@val"]}
"""Enough for several shards of several components."""
ROWS = 4
"""Rows of a shard, and of a micro-batch."""

Call = Callable[..., Any]


class World:
    """Photographs and a model; extracts, and knows what must come of it."""

    def __init__(self, folder: Path, *, rows: int = ROWS) -> None:
        """Draw the photographs unless another process has.

        Args:
            folder: For photographs and caches.
            rows: Of a shard.
        """
        self.folder, self.photos, self._rows = folder, folder / "zoo", rows
        self.backbone: Any = FakeBackbone()
        self.environment = {"torch": "1", "device": "cpu"}
        if not self.photos.exists():
            make_photos(self.photos)
        self._whole: dict[str, Snapshot] = {}

    @contextmanager
    def stand_in(self) -> Iterator["World"]:
        """Let the program find this world's model, in shards of four rows."""
        seams: list[tuple[object, str, Call]] = [
            (extraction, "load_backbone", self._load),
            (mend, "load_backbone", self._load),
            (opening, "choose", lambda *_: None),
            (opening, "check_known", lambda *_: None),
            (plan, "shard_rows_for", lambda *_: self._rows),
            (compatibility, "environment", lambda _: self.environment),
            (texts, "environment", lambda _: self.environment),
            (update, "cpu_cores", lambda: 1),
            (mend, "cpu_cores", lambda: 1),
        ]
        with ExitStack() as stack:
            for module, name, function in seams:
                stack.enter_context(mock.patch.object(module, name, function))
            yield self

    def extract(self, root: Path, say: Callable[[str], None] | None = None, **ask: Any) -> Summary:
        """Ask for everything, or for what is named."""
        request = Request(
            dataset=f"folder:{self.photos}", backbone="fake", root=root, micro_batch=ROWS
        )
        told = None if say is None else lambda part: say(in_python([part]))
        return run.extract(replace(request, **(ask or EVERY_KIND)), say=told)

    def whole(self, **ask: Any) -> Snapshot:
        """Return what an undisturbed extraction leaves."""
        name = repr(sorted(ask.items()))
        if name not in self._whole:
            root = self.folder / f"whole-{len(self._whole)}"
            self.extract(root, **ask)
            self._whole[name] = snapshot(root)
        return self._whole[name]

    def sound(self, root: Path, **ask: Any) -> Path:
        """Copy an undisturbed cache to a root, and return the cache's folder."""
        self.whole(**ask)
        number = list(self._whole).index(repr(sorted(ask.items())))
        shutil.copytree(self.folder / f"whole-{number}", root)
        return cache_in(root)

    def command(self, *words: str | Path) -> Answer:
        """Run `featcache` in this process; an exception that is no exit comes through."""
        from cli.featcache.app import app

        return call(app, [str(word) for word in words])

    def check_kept(self, root: Path, before: Mapping[str, bytes], **ask: Any) -> None:
        """See that the cache is sound as it stands, and that no finished file is lost."""
        check_instant(root, self.whole(**ask))
        for name, data in before.items():
            assert (root / name).read_bytes() == data, name

    def check_whole(self, root: Path, **ask: Any) -> None:
        """See that a cache equals an undisturbed one, manifest lines in any order."""
        found = snapshot(root).unordered().differences(self.whole(**ask).unordered())
        assert found == [], found
        assert verify(cache_in(root), full=True).problems == ()

    def check_files(self, root: Path, **ask: Any) -> None:
        """See that every file but the manifest equals that of an undisturbed cache."""
        files, expected = snapshot(root).files, self.whole(**ask).files
        assert files.keys() == expected.keys()
        assert [name for name in files if files[name] != expected[name]] == []
        report = verify(cache_in(root), full=True)
        assert report.problems == ()
        assert report.notes == ()

    def _load(self, name: str, **_: object) -> Any:
        return self.backbone


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What a failing disk does."""

    call: str
    """Which function of `os` fails: open, write, fsync, replace, ..."""
    error: int
    """Its errno."""
    at: int = 1
    """Which of the calls, counted from 1."""
    where: str = ""
    """Only calls on paths that hold this text count; folders end in `/`."""
    lasting: bool = False
    """Whether all later calls fail too."""
    room: int | None = None
    """Bytes that all writes together may take before they fail; instead of `at`."""


@dataclass
class Tally:
    """What happened on a failing disk."""

    calls: int = 0
    """That the fault is about."""
    failed: int = 0
    taken: int = 0
    """Bytes written."""


@contextmanager
def failing(root: Path, fault: Fault) -> Iterator[Tally]:
    """Let calls below a root fail while the block runs."""
    tally, lock, original = Tally(), threading.Lock(), getattr(os, fault.call)

    def is_due() -> bool:
        tally.calls += 1
        if fault.room is not None:
            return tally.taken >= fault.room
        return tally.calls == fault.at or (fault.lasting and tally.calls > fault.at)

    def function(*args: Any, **options: Any) -> Any:
        path = _path_of(fault.call, args)
        if path is None or not path.startswith(str(root)) or fault.where not in path:
            return original(*args, **options)
        with lock:
            if is_due():
                tally.failed += 1
                raise OSError(fault.error, os.strerror(fault.error), path)
            if fault.call != "write":
                return original(*args, **options)
            most = None if fault.room is None else fault.room - tally.taken
            written: int = original(args[0], args[1][:most])
            tally.taken += written
            return written

    with mock.patch.object(os, fault.call, function):
        yield tally


@contextmanager
def no_more_than(most: int) -> Iterator[None]:
    """Let no file of this process grow beyond some bytes, by whatever library it is written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))  # Python ignores the signal
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _path_of(name: str, args: tuple[Any, ...]) -> str | None:
    """Return which path a call is about; None for a mere look."""
    if name == "open":
        return str(args[0]) if args[1] & (os.O_WRONLY | os.O_RDWR) else None
    if isinstance(args[0], int):
        path = Path(f"/proc/self/fd/{args[0]}").readlink()
        return f"{path}/" if path.is_dir() else str(path)
    return str(args[1] if name == "replace" else args[0])


def cache_in(root: Path) -> Path:
    """Return the folder of the one cache below a root."""
    (path,) = {p.parent for name in (KEY_FILE, MANIFEST) for p in root.glob(f"*/*/{name}")}
    return path


def said_by(error: BaseException) -> str:
    """Return the message of an expected error: at most two sentences, no line break."""
    assert isinstance(error, FeatcacheError)
    assert "\n" not in str(error)
    return str(error)


def flip(path: Path, place: int, mask: int = 1) -> None:
    """Change one byte."""
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ mask]))


def make_photos(root: Path) -> None:
    """Draw two classes in three splits; one file is no picture."""
    seed = 0
    for split, each in (("train", 4), ("val", 1), ("test", 2)):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for i in range(each):
                seed += 1
                coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
                image = Image.fromarray(coarse).resize((50, 40), Image.Resampling.BICUBIC)
                image.save(root / split / name / f"{i}.png")
    (root / "train" / "bee" / "broken.png").write_bytes(b"\x89PNG no picture")


class Child:
    """Does one thing in a process of its own, forked from one that has imported torch."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._in_pass, self._may_go = self._context.Event(), self._context.Event()

    def run(self, world: World, root: Path, what: str, **how: Any) -> str:
        """Do it and return what it said."""
        return self.result(self.start(world, root, what, **how))

    def start(self, world: World, root: Path, what: str, **how: Any) -> Any:
        """Begin it.

        Args:
            world: Whose photographs and model; they are made anew there.
            root: Of the cache.
            what: extract, verify or repair.
            how: `limit` bytes a file may have; `mount` small or read-only for the root; `wait`
                for `go_on` in the midst of the pass.
        """
        mine, theirs = self._context.Pipe()
        events = (self._in_pass, self._may_go)
        process = self._context.Process(
            target=_in_child, args=(world.folder, root, what, how, theirs, events), daemon=True
        )
        with mock.patch.dict(os.environ, environment()):
            process.start()
        theirs.close()
        return process, mine

    def pid(self, started: Any) -> int:
        """Return the process id of what was started."""
        return int(started[0].pid)

    def wait_for_pass(self) -> None:
        """Wait until a process that waits is in its pass."""
        assert self._in_pass.wait(60)

    def go_on(self) -> None:
        """Let it go on."""
        self._may_go.set()

    def result(self, started: Any) -> str:
        """Wait for the end and return what was said."""
        process, pipe = started
        assert pipe.poll(60), "a process hangs"
        said: str = pipe.recv()
        process.join(60)
        return said


def _in_child(
    folder: Path, root: Path, what: str, how: Mapping[str, Any], pipe: Any, events: Any
) -> None:
    torch.set_num_threads(1)
    world = World(folder)
    if how.get("wait"):

        def wait(number: int) -> None:
            if number == 2:
                events[0].set()
                events[1].wait(60)

        world.backbone.on_batch = wait
    try:
        with world.stand_in():
            if how.get("mount"):
                _mount(root, how["mount"])
            if limit := how.get("limit"):
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            if how.get("mount") == "small":
                world.backbone.on_batch = lambda number: _fill(root) if number == 2 else None
            said = _do(world, root, what)
            if how.get("mount") == "small":
                (root / "filler").unlink()
                shards = check_instant(root, world.whole(**LITTLE))
                said += f"\n{shards} sound\n{_do(world, root, what)}"
                world.check_whole(root, **LITTLE)
    except NoMountError as error:
        said = f"no mount: {error}"
    except BaseException:
        said = traceback.format_exc()
    pipe.send(said)


def _do(world: World, root: Path, what: str) -> str:
    try:
        if what == "extract":
            return f"encoded {world.extract(root, **LITTLE).encoded}"
        if what == "repair":
            store_verify.repair(cache_in(root))
        problems = verify(cache_in(root)).problems
        return " ".join(map(str, problems)) or "sound"
    except FeatcacheError as error:
        return f"{type(error).__name__}: {said_by(error)}"


def _fill(root: Path) -> None:
    """Leave room for two or three shards."""
    free = os.statvfs(root)
    with (root / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - 40_000)


class NoMountError(Exception):
    """This process may not mount."""


def _mount(root: Path, kind: str) -> None:
    """Mount something on the root, in a name space of this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, private, bind, read_only = 0x20000, 0x44000, 0x1000, 0x21
    place = os.fsencode(root)
    steps: dict[str, list[tuple[bytes, bytes | None, int, bytes | None]]] = {
        "small": [(b"tmpfs", b"tmpfs", 0, b"size=80m")],
        "read-only": [(place, None, bind, None), (place, None, bind | read_only, None)],
    }
    if libc.unshare(new_namespace) or libc.mount(None, b"/", None, private, None):
        raise NoMountError(os.strerror(ctypes.get_errno()))
    for source, type_, flags, options in steps[kind]:
        if libc.mount(source, place, type_, ctypes.c_ulong(flags), options):
            raise NoMountError(os.strerror(ctypes.get_errno()))

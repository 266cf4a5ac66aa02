"""Kill an extraction at any instant and run the same command again, hundreds of times.

A trial is one cache: killed once or again and again, then completed and checked. Its chance comes
from its seed; an instant is a time, which no seed repeats exactly, or a change of the disk.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

import featcache
from featcache.store.format.identity import KEY_FILE
from tests.reliability.checks import (
    FaultError,
    Snapshot,
    check_instant,
    compare_rows,
    shard_lines,
    snapshot,
)
from tests.reliability.subsets import keep_only, shares

REPOSITORY = Path(featcache.__file__).parents[1]
SERVER = Path(__file__).with_name("server.py")

MOST_LIVES = 100
"""A chain of runs of one shard each that is longer makes no progress."""

EVERY_KIND: dict[str, Any] = {"backbone": "tiny", "patches": ["clearclip"], "views": ["2"]}
"""What is asked for: whole images, patches and views."""


MORE_KINDS: dict[str, Any] = {
    "patches": ["clearclip", "vanilla:int8@train"],
    "crops": ["2"],
    "view_patches": ["2:cdfsl"],
}
"""What is asked for beside `EVERY_KIND` where any subset of components may be finished."""

ROWS = 4
"""Rows of a shard, and of a micro-batch."""


@dataclass(frozen=True, kw_only=True)
class Death:
    """When a life ends by SIGKILL; with no field set it does not."""

    seconds: float | None = None
    """After its birth."""
    call: int | None = None
    """At this change of the disk, counted from 1."""
    torn: bool = False
    """In the midst of that change instead of before it."""
    shards: int | None = None
    """When it has entered so many."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How a life ended."""

    outcome: str
    """done, killed, failed or hung."""
    calls: int
    """Changes of the disk; 0 unless done."""
    seconds: float
    said: str
    """Traceback of what failed."""


@dataclass(kw_only=True)
class Count:
    """What was done."""

    kills: int = 0
    resumes: int = 0
    """Runs after one that was killed."""
    subsets: int = 0
    """Caches of which any subset of components and blocks was finished."""
    shards_verified: int = 0


class Server:
    """The process that forks extractions; a context."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._process.kill()
        self._process.communicate()

    def live(self, request: dict[str, Any], death: Death, *, here: bool = False) -> End:
        """Extract until the end or until death; `here` warms the server up instead.

        Raises:
            FaultError: If the extraction fails or hangs.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {"request": request, "here": here, **asdict(death)}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise FaultError(f"the server died over {job}")
        end = End(**json.loads(line))
        if end.outcome in ("failed", "hung"):
            raise FaultError(f"a run {end.outcome}: {job}\n{end.said}")
        return end


class Campaign:
    """Trials over one folder of photographs."""

    def __init__(
        self,
        server: Server,
        folder: Path,
        *,
        train: int = 5,
        pack: Callable[[Path, Path], str] | None = None,
    ) -> None:
        """Draw the photographs and warm the server up.

        Args:
            server: Does the work.
            folder: For photographs and caches; everything below is the campaign's.
            train: Training images of each class.
            pack: Puts the photographs of a folder into a file in another, and returns the data set
                that it is; None for the folder itself.
        """
        self.count = Count()
        self.rng = random.Random(0)
        self._server, self.folder, self._photos = server, folder, folder / "zoo"
        make_photos(self._photos, train=train)
        self.spec = pack(self._photos, folder) if pack else f"folder:{self._photos}"
        (folder / "words.json").write_text(json.dumps({"ant": ["six legs", "a narrow waist"]}))
        server.live(self.request(folder / "warm"), Death(), here=True)
        self._undisturbed: dict[str, tuple[Snapshot, End]] = {}
        self._roots: dict[str, Path] = {}  # of the same

    def request(self, root: Path, **changes: Any) -> dict[str, Any]:
        """Return what is asked for, with texts, in shards of four rows."""
        return {
            **EVERY_KIND,
            "dataset": self.spec,
            "descriptions": str(self.folder / "words.json"),
            "micro_batch": ROWS,
            "root": str(root),
            **changes,
        }

    def undisturbed(self, **changes: Any) -> tuple[Snapshot, End]:
        """Return what a run without a kill leaves, and how it went."""
        name = self._name(changes)
        if name not in self._undisturbed:
            root = self._roots[name] = self._fresh(f"undisturbed-{len(self._undisturbed)}")
            end = self._server.live(self.request(root, **changes), Death())
            self._undisturbed[name] = snapshot(root), end
        return self._undisturbed[name]

    def trial(self, seed: int) -> None:
        """Go through one cache's story, whichever the seed gives.

        Raises:
            FaultError: If a promise is not kept; the message names the seed.
        """
        self.rng = random.Random(seed)
        story = self.rng.choices(
            [self.kill_once, self.kill_often, self.kill_then_add, self.kill_then_change_photos],
            weights=[3, 6, 1, 1],
        )[0]
        self._tell(story, seed)

    def subset_trial(self, seed: int) -> None:
        """Take up a cache of which a subset of components and blocks is finished.

        Raises:
            FaultError: If a promise is not kept; the message names the seed.
        """
        self.rng = random.Random(seed)
        self._tell(self.take_up_a_subset, seed)

    def take_up_a_subset(self) -> None:
        """Undo a random subset of what is finished, kill or not, and let the command complete."""
        whole, end = self.undisturbed(**MORE_KINDS)
        root = self._fresh("subset")
        shutil.copytree(self._roots[self._name(MORE_KINDS)], root)
        path = next(root.glob(f"*/*/{KEY_FILE}")).parent
        kept = {share for share in shares(path, ROWS) if self.rng.random() < 0.5}
        keep_only(path, ROWS, kept.__contains__)
        self.count.subsets += 1
        self.count.shards_verified += check_instant(root, whole)
        if self.rng.random() < 0.5:
            death = self._death(end.seconds / 2, end.calls // 3)
            killed = self._server.live(self.request(root, **MORE_KINDS), death)
            self.count.kills += killed.outcome == "killed"
            self.count.shards_verified += check_instant(root, whole)
        try:
            self._resume(root, **MORE_KINDS)
        except FaultError as error:
            raise FaultError(f"{sorted(kept)} were finished: {error}") from error
        # Lines stand in the order in which they were entered, not in that of one pass.
        self._compare(root, snapshot(root).unordered(), whole.unordered())

    def _tell(self, story: Callable[[], None], seed: int) -> None:
        try:
            story()
        except FaultError as error:
            raise FaultError(f"{story.__name__}, seed {seed}: {error}") from error

    def kill_once(self, death: Death | None = None) -> None:
        """Kill one run, then let the same command complete."""
        root = self._fresh("killed")
        self.kill(root, death or self._chance())
        self.complete(root)

    def kill_often(self) -> None:
        """Kill the same command again and again until it completes."""
        root = self._fresh("killed")
        while self.kill(root, self._early(begun=bool(shard_lines(root)))):
            pass
        self.complete(root)

    def kill_after_every_shard(self) -> int:
        """Let every run live for one shard; return the number of kills it took."""
        root = self._fresh("killed")
        for kills in range(MOST_LIVES):
            before = len(shard_lines(root))
            if not self.kill(root, Death(shards=1)):
                self.complete(root)
                return kills
            if len(shard_lines(root)) != before + 1:
                raise FaultError(f"a run that wrote one shard left {before} shards as they were")
        raise FaultError(f"{MOST_LIVES} runs of one shard each did not complete a cache")

    def kill_then_add(self) -> None:
        """Kill one run, then ask for one component more."""
        more = {"patches": ["clearclip", "vanilla"]}
        root = self._fresh("killed")
        self.kill(root, self._chance())
        self._resume(root, **more)
        # The order in which components were entered is that of the asking.
        self._compare(root, snapshot(root).unordered(), self.undisturbed(**more)[0].unordered())

    def kill_then_change_photos(self) -> None:
        """Kill one run, then add, remove and rename photographs before the next."""
        root, before = self._fresh("killed"), self._fresh("before")
        shutil.copytree(self._photos, before)
        try:
            self.kill(root, self._chance())
            (self._photos / "train/ant/1.jpg").unlink()
            (self._photos / "test/bee/0.jpg").rename(self._photos / "test/bee/renamed.jpg")
            _picture(1000).save(self._photos / "train/bee/new.jpg", quality=95)
            self._resume(root)
            anew = self._fresh("anew")
            self._server.live(self.request(anew), Death())
            compare_rows(root, anew)
        finally:
            shutil.rmtree(self._photos)
            before.rename(self._photos)

    def kill(self, root: Path, death: Death) -> bool:
        """Run until death, check that instant, and tell whether death came in time."""
        before = len(shard_lines(root))
        self.count.resumes += root.exists()
        end = self._server.live(self.request(root), death)
        self.count.kills += end.outcome == "killed"
        self.check(root, before, str(death))
        return end.outcome == "killed"

    def check(self, root: Path, before: int, what: str) -> None:
        """Check the instant after something happened to a run.

        Args:
            root: Of the cache.
            before: Shards that were there before that run.
            what: Happened.
        """
        try:
            self.count.shards_verified += check_instant(root, self.undisturbed()[0])
            if len(shard_lines(root)) < before:
                raise FaultError(f"of {before} shards {len(shard_lines(root))} are left")
        except FaultError as error:
            raise FaultError(f"{root} after {what}: {error}") from error

    def complete(self, root: Path) -> None:
        """Run to the end and compare with the undisturbed run."""
        self._resume(root)
        self.compare(root)

    def compare(self, root: Path) -> None:
        """Compare a cache that was completed with the undisturbed one."""
        self._compare(root, snapshot(root), self.undisturbed()[0])

    def _name(self, changes: dict[str, Any]) -> str:
        return json.dumps(changes, sort_keys=True)

    def _resume(self, root: Path, **changes: Any) -> None:
        self._server.live(self.request(root, **changes), Death())
        self.count.resumes += 1
        self.count.shards_verified += check_instant(root, None)

    def _compare(self, root: Path, found: Snapshot, expected: Snapshot) -> None:
        if wrong := found.differences(expected):
            raise FaultError(f"{root}, taken up again, differs: {'; '.join(wrong)}")

    def _chance(self) -> Death:
        """Draw an instant, evenly over the time or over the changes of the disk."""
        whole = self.undisturbed()[1]
        return self._death(whole.seconds, whole.calls)

    def _early(self, *, begun: bool) -> Death:
        """Draw an instant that leaves something to do for several further runs."""
        whole = self.undisturbed()[1]
        if begun:
            return self._death(whole.seconds / 4, whole.calls // 8)
        return self._death(whole.seconds / 3, whole.calls * 2 // 3)

    def _death(self, seconds: float, calls: int) -> Death:
        if self.rng.random() < 0.4:
            return Death(seconds=self.rng.uniform(0, seconds))
        return Death(call=self.rng.randint(1, calls), torn=self.rng.random() < 0.5)

    def _fresh(self, name: str) -> Path:
        path = self.folder / name
        if path.exists():
            shutil.rmtree(path)
        return path


def environment() -> dict[str, str]:
    """Return the environment for a process that imports this project and uses one thread."""
    places = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
    }


def make_photos(root: Path, *, train: int) -> None:
    """Draw photographs of two classes in three splits; one cannot be read."""
    seed = 0
    for split, each in (("train", train), ("val", 1), ("test", 3)):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for i in range(each):
                seed += 1
                _picture(seed).save(root / split / name / f"{i}.jpg", quality=95)
    (root / "train" / "bee" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")


def _picture(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((50, 40), Image.Resampling.BICUBIC)

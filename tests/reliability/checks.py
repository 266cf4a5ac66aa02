"""What must hold of a cache: at every instant, and once an interrupted extraction was taken up.

At every instant: what the manifest speaks of is on disk as it should be, and the cache opens, or
says that it was interrupted early. At the end: every byte is what one undisturbed run writes, and
nothing else lies about.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import CacheError, CacheNotFoundError
from featcache.store.cache import Cache
from featcache.store.format.identity import KEY_FILE, MANIFEST
from featcache.store.repair.verify import verify

UNSTABLE = frozenset({".lock", "hashes.tsv"})
"""Files whose bytes say nothing of the features: a process id, times of files."""


class FaultError(AssertionError):
    """A promise of the cache that was not kept."""


@dataclass(frozen=True)
class Snapshot:
    """What is compared of a folder of caches."""

    files: dict[str, bytes]
    """Path below the root -> content, without manifests."""
    manifests: dict[str, list[str]]
    """Path -> lines without what depends on the clock; equal neighbouring `pass` lines are one."""

    @property
    def shards(self) -> int:
        """Count the manifest lines that enter a shard."""
        lines = [json.loads(line) for found in self.manifests.values() for line in found]
        return sum(line["kind"] == "shard" for line in lines)

    def unordered(self) -> "Snapshot":
        """Forget the order of manifest lines, and passes."""
        manifests = {
            name: sorted(line for line in lines if json.loads(line)["kind"] != "pass")
            for name, lines in self.manifests.items()
        }
        return Snapshot(self.files, manifests)

    def differences(self, other: "Snapshot") -> list[str]:
        """Say in what this one differs from the other."""
        found = [f"{n} is left over" for n in sorted(self.files.keys() - other.files.keys())]
        found += [f"{n} is missing" for n in sorted(other.files.keys() - self.files.keys())]
        both = sorted(self.files.keys() & other.files.keys())
        found += [f"{n} has other bytes" for n in both if self.files[n] != other.files[n]]
        for name, lines in self.manifests.items():
            pairs = itertools.zip_longest(lines, other.manifests.get(name, []))
            first = next(((i, *p) for i, p in enumerate(pairs) if p[0] != p[1]), None)
            if first:
                number, mine, theirs = first
                found.append(f"{name}:{number + 1} is {mine}, should be {theirs}")
        return found


def check_instant(root: Path, undisturbed: Snapshot | None) -> int:
    """Check the cache below a root as any other process may find it; return shards verified.

    Args:
        root: Folder of at most one cache, with no other cache below.
        undisturbed: Every shard must be equal to its; None means that the run has ended, and
            that nothing may be unfinished.

    Raises:
        FaultError: If a promise is not kept.
    """
    folders = [p for p in root.glob("*/*") if p.is_dir()]
    if not any((p / KEY_FILE).exists() for p in folders):
        for path in folders:
            _expect_nothing(path)
        if undisturbed is None:
            raise FaultError("a run that ended left no cache")
        return 0
    (path,) = folders
    cache, report = Cache.open(path), verify(path, full=True)
    listed = cache.listing() is not None
    # While a writer is gone or at work, two things may be said that are no damage.
    said = [str(p) for p in report.problems if "interrupted writer left" not in str(p)]
    problems = [what for what in said if listed or "listing" not in what]
    if undisturbed is None:
        problems = [str(p) for p in report.problems]
    if problems or (undisturbed is None and not listed):
        raise FaultError(f"verify found: {' '.join(problems) or 'no listing'}")
    if listed:
        _read_everything(cache)
    else:
        _expect_nothing(path)
    if undisturbed is None:
        if left := [str(p) for p in root.rglob("*") if ".tmp-" in p.name]:
            raise FaultError(f"temporary files stayed: {', '.join(left)}")
        return report.shards
    for line in shard_lines(root):
        name = f"{path.relative_to(root).as_posix()}/{line['component']}/{line['file']}"
        if undisturbed.files.get(name) != (root / name).read_bytes():
            raise FaultError(f"{name} is not what an undisturbed run writes")
    return report.shards


def snapshot(root: Path) -> Snapshot:
    """Read everything below a root that a resumed run must reproduce."""
    files, manifests = {}, {}
    for path in sorted(p for p in root.rglob("*") if p.is_file() and p.name not in UNSTABLE):
        name = path.relative_to(root).as_posix()
        if path.name == MANIFEST:
            manifests[name] = _timeless(path)
        else:
            files[name] = path.read_bytes()
    return Snapshot(files, manifests)


def shard_lines(root: Path) -> list[dict[str, Any]]:
    """Return the whole manifest lines that speak of shards."""
    texts = [p.read_text().rpartition("\n")[0] for p in root.glob(f"*/*/{MANIFEST}")]
    written = (line for text in texts for line in text.splitlines())
    lines = [json.loads(line) for line in written if "\0" not in line]  # which did not happen
    return [line for line in lines if line["kind"] == "shard"]


def compare_rows(root: Path, anew: Path) -> None:
    """Compare two caches image by image: listing, and rows to a cosine of 0.999 (bf16).

    Raises:
        FaultError: If they disagree.
    """
    mine, other = (
        Cache.open(next(r.glob(f"*/*/{KEY_FILE}")).parent).feature_set() for r in (root, anew)
    )
    places = {name: i for i, name in enumerate(mine.listing.ids)}
    if {k: {mine.listing.ids[i] for i in v} for k, v in mine.listing.splits.items()} != {
        k: {other.listing.ids[i] for i in v} for k, v in other.listing.splits.items()
    }:
        raise FaultError("The splits differ from those of a new cache.")
    for name, reader in other.components.items():
        theirs = np.flatnonzero(reader.present() & other.ok)
        names = [other.listing.ids[int(i)] for i in theirs]
        ours = np.array([places[name] for name in names], dtype=np.int64)
        if not mine.components[name].present()[ours].all():
            raise FaultError(f"{name} lacks rows that a new cache has.")
        a, b = mine.rows(name, ours).double().numpy(), other.rows(name, theirs).double().numpy()
        lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        cosine = np.where(lengths > 0, (a * b).sum(-1) / np.maximum(lengths, 1e-12), 1.0)
        if cosine.min() < 0.999:
            raise FaultError(f"{name} agrees with a new cache to {cosine.min():.6f} only.")


def _timeless(path: Path) -> list[str]:
    lines: list[str] = []
    for text in path.read_text().splitlines():
        line = json.loads(text)
        is_pass = line["kind"] == "pass"
        forget = ("crc", "time", "seconds") if is_pass else ("crc",)
        for name in forget:
            line.pop(name, None)
        # A run that was killed after its last line, and the next one, both say that they ended.
        if not (is_pass and lines and lines[-1] == json.dumps(line, sort_keys=True)):
            lines.append(json.dumps(line, sort_keys=True))
    return lines


def _read_everything(cache: Cache) -> None:
    features = cache.feature_set()
    for name in features.components:
        rows = np.flatnonzero(cache.rows(name).present())
        if not np.isfinite(features.rows(name, rows).float().numpy()).all():
            raise FaultError(f"{name} has rows that are not finite")


def _expect_nothing(path: Path) -> None:
    """Let a folder be no cache yet, or one that says that it was interrupted early."""
    try:
        Cache.open(path).feature_set()
    except CacheNotFoundError:
        return
    except CacheError as error:
        if "interrupted early" not in str(error):
            raise FaultError(f"after an early kill one reads: {error}") from error
        return
    raise FaultError(f"{path} opened without key or listing")

"""The 150 published few-shot lists, drawn from the packaged splits and from lists of their shape.

Food-101, SUN397 and FGVC-Aircraft have no packaged split. Their few-shot lists name places in the
split only, and those follow from its shape: classes in label order with known numbers of images.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from featcache.draws import few_shot
from featcache.keys import Listing
from featcache.limits import Limit
from featcache.places import FilePlace
from featcache.sources.layouts.named.base import Listed, Location
from featcache.sources.lists import packaged_split
from featcache.sources.named import find
from featcache.sources.trees.base import Entry, FoundImages

DIGESTS: dict[str, dict[str, str]] = json.loads(
    Path(__file__).with_name("fewshot_digests.json").read_text()
)["digests"]

Splits = dict[str, list[tuple[str, int]]]


@dataclass(frozen=True)
class MemoryTree:
    """Names without files: a hundred thousand of them cost nothing."""

    paths: tuple[str, ...]
    texts: dict[str, str]
    root: Path = Path("nowhere")

    def images(self) -> FoundImages:
        return FoundImages(
            tuple(Entry(p, FilePlace(p), tuple(p.split("/")[:-1])) for p in self.paths), ()
        )

    def find(self, path: str) -> FilePlace | None:
        return FilePlace(path) if path in self.texts else None

    def has_folder(self, path: str) -> bool:
        return any(p.startswith(f"{path}/") for p in self.paths)

    def names(self, path: str = "") -> Iterator[str]:
        return iter(sorted({p.split("/")[0] for p in self.paths}))

    def read(self, path: str, limit: Limit) -> bytes:
        return self.texts[path].encode()

    def below(self, path: str) -> "MemoryTree":
        raise NotImplementedError


def table_of(listed: Listed) -> Listing:
    """Give every image its row."""
    splits = [s.split for s in listed.samples]
    at = {name: [i for i, s in enumerate(splits) if s == name] for name in ("train", "val")}
    labels = [s.label for s in listed.samples]
    return Listing(
        dataset="toy",
        root="",
        classes=tuple(f"class {i}" for i in range(max(labels) + 1)),
        ids=tuple(s.entry.id for s in listed.samples),
        hashes=tuple(map(str, range(len(labels)))),
        labels=np.array(labels, dtype=np.int64),
        splits={name: np.array(rows, dtype=np.int64) for name, rows in at.items()},
        draws="sampled",
    )


def digest_of(table: Listing, shots: int, seed: int) -> str:
    """Digest a draw as the published lists were: places in train and in val."""
    drawn = few_shot(table, shots, seed)
    place = {int(row): i for rows in table.splits.values() for i, row in enumerate(rows)}
    places = [[place[int(r)] for r in rows] for rows in (drawn.train_rows, drawn.val_rows)]
    return hashlib.sha256(json.dumps(places, separators=(",", ":")).encode()).hexdigest()[:16]


def listed(name: str, splits: Splits, texts: dict[str, str]) -> Listed:
    """Read the lists of a data set that is there in full, by its own layout."""
    tree = MemoryTree(tuple(path for entries in splits.values() for path, _ in entries), texts)
    spec = find(name)
    (layout,) = spec.scheme().list_
    location = Location(tree, (tree,))
    assert layout.is_here(location, spec.table())
    return layout.read(location, spec.table())


def shaped(name: str, train: Sequence[int], val: Sequence[int]) -> tuple[Splits, dict[str, str]]:
    """Return a split of the shape of the published one, and CoOp's file of it."""
    names = find(name).table().names
    splits = {
        split: [(f"c{i}/{split}{j}.jpg", i) for i, n in enumerate(counts) for j in range(n)]
        for split, counts in (("train", train), ("val", val))
    }
    content = {s: [[p, i, names[i]] for p, i in entries] for s, entries in splits.items()}
    (layout,) = find(name).scheme().list_
    return splits, {layout.files[0]: json.dumps(content)}


def thirds(count: int, start: int) -> list[int]:
    """Cut a hundred classes of a third of 10,000 images: 34 of every third class, else 33."""
    return [34 if i % 3 == start else 33 for i in range(count)]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_every_published_list_is_drawn_again(name: str) -> None:
    splits: Splits
    if name == "fgvc_aircraft":
        names = find(name).table().names
        splits = {
            s: [
                (f"{i:03d}{s}{j}.jpg", i)
                for i, n in enumerate(thirds(100, start))
                for j in range(n)
            ]
            for s, start in (("train", 0), ("val", 1))
        }
        texts = {
            f"images_variant_{s}.txt": "".join(f"{p[:-4]} {names[i]}\n" for p, i in entries)
            for s, entries in splits.items()
        }
    elif name in ("food101", "sun397"):
        each = {"food101": (500, 200), "sun397": (40, 10)}[name]
        classes = find(name).classes
        splits, texts = shaped(name, [each[0]] * classes, [each[1]] * classes)
    else:
        splits, texts = {s: list(e) for s, e in packaged_split(name).items()}, {}
    found = listed(name, splits, texts)
    assert found.missing == ()
    assert len(DIGESTS[name]) == 15
    table = table_of(found)
    for key, digest in DIGESTS[name].items():
        shots, _, seed = key.partition("-")
        assert digest_of(table, int(shots), int(seed)) == digest, key


def test_there_are_150_of_them() -> None:
    assert sum(map(len, DIGESTS.values())) == 150

"""Row numbers of the images of a data set; known images are recognised by their content.

Rows are matched by sha256 of the file's bytes, so that renaming, relabelling or another split
re-encodes nothing. Rows are append-only: new or changed images get new rows, and an image that is
gone keeps its row but loses its split.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from featcache.collector import waiting_collector
from featcache.errors import SourceError
from featcache.keys import Listing
from featcache.paths import as_text
from featcache.sources.base import Dataset, Report, Sample
from featcache.sources.hashing import hash_files
from featcache.wording import Argument, Part


@waiting_collector()
def build_listing(
    dataset: Dataset,
    previous: Listing | None = None,
    *,
    moved: bool = False,
    known: Path | None = None,
    keep_known: bool = True,
    rehash: bool = False,
    ignore_inode: bool = False,
    report: Report | None = None,
    say: Callable[[Part], None] | None = None,
    workers: int = 8,
) -> Listing:
    """Give every image of a data set its row.

    Args:
        dataset: What the source found now.
        previous: The listing of an earlier pass, whose rows are kept.
        moved: Whether another root under the same name is meant to be the same data set.
        known: File that remembers the hashes of images that did not change since.
        keep_known: Whether to bring that file up to date, if it can be written.
        rehash: Read every image, whatever is remembered.
        ignore_inode: Whether an image in a file with another inode may count as unchanged.
        report: Told how many images are hashed.
        say: Called with messages for the user.
        workers: Threads that read.

    Raises:
        SourceError: If the data set is empty, or another one under the same name was cached.
    """
    if not dataset.samples:
        raise SourceError(f"Data set '{dataset.name}' at {dataset.root} has no images.")
    if previous is not None:
        check_root(dataset, previous.root, moved=moved)
    hashes, unreadable = hash_files(
        dataset.samples,
        dataset.root,
        known,
        report,
        workers,
        keep_known=keep_known,
        rehash=rehash,
        ignore_inode=ignore_inode,
        say=say,
    )
    stand_ins = _stand_ins([dataset.samples[i].id for i in unreadable], previous)
    for i, stand_in in zip(unreadable, stand_ins, strict=True):
        hashes[i] = stand_in
    rows = _match(dataset.samples, hashes, previous)
    if previous and previous.root != as_text(dataset.root) and min(rows) >= len(previous):
        raise SourceError(
            f"None of the {len(rows)} images in {dataset.root} is one of the {len(previous)} from "
            f"{previous.root}, so nothing has moved; give the new ones a name with ",
            Argument("name"),
            ".",
        )
    notes = [*_unreadable_notes(dataset, unreadable), *_copy_notes(dataset.samples, hashes)]
    return _listing(dataset, previous, rows, hashes, tuple(notes))


def check_root(dataset: Dataset, before: str, *, moved: bool) -> None:
    """Raise if a cached data set of the same name has its images at another place.

    Args:
        dataset: What the source found now.
        before: Where the cached images were; empty for imported features.
        moved: Whether the user says that they are the same images.

    Raises:
        SourceError: If it is another place and `moved` is false.
    """
    if moved or before == as_text(dataset.root):
        return
    was = f"was read from {before}" if before else "holds imported features"
    raise SourceError(
        f"Data set '{dataset.name}' {was}, and {dataset.root} is another place. Add ",
        Argument("moved"),
        " if these are the same images, or give these a name of their own with ",
        Argument("name"),
        ".",
    )


def _stand_ins(ids: Sequence[str], previous: Listing | None) -> list[str]:
    """Return a hash for each unreadable file: its last known one, else one made of its id."""
    last: dict[str, str] = {}
    if ids and previous is not None:
        last = dict(zip(previous.ids, previous.hashes, strict=True))
    return [last.get(i) or hashlib.sha256(f"unreadable:{i}".encode()).hexdigest() for i in ids]


def _match(samples: Sequence[Sample], hashes: Sequence[str], previous: Listing | None) -> list[int]:
    """Return the row of each sample: a known one of equal content, equal ids first, or a new."""
    ids = [] if previous is None else list(previous.ids)
    old = [] if previous is None else list(previous.hashes)
    wanted = [sample.id for sample in samples]
    if wanted == ids and hashes == old:
        return list(range(len(old)))
    row_of = dict(zip(ids, range(len(ids)), strict=True))
    rows = [row_of.get(image_id, -1) for image_id in wanted]
    rows = [r if r >= 0 and old[r] == h else -1 for r, h in zip(rows, hashes, strict=True)]
    taken = set(rows)
    if len(taken) == len(old) == len(rows) and -1 not in taken:
        return rows
    free: defaultdict[str, list[int]] = defaultdict(list)
    for row in reversed(range(len(old))):
        if row not in taken:
            free[old[row]].append(row)
    new = len(old)
    for i, content in enumerate(hashes):
        if rows[i] < 0 and free.get(content):
            rows[i] = free[content].pop()
        elif rows[i] < 0:
            rows[i], new = new, new + 1
    return rows


def _listing(
    dataset: Dataset,
    previous: Listing | None,
    rows: Sequence[int],
    hashes: Sequence[str],
    notes: tuple[str, ...],
) -> Listing:
    old = 0 if previous is None else len(previous)
    n = max(old, max(rows) + 1)
    ids: list[str] = [""] * n
    contents: list[str] = [""] * n
    labels = np.full(n, -1, dtype=np.int64)
    labels[rows] = [sample.label for sample in dataset.samples]
    splits: defaultdict[str, list[int]] = defaultdict(list)
    for row, sample, content in zip(rows, dataset.samples, hashes, strict=True):
        ids[row], contents[row] = sample.id, content
        splits[sample.split].append(row)
    if previous is not None:
        _keep_gone(previous, ids, contents)
    return Listing(
        dataset=dataset.name,
        root=as_text(dataset.root),
        classes=dataset.classes,
        ids=tuple(ids),
        hashes=tuple(contents),
        labels=labels,
        splits={name: _rows(splits[name]) for name in dataset.splits()},
        templates=dataset.templates,
        descriptions=dataset.descriptions,
        sets=dataset.sets,
        waffle=dataset.waffle,
        prompts=dataset.prompts,
        default_text=dataset.default_text,
        own_texts=dataset.own_texts,
        spec=dataset.spec,
        notes=(*dataset.notes, *notes),
    )


def _keep_gone(previous: Listing, ids: list[str], contents: list[str]) -> None:
    """Keep the rows whose image is gone, under unique ids."""
    present = set(ids)
    for row, (image_id, content) in enumerate(zip(previous.ids, previous.hashes, strict=True)):
        if contents[row]:
            continue
        while image_id in present:  # its name was given to another image
            image_id = f"{image_id}#{content[:8]}"
        present.add(image_id)
        ids[row], contents[row] = image_id, content


def _rows(rows: Sequence[int]) -> Int64[np.ndarray, " r"]:
    return np.array(rows, dtype=np.int64)


def _unreadable_notes(dataset: Dataset, unreadable: Sequence[int]) -> list[str]:
    if not unreadable:
        return []
    first = dataset.samples[unreadable[0]].id
    return [f"{len(unreadable)} files could not be read; the first is {first}."]


def _copy_notes(samples: Sequence[Sample], hashes: Sequence[str]) -> list[str]:
    """Report images with equal bytes; copies in another split leak training images into a test."""
    if len(set(hashes)) == len(hashes):
        return []
    first: dict[str, Sample] = {}
    pairs = [
        (first[content], sample)
        for sample, content in zip(samples, hashes, strict=True)
        if first.setdefault(content, sample) is not sample
    ]
    pairs.sort(key=lambda p: (p[0].split == p[1].split, p[0].label == p[1].label))
    across = sum(a.split != b.split for a, b in pairs)
    apart = sum(a.label != b.label for a, b in pairs)
    return [
        f"{len(pairs)} images are byte for byte copies of another, {across} of them in another "
        f"split and {apart} in another class; the first is {pairs[0][1].id} = {pairs[0][0].id}."
    ]

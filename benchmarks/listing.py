"""How long listing takes: a tree of many files, listed twice with every file looked at, and a zip.

    python benchmarks/listing.py --files 130000

Files are hard links to a few small ones, in folders of 1,300 each. What is measured: the first
listing without hashing (`list`), what follows when everything is remembered (`again`: list, look at
every file's state, match with the previous listing; `cpu` is its CPU time), and opening a zip of
many members (`zip`). `stat` is the limit: the CPU time to look at every file and do nothing else.
Hashing itself reads every byte and depends on the disk; it is left out by writing the remembered
hashes as a first pass would have.
"""

import argparse
import hashlib
import json
import os
import resource
import tempfile
import time
import zipfile
from pathlib import Path

from featcache.sources.base import Dataset
from featcache.sources.listing import build_listing
from featcache.sources.registry import open_dataset
from featcache.sources.remembered import line_of, name_of, state_of, write_remembered

IN_A_FOLDER = 1300


def main() -> None:
    """Make the tree, list it, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=130_000)
    parser.add_argument("--zip", type=int, default=100_000, help="members of the zip; 0 for none")
    parser.add_argument("--folder", type=Path, help="where the tree is made; a temporary one else")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        row = of_folder(Path(folder), arguments.files)
        if arguments.zip:
            row |= of_zip(Path(folder), arguments.zip)
    row["peak_MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(row))


def of_folder(base: Path, count: int) -> dict[str, float]:
    """Measure a tree of class folders."""
    root, known = base / "photos", base / "hashes.tsv"
    make_tree(root, count)
    start = time.perf_counter()
    dataset = open_dataset(f"folder:{root}", root=base)
    listed = time.perf_counter()
    remember(dataset, known)
    first = build_listing(dataset, known=known)
    del dataset  # what follows is what a later process does
    start_again, cpu_before = time.perf_counter(), time.process_time()
    again_listed = open_dataset(f"folder:{root}", root=base)
    middle = time.perf_counter()
    build_listing(again_listed, first, known=known)
    end, cpu_after = time.perf_counter(), time.process_time()
    start_stat = time.process_time()
    for sample in again_listed.samples:
        sample.place.stat()
    end_stat = time.process_time()
    return {
        "files": count,
        "list_s": round(listed - start, 2),
        "list_per_s": round(count / (listed - start)),
        "again_s": round(end - start_again, 2),
        "again_list_s": round(middle - start_again, 2),
        "again_per_s": round(count / (end - start_again)),
        "again_cpu_s": round(cpu_after - cpu_before, 2),
        "stat_cpu_s": round(end_stat - start_stat, 2),
    }


def make_tree(root: Path, count: int) -> None:
    """Link files into class folders; a file system bounds the links of one file."""
    source = root.parent / "source"
    source.mkdir()
    for i in range(count):
        folder = root / f"n{i // IN_A_FOLDER:08d}"
        if i % IN_A_FOLDER == 0:
            folder.mkdir(parents=True)
        original = source / str(i // 20_000)
        if i % 20_000 == 0:
            original.write_bytes(b"x")
            os.utime(original, (1e9, 1e9))
        (folder / f"{folder.name}_{i:07d}.JPEG").hardlink_to(original)


def remember(dataset: Dataset, known: Path) -> None:
    """Write the hashes that a first pass would have left; every image gets one of its own."""
    lines = [
        line_of(
            hashlib.sha256(s.id.encode()).hexdigest(), state_of(s.place.stat()), name_of(s.id, "")
        )
        for s in dataset.samples
    ]
    write_remembered(known, dataset.root, lines)


def of_zip(base: Path, count: int) -> dict[str, float]:
    """Measure opening an archive."""
    file = base / "photos.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for i in range(count):
            archive.writestr(f"n{i // IN_A_FOLDER:04d}/{i:07d}.jpg", b"x")
    start = time.perf_counter()
    dataset = open_dataset(f"zip:{file}", root=base)
    end = time.perf_counter()
    assert len(dataset.samples) == count
    return {"members": count, "zip_list_s": round(end - start, 2)}


if __name__ == "__main__":
    main()

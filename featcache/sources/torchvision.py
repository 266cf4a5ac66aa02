"""Named data sets that torchvision can fetch; files that are there already are used as they lie.

A download goes into a folder of its own and is moved into place when it is whole, so that an
interrupted one never counts as the data set.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from zipfile import BadZipFile

from featcache.errors import DownloadNeededError, SourceError
from featcache.sources.aside import aside, clear_aside
from featcache.sources.base import Dataset, Report, Sample
from featcache.sources.coop import CoopSplit, read_split_file
from featcache.sources.layouts.splits import Grouped, make_splits, samples
from featcache.sources.named import NamedDataset
from featcache.sources.trees.base import Entry
from featcache.sources.trees.folder import FolderTree

TIMEOUT = 8.0
"""Seconds to wait for an answer from the network."""


def open_torchvision(
    spec: NamedDataset, data_root: Path, *, download: bool, report: Report | None = None
) -> Dataset:
    """List a data set in torchvision's layout, with CoOp's splits where their file lies beside it.

    Args:
        spec: From `datasets()`.
        data_root: Holds `spec.folder`; the class folders themselves are found there too.
        download: Whether to fetch the files if they are not there.
        report: Told when a download starts.

    Raises:
        DownloadNeededError: If the files are not there and could not be fetched.
        SourceError: If the split file beside them is damaged or belongs to other images.
    """
    if download:
        clear_aside(spec.name, data_root)
    folder = _find(spec, data_root)
    if folder is None:
        folder = _fetch(spec, data_root, download, report)
    found = FolderTree(folder).images()
    known = [
        image for image in found.images if image.folders and image.folders[0] in spec.class_names
    ]
    notes = list(found.notes)
    if len(known) != spec.images:
        notes.append(f"{len(known)} images are there; the whole data set has {spec.images}.")
    split_file = _find_split_file(spec, data_root, folder)
    if split_file is None:
        classes, listed, more = _own_splits(spec, known)
    else:
        classes, listed, more = _coop_splits(read_split_file(split_file), known, split_file)
    return Dataset(
        name=spec.name,
        root=folder,
        classes=classes,
        samples=tuple(listed),
        templates=spec.templates,
        descriptions={c: spec.descriptions[c] for c in classes if c in spec.descriptions},
        default_text=spec.default_text,
        notes=(*notes, *more),
    )


def _find(spec: NamedDataset, data_root: Path) -> Path | None:
    """Return the folder of class folders: torchvision's place, or nearer to what was named."""
    inner = Path(spec.folder)
    for folder in (data_root / inner, data_root / inner.name, data_root):
        if any((folder / name).is_dir() for name in spec.class_names):
            return folder.resolve()
    return None


def _find_split_file(spec: NamedDataset, data_root: Path, folder: Path) -> Path | None:
    name = Path(spec.split_file).name
    places = (data_root / spec.split_file, data_root / name, folder.parent / name, folder / name)
    return next((p for p in places if p.is_file()), None)


def _own_splits(
    spec: NamedDataset, images: list[Entry]
) -> tuple[tuple[str, ...], list[Sample], list[str]]:
    files: Grouped = {"train": {}}
    for image in images:
        files["train"].setdefault(image.folders[0], []).append(image)
    folders = [folder for folder in spec.class_names if folder in files["train"]]
    notes = make_splits(files, seed=0)
    notes.append(f"For CoOp's splits put {Path(spec.split_file).name} beside the images' folder.")
    return tuple(spec.class_names[f] for f in folders), list(samples(files, folders)), notes


def _coop_splits(
    split: CoopSplit, images: list[Entry], path: Path
) -> tuple[tuple[str, ...], list[Sample], list[str]]:
    by_id = {image.id: image for image in images}
    entries = [(s, id_, label) for s, listed in split.splits.items() for id_, label in listed]
    there = [entry for entry in entries if entry[1] in by_id]
    if not there:
        raise SourceError(
            f"None of the {len(entries)} images of split file {path} is among the {len(images)} "
            f"found; expected e.g. {entries[0][1] if entries else 'a path'}."
        )
    notes = [f"Splits are those of {path.name}."]
    if len(there) < len(entries):
        notes.append(f"{len(entries) - len(there)} images of {path.name} are not there.")
    if len(there) < len(images):
        notes.append(f"{len(images) - len(there)} images are not in {path.name} and left out.")
    used = sorted({label for _, _, label in there})
    label_of = {old: new for new, old in enumerate(used)}
    listed = [Sample(id_, by_id[id_].place, label_of[label], s) for s, id_, label in there]
    return tuple(split.classes[label] for label in used), listed, notes


def _fetch(spec: NamedDataset, data_root: Path, download: bool, report: Report | None) -> Path:
    """Download into a folder aside and move the whole into place."""
    reason = "downloading is off here"
    if download:
        if report:
            report(f"downloading {spec.title} ({spec.size})", 0, 1)
        try:
            _download(spec, data_root)
        except (OSError, RuntimeError, HTTPException, BadZipFile, ImportError) as error:
            reason = str(error) or type(error).__name__
    folder = _find(spec, data_root)
    if folder is None:
        raise DownloadNeededError(
            f"{spec.title} is not in {data_root}, and its {spec.size} could not be fetched from "
            f"{spec.url} ({reason}). Put the images at {data_root / spec.folder}/<Class>/*.jpg, or "
            f"name their folder with --dataset-root DIR, or use images of your own with "
            f"--dataset folder:PATH."
        )
    return folder


def _download(spec: NamedDataset, data_root: Path) -> None:
    import torchvision.datasets

    data_root.mkdir(parents=True, exist_ok=True)
    with aside(spec.name, data_root) as folder:
        with _timeout(TIMEOUT):
            getattr(torchvision.datasets, spec.loader)(root=str(folder), download=True)
        target = data_root / spec.folder
        target.parent.mkdir(parents=True, exist_ok=True)
        os.sync()  # or a power cut could leave the folder's name, and zeros for pictures
        (folder / spec.folder).replace(target)


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Bound every wait on a socket; torchvision gives no way to say so."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)

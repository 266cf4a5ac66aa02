"""Opening a data set by `folder:PATH` and other prefixes, or by name."""

import os
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import cast

from featcache.collector import waiting_collector
from featcache.errors import UnknownNameError, UsageError
from featcache.paths import as_text, check_folder, expand, file_in, from_text
from featcache.sources.base import Dataset, FurtherColumns, Report
from featcache.sources.generic import refuse_generic
from featcache.sources.kinds import KINDS
from featcache.sources.named import DEFAULT_WORDS, NamedDataset, datasets, resolve
from featcache.sources.prefixes.kind import Kind, refuse_options
from featcache.wording import Argument, Placeholder

IMAGES = "images"
"""Folder of named data sets below the folder of all caches, unless another one is named."""

_OWN = ("For images of your own use ", Argument("dataset", Placeholder("folder:PATH")), ".")


def open_dataset(
    spec: str,
    *,
    root: Path,
    name: str | None = None,
    dataset_root: Path | None = None,
    data_root: Path | None = None,
    download: bool = True,
    splits: str | None = None,
    words: str | None = None,
    report: Report | None = None,
) -> Dataset:
    """List the images of a data set, drawing or downloading them where that is needed.

    Args:
        spec: A prefix and a path, as `folder:PATH`, or a name that `featcache datasets` shows.
        root: Folder of the caches.
        name: What to call it instead of its own name.
        dataset_root: Where the files of a named data set already are.
        data_root: Where named data sets, and those of the hub, keep their images, as
            `image_folder` takes it.
        download: Whether missing files may be fetched.
        splits: Which of its splits, where a named data set has several; None is the default.
        words: Source of class names and templates of a named data set: coop or openai.
        report: Called with progress of drawing and downloading.

    Raises:
        UnknownNameError: If no data set or kind of source has that name.
        SourceError: If the images cannot be listed.
    """
    if name is not None and not name.strip():
        raise UsageError(Argument("name"), " needs at least one letter. Got an empty name instead.")
    found = _kind_of(spec)
    if found is not None:
        kind, path = found
        given = {"dataset_root": dataset_root, "splits": splits, "words": words}
        for argument in (name for name, value in given.items() if value is not None):
            raise UsageError(
                Argument(argument),
                f" is for named data sets; {kind.prefix}:PATH has its own.",
            )
        name = name or kind.name_of(path)
        if kind.fetch is None:
            with waiting_collector():
                return kind.open(path, name)
        brought = kind.fetch(path, image_folder(root, data_root), download, report)
        with waiting_collector():
            data = kind.open(brought.text, name)
        return replace(data, notes=(*brought.notes, *data.notes))
    images = image_folder(root, data_root)
    dataset = _open_named(find(spec), images, dataset_root, download, report, splits, words)
    return dataset if name is None else replace(dataset, name=name)


def image_folder(root: Path, data_root: Path | None = None) -> Path:
    """Return the folder of all named data sets; caches in several folders may share it.

    Args:
        root: Folder of all caches.
        data_root: The folder; None for $FEATCACHE_DATA, else `images` in `root`.

    Raises:
        CacheError: If the path is not a folder.
        UsageError: If it begins with the home folder of an unknown user.
    """
    if data_root is not None:
        return check_folder(expand(data_root).absolute(), Argument("data_root"))
    if place := os.environ.get("FEATCACHE_DATA"):
        return check_folder(expand(place).absolute(), "$FEATCACHE_DATA or ", Argument("data_root"))
    return root / IMAGES


def name_of(spec: str, name: str | None = None) -> str:
    """Return the name of a data set without listing its images.

    Raises:
        UnknownNameError: If no data set or kind of source has that name.
        SourceError: If there is no such folder or file.
    """
    if name:
        return name
    found = _kind_of(spec)
    if found is None:
        return find(spec).name
    kind, path = found
    return kind.name_of(path)


def is_path(spec: str) -> bool:
    """Tell whether a spec is a prefix with a path, not the name of a data set."""
    return spec.partition(":")[0] in KINDS and ":" in spec


def spec_of(root: str) -> str:
    """Return the prefix and path that open the images of a listing again.

    Args:
        root: A folder, an archive or a folder in one.
    """
    from featcache.sources.trees.archive import kind_of

    path = from_text(root)
    return f"folder:{path}" if file_in(path) is None else f"{kind_of(path)}:{path}"


def further_columns(spec: str) -> FurtherColumns:
    """Read what the list of a data set says of its images besides class and split.

    Args:
        spec: Prefix, path and options, as `Listing.spec` has them.

    Returns:
        The columns; none for sources without such.

    Raises:
        SourceError: If the list is not there any more, or cannot be read.
    """
    found = _kind_of(spec)
    if found is None:
        return FurtherColumns()
    kind, path = found
    return FurtherColumns() if kind.further is None else kind.further(path)


def is_drawn(spec: str) -> bool:
    """Tell whether a spec is the name of a drawn world."""
    return any(d.name == spec and d.kind == "drawn" for d in datasets())


def find(name: str) -> NamedDataset:
    """Look a named data set up.

    Raises:
        UsageError: If it is a path, or a data set that a prefix reads.
        UnknownNameError: If there is none of that name.
    """
    known = {d.name: d for d in datasets()}
    if resolve(name) in known:
        return known[resolve(name)]
    path = expand(name)
    if path.is_dir():
        raise _bare(name, "a folder", "folder")
    for prefix in ("zip", "tar"):
        if path.is_file() and as_text(path.name).lower().endswith(f".{prefix}"):
            raise _bare(name, "a file", prefix)
    refuse_generic(name)
    aliases = {alias: data.name for data in known.values() for alias in data.aliases}
    raise UnknownNameError("data set", name, known, _OWN, also=aliases)


def _bare(path: str, what: str, prefix: str) -> UsageError:
    return UsageError(
        f"'{path}' is {what}, not a name; write ", Argument("dataset", f"{prefix}:{path}")
    )


def _kind_of(spec: str) -> tuple[Kind, str] | None:
    """Return the kind of source that a spec names and its path; None for a plain name.

    Raises:
        UnknownNameError: If there is no such kind.
        UsageError: If the path is missing, or has options that the kind does not take.
    """
    prefix, colon, path = spec.partition(":")
    if not colon or (prefix not in KINDS and expand(spec).is_dir()):
        return None
    if prefix not in KINDS:
        raise UnknownNameError("kind of source", prefix, KINDS, _OWN)
    module, _, name = KINDS[prefix].partition(":")
    kind = cast(Kind, getattr(import_module(module), name))
    if not kind.has_options:
        refuse_options(prefix, path)
    if not path:
        raise UsageError(f"{prefix}: needs a path, e.g. ", Argument("dataset", kind.example), ".")
    return kind, path


def _open_named(
    spec: NamedDataset,
    images: Path,
    dataset_root: Path | None,
    download: bool,
    report: Report | None,
    splits: str | None,
    words: str | None,
) -> Dataset:
    if dataset_root is not None:  # the listing remembers where images are, for any later folder
        dataset_root = expand(dataset_root).absolute()
    if spec.kind == "drawn":
        from featcache.sources.fieldguide.world import open_world

        return open_world(spec.name, dataset_root or images, report=report)
    from featcache.sources.named_open import open_named

    return open_named(
        spec,
        images,
        dataset_root,
        download,
        report,
        splits=splits,
        words=words or DEFAULT_WORDS,
    )

"""From what the user calls a data set to its images: `folder:PATH` and its like, or a name."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import cast

from featcache.errors import UnknownNameError, UsageError
from featcache.paths import as_text, expand, file_in, from_text
from featcache.sources.base import Dataset, Report
from featcache.sources.kind import Kind
from featcache.sources.named import NamedDataset, datasets
from featcache.wording import Argument, Placeholder

KINDS: Mapping[str, str] = {
    "folder": "featcache.sources.folder:FOLDER",
    "zip": "featcache.sources.archives:ZIP",
    "tar": "featcache.sources.archives:TAR",
    "csv": "featcache.sources.own:CSV",
    "wds": "featcache.sources.own:WDS",
    "hf": "featcache.sources.own:HF",
    "coco": "featcache.sources.own:COCO",
    "labelstudio": "featcache.sources.own:LABELSTUDIO",
    "fiftyone": "featcache.sources.own:FIFTYONE",
    "npz": "featcache.sources.own:NPZ",
}
"""Prefix -> module and name of its `Kind`, which is imported when it is first used."""

_OWN = ("For images of your own use ", Argument("dataset", Placeholder("folder:PATH")), ".")


def open_dataset(
    spec: str,
    *,
    root: Path,
    name: str | None = None,
    dataset_root: Path | None = None,
    download: bool = True,
    report: Report | None = None,
) -> Dataset:
    """List the images of a data set, drawing or downloading them where that is needed.

    Args:
        spec: A prefix and a path, as `folder:PATH`, or a name that `featcache datasets` shows.
        root: Folder of the caches; named data sets keep their images in `root/images`.
        name: What to call it instead of its own name.
        dataset_root: Where the files of a named data set already are.
        download: Whether missing files may be fetched.
        report: Told of drawing and downloading.

    Raises:
        UnknownNameError: If no data set or kind of source has that name.
        SourceError: If the images cannot be listed.
    """
    if name is not None and not name.strip():
        raise UsageError(Argument("name"), " needs at least one letter. Got an empty name instead.")
    found = _kind_of(spec)
    if found is not None:
        kind, path = found
        if dataset_root is not None:
            raise UsageError(
                Argument("dataset_root"),
                f" is for named data sets; {kind.prefix}:PATH has its own path.",
            )
        return kind.open(path, name or kind.name_of(path))
    dataset = _open_named(find(spec), root / "images", dataset_root, download, report)
    return dataset if name is None else replace(dataset, name=name)


def name_of(spec: str, name: str | None = None) -> str:
    """Return what a data set will be called, before its images are listed.

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
    """Tell whether it names files of the user's own, with a prefix, and not a named data set."""
    return spec.partition(":")[0] in KINDS and ":" in spec


def spec_of(root: str) -> str:
    """Return what opens again the images that a listing found below a root.

    Args:
        root: A folder, an archive or a folder in one.
    """
    from featcache.sources.trees.archive import kind_of

    path = from_text(root)
    return f"folder:{path}" if file_in(path) is None else f"{kind_of(path)}:{path}"


def is_drawn(spec: str) -> bool:
    """Tell whether it is a world that this program draws."""
    return any(d.name == spec and d.kind == "drawn" for d in datasets())


def find(name: str) -> NamedDataset:
    """Look a named data set up.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    known = {d.name: d for d in datasets()}
    if name in known:
        return known[name]
    path = expand(name)
    if path.is_dir():
        raise _bare(name, "a folder", "folder")
    for prefix in ("zip", "tar"):
        if path.is_file() and as_text(path.name).lower().endswith(f".{prefix}"):
            raise _bare(name, "a file", prefix)
    raise UnknownNameError("data set", name, known, _OWN)


def _bare(path: str, what: str, prefix: str) -> UsageError:
    return UsageError(
        f"'{path}' is {what}, not a name; write ", Argument("dataset", f"{prefix}:{path}")
    )


def _kind_of(spec: str) -> tuple[Kind, str] | None:
    """Return the kind of source that a spec names and its path; None for a plain name.

    Raises:
        UnknownNameError: If there is no such kind.
        UsageError: If the path is missing.
    """
    prefix, colon, path = spec.partition(":")
    if not colon or (prefix not in KINDS and expand(spec).is_dir()):
        return None
    if prefix not in KINDS:
        raise UnknownNameError("kind of source", prefix, KINDS, _OWN)
    module, _, name = KINDS[prefix].partition(":")
    kind = cast(Kind, getattr(import_module(module), name))
    if not path:
        raise UsageError(f"{prefix}: needs a path, e.g. ", Argument("dataset", kind.example), ".")
    return kind, path


def _open_named(
    spec: NamedDataset,
    images: Path,
    dataset_root: Path | None,
    download: bool,
    report: Report | None,
) -> Dataset:
    if dataset_root is not None:  # the listing remembers where images are, for any later folder
        dataset_root = expand(dataset_root).absolute()
    if spec.kind == "drawn":
        from featcache.sources.fieldguide.world import open_world

        return open_world(spec.name, dataset_root or images, report=report)
    from featcache.sources.torchvision import open_torchvision

    # Nothing is downloaded into a folder that the user named.
    may = download and dataset_root is None
    return open_torchvision(spec, dataset_root or images, download=may, report=report)

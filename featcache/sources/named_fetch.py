"""Which published files of a named data set are fetched, and where they go."""

from collections.abc import Sequence
from pathlib import Path

from featcache.errors import DownloadNeededError
from featcache.sources.base import Report
from featcache.sources.fetch.archive import Archive
from featcache.sources.named import NamedDataset, Scheme
from featcache.sources.named_place import files_here
from featcache.wording import Argument, Part


def wanted_archives(spec: NamedDataset, scheme: Scheme, images_root: Path) -> tuple[Archive, ...]:
    """Return what the requested splits lack: all files, or their lists if the images were fetched.

    Files that only other splits of the data set read are left out.

    Args:
        spec: Data set from `datasets()`.
        scheme: One of its ways to split, which cannot be read below `images_root`.
        images_root: Where named data sets are kept.

    Returns:
        Nothing if the images are in another folder than that of downloads: it is left as it is.
    """
    own = _lists(scheme)
    others = {file for other in spec.splits.values() for file in _lists(other)} - own
    archives = tuple(a for a in spec.archive if a.file not in others)
    here = files_here(spec, images_root)
    if not here:
        return archives
    ours = (images_root / spec.name).resolve()
    if not all(Path(folder).is_relative_to(ours) for folder in here.values()):
        return ()
    return tuple(a for a in archives if a.file in own)


def fetch_named(
    spec: NamedDataset, archives: Sequence[Archive], images_root: Path, report: Report | None
) -> tuple[str, ...]:
    """Download archives into a folder of the data set's name; return notes for the user.

    Raises:
        DownloadNeededError: If that fails; it says what else could be done.
    """
    from featcache.sources.fetch.fetch import fetch

    try:
        return fetch(archives, images_root / spec.name, title=spec.title, report=report).notes
    except DownloadNeededError as error:
        raise DownloadNeededError(*error.parts, " ", *other_ways(spec, images_root)) from error


def other_ways(spec: NamedDataset, data_root: Path) -> list[Part]:
    """Describe where the files can be put; where images are, which splits need no more of them."""
    here = next(iter(files_here(spec, data_root)), None)
    if here is not None:
        return [f"{spec.hint} Or take the other splits with ", Argument("splits", here), "."]
    first = "/".join(filter(None, (spec.places[0], spec.image_folders[0])))
    return [
        f"{spec.hint} Put the images at {data_root / first}, or name their folder with ",
        Argument("dataset_root"),
        ", or use images of your own with ",
        Argument("dataset", "folder:PATH"),
        ".",
    ]


def _lists(scheme: Scheme) -> set[str]:
    """Return the base names of the lists that a scheme reads."""
    return {file.rpartition("/")[2] for layout in scheme.list_ for file in layout.files}

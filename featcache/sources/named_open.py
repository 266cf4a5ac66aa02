"""Opening a named data set: locate or download its files, then read its lists."""

from pathlib import Path

from featcache.collector import waiting_collector
from featcache.errors import DownloadNeededError, SourceError
from featcache.sources.base import Dataset, Report, Sample
from featcache.sources.layouts.named.base import ListedImage, Location
from featcache.sources.layouts.named.records import Records
from featcache.sources.layouts.splits import make_splits
from featcache.sources.layouts.splits import samples as by_split
from featcache.sources.lists import ClassTable
from featcache.sources.named import DEFAULT_WORDS, NamedDataset, Scheme
from featcache.sources.named_fetch import fetch_named, other_ways, wanted_archives
from featcache.sources.named_notes import notes_of
from featcache.sources.named_place import FoundListing, files_here, find_listing
from featcache.sources.trees.base import Entry
from featcache.sources.trees.folder import FolderTree
from featcache.text.templates import clean_name
from featcache.wording import Argument, Part

MOST_COUNTED = 200_000
"""Most images of a data set that are counted: above, looking at each file takes long."""


def open_named(
    spec: NamedDataset,
    images_root: Path,
    dataset_root: Path | None = None,
    download: bool = True,
    report: Report | None = None,
    *,
    splits: str | None = None,
    words: str = DEFAULT_WORDS,
) -> Dataset:
    """List the images of a named data set.

    Args:
        spec: Data set from `datasets()`.
        images_root: Where named data sets are kept; missing files are fetched into it.
        dataset_root: Where the files of this one are, a folder or an archive that is read in place;
            nothing is fetched into it.
        download: Whether missing files may be fetched.
        report: Told of downloads.
        splits: Name of a scheme of `spec.splits`; None is the default.
        words: Source of class names and templates, a key of `spec.templates`: coop or openai.

    Raises:
        DownloadNeededError: If the files are not there and cannot be fetched.
        SourceError: If a list is damaged or missing, or the images are those of another data set.
    """
    scheme, data_root = spec.scheme(splits), dataset_root or images_root
    texts = spec.texts(words)  # a wrong name is refused before anything is fetched
    fetched: tuple[str, ...] = ()
    found = find_listing(spec, scheme, data_root)
    may_fetch = download and dataset_root is None and spec.can_be_fetched
    if found is None and may_fetch:
        archives = wanted_archives(spec, scheme, images_root)
        if archives:
            fetched = fetch_named(spec, archives, images_root, report)
            found = find_listing(spec, scheme, data_root)
    if found is None:
        _refuse_without_lists(spec, scheme, data_root)
        raise _not_there(spec, data_root, named=dataset_root is not None, download=download)
    listed = _Listing(spec, scheme)
    listed.read(found, images_root, report)
    classes = listed.classes
    readable = _readable(classes, words)
    return Dataset(
        name=spec.name,
        root=listed.location.images.root,
        classes=readable,
        samples=tuple(listed.with_splits()),
        templates=texts,
        descriptions=_descriptions(spec, classes, readable),
        default_text=spec.default_text,
        notes=(*fetched, *listed.notes),
    )


def count_here(spec: NamedDataset, images_root: Path, *, splits: str) -> int | None:
    """Count the listed images that are below a folder, without drawing or downloading any.

    Args:
        spec: Data set from `datasets()`.
        images_root: Where named data sets are kept.
        splits: Name of a scheme of `spec.splits`.

    Returns:
        None where counting is not cheap: of very many images, or of records that hold them.

    Raises:
        SourceError: If a list is damaged, or the images are those of another data set.
    """
    scheme = spec.scheme(splits)
    if sum(scheme.counts.values()) > MOST_COUNTED:
        return None
    found = find_listing(spec, scheme, images_root)
    if found is None or any(isinstance(layout, Records) for layout in found.layouts):
        return None
    listed = _Listing(spec, scheme)
    listed.read(found, images_root, None)
    return len(listed.with_splits())


def described_classes(
    spec: NamedDataset, words: str = DEFAULT_WORDS
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Return the readable class names of a data set, and what describes them, without any image.

    Args:
        spec: Data set from `datasets()`.
        words: coop or openai: whose class names.
    """
    classes = spec.table()
    readable = _readable(classes, words)
    return readable, _descriptions(spec, classes, readable)


def _readable(classes: ClassTable, words: str) -> tuple[str, ...]:
    names = classes.openai if words.startswith("openai") else classes.names
    return tuple(map(clean_name, names))


def _descriptions(
    spec: NamedDataset, classes: ClassTable, readable: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Return the sentences by the names in use; they are written under those of CoOp."""
    written = spec.descriptions
    own = map(clean_name, classes.names)
    return {name: written[c] for c, name in zip(own, readable, strict=True) if c in written}


class _Listing:
    """Images of a data set, collected list by list."""

    location: Location

    def __init__(self, spec: NamedDataset, scheme: Scheme) -> None:
        self._spec, self._scheme = spec, scheme
        self.classes: ClassTable = spec.table()
        self._images: list[ListedImage] = []
        self._missing: list[str] = []
        self.notes: list[str] = []

    def read(self, found: FoundListing, images_root: Path, report: Report | None) -> None:
        """Read every list that is there; of an image in several lists the first entry counts.

        Raises:
            SourceError: If a list is damaged, or none of its images is there.
        """
        self.location = found.location
        seen: set[str] = set()
        for layout in found.layouts:
            if isinstance(layout, Records):
                if seen:
                    continue  # the images are there already
                folder = layout.write(found.location, self.classes, images_root, report)
                self.location = Location(FolderTree(folder.resolve()), ())
            with waiting_collector():
                listed = layout.read(self.location, self.classes)
            self._images += [i for i in listed.samples if i.entry.id not in seen]
            seen.update(image.entry.id for image in listed.samples)
            self._missing += listed.missing
            self.notes += listed.notes
        self._check()
        self.notes += notes_of(
            self._spec, self._scheme, self.classes, self.location, self._images, self._missing
        )

    def with_splits(self) -> list[Sample]:
        """Return the samples; a pool is split by class, and groups stay together."""
        groups = {image.entry.id: image.group for image in self._images}
        if not self._scheme.cut:
            return [
                Sample(i.entry.id, i.entry.place, i.label, i.split, i.group) for i in self._images
            ]
        by_label: dict[str, list[Entry]] = {str(label): [] for label in range(len(self.classes))}
        for image in self._images:
            by_label[str(image.label)].append(image.entry)
        files = {"train": by_label}
        self.notes += make_splits(files, 0, groups)
        return list(by_split(files, list(by_label), groups))

    def _check(self) -> None:
        root = self.location.images.root
        for other in self._spec.looks_like:
            if other.images == len(self._images) > 0:
                raise SourceError(
                    f"{root} has {other.images} images, so it is not {self._spec.name}: {other.say}"
                )
        if not self._images:
            example = f", e.g. {self._missing[0]}" if self._missing else ""
            raise SourceError(
                f"None of the images that {self._spec.title} lists is in {root}{example}. "
                f"{self._spec.hint}"
            )


def _refuse_without_lists(spec: NamedDataset, scheme: Scheme, data_root: Path) -> None:
    """Raise if the images are there and the lists of the requested splits are not.

    Raises:
        SourceError: If that is so.
    """
    here = files_here(spec, data_root)
    if not here:
        return
    other, folder = next(iter(here.items()))
    files = ", ".join(dict.fromkeys(file for layout in scheme.list_ for file in layout.files))
    asked = next(name for name, its in spec.splits.items() if its is scheme)
    raise SourceError(
        f"The images of {spec.name} are in {folder}, but its splits '{asked}' need {files} beside "
        f"them. {spec.hint} Or take the other splits with ",
        Argument("splits", other),
        ".",
    )


def _not_there(
    spec: NamedDataset, data_root: Path, *, named: bool, download: bool
) -> DownloadNeededError:
    """Compose the error for missing files: what, where to put them, and how to get them."""
    parts: list[Part] = [f"{spec.title} is not in {data_root}"]
    if named and spec.can_be_fetched:
        parts += ["; without ", Argument("dataset_root"), f" it would be fetched ({spec.size})"]
    elif not download and spec.can_be_fetched:
        parts.append(f", and downloading is off here ({spec.size})")
    elif not spec.can_be_fetched:
        parts.append(", and it cannot be fetched without you")
    return DownloadNeededError(*parts, ". ", *other_ways(spec, data_root))

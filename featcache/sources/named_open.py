"""From a named data set to its images: find the place, fetch what is missing, read the lists."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from featcache.counts import counted
from featcache.errors import DownloadNeededError, SourceError
from featcache.sources.base import Dataset, Report, Sample
from featcache.sources.layouts.base import Layout, ListedImage, Location
from featcache.sources.layouts.records import Records
from featcache.sources.layouts.splits import make_splits
from featcache.sources.layouts.splits import samples as by_split
from featcache.sources.lists import ClassTable
from featcache.sources.named import DEFAULT_WORDS, LookAlike, NamedDataset, Scheme
from featcache.sources.trees.base import Entry, Tree
from featcache.sources.trees.folder import FolderTree
from featcache.text.templates import clean_name
from featcache.wording import Argument, Part

MOST_NAMED = 3
"""How many missing images or classes a note names."""


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
        spec: From `datasets()`.
        images_root: Where named data sets are kept; missing files are fetched into it.
        dataset_root: Where the files of this one are; nothing is fetched into it.
        download: Whether missing files may be fetched.
        report: Told of downloads.
        splits: Name of a scheme of `spec.splits`; None is the default.
        words: Whose class names and templates, a key of `spec.templates`: coop or openai.

    Raises:
        DownloadNeededError: If the files are not there and cannot be fetched.
        SourceError: If a list is damaged, or the images are those of another data set.
    """
    scheme, data_root = spec.scheme(splits), dataset_root or images_root
    found = find_listing(spec, scheme, data_root)
    if found is None and download and dataset_root is None and spec.can_be_fetched:
        _fetch(spec, images_root, report)
        found = find_listing(spec, scheme, data_root)
    if found is None:
        raise _not_there(spec, data_root, dataset_root is not None)
    return _listed(spec, scheme, found, images_root, report, words)


@dataclass(frozen=True, slots=True)
class FoundListing:
    """A data set that is there: where, and the lists that can be read."""

    location: Location
    layouts: tuple[Layout, ...]


def find_listing(spec: NamedDataset, scheme: Scheme, data_root: Path) -> FoundListing | None:
    """Find a data set below a folder, or in the folder itself.

    Args:
        spec: From `datasets()`.
        scheme: One of its ways to split.
        data_root: Where data sets are kept, or the folder of this one.

    Returns:
        None if it is not there.

    Raises:
        SourceError: If only a known look-alike is there.
    """
    if not data_root.is_dir():
        return None
    classes, root = spec.table(), FolderTree(data_root.resolve())
    others = [other for other in spec.looks_like if other.path]
    for location in locations(spec, root):
        layouts = tuple(x for x in scheme.list_ if x.is_here(location, classes))
        if layouts:
            _refuse_paths(spec, location.images, others)
            return FoundListing(location, layouts)
    for location in locations(spec, root):
        _refuse_paths(spec, location.images, others)
    return None


def locations(spec: NamedDataset, root: Tree) -> Iterator[Location]:
    """Yield where a data set may lie, the usual places first and the named folder itself last."""
    for place in (*spec.places, ""):
        if place and not root.has_folder(place):
            continue
        base = root.below(place) if place else root
        for folder in (*spec.image_folders, ""):
            if not folder or base.has_folder(folder):
                images = base.below(folder) if folder else base
                yield Location(images, (base, images, root))


def _listed(
    spec: NamedDataset,
    scheme: Scheme,
    found: FoundListing,
    images_root: Path,
    report: Report | None,
    words: str,
) -> Dataset:
    classes, location = spec.table(), found.location
    samples: list[ListedImage] = []
    missing: list[str] = []
    notes: list[str] = []
    seen: set[str] = set()
    for layout in found.layouts:
        if isinstance(layout, Records):
            if samples:
                continue
            folder = layout.write(location, classes, images_root, report)
            location = Location(FolderTree(folder.resolve()), ())
        listed = layout.read(location, classes)
        samples += [image for image in listed.samples if image.entry.id not in seen]
        seen.update(image.entry.id for image in listed.samples)
        missing += listed.missing
        notes += listed.notes
    _refuse_look_alikes(spec, len(samples), location.images.root)
    if not samples:
        example = f", e.g. {missing[0]}" if missing else ""
        raise SourceError(
            f"None of the images that {spec.title} lists is in {location.images.root}{example}. "
            f"{spec.hint}"
        )
    notes += _notes(spec, scheme, classes, location, samples, missing)
    if scheme.cut:
        chosen, made = _cut(samples, len(classes))
        notes += made
    else:
        chosen = [_sample(image) for image in samples]
    names = classes.openai if words.startswith("openai") else classes.names
    readable = tuple(map(clean_name, names))
    return Dataset(
        name=spec.name,
        root=location.images.root,
        classes=readable,
        samples=tuple(chosen),
        templates=spec.texts(words),
        descriptions={c: spec.descriptions[c] for c in readable if c in spec.descriptions},
        default_text=spec.default_text,
        notes=tuple(notes),
    )


def _sample(image: ListedImage) -> Sample:
    return Sample(image.entry.id, image.entry.place, image.label, image.split, image.group)


def _cut(pool: Sequence[ListedImage], classes: int) -> tuple[list[Sample], list[str]]:
    """Make splits of a pool, class by class, groups kept whole; and say so."""
    by_label: dict[str, list[Entry]] = {str(label): [] for label in range(classes)}
    for image in pool:
        by_label[str(image.label)].append(image.entry)
    groups = {image.entry.id: image.group for image in pool}
    files = {"train": by_label}
    notes = make_splits(files, 0, groups)
    return list(by_split(files, list(by_label), groups)), notes


def _notes(
    spec: NamedDataset,
    scheme: Scheme,
    classes: ClassTable,
    location: Location,
    samples: list[ListedImage],
    missing: list[str],
) -> Iterator[str]:
    """Tell what differs from a whole copy, and what the user should know of the splits."""
    if scheme.note:
        yield scheme.note
    total = sum(scheme.counts.values())
    if len(samples) != total:
        yield f"{counted(len(samples), 'image')} of {spec.name} are there; a whole copy has {total}."
    if missing:
        more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        yield (
            f"{counted(len(missing), 'listed image')} not there: "
            f"{', '.join(missing[:MOST_NAMED])}{more}."
        )
    yield from _class_notes(scheme, classes, samples)
    left_out = len(location.found.images) - len(samples)
    if left_out > 0:
        yield f"{counted(left_out, 'image')} beside them not in the list: left out."
    yield from location.found.notes


def _class_notes(
    scheme: Scheme, classes: ClassTable, samples: list[ListedImage]
) -> Iterator[str]:
    """Name classes that have no image, or fewer than all classes of a split must have."""
    there = {image.label for image in samples}
    without = [name for label, name in enumerate(classes.names) if label not in there]
    if without:
        more = f" and {len(without) - MOST_NAMED} more" if len(without) > MOST_NAMED else ""
        yield f"No image of {', '.join(map(clean_name, without[:MOST_NAMED]))}{more}."
    per_split = Counter((image.split, image.label) for image in samples)
    for split, wanted in scheme.per_class.items():
        short = [
            f"{clean_name(classes.names[label])} ({per_split[split, label]})"
            for label in sorted(there)
            if per_split[split, label] != wanted
        ]
        if short:
            more = f" and {len(short) - MOST_NAMED} more" if len(short) > MOST_NAMED else ""
            yield (
                f"Every class has {wanted} {split} images in a whole copy; here not: "
                f"{', '.join(short[:MOST_NAMED])}{more}."
            )


def _refuse_paths(spec: NamedDataset, tree: Tree, others: Sequence[LookAlike]) -> None:
    for other in others:
        if tree.has_folder(other.path) or tree.find(other.path) is not None:
            raise SourceError(
                f"{tree.root} has {other.path}, so it is not {spec.name}: {other.say}"
            )


def _refuse_look_alikes(spec: NamedDataset, images: int, root: Path) -> None:
    for other in spec.looks_like:
        if other.images == images:
            raise SourceError(f"{root} has {images} images, so it is not {spec.name}: {other.say}")


def _fetch(spec: NamedDataset, images_root: Path, report: Report | None) -> None:
    """Fetch the archives into the data root."""


def _not_there(spec: NamedDataset, data_root: Path, named: bool) -> DownloadNeededError:
    """Say what is missing, where it may lie, and how to get it."""
    where = [f"{place}/{folder}".rstrip("/") for place in spec.places for folder in spec.image_folders]
    lists = sorted({f for s in spec.splits.values() for x in s.list_[:1] for f in x.files})
    needs = f", with {', '.join(lists[:4])} beside them" if lists else ""
    parts: list[Part] = [
        f"{spec.title} is not in {data_root}; its images are looked for in "
        f"{', '.join(where[:4])} or in that folder itself{needs}. {spec.hint}".rstrip(),
    ]
    if spec.can_be_fetched and named:
        parts += [" Without ", Argument("dataset_root"), f" it is fetched ({spec.size})."]
    elif not named:
        parts += [" Name the folder with ", Argument("dataset_root"), "."]
    return DownloadNeededError(*parts)

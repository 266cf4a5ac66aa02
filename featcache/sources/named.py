"""Descriptions of named data sets, one TOML file each in `datasets/`.

CONTRIBUTING.md tells how to add one.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Literal, TypeAlias

from featcache.errors import SourceError, UnknownNameError
from featcache.sources.descriptions import ClassDescriptions, class_descriptions
from featcache.sources.fetch.archive import Archive
from featcache.sources.layouts.named.folders import Folders
from featcache.sources.layouts.named.lines import Lines
from featcache.sources.layouts.named.mat import Mat
from featcache.sources.layouts.named.records import Records
from featcache.sources.layouts.named.split_json import SplitJson
from featcache.sources.layouts.named.table import Table
from featcache.sources.lists import ClassTable, class_table
from featcache.sources.toml_fields import decode

AnyLayout: TypeAlias = SplitJson | Folders | Lines | Table | Mat | Records

DEFAULT_WORDS = "coop"
"""The class names and the template that methods are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """Published splits of a data set, and the lists that define them."""

    counts: Mapping[str, int]
    """Split -> images of a whole copy."""
    note: str = ""
    """What a user should know of these splits, in a sentence."""
    list_: tuple[AnyLayout, ...] = ()
    """Read one after the other, those that are there; an image counts where it comes first."""
    cut: bool = False
    """Whether the images come as one pool, which is cut here into train, val and test."""
    per_class: Mapping[str, int] = field(default_factory=dict)
    """Split -> images of each class, where all classes have the same number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAlike:
    """Another data set that is easily confused with this one."""

    say: str
    """What it is and what to get in its place."""
    path: str = ""
    """A file or folder, below a place where the data set may lie, that only the other one has."""
    images: int = 0
    """How many images the other one lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedDataset:
    """Description of a named data set."""

    name: str
    title: str
    licence: str
    citation: str
    classes: int
    splits: Mapping[str, Scheme]
    """Name of the scheme -> scheme; the first is the default."""
    kind: Literal["listed", "drawn"] = "listed"
    """drawn: rendered by this package; listed: photographs that are fetched or already there."""
    aliases: tuple[str, ...] = ()
    """Other accepted names."""
    terms: Literal["auto", "click", "account"] = "auto"
    """auto: fetched when asked for; click: a browser has to fetch it; account: needs a login or
    terms that a person accepts."""
    hint: str = ""
    """How to get the files by hand: file names and sizes."""
    size: str = ""
    """Readable size of what is fetched or drawn."""
    metric: Literal["top1", "mean-per-class"] = "top1"
    class_list: str = ""
    """Name of the packaged list of classes; empty for that of the data set's own name."""
    parent: str = ""
    """Data set whose labels the class list refers to: a head of its classes answers here, too."""
    places: tuple[str, ...] = ()
    """Where the data set may lie below the data root, tried in order."""
    image_folders: tuple[str, ...] = ("",)
    """Image folders below such a place, tried in order; ids are relative to them."""
    archive: tuple[Archive, ...] = ()
    templates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """coop and openai -> sentences with one `{}` for the class name."""
    default_text: str = "template"
    looks_like: tuple[LookAlike, ...] = ()

    @property
    def images(self) -> int:
        """Number of images of a complete copy with the default splits."""
        return sum(self.scheme().counts.values())

    @property
    def can_be_fetched(self) -> bool:
        """Whether it can be downloaded without user action."""
        return self.terms == "auto" and bool(self.archive)

    @property
    def described(self) -> ClassDescriptions:
        """What was written about its classes, and by whom; read when first asked for.

        Raises:
            SourceError: If the file in `descriptions/` is malformed.
        """
        if self.kind == "drawn":
            from featcache.sources.fieldguide.species import written

            return written(self.name)
        return class_descriptions(self.name)

    @property
    def descriptions(self) -> Mapping[str, tuple[str, ...]]:
        """Readable class name -> sentences about how it looks; empty where none were written.

        Raises:
            SourceError: If the file in `descriptions/` is malformed.

        Example:
            >>> len(find("eurosat").descriptions), len(find("imagenet").descriptions)
            (10, 0)
        """
        return self.described.descriptions

    def scheme(self, name: str | None = None) -> Scheme:
        """Return a way to split the data set.

        Args:
            name: One of `splits`; None is the default.

        Raises:
            UnknownNameError: If there is none of that name.
        """
        if name is None:
            return next(iter(self.splits.values()))
        if name not in self.splits:
            raise UnknownNameError(f"splits of {self.name}", name, self.splits)
        return self.splits[name]

    def texts(self, words: str = DEFAULT_WORDS) -> tuple[str, ...]:
        """Return templates, those of a shift data set from its parent.

        Args:
            words: coop or openai; ImageNet also has openai_7.

        Raises:
            UnknownNameError: If there are none of that name.
        """
        of = self if self.templates or not self.parent else find(self.parent)
        if words not in of.templates:
            raise UnknownNameError(f"words of {self.name}", words, of.templates)
        return of.templates[words]

    def table(self) -> ClassTable:
        """Read the list of classes, those of a shift data set from its parent.

        Raises:
            SourceError: If the package lacks it.
        """
        own = class_table(self.class_list or self.name)
        if len(own):
            return own
        of = find(self.parent).table()
        label = [labels[0] for labels in own.parent]
        return replace(
            own,
            names=tuple(of.names[i] for i in label),
            openai=tuple(of.openai[i] for i in label),
            folders=tuple(of.folders[i] for i in label),
        )

    def parent_labels(self) -> tuple[tuple[int, ...], ...]:
        """Return, for every label, the labels of the parent data set that mean the same class.

        Example:
            >>> find("imagenet_a").parent_labels()[:3]
            ((6,), (11,), (13,))
        """
        if self.parent and self.class_list == self.parent:
            return tuple((i,) for i in range(self.classes))
        return self.table().parent


def datasets() -> list[NamedDataset]:
    """List the named data sets, by name."""
    return sorted(_all().values(), key=lambda one: one.name)


def find(name: str) -> NamedDataset:
    """Return the data set of a name or alias.

    Raises:
        KeyError: If there is none.

    Example:
        >>> find("pets").name
        'oxford_pets'
    """
    return _all()[resolve(name)]


def resolve(name: str) -> str:
    """Return the name of the data set with this alias; any other text unchanged."""
    wanted = name.lower()
    return next((d.name for d in datasets() if wanted in (d.name, *d.aliases)), name)


def read_toml(name: str, text: str) -> NamedDataset:
    """Read the description of a data set.

    Args:
        name: The file's, without suffix.
        text: The file's content.

    Raises:
        SourceError: If it is no TOML, or a key is unknown, missing or of another type.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SourceError(f"{name}.toml is not TOML: {error}.") from error
    data = decode(NamedDataset, table, f"{name}.toml", name=name)
    if not data.splits:
        raise SourceError(f"{name}.toml: expected at least one scheme in 'splits'.")
    return data


@cache
def _all() -> Mapping[str, NamedDataset]:
    return {data.name: data for data in _read_all()}


def _read_all() -> Iterator[NamedDataset]:
    folder = resources.files("featcache.sources") / "datasets"
    for name in sorted(f.name for f in folder.iterdir() if f.name.endswith(".toml")):
        yield read_toml(name.removesuffix(".toml"), (folder / name).read_text("utf-8"))

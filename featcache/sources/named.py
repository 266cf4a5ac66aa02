"""Named data sets are data: one TOML file each in `datasets/`, read into one type."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedDataset:
    """What is known of a named data set before its files are there."""

    name: str
    title: str
    kind: str
    """drawn: rendered by this package; torchvision: fetched by torchvision's loader."""
    images: int
    classes: int
    size: str
    """Size of the download, for people."""
    licence: str
    citation: str
    loader: str = ""
    """torchvision's class."""
    folder: str = ""
    """Where the class folders lie below the data root; torchvision's layout."""
    split_file: str = ""
    """Where CoOp's split file is looked for below the data root."""
    url: str = ""
    """Where torchvision downloads from, for messages."""
    templates: tuple[str, ...] = ()
    default_text: str = "template"
    class_names: Mapping[str, str] = field(default_factory=dict)
    """Class folder -> readable name, in label order."""
    descriptions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def datasets() -> list[NamedDataset]:
    """List the named data sets, by name."""
    files = resources.files("featcache.sources") / "datasets"
    names = sorted(f.name for f in files.iterdir() if f.name.endswith(".toml"))
    return [_read(name.removesuffix(".toml"), (files / name).read_text("utf-8")) for name in names]


def _read(name: str, text: str) -> NamedDataset:
    table = tomllib.loads(text)
    table["templates"] = tuple(table.get("templates", ()))
    table["descriptions"] = {c: tuple(d) for c, d in table.get("descriptions", {}).items()}
    return NamedDataset(name=name, **table)

"""Sentences about how the classes of a named data set look, written for this package.

`NAME.json` is one object: `author`, `method` (how the sentences came about), `licence`, and
`descriptions`, which has every class in label order under its readable name, with its sentences:

    {"author": "...", "method": "...", "licence": "MIT",
     "descriptions": {"Forest": ["a satellite photo of ...", ...], ...}}
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources

from featcache.errors import SourceError
from featcache.sources.toml_fields import decode


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDescriptions:
    """What was written about the classes of one data set, and by whom."""

    author: str
    method: str
    """How the sentences came about, in sentences."""
    licence: str
    descriptions: Mapping[str, tuple[str, ...]]
    """Readable class name -> sentences, in label order; empty where none were written."""

    def per_class(self) -> tuple[int, int]:
        """Return the fewest and the most sentences of a class; (0, 0) where none were written."""
        counts = [len(sentences) for sentences in self.descriptions.values()] or [0]
        return min(counts), max(counts)

    def count(self) -> str:
        """Tell how many sentences a class has, as "4" or "4 to 6"; empty where none were written.

        Example:
            >>> NONE.count()
            ''
        """
        if not self.descriptions:
            return ""
        fewest, most = self.per_class()
        return f"{fewest} to {most}" if fewest < most else f"{most}"

    def summary(self) -> str:
        """Tell how many there are, by whom, under which licence and how they came about."""
        if not self.descriptions:
            return "none"
        return f"{self.count()} a class, by {self.author}, licence {self.licence}. {self.method}"


NONE = ClassDescriptions(author="", method="", licence="", descriptions={})
"""Stands for a data set without descriptions."""


@cache
def class_descriptions(name: str) -> ClassDescriptions:
    """Read the descriptions of one data set.

    Args:
        name: Of the data set, such as eurosat.

    Returns:
        What its file holds; `NONE` if there is no file.

    Raises:
        SourceError: If the file is malformed.

    Example:
        >>> class_descriptions("eurosat").licence
        'MIT'
    """
    file = resources.files("featcache.sources.descriptions").joinpath(f"{name}.json")
    return read_json(name, file.read_bytes()) if file.is_file() else NONE


def read_json(name: str, content: bytes, *, where: str = "") -> ClassDescriptions:
    """Read the content of a file of descriptions.

    Args:
        name: The file's, without suffix.
        content: JSON in UTF-8.
        where: Names the file in errors; empty for that of a named data set.

    Raises:
        SourceError: If it is no JSON, or a key is unknown, missing, repeated or of another type,
            or a class has no sentence; it names the file and the key.
    """
    where = where or f"descriptions/{name}.json"
    try:
        table = json.loads(content.decode("utf-8"), object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where} is not JSON: {error}.") from error
    if not isinstance(table, dict):
        raise SourceError(f"{where}: expected an object, got {type(table).__name__}.")
    read = decode(ClassDescriptions, table, where)
    for class_, sentences in read.descriptions.items():
        if not sentences or not all(map(str.strip, sentences)):
            raise SourceError(f"{where}: expected sentences for '{class_}', got {sentences!r}.")
    return read


def to_json(written: ClassDescriptions) -> bytes:
    """Write descriptions as `read_json` reads them, a sentence a line.

    Example:
        >>> written = class_descriptions("eurosat")
        >>> read_json("eurosat", to_json(written)) == written
        True
    """
    return json.dumps(asdict(written), ensure_ascii=False, indent=1).encode() + b"\n"


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table: dict[str, object] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key '{key}' stands there twice")
        table[key] = value
    return table

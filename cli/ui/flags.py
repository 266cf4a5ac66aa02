"""Writing the arguments and calls that library errors name as flags and commands."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from featcache.wording import Argument, Call, Named, Part, Placeholder, Setting, tell

COMMANDS = {
    "featcache.extract": ("featcache", "extract"),
    "featcache.importers.npz.import_npz": ("featcache", "import", "npz"),
    "featcache.retrieval.indexes.building.add_to_index": ("featcache", "index", "add"),
    "featcache.retrieval.indexes.building.build_index": ("featcache", "index", "build"),
    "featcache.retrieval.indexes.building.rebuild_index": ("featcache", "index", "build"),
    "featcache.retrieval.indexes.folder.remove_index": ("featcache", "index", "rm"),
    "heads.evaluate": ("heads", "train"),
}
"""Function -> the command that calls it."""
FLAGS = {
    ("", "root"): "--cache",
    ("heads", "root"): "--runs",
    ("", "compiled"): "--compile",
    ("", "profile"): "--profile-to",
    ("", "sources"): "--from",
    ("", "target"): "--for",
    ("", "class_name"): "--class",
    ("", "caches"): "--in",
}
"""(package where it matters, argument) -> its flag, where that is not the argument's own name."""
POSITIONAL = frozenset(
    {
        ("heads.evaluate", "method"),
        ("featcache.importers.npz.import_npz", "path"),
        ("featcache.retrieval.indexes.building.add_to_index", "name"),
        ("featcache.retrieval.indexes.folder.remove_index", "name"),
    }
)
"""Arguments that a command takes without a flag."""
NONE = {"shots": "all"}
"""Argument -> its value on the command line for None."""
OPENED = frozenset({("heads.evaluate", "cache")})
"""Arguments that a command opens itself: the flags of `featcache.open` say which cache."""


def in_flags(parts: Sequence[Part]) -> str:
    """Write a sentence for the command line.

    Example:
        >>> in_flags(["Use ", Argument("selection", "cv"), ", or lower ", Argument("shots"), "."])
        'Use --selection cv, or lower --shots.'
    """
    return tell(parts, _phrase)


def flag_of(name: str, of: str = "") -> str:
    """Return the flag of an argument."""
    return FLAGS.get((of, name)) or "--" + name.replace("_", "-")


def _phrase(item: Named) -> str:
    if isinstance(item, Call):
        return " ".join(_words(item))
    if isinstance(item, Setting):
        return f"--set {item.name}" + ("" if item.value is None else f"={item.value}")
    assert isinstance(item, Argument)
    flag = flag_of(item.name, item.of)
    return flag if item.value in (None, True) else f"{flag} {item.value}"


def _words(call: Call) -> Iterator[str]:
    if call.function == "featcache.store.removal.remove":
        yield from _removal(Path(call.arguments["root"]), Path(call.arguments["path"]))
        return
    yield from COMMANDS[call.function]
    yield from _options(call)


def _options(call: Call) -> Iterator[str]:
    for name, value in call.arguments.items():
        if (call.function, name) in OPENED:
            if isinstance(value, Call):
                yield from _options(value)
            continue
        if isinstance(value, Setting):
            yield from ("--set", _quoted(f"{name}={value.value}"))
            continue
        for each in value if isinstance(value, list | tuple) else (value,):
            if (call.function, name) not in POSITIONAL:
                yield flag_of(name)
            if each is not True:  # a flag without a value
                yield NONE[name] if each is None else _quoted(each)


def _removal(root: Path, path: Path) -> Iterator[str]:
    """Name a cache by data set and key, as its folder does: <dataset>/<backbone>-<digest>."""
    yield from ("featcache", "rm", _quoted(path.parent.name))
    yield from ("--key", _quoted(path.name.rpartition("-")[2]), "--cache", _quoted(root))


def _quoted(value: Any) -> str:
    return value if isinstance(value, Placeholder) else shlex.quote(str(value))

"""Classes in label order from the labels of a list, which are numbers or names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from featcache.errors import SourceError
from featcache.limits import TEXT
from featcache.paths import expand
from featcache.sources.layouts.own.text_file import read_lines
from featcache.text.templates import clean_name, is_plain

_NUMBER = re.compile(r"[+-]?[0-9]{1,15}(\.0{1,6})?")
"""A whole number, as tables write it: 3, or 3.0 where a column has gaps."""


def number_in(label: str) -> int | None:
    """Return a label as a whole number; None if it is not one.

    Example:
        >>> number_in("3.0"), number_in("3 spot")
        (3, None)
    """
    text = label.strip()
    return int(text.partition(".")[0]) if _NUMBER.fullmatch(text) else None


def class_order(
    first: Mapping[str, str], what: str, names: Sequence[str] | None, *, numbers: bool
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Order the classes of a list.

    Args:
        first: Label as written -> where it is first written, for messages.
        what: The list, for messages.
        names: Class names in label order, where they are given apart.
        numbers: Whether labels of digits count as numbers; else every label is a name.

    Returns:
        The classes in label order, and label as written -> its index.

    Raises:
        SourceError: If labels are numbers and names mixed, have no name, or read the same as
            another.
    """
    values = {label: number_in(label) if numbers else None for label in first}
    named = [label for label, value in values.items() if value is None]
    counted = {label: value for label, value in values.items() if value is not None}
    _check_spellings(counted, first, what)
    if named and counted:
        a, b = next(iter(counted)), named[0]
        raise SourceError(
            f"{what} mixes labels that are numbers and names: '{a}' ({first[a]}) and '{b}' "
            f"({first[b]}). Write all of them as names, or all as numbers."
        )
    if names is not None:
        return tuple(names), _among(names, first, counted, what)
    if counted:
        order = sorted(set(counted.values()))
        _check_positive(order[0], what)
        index = {value: i for i, value in enumerate(order)}
        return tuple(map(str, order)), {label: index[value] for label, value in counted.items()}
    return _by_name(first, what)


def _check_spellings(counted: Mapping[str, int], first: Mapping[str, str], what: str) -> None:
    """Refuse numbers that are written in two ways, as codes are, but for a fraction of zeros.

    Raises:
        SourceError: If there are, e.g. 01 and 1.
    """
    written: dict[int, str] = {}
    for label, value in counted.items():
        other = written.setdefault(value, label)
        if other.strip().partition(".")[0] != label.strip().partition(".")[0]:
            raise SourceError(
                f"{what} has the labels '{other}' ({first[other]}) and '{label}' ({first[label]}), "
                f"which are one number; write them alike, or as names if they are two classes."
            )


def read_names(path: str | Path) -> tuple[str, ...]:
    """Read class names in label order, one a line; empty lines at the end are ignored.

    Raises:
        SourceError: If the file cannot be read, or a line has no readable name.
    """
    lines = [line.strip() for line in read_lines(expand(path))]
    while lines and not lines[-1]:
        lines.pop()
    return given_names(lines, str(path))


def given_names(names: Iterable[str], what: str) -> tuple[str, ...]:
    """Check class names that come in label order; names may repeat, since a class is its label.

    Raises:
        SourceError: If there is none, or one cannot be read.
    """
    kept = [_readable(text, f"label {label}", what) for label, text in enumerate(names)]
    if not kept:
        raise SourceError(f"{what} holds no class name; expected one a label.")
    return tuple(kept)


def _among(
    names: Sequence[str], first: Mapping[str, str], counted: Mapping[str, int], what: str
) -> dict[str, int]:
    """Return label as written -> its index in the given names."""
    place = {clean_name(name).casefold(): i for i, name in enumerate(names)}
    repeated = len(place) < len(names)
    index: dict[str, int] = {}
    for label, where in first.items():
        at = counted[label] if counted else place.get(clean_name(label).casefold())
        if not counted and repeated:
            raise SourceError(
                f"{what} has labels that are names, and some of the {len(names)} class names "
                f"repeat; write the labels as numbers."
            )
        if at is None or not 0 <= at < len(names):
            raise SourceError(
                f"{what} has the label '{label}' ({where}), which is none of the {len(names)} "
                f"class names; expected 0 to {len(names) - 1}, or one of the names."
            )
        index[label] = at
    return index


def _by_name(first: Mapping[str, str], what: str) -> tuple[tuple[str, ...], dict[str, int]]:
    name_of: dict[str, str] = {}
    owner: dict[str, str] = {}
    for label, where in first.items():
        name = _readable(label, where, what)
        other = owner.setdefault(name.casefold(), label)
        if other != label and name_of[other] != name:
            raise SourceError(
                f"{what} has the labels '{other}' ({first[other]}) and '{label}' ({where}), which "
                f"differ by case only; write them alike."
            )
        name_of[label] = name
    classes = tuple(sorted(set(name_of.values())))
    index = {name: i for i, name in enumerate(classes)}
    return classes, {label: index[name] for label, name in name_of.items()}


def _readable(text: str, where: str, what: str) -> str:
    name = clean_name(text)
    if not name or not name.isprintable() or not is_plain(name) or len(name) > TEXT.value():
        raise SourceError(
            f"{what} has a class without a readable name ({where}): {text[:80]!a}; write a name "
            f"of printable characters."
        )
    return name


def _check_positive(lowest: int, what: str) -> None:
    if lowest < 0:
        raise SourceError(
            f"{what} has the label {lowest}; labels count from 0. Leave the label empty where "
            f"it is not known."
        )

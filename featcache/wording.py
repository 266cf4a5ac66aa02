"""Sentences that name arguments and calls, so that each front door can tell them in its own words.

    Argument("selection", "cv")                       selection='cv'
    Setting("lr", "1e-4")                             lr=1e-4
    Call("featcache.extract", {"dataset": "pets"})    featcache.extract(dataset='pets')

Here they are told in Python; the command line, which has flags instead, tells them in its own way.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias


class Placeholder(str):
    """A value that the reader replaces by one of his own, as FILE."""


@dataclass(frozen=True)
class Argument:
    """An argument of a function, with a value or without one.

    Example:
        >>> in_python(["Use ", Argument("selection", "cv"), ", or lower ", Argument("shots"), "."])
        "Use selection='cv', or lower shots."
    """

    name: str
    value: Any = None
    """None names the argument alone."""
    of: str = ""
    """Package whose functions take it, where those of two packages have one of this name."""


@dataclass(frozen=True)
class Setting:
    """A field of a method's Config or Hyper."""

    name: str
    value: str | None = None
    """As the user would write it; None names the setting alone."""


@dataclass(frozen=True)
class Call:
    """A call that would help.

    Example:
        >>> in_python([Call("featcache.extract", {"dataset": "pets", "views": ["10"]})])
        "featcache.extract(dataset='pets', views=['10'])"
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """In the order in which they are told."""


Named: TypeAlias = Argument | Setting | Call
Part: TypeAlias = "str | Named | Sequence[Part]"


def tell(parts: Sequence[Part], phrase: Callable[[Named], str]) -> str:
    """Join the parts of a sentence.

    Args:
        parts: Text as it is, what `phrase` tells, and sequences of such.
        phrase: Tells one argument, setting or call.
    """
    said = []
    for part in parts:
        if isinstance(part, str):
            said.append(part)
        elif isinstance(part, Argument | Setting | Call):
            said.append(phrase(part))
        else:
            said.append(tell(part, phrase))
    return "".join(said)


def in_python(parts: Sequence[Part]) -> str:
    """Tell a sentence to somebody who calls functions."""
    return tell(parts, _phrase)


def named(parts: Sequence[Part]) -> list[Named]:
    """Return the arguments, settings and calls of a sentence, in order."""
    found: list[Named] = []
    for part in parts:
        if isinstance(part, Argument | Setting | Call):
            found.append(part)
        elif not isinstance(part, str):
            found += named(part)
    return found


def _phrase(item: Named) -> str:
    if isinstance(item, Call):
        given = ", ".join(f"{name}={_value(value)}" for name, value in item.arguments.items())
        return f"{item.function}({given})"
    if item.value is None:
        return item.name
    is_number = isinstance(item, Setting) and _is_number(str(item.value))
    return f"{item.name}={item.value if is_number else _value(item.value)}"


def _value(value: Any) -> str:
    return str(value) if isinstance(value, Placeholder) else repr(value)


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        float(text)
        return True
    return False

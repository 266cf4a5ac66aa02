"""Messages that contain arguments and calls as data, so that each interface can phrase them.

    Argument("selection", "cv")                       selection='cv'
    Setting("lr", "1e-4")                             lr=1e-4
    Call("featcache.extract", {"dataset": "pets"})    featcache.extract(dataset='pets')

This module phrases them as Python; `cli.ui.flags` phrases them as flags and commands.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias


class Placeholder(str):
    """A value that the reader fills in, e.g. FILE."""


@dataclass(frozen=True)
class Argument:
    """An argument of a function, with or without a value.

    Example:
        >>> in_python(["Use ", Argument("selection", "cv"), ", or lower ", Argument("shots"), "."])
        "Use selection='cv', or lower shots."
    """

    name: str
    value: Any = None
    """None for the argument alone."""
    of: str = ""
    """Package of the function, if functions of both packages have an argument of this name."""


@dataclass(frozen=True)
class Setting:
    """A field of a method's Config or Hyper."""

    name: str
    value: str | None = None
    """Value as the user would write it; None for the setting alone."""


@dataclass(frozen=True)
class Call:
    """A function call that the message suggests.

    Example:
        >>> in_python([Call("featcache.extract", {"dataset": "pets", "views": ["10"]})])
        "featcache.extract(dataset='pets', views=['10'])"
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """In the order in which they are written; a value may be a call, or a setting of a method."""


Named: TypeAlias = Argument | Setting | Call
Part: TypeAlias = "str | Named | Sequence[Part]"


def tell(parts: Sequence[Part], phrase: Callable[[Named], str]) -> str:
    """Join the parts of a message.

    Args:
        parts: Texts, arguments, settings and calls, and sequences of these.
        phrase: Writes one argument, setting or call as text.
    """
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Argument | Setting | Call):
            texts.append(phrase(part))
        else:
            texts.append(tell(part, phrase))
    return "".join(texts)


def in_python(parts: Sequence[Part]) -> str:
    """Write a message for users of the Python interface."""
    return tell(parts, _phrase)


def named(parts: Sequence[Part]) -> list[Named]:
    """Return the arguments, settings and calls of a message, in order."""
    items: list[Named] = []
    for part in parts:
        if isinstance(part, Argument | Setting | Call):
            items.append(part)
        elif not isinstance(part, str):
            items += named(part)
    return items


def replaced(part: Part, old: Part, new: Part) -> Part:
    """Return a message in which one part is replaced by another.

    Example:
        >>> replaced(("Damaged. ", "Repair it."), "Repair it.", "Remove it.")
        ('Damaged. ', 'Remove it.')
    """
    if part == old:
        return new
    if isinstance(part, str | Argument | Setting | Call):
        return part
    return tuple(replaced(inner, old, new) for inner in part)


def _phrase(item: Named) -> str:
    if isinstance(item, Call):
        arguments = ", ".join(f"{name}={_value(value)}" for name, value in item.arguments.items())
        return f"{item.function}({arguments})"
    if item.value is None:
        return item.name
    return f"{item.name}={_value(item if isinstance(item, Setting) else item.value)}"


def _value(value: Any) -> str:
    if isinstance(value, Call):
        return _phrase(value)
    if isinstance(value, Setting):
        return str(value.value) if _is_number(str(value.value)) else _value(value.value)
    return str(value) if isinstance(value, Placeholder) else repr(value)


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        float(text)
        return True
    return False

"""The methods by name: one file each in `heads/methods`, from whose name the method's follows.

A method's module is imported when somebody asks for it, so that listing names costs nothing.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from featcache.errors import UnknownNameError

if TYPE_CHECKING:
    from heads.contract.method import AnyMethod
else:  # names are wanted before torch is loaded
    AnyMethod = Any

PACKAGE = "heads.methods"
GROUPS = ("shots and texts", "shots alone", "no shots", "pooled", "transductive", "online")
"""Kinds of methods, in the order in which they are listed.

They learn from labelled images, with class texts or alone, or without labelled images; they pool
other methods; they answer all queries together, or one after the other by those before.
"""


@dataclass(frozen=True, kw_only=True)
class Description:
    """A method in one line."""

    name: str
    group: str
    """One of `GROUPS`."""
    summary: str
    source: str
    """paper, released code or reconstruction, with the reference."""
    transductive: bool
    needs: tuple[str, ...]
    """Features read at the defaults: role, kind and recipe, with a ? where it does without."""
    usual_shots: int | None
    """Images a class where nobody says how many; None is all."""


def name_of(module: str) -> str:
    """Return the name of the method in a module: lp_plus_plus -> lp++, tip_adapter -> tip-adapter.

    Example:
        >>> name_of("lp_plus_plus")
        'lp++'
    """
    return module.replace("_plus", "+").replace("_", "-")


@cache
def modules() -> Mapping[str, str]:
    """Map every method's name to its module, from the names of the files."""
    found = sorted(file.name for file in files(PACKAGE).iterdir())
    stems = [name.removesuffix(".py") for name in found if name.endswith(".py")]
    return {name_of(stem): f"{PACKAGE}.{stem}" for stem in stems if not stem.startswith("_")}


def names() -> tuple[str, ...]:
    """List every method's name."""
    return tuple(modules())


def get(name: str) -> AnyMethod:
    """Import a method.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    known = modules()
    if name not in known:
        raise UnknownNameError("method", name, known, "`heads list` shows all.")
    method: AnyMethod = importlib.import_module(known[name]).METHOD
    return method


def describe() -> list[Description]:
    """Describe every method, group by group; imports all of them."""
    found = (description(get(name)) for name in names())
    return sorted(found, key=lambda one: (GROUPS.index(one.group), one.name))


def description(method: AnyMethod) -> Description:
    """Describe a method, which need not be registered."""
    return Description(
        name=method.name,
        group=group_of(method),
        summary=method.summary,
        source=method.source,
        transductive=method.transductive,
        needs=_named(method),
        usual_shots=method.usual_shots,
    )


def group_of(method: AnyMethod) -> str:
    """Return the group of a method, at its defaults.

    Example:
        >>> [group_of(get(name)) for name in ("cmm", "ridge", "lazsl", "ensemble", "tda")]
        ['shots and texts', 'shots alone', 'no shots', 'pooled', 'online']
    """
    if method.transductive:
        return "online" if method.online else "transductive"
    if method.composition is not None:
        return "pooled"
    if not any(need.role == "support" for need in method.needs(method.config())):
        return "no shots"
    reads_text = "text" in method.config.__dataclass_fields__
    return "shots and texts" if reads_text else "shots alone"


def _named(method: AnyMethod) -> tuple[str, ...]:
    read = {}
    for need in method.needs(method.config()):
        recipe = f":{need.recipe}" if need.recipe else ""
        what = "" if need.kind == "global" else f" {need.kind}{recipe}"
        read[f"{need.role}{what}"] = "?" if need.optional else ""
    return tuple(f"{what}{mark}" for what, mark in sorted(read.items()))

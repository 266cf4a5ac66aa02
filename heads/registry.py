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


@dataclass(frozen=True, kw_only=True)
class Description:
    """A method in one line."""

    name: str
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
    """Describe every method; imports all of them."""
    return [
        Description(
            name=m.name,
            summary=m.summary,
            source=m.source,
            transductive=m.transductive,
            needs=_named(m),
            usual_shots=m.usual_shots,
        )
        for m in map(get, names())
    ]


def _named(method: AnyMethod) -> tuple[str, ...]:
    read = {}
    for need in method.needs(method.config()):
        recipe = f":{need.recipe}" if need.recipe else ""
        what = "" if need.kind == "global" else f" {need.kind}{recipe}"
        read[f"{need.role}{what}"] = "?" if need.optional else ""
    return tuple(f"{what}{mark}" for what, mark in sorted(read.items()))

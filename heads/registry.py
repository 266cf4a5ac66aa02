"""The methods by name; adding one is one file and one line here.

A method's module is imported when somebody asks for it, so that listing names costs nothing.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from featcache.errors import UnknownNameError

if TYPE_CHECKING:
    from heads.contract import Method
else:  # names are wanted before torch is loaded
    Method = Any

METHODS: Mapping[str, str] = MappingProxyType(
    {
        "zero-shot": "heads.methods.zero_shot",
        "linear-probe": "heads.methods.linear_probe",
        "ridge": "heads.methods.ridge",
        "nearest-mean": "heads.methods.nearest_mean",
        "knn": "heads.methods.knn",
        "regularized-linear": "heads.methods.regularized_linear",
        "tip-adapter": "heads.methods.tip_adapter",
        "tip-adapter-f": "heads.methods.tip_adapter_f",
        "clip-adapter": "heads.methods.clip_adapter",
        "ape": "heads.methods.ape",
        "ape-t": "heads.methods.ape_t",
        "lp++": "heads.methods.lp_plus_plus",
        "cross-modal-linear-probe": "heads.methods.cross_modal_linear_probe",
        "taskres": "heads.methods.taskres",
        "zs-lp": "heads.methods.zs_lp",
        "clap": "heads.methods.clap",
        "gda": "heads.methods.gda",
        "proker": "heads.methods.proker",
        "transclip": "heads.methods.transclip",
        "cmm": "heads.methods.cmm",
        "dac": "heads.methods.dac",
        "lazsl": "heads.methods.lazsl",
        "fair": "heads.methods.fair",
        "cc-cdfsl": "heads.methods.cc_cdfsl",
    }
)
"""Name on the command line -> module."""


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


def names() -> tuple[str, ...]:
    """List every method's name."""
    return tuple(METHODS)


def get(name: str) -> Method:
    """Import a method.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS, "`heads list` shows all.")
    return cast("Method", importlib.import_module(METHODS[name]))


def describe() -> list[Description]:
    """Describe every method; imports all of them."""
    return [
        Description(
            name=m.name,
            summary=m.summary,
            source=m.source,
            transductive=m.transductive,
            needs=_named(m),
        )
        for m in map(get, METHODS)
    ]


def _named(method: Method) -> tuple[str, ...]:
    read = {}
    for need in method.needs(method.Config()):
        recipe = f":{need.recipe}" if need.recipe else ""
        what = "" if need.kind == "global" else f" {need.kind}{recipe}"
        read[f"{need.role}{what}"] = "?" if need.optional else ""
    return tuple(f"{what}{mark}" for what, mark in sorted(read.items()))

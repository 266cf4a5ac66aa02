"""What may be named of a method and its selection, known before torch is loaded."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files

from featcache.errors import UnknownNameError
from heads.registry import modules

SELECTIONS = ("few-shot-val", "k-shot-val", "full-val", "cv", "none", "oracle")
"""How hyper-parameters may be chosen."""
CALIBRATIONS = ("auto", "half-val", "folds", "none")
"""Which labelled images, that trained no head, may calibrate it."""
EPISODE_SELECTIONS = ("none", "cv")
"""The same of episodes, which have no validation images."""


def check_settings(method: str, given: Iterable[str]) -> None:
    """Refuse settings that a method has not.

    Args:
        method: A method's name.
        given: Names of settings.

    Raises:
        UnknownNameError: If it has none of one of the names.
    """
    known = setting_names(method)
    for name in given:
        if name not in known:
            raise unknown_setting(method, name, known)


def unknown_setting(method: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error about a setting that a method has not; it says where all of them are."""
    hint = f"docs/methods/{method}.md explains all."
    return UnknownNameError(f"setting of {method}", name, known, hint)


@cache
def setting_names(method: str) -> tuple[str, ...]:
    """Read the fields of a method's Config and Hyper off its source, which is not run for that."""
    module = modules()[method]
    functions = (node for node in _tree(module).body if isinstance(node, ast.FunctionDef))
    _, *settings = next(f.args.args for f in functions if f.name == "prepare")
    kinds = [ast.unparse(setting.annotation) for setting in settings if setting.annotation]
    return tuple(name for kind in kinds for name in _fields(module, kind))


def _fields(module: str, name: str) -> Iterator[str]:
    """List the fields of a class, its bases' first; it may be imported from another module."""
    for node in _tree(module).body:
        if isinstance(node, ast.ImportFrom) and any(n.name == name for n in node.names):
            yield from _fields(node.module or "", name)
        if isinstance(node, ast.ClassDef) and node.name == name:
            for base in node.bases:
                yield from _fields(module, ast.unparse(base))
            for field in node.body:
                if isinstance(field, ast.AnnAssign):
                    yield ast.unparse(field.target)


@cache
def _tree(module: str) -> ast.Module:
    top, *inner = module.split(".")  # only the top is imported: the others would load torch
    file = files(top).joinpath(*inner[:-1], f"{inner[-1]}.py")
    if not file.is_file():
        file = files(top).joinpath(*inner, "__init__.py")
    return ast.parse(file.read_text(encoding="utf-8"))

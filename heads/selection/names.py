"""What may be named of a method and its selection, known before torch is loaded."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files

from featcache.errors import UnknownNameError
from heads.registry import modules

SELECTIONS = ("few-shot-val", "k-shot-val", "full-val", "cv", "none", "oracle")
"""How hyper-parameters may be chosen."""
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
            raise UnknownNameError(f"setting of {method}", name, known)


@cache
def setting_names(method: str) -> tuple[str, ...]:
    """Read the fields of a method's Config and Hyper off its source, which is not run for that."""
    known = _classes("heads.contract") | _classes(modules()[method])
    made = next(node for node in _tree(modules()[method]).body if _makes_method(node))
    given = {k.arg: k.value for k in ast.walk(made) if isinstance(k, ast.keyword)}
    types = [given[kind] for kind in ("config", "hyper") if kind in given]
    return tuple(name for kind in types for name in _fields(ast.unparse(kind), known))


def _makes_method(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "METHOD"


def _fields(name: str, known: Mapping[str, ast.ClassDef]) -> Iterator[str]:
    for base in known[name].bases:
        yield from _fields(ast.unparse(base), known)
    for field in known[name].body:
        if isinstance(field, ast.AnnAssign):
            yield ast.unparse(field.target)


def _classes(module: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in _tree(module).body if isinstance(node, ast.ClassDef)}


@cache
def _tree(module: str) -> ast.Module:
    file = files(module.rpartition(".")[0]) / f"{module.rpartition('.')[2]}.py"
    return ast.parse(file.read_text(encoding="utf-8"))

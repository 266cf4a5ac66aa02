"""What may be named of a method and its selection, known before torch is loaded."""

import ast
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from featcache.errors import UnknownNameError
from heads.registry import METHODS

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
    spec = find_spec(METHODS[method])
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    return tuple(
        field.target.id
        for kind in ("Config", "Hyper")
        for field in classes[kind].body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    )

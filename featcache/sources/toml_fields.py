"""Decoding tables of TOML or JSON to dataclasses; unknown keys and wrong types are errors."""

import dataclasses
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from featcache.errors import SourceError

T = TypeVar("T")


def decode(cls: type[T], table: Mapping[str, Any], where: str, **more: Any) -> T:
    """Decode a table to a dataclass.

    A key stands for the field of its name; `class` for `class_`. Arrays become tuples. Where a
    field may be one of several dataclasses, the table's `kind` tells which.

    Args:
        cls: The dataclass; its fields are str, int, bool, Literal, tuple, Mapping, dataclasses
            or unions of those.
        table: Table from `tomllib` or `json`.
        where: Names the file, for errors.
        more: Fields that are not in the file.

    Raises:
        SourceError: If a key is unknown, missing or of another type; it says which.
    """
    kind: Any = cls  # a dataclass; no type says so
    hints = _hints(kind)
    fields = {f.name.rstrip("_"): f for f in dataclasses.fields(kind) if f.name not in more}
    values = dict(more)
    for key, value in table.items():
        if key not in fields:
            known = ", ".join(sorted(fields))
            raise SourceError(f"{where}: unknown key '{key}'; known: {known}.")
        name = fields[key].name
        values[name] = _value(hints[name], value, f"{where}: {key}")
    for key, field in fields.items():
        without = field.default is dataclasses.MISSING
        if field.name not in values and without and field.default_factory is dataclasses.MISSING:
            raise SourceError(f"{where}: the key '{key}' is missing.")
    return cls(**values)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _one_of(args, value, where)
    if origin is Literal:
        if value not in args:
            raise SourceError(f"{where}: expected one of {', '.join(args)}, got {value!r}.")
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_value(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, dict):
        return {key: _value(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return decode(hint, value, where)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise SourceError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {value!r}.")


def _one_of(hints: tuple[Any, ...], value: Any, where: str) -> Any:
    if isinstance(value, dict) and all(map(dataclasses.is_dataclass, hints)):
        kinds = {get_args(_hints(hint)["kind"])[0]: hint for hint in hints}
        if value.get("kind") not in kinds:
            raise SourceError(
                f"{where}: expected a kind of {', '.join(kinds)}, got {value.get('kind')!r}."
            )
        return decode(kinds[value["kind"]], value, where)
    for hint in hints:
        if isinstance(hint, type) and type(value) is hint:
            return value
    raise SourceError(f"{where}: expected {' or '.join(map(str, hints))}, got {value!r}.")

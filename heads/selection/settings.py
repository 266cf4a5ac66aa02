"""What the user sets on a method: `alpha=0.5` becomes Config, Hyper and two grids.

A hyper-parameter that the user sets is fixed and leaves the grids; several values
(`alpha=0.5,1,2`) make a grid of the user's own.
"""

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from featcache.errors import UnknownNameError, UsageError
from featcache.wording import Setting
from heads.contract.method import AnyMethod
from heads.contract.settings import Grid, Real, hyper_values
from heads.selection.names import unknown_setting

_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A method's settings after the user's word."""

    config: Any
    hyper: Any
    """Defaults, with what the user fixed; all floats."""
    train_grid: Grid
    post_grid: Grid
    given: Mapping[str, str]
    """What the user set, as written."""
    shots: int | None = None
    """Images a class that the defaults are for; None is all."""

    @property
    def variant(self) -> str:
        """Name these settings: empty for the defaults, else `alpha=1 text=name`."""
        return " ".join(f"{key}={value}" for key, value in sorted(self.given.items()))

    def as_numbers(self) -> dict[str, str | float]:
        """Return the hyper-parameters that the user set: one value as a number, several as text."""
        hyper = hyper_values(self.hyper)
        return {
            name: text if "," in text else hyper[name]
            for name, text in self.given.items()
            if name in hyper
        }

    @property
    def choices(self) -> int:
        """Count the candidates that selection has to choose from."""
        return len(self.train_grid) * len(self.post_grid)


def configure(
    method: AnyMethod, settings: Mapping[str, Any] | None = None, *, shots: int | None = None
) -> Settings:
    """Read settings by the types of the method's Config and Hyper.

    Args:
        method: The method.
        settings: Key -> value, as text or as Python values.
        shots: Images a class, on which the defaults of some methods depend; None is all.

    Raises:
        UnknownNameError: If the method has no such setting.
        UsageError: If a value is of the wrong kind or out of range.
    """
    given = {key: _text(value).strip() for key, value in (settings or {}).items()}
    static = {f.name: f for f in fields(method.config)}
    traced = {f.name: f for f in fields(method.hyper)}
    types_of = get_type_hints(method.config)
    config: dict[str, Any] = {}
    hyper: dict[str, float] = {}
    train, post = dict(method.train_grid.axes), dict(method.post_grid.axes)
    for key, value in given.items():
        if key in static:
            several = types_of[key] is int and "," in value
            each = value.split(",") if several else [value]
            parsed = [_parse(method.name, static[key], types_of[key], v) for v in each]
            if several:
                train[key] = parsed
            else:
                config[key] = parsed[0]
                train.pop(key, None)
        elif key in traced:
            values = [_parse(method.name, traced[key], float, v) for v in value.split(",")]
            if len(values) == 1:
                hyper[key] = values[0]
                train.pop(key, None)
                post.pop(key, None)
            elif key in post:
                post[key] = values
            else:
                train[key] = values
        else:
            raise unknown_setting(method.name, key, [*static, *traced])
    chosen = method.hyper(**(dict(method.defaults(shots)) | hyper))
    untouched = train == dict(method.train_grid.axes)
    for name, number in hyper_values(chosen).items():
        object.__setattr__(chosen, name, float(number))
    return Settings(
        config=method.config(**config),
        hyper=chosen,
        train_grid=Grid(train, refine=method.train_grid.refine if untouched else 0),
        post_grid=Grid(post),
        given=given,
        shots=shots,
    )


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(_text(v) for v in value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _parse(method: str, field: Field[Any], kind: Any, text: str) -> Any:
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if text.lower() == "none" and type(None) in options:
            return None
        kind = next(o for o in options if o is not type(None))
        origin, options = get_origin(kind), get_args(kind)
    if origin is Literal:
        by_text = {str(o): o for o in options}
        if text not in by_text:
            raise UnknownNameError(f"value of {method}'s {field.name}", text, by_text)
        return by_text[text]
    if kind is bool:
        if text.lower() not in _YES + _NO:
            raise _wrong(method, field, "true or false", text)
        return text.lower() in _YES
    if kind in (int, float):
        return _number(method, field, kind, text)
    return text


def _number(method: str, field: Field[Any], kind: type[int] | type[float], text: str) -> Real:
    noun = "a whole number" if kind is int else "a number"
    try:
        value = kind(text)
        is_finite = math.isfinite(value)
    except (ValueError, OverflowError):  # no number, or a whole one of hundreds of digits
        raise _wrong(method, field, noun, text) from None
    if not is_finite:
        raise _wrong(method, field, f"{noun} that is finite", text)
    if isinstance(value, int) and abs(value) >= 2**63:  # no record holds it
        raise _wrong(method, field, f"{noun} less than 2**63 in size", text)
    low, high, above = (field.metadata.get(k) for k in ("low", "high", "above"))
    if low is not None and value < low:
        raise _wrong(method, field, f"{noun} of at least {low:g}", text)
    if high is not None and value > high:
        raise _wrong(method, field, f"{noun} of at most {high:g}", text)
    if above is not None and value <= above:
        raise _wrong(method, field, f"{noun} above {above:g}", text)
    if field.metadata.get("whole") and value != int(value):
        raise _wrong(method, field, "a whole number", text)
    return value


def _wrong(method: str, field: Field[Any], expected: str, got: str) -> UsageError:
    usual = field.default
    usual = f"{usual:g}" if isinstance(usual, float) else 1 if usual is None else usual
    return UsageError(
        f"{method}'s setting {field.name} must be {expected}, got '{got}'; write e.g. ",
        Setting(field.name, str(usual)),
        ".",
    )

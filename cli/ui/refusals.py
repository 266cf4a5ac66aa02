"""What typer refuses of a command line, as one sentence that says what to write."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import typer
from typer.core import TyperOption

from featcache.errors import UnknownNameError, UsageError

TYPER_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
"""The base of all that is wrong with a command line; typer has no public name for it."""
EXAMPLE = re.compile(r"Example: (.+)")
"""The first one of a command's help."""

NUMBERS = {
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "int_parsing_size": "expected a whole number of fewer digits",
    "float_parsing": "expected a number",
    "greater_than_equal": "expected {ge} or more",
    "less_than_equal": "expected {le} or less",
}
"""What pydantic calls wrong of a number -> what is expected."""


def refusal(ctx: Any, error: Exception, values: Mapping[str, Any] | None = None) -> UsageError:
    """Say in one sentence what is unknown, what is missing, or which value is none.

    Args:
        ctx: The context of the command.
        error: A `TYPER_ERROR` of its command line.
        values: What was read of the command line, by parameter.
    """
    option = getattr(error, "option_name", None)
    if option is not None and hasattr(error, "possibilities"):
        return UnknownNameError("option", option, _options(ctx), f"`{_help(ctx)}` shows all.")
    param: Any = getattr(error, "param", None)
    given = None if param is None else (values or {}).get(param.name)
    if given not in (None, (), []):
        why = _reason(error)
        return UsageError(
            f"{shown_name(param)} cannot be {_quoted(given)}: {why[:1].lower()}{why[1:]}; "
            f"`{_help(ctx)}` shows what it takes."
        )
    what = _sentence(error) if param is None else f"{shown_name(param)} is missing"
    example = EXAMPLE.search(ctx.command.help or "")
    how = f"write e.g. `{example[1]}`; " if example else ""
    return UsageError(f"{what}; {how}`{_help(ctx)}` shows all.")


def unknown_command(ctx: Any, name: str, known: Iterable[str]) -> UsageError:
    """Say that there is no such command, and which are there."""
    return UnknownNameError("command", name, known, f"`{_help(ctx)}` shows all.")


def shown_name(param: Any) -> str:
    """Return the name under which a parameter is given."""
    name: str = param.opts[0]
    return name if isinstance(param, TyperOption) else (param.metavar or name).upper()


def _options(ctx: Any) -> list[str]:
    """Name the options of a command, long ones where they have two names."""
    params = [p for p in ctx.command.get_params(ctx) if isinstance(p, TyperOption)]
    return [max((*p.opts, *p.secondary_opts), key=len) for p in params] + ["--help"]


def _help(ctx: Any) -> str:
    return f"{ctx.command_path} --help"


def _sentence(error: Any) -> str:
    text: str = error.message
    return text.rstrip(".")


def _reason(error: Any) -> str:
    """Say why a value is none, in words of our own where it should be a number."""
    errors = getattr(error.__cause__, "errors", None)  # pydantic's, which typer checks values with
    if errors is None:
        return _sentence(error)
    first = errors()[0]
    return NUMBERS.get(first["type"], _sentence(error)).format(**first.get("ctx", {}))


def _quoted(given: Any) -> str:
    """Quote the value of an option, or the values of one that may be repeated."""
    return ", ".join(f"'{one}'" for one in (given if isinstance(given, list | tuple) else (given,)))

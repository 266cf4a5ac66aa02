"""Declaring commands that refuse repeated and empty values."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

import typer
from typer.core import TyperCommand, TyperOption

from cli.ui import output
from cli.ui.errors import Group, boundary
from cli.ui.refusals import TYPER_ERROR, refusal, shown_name
from cli.ui.version import version_lines
from featcache.errors import UsageError

# How long a waiting thread of torch spins before it sleeps; read when torch is loaded. The default
# (300,000) occupies cores that other processes need, and 0 doubles the time on an idle machine:
# docs/decisions/waiting-threads.md.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

F = TypeVar("F", bound=Callable[..., Any])


class Command(TyperCommand):
    """A command that refuses repeated and empty values, which click accepts silently."""

    may_be_empty: ClassVar[frozenset[str]] = frozenset()
    """Options that may have an empty value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line.

        Raises:
            UsageError: If an option is unknown or lacks its value, if one that holds one value is
                given several times, of which click takes the last, or if a value is empty: mostly
                a variable of the shell that is not set, which would stand for this folder or for
                every cache.
        """
        try:
            values, _, order = self.make_parser(ctx).parse_args(args=list(args))
        except TYPER_ERROR as error:
            raise refusal(ctx, error) from error
        if not ctx.resilient_parsing:
            for param, times in Counter(order).items():
                if times > 1 and takes_one_value(param):
                    raise UsageError(
                        f"{param.opts[0]} is given {times} times and takes one value; leave one."
                    )
                if _is_empty(param, values) and param.opts[0] not in self.may_be_empty:
                    raise empty(shown_name(param))
        try:
            return super().parse_args(ctx, args)
        except TYPER_ERROR as error:
            raise refusal(ctx, error, values) from error


class App(typer.Typer):
    """An application whose groups and commands are of classes `Group` and `Command`."""

    def __init__(self, **options: Any) -> None:
        """Take the options of `typer.Typer`."""
        super().__init__(**{"cls": Group, **options})

    def command(self, name: str | None = None, **options: Any) -> Callable[[F], F]:
        """Register a command."""
        return super().command(name, **{"cls": Command, **options})


def make_app(help_: str) -> App:
    """Build a command with plain help, no completion flags and no decorated tracebacks."""
    app = App(
        help=help_,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=help_)(_options_of_all)
    return app


def _options_of_all(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show versions of this and what it uses, and the device.",
            callback=lambda is_given: _print_version() if is_given else None,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Accept the options before the name of a command."""


def _print_version() -> None:
    with boundary():
        for line in version_lines():
            output.emit(line)
    raise typer.Exit


def empty(name: str) -> UsageError:
    """Return the refusal of an empty value."""
    return UsageError(f"{name} is empty. Give it a value, or leave it out.")


def takes_one_value(param: object) -> bool:
    """Tell whether it is an option of which a second value would replace the first."""
    return isinstance(param, TyperOption) and not (param.multiple or param.is_flag)


def _is_empty(param: Any, values: Mapping[str, Any]) -> bool:
    given = values.get(param.name)
    return "" in (given if isinstance(given, list | tuple) else (given,))

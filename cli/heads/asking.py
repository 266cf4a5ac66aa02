"""Arguments and options of the commands that take one trained head, and their first checks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from heads.results.named import Named

OneHead = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FILE",
        help="RUN@SEED, RUN where it keeps one head, a file, or `last`: the run stored last.",
    ),
]
HeadBackbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help="Backbone of the head; needed where its file names an unpublished place you trust.",
    ),
]
HeadWeights = Annotated[
    str | None, typer.Option("--weights", help="Weights of the backbone: a tag or a file.")
]
Top = Annotated[int, typer.Option(help="How many classes to name for each image.")]
Rule = Annotated[
    str | None, typer.Option(help="How sets are made: lac, aps or raps.", show_default="lac")
]


def check_asked(
    *, top: int, coverage: float | None, rule: str | None, reject: float | None
) -> None:
    """Refuse what can be asked of no head.

    Raises:
        UnknownNameError: If there is no such rule.
        UsageError: If `top` is not positive, or a share is not in (0, 1).
    """
    from featcache.errors import UsageError
    from heads.ops import score_names

    if top < 1:
        raise UsageError(f"--top takes a whole number from 1, got {top}.")
    score_names.check_asked(coverage=coverage, rule=rule, reject=reject)


def find_head(name: str, runs: Path | None) -> "Named | None":
    """Find the head of a run; None where the name is that of a file.

    Raises:
        As `heads.results.named.find`.
    """
    from heads.results.named import as_file, find
    from heads.results.store import runs_root

    return find(runs_root(runs), name) if as_file(name) is None else None

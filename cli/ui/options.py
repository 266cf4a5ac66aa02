"""Options and arguments shared by commands, and the parsing of their values."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from featcache.errors import UsageError

MOST_SEEDS = 1000
"""Exclusive limit of the difference between two seeds."""

CacheDir = Annotated[
    Path | None,
    typer.Option("--cache", help="Cache folder; else $FEATCACHE_HOME, else your cache folder."),
]
Key = Annotated[
    str | None, typer.Option("--key", help="First digits of the cache's key, as `ls` shows it.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.")]
RunsDir = Annotated[
    Path | None,
    typer.Option("--runs", help="Results; else $FEATCACHE_HOME/runs, else your data folder."),
]
OfDataset = Annotated[str | None, typer.Option("--dataset", help="Which data set's cache.")]
OfBackbone = Annotated[str | None, typer.Option("--backbone", help="Which backbone's cache.")]
Positional = Annotated[
    str | None,
    typer.Argument(metavar="DATASET", help="The same as --dataset."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]


def one_dataset(named: str | None, dataset: str | None) -> str | None:
    """Join the two ways to name a data set."""
    if None not in (named, dataset) and named != dataset:
        raise UsageError(
            f"Two data sets are named, '{named}' and --dataset {dataset}; leave one of them away."
        )
    return dataset if named is None else named


def pairs(values: Sequence[str]) -> Mapping[str, str]:
    """Read `--set key=value` options.

    Raises:
        UsageError: If one has no `=`, or a key is given twice.
    """
    out: dict[str, str] = {}
    for item in values:
        key, equals, value = item.partition("=")
        if not equals or not key or not value:
            raise UsageError(f"--set takes key=value, for example --set alpha=0.5; got '{item}'.")
        if key in out:
            raise UsageError(f"--set {key}=... is given twice; leave one.")
        out[key] = value
    return out


def shots(text: str) -> int | None:
    """Read a number of shots; None is all.

    Raises:
        UsageError: If it is neither a whole number from 1 nor 'all'.
    """
    if text == "all":
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise UsageError(f"--shots takes a whole number from 1, or 'all'; got '{text[:80]}'.")
    return int(text)


def seeds(text: str) -> tuple[int, ...]:
    """Read seeds: 3 is 1, 2, 3; 4-6 and 1,5,9 name them.

    Raises:
        UsageError: If they are malformed, too far apart, or named twice.
    """
    parts = [re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", p.strip()) for p in text.split(",")]
    ends = [(int(p[1]), int(p[2] or p[1])) for p in parts if p is not None]
    if len(parts) == 1 and ends and parts[0] is not None and parts[0][2] is None:
        ends = [(1, ends[0][0])]
    low, high = min((a for a, _ in ends), default=0), max((b for _, b in ends), default=0)
    if len(ends) < len(parts) or low < 1 or high - low >= MOST_SEEDS or any(a > b for a, b in ends):
        raise UsageError(
            f"--seeds takes how many (3: seeds 1-3), a range (4-6) or a list (1,5,9), from 1 and "
            f"less than {MOST_SEEDS} apart; got '{text[:80]}'."
        )
    named = [seed for a, b in ends for seed in range(a, b + 1)]
    if len(set(named)) < len(named):
        raise UsageError(f"--seeds names a seed twice: '{text[:80]}'; leave one.")
    return tuple(sorted(named))

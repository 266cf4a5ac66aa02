"""What all formats have in common: their options, and what is said of an import."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.ui import errors, live, output
from cli.ui.flags import in_flags
from featcache.errors import UsageError

if TYPE_CHECKING:
    from featcache.importers.contents import Contents
    from featcache.store.cache import Cache

KEPT = "What was imported is kept; the same command goes on from there."

Backbone = Annotated[str, typer.Option(help="Name of the backbone it came from: ViT-B/32.")]
Name = Annotated[
    str | None, typer.Option(help="Name of the data set; that of --dataset without it.")
]
Dataset = Annotated[
    str | None,
    typer.Option(help="Take class names and templates from this named data set (`datasets`)."),
]
Texts = Annotated[
    Path | None, typer.Option(help="One text vector a class: .npy or .pt, [classes width].")
]
Weights = Annotated[
    str | None, typer.Option(help="Weights of the backbone, to encode class names with.")
]
LabelColumn = Annotated[str, typer.Option(help="Column that holds the class of each row.")]


def bring(
    read: "Callable[[], Contents]",
    *,
    name: str | None,
    backbone: str,
    dataset: str | None,
    texts: Path | None,
    weights: str | None,
    cache: Path | None,
    quiet: bool,
    json_: bool,
) -> None:
    """Import what a reader reads, and say what became of it.

    Raises:
        UsageError: If nothing names the data set.
    """
    from featcache.importers.features import import_features
    from featcache.store.library import cache_root

    called = name or dataset
    if called is None:
        raise UsageError(
            "Imported features need a name. Give one with --name, or with --dataset if they are of "
            "a named data set (`featcache datasets`)."
        )
    said: list[str] = []
    with errors.noting(KEPT), live.live(quiet) as line:
        made = import_features(
            read,
            cache_root(cache),
            called,
            backbone,
            dataset=dataset,
            texts=texts,
            weights=weights,
            report=line.counter(),
            say=lambda message: said.append(in_flags([message])),
        )
        show_notes(made, line.say)
    show(made, said, json_=json_)


def show_notes(made: "Cache", say: Callable[[str], None]) -> None:
    """Say what the import noticed."""
    listing = made.listing()
    for note in () if listing is None else listing.notes:
        say(note)


def show(made: "Cache", said: Sequence[str], *, json_: bool) -> None:
    """Print what was imported, and where it is."""
    from featcache.store.library import summarise

    found = summarise(made)
    if json_:
        output.emit_json({**found.to_json(), "said": list(said)})
        return
    listing = made.listing()
    splits = {} if listing is None else listing.splits
    counts = ", ".join(f"{split} {len(rows)}" for split, rows in splits.items())
    output.emit(f"Imported {found.images} rows as {found.dataset}, {found.backbone}: {counts}.")
    output.emit(str(found.path))
    for text in said:
        output.say(text)

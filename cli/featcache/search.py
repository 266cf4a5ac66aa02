"""`featcache search`: find rows or patches of caches by a text, an image, a class or a row."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.ui import live, output, tables
from cli.ui.options import CacheDir, Device, Json, Key, Quiet

if TYPE_CHECKING:
    from featcache.retrieval.found import Found, Hit

MOST = 80
"""Most characters of a query that are said again."""


def search(
    query: Annotated[
        str | None,
        typer.Argument(
            metavar="TEXT|IMAGE",
            help="What to search for: a path that exists is an image, everything else a text.",
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="A text, even if there is a file of that name.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="An image file.")] = None,
    class_name: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="NAME|LABEL",
            help="A class: its text anchor. Its label is a number from 0.",
        ),
    ] = None,
    row: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The stored features of an image; it is left out itself."),
    ] = None,
    caches: Annotated[
        str | None,
        typer.Option(
            "--in",
            metavar="A,B",
            help="Caches to search: data sets, or data set/backbone.",
            show_default="the newest cache",
        ),
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="How many to find.")] = 20,
    patches: Annotated[
        bool, typer.Option("--patches", help="Search patches, not whole images.")
    ] = False,
    split: Annotated[str | None, typer.Option(help="Search this split only.")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Read every vector, even where there is an index.")
    ] = False,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Write a contact sheet of the images to FILE.html or FILE.png."),
    ] = None,
    key: Key = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Where they are now, if `extract` was given a file that has moved."),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Tokenizer, if `extract` was given one.")
    ] = None,
    device: Device = "auto",
    cache: CacheDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Find the images or patches of caches nearest to a text, an image, a class or a row.

    Example: featcache search "a photo of a moth" --sheet moths.html
    """
    from featcache.pages.files import check_sheet_path
    from featcache.retrieval.query import check_count, check_in_caches, one_query, open_caches
    from featcache.store.library import cache_root

    # What is wrong is told before torch is loaded.
    wanted = one_query(query, text=text, image=image, class_name=class_name, row=row)
    check_count(k)
    if sheet is not None:
        check_sheet_path(sheet)
    names = [] if caches is None else [name.strip() for name in caches.split(",")]
    opened = open_caches(names, cache_root(cache), key)
    check_in_caches(wanted, opened, split)

    from featcache.retrieval.search import search as search_caches

    with live.live(quiet) as line:
        count = line.counter()
        found = search_caches(
            **{"class_name" if wanted.kind == "class" else wanted.kind: wanted.value},
            caches=[each.feature_set() for each in opened],
            k=k,
            patches=patches,
            split=split,
            exact=exact,
            weights=weights,
            tokenizer=tokenizer,
            device=device,
            progress=lambda done, total: count("searching", done, total),
            say=line.say,
        )
        if sheet is not None:
            found.save_sheet(sheet)
    if json_:
        for rank, hit in enumerate(found.hits, start=1):
            output.emit_json({"rank": rank, **hit.to_json()})
    else:
        _emit_table(found)
    if not quiet:
        _say_what_was_searched(found, sheet, newest=not names)


def _emit_table(found: "Found") -> None:
    boxes = found.kind == "patches"
    several = len(found.caches) > 1
    columns = ["", "cosine", "id", "class", "split"]
    columns += ["cache"] if several else []
    columns += ["patch", "box"] if boxes else []
    rows = []
    for rank, hit in enumerate(found.hits, start=1):
        cells = [str(rank), f"{hit.cosine:.4f}", hit.id, hit.class_name, hit.split]
        cells += [hit.dataset] if several else []
        cells += _patch_cells(hit) if boxes else []
        rows.append(cells)
    tables.emit_table(columns, rows, right=("", "cosine"), spare=("patch", "split", "box"))


def _patch_cells(hit: "Hit") -> list[str]:
    assert hit.patch is not None
    patch = hit.patch
    place = str(patch.number) if patch.grid is None else f"{patch.row},{patch.column}"
    return [place, " ".join(map(str, patch.box)) if patch.box else f"({patch.problem})"]


def _say_what_was_searched(found: "Found", sheet: Path | None, *, newest: bool) -> None:
    names = ", ".join(dict.fromkeys(each.listing.dataset for each in found.caches))
    what = "patches" if found.kind == "patches" else "images"
    value = str(found.query.value)
    to = f" to the {found.query.kind} '{value[:MOST]}{'...' if len(value) > MOST else ''}'"
    taken = "; the newest cache, --in names others" if newest else ""
    output.say(
        f"{len(found)} nearest{to} of {found.searched} {what} of {names} with "
        f"{found.caches[0].backbone}, {found.how} search{taken}."
    )
    if sheet is not None:
        output.say(f"The sheet is in {sheet}.")

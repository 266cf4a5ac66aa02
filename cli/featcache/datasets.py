"""`featcache datasets`: the data sets that have a name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.ui import output, tables
from cli.ui.options import CacheDir, Json

if TYPE_CHECKING:
    from featcache.sources.named import NamedDataset

TERMS = {
    "auto": "fetched when extracted",
    "click": "by hand, with a browser",
    "account": "by hand, needs an account",
}


def datasets(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of them, for all about it.")
    ] = None,
    cache: CacheDir = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            help="Where named data sets keep images; else $FEATCACHE_DATA, else with the caches."
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """List the data sets that have a name, or explain one; folder:PATH takes any other.

    Example: featcache datasets

    Example: featcache datasets eurosat
    """
    from featcache.sources.named import datasets as named
    from featcache.sources.registry import find, image_folder
    from featcache.store.library import cache_root

    if name is not None:
        _explain(find(name), image_folder(cache_root(cache), data_root), as_json=json_)
    elif json_:
        for item in named():
            output.emit_json(_facts(item))
    else:
        tables.emit_table(
            ("name", "what it is", "images", "classes", "size", "from"),
            [(d.name, d.title, str(d.images), str(d.classes), d.size, _whence(d)) for d in named()],
            right=("images", "classes"),
            spare=("from", "size"),
        )


def _whence(item: "NamedDataset") -> str:
    return "drawn on first use" if item.kind == "drawn" else TERMS[item.terms]


def _facts(item: "NamedDataset") -> dict[str, Any]:
    return {
        "name": item.name,
        "title": item.title,
        "aliases": list(item.aliases),
        "images": item.images,
        "classes": item.classes,
        "splits": {name: dict(scheme.counts) for name, scheme in item.splits.items()},
        "size": item.size,
        "terms": "drawn" if item.kind == "drawn" else item.terms,
        "urls": [url for archive in item.archive for url in archive.urls],
        "licence": item.licence,
        "citation": item.citation,
        "metric": item.metric,
        "hint": item.hint,
    }


def _explain(item: "NamedDataset", images: Path, *, as_json: bool) -> None:
    """Write all that is known of one data set, and what of it is on this machine."""
    from featcache.errors import SourceError
    from featcache.sources.named_place import files_here

    problem, here = "", {}
    try:
        here = files_here(item, images)
    except SourceError as error:
        problem = str(error)
    if as_json:
        output.emit_json({**_facts(item), "here": here, "problem": problem})
        return
    rows = [("title", item.title), ("classes", str(item.classes))]
    if item.aliases:
        rows.append(("also called", ", ".join(item.aliases)))
    for i, (name, scheme) in enumerate(item.splits.items()):
        counts = ", ".join(f"{split} {count:,}" for split, count in scheme.counts.items())
        default = " (default)" if i == 0 and len(item.splits) > 1 else ""
        rows.append((f"splits {name}{default}", f"{counts}. {scheme.note}".rstrip()))
    rows += [("licence", item.licence), ("citation", item.citation)]
    rows.append(("how to get it", f"{_whence(item)}{f', {item.size}' if item.size else ''}"))
    rows += [("from", url) for archive in item.archive for url in archive.urls]
    if item.hint:
        rows.append(("files", item.hint))
    if item.kind == "listed":
        rows += [(f"here, splits {name}", folder) for name, folder in here.items()]
        if not here:
            rows.append(("here", problem or f"nothing in {images}"))
    tables.emit_table(("of " + item.name, ""), rows)

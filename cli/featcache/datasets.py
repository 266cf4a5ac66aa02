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

    images = image_folder(cache_root(cache), data_root)  # the list too refuses a wrong folder
    if name is not None:
        _explain(find(name), images, as_json=json_)
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
        "descriptions": _described(item),
    }


def _described(item: "NamedDataset") -> dict[str, Any] | None:
    """Return how many descriptions a class has and who wrote them; None where nobody did."""
    described = item.described
    if not described.descriptions:
        return None
    fewest, most = described.per_class()
    return {
        "classes": len(described.descriptions),
        "fewest_per_class": fewest,
        "most_per_class": most,
        "author": described.author,
        "method": described.method,
        "licence": described.licence,
    }


def _explain(item: "NamedDataset", images: Path, *, as_json: bool) -> None:
    """Write all that is known of one data set, and what of it is on this machine."""
    from featcache.errors import SourceError
    from featcache.sources.named_open import count_here
    from featcache.sources.named_place import files_here

    problem, here, counted = "", {}, {}
    try:
        here = files_here(item, images)
        counted = {name: count_here(item, images, splits=name) for name in here}
    except SourceError as error:
        problem, here = str(error), {}
    if as_json:
        facts = {**_facts(item), "here": here, "images_here": counted, "problem": problem}
        output.emit_json(facts)
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
    rows.append(("descriptions", item.described.summary()))
    if item.kind == "listed":
        for name, folder in here.items():
            rows.append((f"here, splits {name}", _there(item, name, folder, counted[name])))
        if not here:
            rows.append(("here", problem or f"nothing in {images}"))
    tables.emit_table(("data set", item.name), rows)


def _there(item: "NamedDataset", splits: str, folder: str, counted: int | None) -> str:
    """Say where the images are, and how many of how many where they were counted."""
    if counted is None:
        return folder
    return f"{counted:,} of {sum(item.scheme(splits).counts.values()):,} images in {folder}"

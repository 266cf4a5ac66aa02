"""`featcache datasets`: the data sets that have a name."""

from cli.ui import output, tables
from cli.ui.options import Json


def datasets(json_: Json = False) -> None:
    """List the data sets that have a name; folder:PATH takes any other.

    Example: featcache datasets
    """
    from featcache.sources.named import datasets as named

    if json_:
        for item in named():
            output.emit_json(
                {
                    "name": item.name,
                    "title": item.title,
                    "images": item.images,
                    "classes": item.classes,
                    "size": item.size,
                    "url": item.url,
                    "licence": item.licence,
                }
            )
        return
    tables.emit_table(
        ("name", "what it is", "images", "classes", "size", "from"),
        [
            (d.name, d.title, str(d.images), str(d.classes), d.size, d.url or "drawn on first use")
            for d in named()
        ],
        right=("images", "classes"),
    )

"""Columns of a csv file that the listing does not need; they stay there and are read on demand."""

from collections.abc import Mapping

from featcache.paths import as_text
from featcache.sources.layouts.own.below import path_below
from featcache.sources.layouts.own.csv_labels import label_columns
from featcache.sources.layouts.own.csv_rows import open_table
from featcache.sources.layouts.own.files import existing_file, image_root
from featcache.sources.trees.names import id_of


def read_further(path: str, options: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Read the columns of a csv file other than path, label and split.

    Args:
        path: The file, as `open_csv` takes it.
        options: As `open_csv` takes them.

    Returns:
        Column -> id of an image -> what its first row says.

    Raises:
        SourceError: If the file or a row of it cannot be used.
    """
    file = existing_file(path, "a csv or tsv file")
    spec = f"csv:{path}"
    table = label_columns(open_table(file, options.get("delimiter", ""), spec), options, spec)
    further = table.further
    found: dict[str, dict[str, str]] = {name: {} for name in further}
    if not further:
        return found
    root = image_root(file, options)
    for row in table.rows():
        where = f"Line {row.line} of {as_text(file.name)}"
        image_id = id_of(path_below(row.path, root, where))
        for name, i in further.items():
            found[name].setdefault(image_id, row.fields[i].strip())
    return found

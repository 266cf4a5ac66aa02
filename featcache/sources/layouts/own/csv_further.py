"""Columns of a csv file that the listing does not need; they stay there and are read on demand."""

from collections.abc import Mapping

from featcache.paths import as_text
from featcache.sources.base import FurtherColumns
from featcache.sources.layouts.own.below import path_below
from featcache.sources.layouts.own.csv_labels import label_columns
from featcache.sources.layouts.own.csv_rows import open_table
from featcache.sources.layouts.own.files import existing_file, image_root
from featcache.sources.trees.names import id_of


def read_further(path: str, options: Mapping[str, str]) -> FurtherColumns:
    """Read the columns of a csv file other than path, label and split.

    Args:
        path: The file, as `open_csv` takes it.
        options: As `open_csv` takes them.

    Returns:
        The columns that have a name of their own; a sentence names the others.

    Raises:
        SourceError: If the file or a row of it cannot be used.
    """
    file = existing_file(path, "a csv or tsv file")
    spec = f"csv:{path}"
    table = label_columns(open_table(file, options.get("delimiter", ""), spec), options, spec)
    further = table.further
    found: dict[str, dict[str, str]] = {name: {} for name in further}
    left_out = ""
    if repeated := table.repeated:
        quoted = ", ".join(f"'{name}'" for name in repeated)
        left_out = (
            f"Several columns of {as_text(file.name)} are called {quoted}; give each a name of "
            f"its own."
        )
    if not further:
        return FurtherColumns(left_out=left_out)
    root = image_root(file, options)
    for row in table.rows():
        where = f"Line {row.line} of {as_text(file.name)}"
        image_id = id_of(path_below(row.path, root, where))
        for name, i in further.items():
            found[name].setdefault(image_id, row.fields[i].strip())
    return FurtherColumns(columns=found, left_out=left_out)

"""Columns of a table by their usual names, or as the user chose them."""

from collections.abc import Mapping, Sequence

from featcache.errors import SourceError
from featcache.sources.trees.names import is_image
from featcache.wording import Argument, Part

USUAL = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "file_path", "image", "images"),
        *("img", "image_path", "img_path", "image_file", "image_name", "relpath"),
    ),
    "label": (
        *("label", "labels", "class", "class_name", "classname", "category", "target", "species"),
        *("class_id", "label_id", "category_name", "choice", "ground_truth"),
    ),
    "split": ("split", "set", "subset", "partition", "usage"),
}
"""What is looked for -> names of columns, in lower case, that usually hold it."""


def find_columns(
    header: Sequence[str],
    chosen: Mapping[str, str],
    what: str,
    spec: str,
    *,
    usual: Mapping[str, Sequence[str]] = USUAL,
    needed: Sequence[str] = ("path", "label"),
) -> dict[str, int]:
    """Return the position of each column that was chosen or has a usual name.

    Args:
        header: Names of the columns.
        chosen: What -> name of its column, as the reader wrote it.
        what: The table, for messages.
        spec: How the reader calls the source, for what to do next: csv:photos.csv.
        usual: What -> usual names.
        needed: What there must be; of the rest only what is found.

    Raises:
        SourceError: If a chosen column is not there, or one is needed and none or several fit.
    """
    plain = [name.strip().lower() for name in header]
    found: dict[str, int] = {}
    for role, names in usual.items():
        if role in chosen:
            found[role] = _chosen(header, plain, role, chosen[role], what)
            continue
        fitting = [i for i, name in enumerate(plain) if name in names and i not in found.values()]
        if len(fitting) > 1:
            among = ", ".join(f"'{header[i]}'" for i in fitting)
            raise SourceError(
                f"{what} has several columns that may hold the {role}: {among}. Choose one with ",
                choice(spec, role, header[fitting[0]]),
                ".",
            )
        if fitting:
            found[role] = fitting[0]
        elif role in needed:
            columns = ", ".join(f"'{name}'" for name in header[:20])
            raise SourceError(
                f"{what} has no column that usually holds the {role} ({', '.join(names[:5])}); its "
                f"columns are {columns}. Choose one with ",
                choice(spec, role, "COLUMN"),
                ".",
            )
    return found


def choice(spec: str, option: str, value: str) -> Part:
    """Return the `dataset` argument with one more option.

    Args:
        spec: How the reader calls the source.
        option: Name of the option.
        value: What it is set to.
    """
    mark = "&" if "?" in spec else "?"
    return Argument("dataset", f"{spec}{mark}{option}={value}")


def has_header(first: Sequence[str]) -> bool:
    """Tell whether the first row of a table names columns: a file of an image is no such name."""
    return not any(is_image(field.strip()) for field in first)


def _chosen(header: Sequence[str], plain: Sequence[str], role: str, name: str, what: str) -> int:
    exact = [i for i, column in enumerate(header) if column.strip() == name]
    fitting = exact or [i for i, column in enumerate(plain) if column == name.strip().lower()]
    if len(fitting) == 1:
        return fitting[0]
    columns = ", ".join(f"'{column}'" for column in header[:20])
    problem = "no column" if not fitting else "several columns called"
    raise SourceError(
        f"{what} has {problem} '{name}' for the {role}; its columns are {columns}. Choose one of "
        f"these."
    )

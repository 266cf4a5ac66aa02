"""CoOp's split files: `split_zhou_*.json` with `[image, label, class name]` for train, val, test.

The order of a split is kept as it stands in the file, since few-shot draws depend on it.
"""

import json
from dataclasses import dataclass

from featcache.errors import SourceError
from featcache.text.templates import clean_name, is_plain

SPLITS = ("train", "val", "test")

Entry = tuple[str, int]
"""(path of the image below the image folder, label)."""


@dataclass(frozen=True, slots=True)
class CoopSplit:
    """A split file, checked."""

    classes: tuple[str, ...]
    """Readable names, in label order."""
    splits: dict[str, tuple[Entry, ...]]


def parse_split(data: bytes, path: str) -> CoopSplit:
    """Check the content of a split file.

    Args:
        data: The file's bytes.
        path: The file, for messages.

    Raises:
        SourceError: If it is no JSON, has another form, lists an image twice or outside the folder,
            or gives a label two names. Two labels may share a name.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"Split file {path} could not be read as JSON ({error}); expected CoOp's "
            f"split_zhou_*.json. Get a whole copy, or remove it to have splits made."
        ) from error
    if not isinstance(content, dict) or "train" not in content:
        raise _refused(path, "it has no 'train'")
    names: dict[int, str] = {}
    seen: set[str] = set()
    splits: dict[str, tuple[Entry, ...]] = {}
    for split in SPLITS:
        entries = content.get(split, [])
        if not isinstance(entries, list):
            raise _refused(path, f"'{split}' is no list")
        splits[split] = tuple(_entry(path, split, i, e, names) for i, e in enumerate(entries))
        for image, _ in splits[split]:
            if image in seen:
                raise _refused(path, f"{image} is listed twice")
            seen.add(image)
    return CoopSplit(_classes(path, names), splits)


def _entry(path: str, split: str, i: int, entry: object, names: dict[int, str]) -> Entry:
    """Check one entry, and note the name of its class in `names`."""
    match entry:
        case [str(image), int(label), str(name)] if not isinstance(label, bool):
            pass
        case _:
            raise _refused(path, f"{split}[{i}] is not [image, label, class name]")
    if not image or "\\" in image or not _stays_below(image):
        raise _refused(path, f"{split}[{i}] names an image outside the folder: '{image}'")
    if not is_plain(name):
        raise _refused(path, f"{split}[{i}] names a class with control characters: {name[:80]!a}")
    if label not in names:
        names[label] = name
    elif names[label] != name:
        raise _refused(path, f"label {label} is both '{names[label]}' and '{name}'")
    return image, label


def _stays_below(image: str) -> bool:
    return not image.startswith("/") and ".." not in image.split("/") and image.isprintable()


def _classes(path: str, names: dict[int, str]) -> tuple[str, ...]:
    if sorted(names) != list(range(len(names))):
        raise _refused(path, f"its {len(names)} labels are not 0 to {len(names) - 1}")
    classes = tuple(clean_name(names[i]) for i in range(len(names)))
    if not all(classes):
        raise _refused(path, f"label {classes.index('')} has no name")
    return classes


def _refused(path: str, why: str) -> SourceError:
    return SourceError(
        f"Split file {path} is not of CoOp's form: {why}. Get a whole copy of it, or remove it to "
        f"have splits made."
    )

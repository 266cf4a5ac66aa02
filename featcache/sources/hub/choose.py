"""Which files of a repository make up the data set, known before anything is downloaded."""

from collections.abc import Callable, Sequence

from featcache.errors import SourceError, UnknownNameError
from featcache.sources.fetch.archive import kind_of
from featcache.sources.fetch.names import checked_name
from featcache.sources.hub.api import HubFile
from featcache.sources.hub.names import HubName
from featcache.sources.layouts.own.card import CARD, choose, configurations_in
from featcache.sources.layouts.own.huggingface import METADATA
from featcache.sources.layouts.own.shards import configurations
from featcache.sources.trees.names import is_image
from featcache.wording import Argument

CONVERTED = "refs/convert/parquet"
"""Revision under which the hub keeps a copy in parquet of most data sets."""


def chosen_files(
    hub: HubName, files: Sequence[HubFile], head: Callable[[HubFile], bytes]
) -> list[HubFile]:
    """Choose the parquet files, or else the images and their tables.

    Args:
        hub: The data set; if it names a `config`, only what README.md declares of it counts, or
            else what is below the folder of this name.
        files: All files of the repository.
        head: Returns the first `MOST_CARD` bytes of a small file.

    Raises:
        SourceError: If the repository has a loading script, several configurations of which none
            is named, or no images.
        UnknownNameError: If there is no such configuration.
    """
    if any(file.path == f"{hub.name}.py" for file in files):
        raise _script(hub, f"{hub.name}.py")
    if declared := _declared(hub, files, head):
        return declared
    below = f"{hub.config}/" if hub.config else ""
    there = [file for file in files if file.path.startswith(below)]
    parquet = [f for f in there if f.path.lower().endswith(".parquet") and not _is_table(f.path)]
    if hub.config and not there:
        folders = {f.path.split("/")[0] for f in files if "/" in f.path}
        raise UnknownNameError(f"folder of {hub.repository}", hub.config, folders)
    found = configurations(file.path for file in parquet)
    if len(found) > 1 and not hub.config:
        raise _several(hub, sorted(found.values()))
    images = [file for file in there if is_image(file.path)]
    chosen = parquet or [*images, *(f for f in there if images and _is_table(f.path))]
    if not chosen:
        raise _nothing(hub, there)
    return _checked(hub, chosen)


def _declared(
    hub: HubName, files: Sequence[HubFile], head: Callable[[HubFile], bytes]
) -> list[HubFile]:
    """Return README.md and the parquet files of the configuration in it; none if it has none."""
    parquet = [f for f in files if f.path.lower().endswith(".parquet") and not _is_table(f.path)]
    card = next((f for f in files if f.path == CARD), None)
    if card is None or not parquet:
        return []
    declared = configurations_in(head(card), f"{CARD} of {hub.repository}")
    found = [c for c in declared if any(c.splits_of(f.path) for f in parquet)]
    names = [c.name for c in found]
    is_folder = any(f.path.startswith(f"{hub.config}/") for f in files)
    if not found or (hub.config and hub.config not in names and is_folder):
        return []
    chosen = choose(found, hub.config)
    if chosen is None:
        raise _several(hub, names)
    return _checked(hub, [card, *(f for f in parquet if chosen.split_of(f.path) is not None)])


def _checked(hub: HubName, chosen: Sequence[HubFile]) -> list[HubFile]:
    for file in chosen:
        _check_path(hub, file.path)
    return sorted(chosen, key=lambda file: file.path)


def _several(hub: HubName, names: Sequence[str]) -> SourceError:
    first = next(name for name in names if name)
    return SourceError(
        f"{hub.repository} has several configurations: {', '.join(names)}. Name one of them: ",
        Argument("dataset", f"hf:{hub}:{first}"),
        ".",
    )


def _check_path(hub: HubName, path: str) -> None:
    """Refuse a file that could lie outside the folder it is downloaded into."""
    try:
        plain = "/".join(checked_name(path, hub.repository)) == path
    except SourceError:
        plain = False
    if not plain:
        raise SourceError(
            f"{hub.repository} lists the file {path[:200]!a}, whose path is not plain; nothing was "
            f"downloaded. Expected paths below the repository, without '..' and control characters."
        )


def _is_table(path: str) -> bool:
    return path.rpartition("/")[2] in METADATA


def _nothing(hub: HubName, files: Sequence[HubFile]) -> SourceError:
    scripts = [file.path for file in files if file.path.endswith(".py")]
    if scripts:
        return _script(hub, scripts[0])
    archives = [file.path for file in files if kind_of(file.path)]
    if archives:
        return SourceError(
            f"{hub.repository} holds archives, as {archives[0]}, which are not read from the hub; "
            f"download it and write ",
            Argument("dataset", f"zip:{archives[0]}"),
            ", or unpack it and name the folder.",
        )
    return SourceError(
        f"{hub.repository} has neither parquet files nor images at revision '{hub.revision}'; "
        f"expected one of these."
    )


def _script(hub: HubName, file: str) -> SourceError:
    other = HubName(hub.owner, hub.name, CONVERTED, hub.config)
    return SourceError(
        f"{hub.repository} has the loading script {file}, which is not run. Use the copy in "
        f"parquet that the hub keeps of most data sets: ",
        Argument("dataset", f"hf:{other}"),
        ".",
    )

"""Prefixes of tables, shards and exports of other tools."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from featcache.errors import SourceError, UsageError
from featcache.paths import as_text, expand
from featcache.sources.base import Dataset, FurtherColumns, Report
from featcache.sources.hub.names import HubName
from featcache.sources.layouts.own import coco, csv_file, fiftyone, huggingface, labelstudio, npz
from featcache.sources.layouts.own import webdataset as wds
from featcache.sources.layouts.own.csv_further import read_further
from featcache.sources.layouts.own.options import join_options, split_options
from featcache.sources.layouts.own.shards import expand_braces
from featcache.sources.prefixes.kind import Brought, Kind
from featcache.wording import Argument

Opener = Callable[[str, Mapping[str, str], str | None], Dataset]
"""Called with the path, the options behind it, and a name or None."""


def _open(path: str, name: str, *, prefix: str, opener: Opener, options: Sequence[str]) -> Dataset:
    """List the images, and store the prefix and options that list them again."""
    path, given = split_options(path, options)
    data = opener(path, given, name)
    absolute = as_text(expand(path).absolute())
    for option in ("root", "names"):  # files, as the path is
        if option in given:
            given[option] = as_text(expand(given[option]).absolute())
    return replace(data, spec=f"{prefix}:{join_options(absolute, given)}")


def _name_of(path: str, *, prefix: str, options: Sequence[str]) -> str:
    """Name a data set by its folder, or by its file without the suffix.

    Raises:
        SourceError: If there is neither.
    """
    path, _ = split_options(path, options)
    found = expand(path)
    if found.is_dir():
        return as_text(found.resolve().name) or "images"
    if prefix == "hf" and (hub := HubName.read(path)) is not None and not found.exists():
        return hub.short
    shards = expand_braces(path)
    if len(shards) > 1:
        return as_text(expand(shards[0]).absolute().parent.name) or "images"
    if not found.is_file() and prefix != "hf":  # of a missing folder its opener tells more
        raise SourceError(
            f"There is no file or folder {found}, which {prefix}: should read. Check the path."
        )
    return as_text(found.stem)


def _from_hub(text: str, images_root: Path, can_download: bool, report: Report | None) -> Brought:
    """Bring a data set of the hub here; a path on this machine stays what it is."""
    path, options = split_options(text, huggingface.OPTIONS)
    hub = HubName.read(path)
    if hub is None or expand(path).exists():
        return Brought(text)
    from featcache.sources.hub.fetch import fetch_hub

    if "config" in options:
        raise UsageError(
            "A configuration of the hub stands behind a colon: ",
            Argument("dataset", f"hf:{hub}:{options['config']}"),
            ".",
        )
    fetched = fetch_hub(hub, images_root, can_download=can_download, report=report)
    if hub.config and huggingface.declares(fetched.path, hub.config):
        options["config"] = hub.config
    return Brought(join_options(as_text(fetched.path), options), fetched.notes)


def _kind(prefix: str, example: str, opener: Opener, options: Sequence[str]) -> Kind:
    return Kind(
        prefix=prefix,
        example=f"{prefix}:{example}",
        name_of=partial(_name_of, prefix=prefix, options=options),
        open=partial(_open, prefix=prefix, opener=opener, options=options),
        has_options=True,
    )


def _further(text: str) -> FurtherColumns:
    path, options = split_options(text, csv_file.OPTIONS)
    return FurtherColumns() if expand(path).is_dir() else read_further(path, options)


CSV = replace(
    _kind("csv", "photos.csv", csv_file.open_csv, csv_file.OPTIONS),
    further=_further,
)
WDS = _kind("wds", "shards/", wds.open_webdataset, wds.OPTIONS)
HF = replace(
    _kind("hf", "timm/resisc45", huggingface.open_huggingface, huggingface.OPTIONS),
    fetch=_from_hub,
)
COCO = _kind("coco", "annotations.json", coco.open_coco, coco.OPTIONS)
LABELSTUDIO = _kind("labelstudio", "export.json", labelstudio.open_labelstudio, labelstudio.OPTIONS)
FIFTYONE = _kind("fiftyone", "export/", fiftyone.open_fiftyone, fiftyone.OPTIONS)
NPZ = _kind("npz", "dermamnist.npz", npz.open_npz, npz.OPTIONS)

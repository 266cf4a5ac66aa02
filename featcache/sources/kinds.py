"""Prefixes of all kinds of sources, for commands that only name them: imports nothing heavy."""

from collections.abc import Mapping

KINDS: Mapping[str, str] = {
    "folder": "featcache.sources.prefixes.folder:FOLDER",
    "zip": "featcache.sources.prefixes.archives:ZIP",
    "tar": "featcache.sources.prefixes.archives:TAR",
    "csv": "featcache.sources.prefixes.own:CSV",
    "wds": "featcache.sources.prefixes.own:WDS",
    "hf": "featcache.sources.prefixes.own:HF",
    "coco": "featcache.sources.prefixes.own:COCO",
    "labelstudio": "featcache.sources.prefixes.own:LABELSTUDIO",
    "fiftyone": "featcache.sources.prefixes.own:FIFTYONE",
    "npz": "featcache.sources.prefixes.own:NPZ",
}
"""Prefix -> module and name of its `Kind`, which is imported when it is first used."""

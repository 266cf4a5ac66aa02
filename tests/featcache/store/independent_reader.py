"""A reader of caches written from docs/cache-format.md alone, with h5py and numpy; no featcache."""

import json
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def read(cache: Path) -> tuple[dict[str, Any], dict[str, dict[int, Any]]]:
    """Return the listing, and for each component its rows by listing row."""
    crc, shards = b"00000000", {}
    for line in (cache / "manifest.jsonl").read_bytes().splitlines():
        entry = json.loads(line)
        assert entry["crc"] == f"{zlib.crc32(line[:-18] + b'}', zlib.crc32(crc)):08x}"
        crc = entry["crc"].encode()
        if entry["kind"] == "shard":
            shards[entry["component"], entry["file"]] = entry
        elif entry["kind"] == "drop":
            shards.pop((entry["component"], entry["file"]), None)
    out: dict[str, dict[int, Any]] = {}
    for (component, file), entry in shards.items():
        with h5py.File(cache / component / file) as h5:
            values = h5["features"][:]
        if component.endswith(".int8"):
            scale = np.ascontiguousarray(values[..., -4:]).view("<f4")
            values = (values[..., :-4].astype(np.float32) * scale).astype(np.float16)
        rows = np.concatenate([np.arange(a, b) for a, b in entry["rows"]])
        out.setdefault(component, {}).update(zip(rows.tolist(), values, strict=True))
    where = cache / "listing" / json.loads((cache / "listing/current.json").read_bytes())["set"]
    listing = json.loads((where / "listing.json").read_bytes())
    cuts, ids = np.load(where / "offsets.npy"), (where / "ids.utf8").read_bytes()
    listing["ids"] = [ids[a:b].decode() for a, b in pairwise(cuts)]
    listing["labels"] = np.load(where / "labels.npy").tolist()
    return listing, out

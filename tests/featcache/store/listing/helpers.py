"""Compare and read listings in tests."""

import os
from pathlib import Path

from featcache.types import Listing


def same(a: Listing, b: Listing) -> bool:
    plain = ("dataset", "root", "classes", "ids", "hashes", "templates", "descriptions", "notes")
    return (
        all(getattr(a, name) == getattr(b, name) for name in plain)
        and a.labels.tolist() == b.labels.tolist()
        and {k: v.tolist() for k, v in a.splits.items()}
        == {k: v.tolist() for k, v in b.splits.items()}
        and (a.default_text, a.draws) == (b.default_text, b.draws)
        and (a.sets, a.waffle, a.prompts) == (b.sets, b.waffle, b.prompts)
        and a.own_texts == b.own_texts
    )


def touch(listing: Listing | None) -> None:
    """Use every part of a listing, as somebody would who reads it."""
    assert listing is not None
    assert list(listing.ids)
    assert list(listing.hashes)
    assert listing.labels is not None
    assert listing.splits is not None


def hurt(path: Path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    path.unlink()
    match damage:
        case "flip":
            data[len(data) // 2] ^= 4
            path.write_bytes(data)
        case "cut":
            path.write_bytes(data[:-1])
        case "longer":
            path.write_bytes(data + b"0")
        case "link":
            path.with_name("elsewhere").write_bytes(data)
            path.symlink_to("elsewhere")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()

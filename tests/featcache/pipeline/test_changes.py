"""Photographs that change between two extractions: rows follow content, and only that."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.sources import hashing
from featcache.store.cache import Cache

pytestmark = pytest.mark.usefixtures("remembered")


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember what was hashed, although every file here is new."""
    monkeypatch.setattr(hashing, "RACY_SECONDS", -60.0)


def features_of(summary: Any, name: str) -> tuple[str, np.ndarray]:
    """Return the class and the features that the cache has under an id."""
    features = Cache.open(summary.path).feature_set()
    row = list(features.listing.ids).index(name)
    label = features.listing.classes[features.listing.labels[row]]
    return label, features.rows("global", np.array([row])).numpy()


def of_equal_size(folder: Path, encode_picture: Callable[..., bytes], make: Any) -> list[Path]:
    """Make two photographs of different content, size and time being the same."""
    paths = [folder / "test" / name / "0.jpg" for name in ("ant", "bee")]
    for seed, path in enumerate(paths):
        content = encode_picture(make(500 + seed), "JPEG")
        path.write_bytes(content + bytes(20_000 - len(content)))
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return paths


def test_two_photographs_that_swap_names_keep_their_features(
    ask: Any, folder: Path, encode_picture: Any, make_picture: Any
) -> None:
    one, two = of_equal_size(folder, encode_picture, make_picture)
    first = ask(patches=["none"])
    ant, bee = features_of(first, "test/ant/0.jpg"), features_of(first, "test/bee/0.jpg")
    one.rename(folder / "aside")
    two.rename(one)
    (folder / "aside").rename(two)
    again = ask(patches=["none"])
    assert again.encoded == {}
    for name, label, (_, rows) in (("ant", "ant", bee), ("bee", "bee", ant)):
        found = features_of(again, f"test/{name}/0.jpg")
        assert found[0] == label
        np.testing.assert_array_equal(found[1], rows)


def test_content_replaced_with_its_time_restored_is_encoded_and_nothing_else(
    ask: Any, folder: Path, encode_picture: Any, make_picture: Any
) -> None:
    one, two = of_equal_size(folder, encode_picture, make_picture)
    bee = features_of(ask(patches=["none"]), "test/bee/0.jpg")[1]
    before = one.stat()
    content = encode_picture(make_picture(600), "JPEG")
    one.write_bytes(content + bytes(20_000 - len(content)))
    os.utime(one, ns=(before.st_atime_ns, before.st_mtime_ns))
    two.touch()
    again = ask(patches=["none"])
    assert again.encoded == {"global": 1}
    assert not np.array_equal(features_of(again, "test/ant/0.jpg")[1], bee)
    np.testing.assert_array_equal(features_of(again, "test/bee/0.jpg")[1], bee)


def test_content_that_moved_on_to_another_name_brings_its_row(
    ask: Any, folder: Path, encode_picture: Any, make_picture: Any
) -> None:
    """The content of one name goes to another, and the first gets what nobody had."""
    one, two = of_equal_size(folder, encode_picture, make_picture)
    ant = features_of(ask(patches=["none"]), "test/ant/0.jpg")[1]
    two.write_bytes(one.read_bytes())
    content = encode_picture(make_picture(600), "JPEG")
    one.write_bytes(content + bytes(20_000 - len(content)))
    again = ask(patches=["none"])
    assert again.encoded == {"global": 1}
    np.testing.assert_array_equal(features_of(again, "test/bee/0.jpg")[1], ant)


def test_a_dry_run_reads_what_is_remembered_and_writes_nothing(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = ask(patches=["none"])
    known = done.path.parent / "hashes.tsv"
    written = known.stat().st_mtime_ns
    monkeypatch.setattr(hashing.hashlib, "file_digest", lambda *_: pytest.fail("was read again"))
    assert ask(patches=["none"], dry_run=True).encoded == {}
    assert known.stat().st_mtime_ns == written

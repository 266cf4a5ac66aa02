"""Photographs that change between two extractions: rows follow content, and only that."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import SourceError
from featcache.pipeline import repair as mend
from featcache.sources import hashing
from featcache.store.cache import Cache
from featcache.store.repair.verify import repair

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
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("was read again"))
    assert ask(patches=["none"], dry_run=True).encoded == {}
    assert known.stat().st_mtime_ns == written


@pytest.mark.parametrize("copied", [False, True])
def test_images_below_the_root_of_the_caches_move_with_it(
    ask: Any, backbone: Any, folder: Path, tmp_path: Path, copied: bool, monkeypatch: Any
) -> None:
    monkeypatch.setattr(mend, "load_backbone", lambda *_, **__: backbone)
    old, new = tmp_path / "cache", tmp_path / "elsewhere"
    shutil.copytree(folder, old / "images" / "zoo")
    first = ask(patches=["none"], dataset=f"folder:{old / 'images' / 'zoo'}", micro_batch=None)
    if copied:
        shutil.copytree(old, new)
    else:
        old.rename(new)
    path = new / first.path.relative_to(old)
    (shard,) = (path / "global").glob("*.h5")
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert repair(path).dropped
    assert mend.mend(path).encoded == {"global": 22}
    place = f"folder:{new / 'images' / 'zoo'}"
    again = ask(patches=["none"], root=new, dataset=place, micro_batch=None)
    assert again.encoded == {}
    assert again.path == path
    listing = Cache.open(path).listing()
    assert listing is not None
    assert listing.root == str(new / "images" / "zoo")


def test_another_folder_of_that_name_is_still_a_move(
    ask: Any, folder: Path, tmp_path: Path
) -> None:
    ask(patches=["none"])
    shutil.copytree(folder, other := tmp_path / "images" / "zoo")
    with pytest.raises(SourceError, match="Add moved"):
        ask(patches=["none"], dataset=f"folder:{other}")

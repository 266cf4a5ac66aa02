import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import (
    CacheError,
    CorruptCacheError,
    UsageError,
)
from featcache.store.cache import AHEAD, Cache
from featcache.store.format import manifest
from featcache.store.format.records import Line
from featcache.types import ComponentKey, FeatureKey, Listing, TextBank
from tests.featcache.store.helpers import files

Make = Callable[..., Any]
HERE = {"featcache": "0", "device": "cpu"}


def find_cache_folders(root: Path) -> list[Path]:
    return [p.parent for p in root.rglob("key.json")]


def test_create_opens_what_is_there(cache: Cache, key: FeatureKey) -> None:
    again = Cache.create(cache.path.parents[1], "toys", "Toy/1", key)
    assert again.path == cache.path
    assert cache.path.name == f"Toy-1-{key.digest()}"
    assert (again.dataset, again.backbone, again.key) == ("toys", "Toy/1", key)
    assert again.covered("global").sum() == 10


def test_two_data_sets_never_share_a_folder(tmp_path: Path, key: FeatureKey) -> None:
    Cache.create(tmp_path, "a/b", "toy", key)
    with pytest.raises(CacheError, match="another name with name"):
        Cache.create(tmp_path, "a-b", "toy", key)


def test_a_name_cannot_leave_the_root(tmp_path: Path, key: FeatureKey) -> None:
    for i, name in enumerate(("../../evil", "/etc", "..", ".", "", "~", "a\nb", "a" * 400)):
        root = tmp_path / str(i)
        path = Cache.create(root, name, f"../{name}", key).path
        assert path.resolve().parents[1] == root.resolve()
        assert find_cache_folders(root) == [path]


def test_rows_come_back_as_they_were_written(cache: Cache, values: Make) -> None:
    features = cache.feature_set()
    rows = np.array([9, 0, 4, 5])
    assert torch.equal(features.rows("global", rows), torch.from_numpy(values(rows)))
    assert features.components["global"].shape == (8,)
    assert features.ok.all()
    assert features.text is None
    assert features.classes == ("ant", "bee")


def test_resuming_covers_exactly_what_is_missing(
    cache: Cache, plain: ComponentKey, values: Make
) -> None:
    missing = np.flatnonzero(~cache.covered("global"))
    assert missing.tolist() == list(range(10, 20))
    cache.append(plain, missing, values(missing), {}, HERE)
    assert Cache.open(cache.path).covered("global").all()
    assert not cache.covered("views.rrc50-10").any()


def test_an_interrupted_pass_leaves_the_same_bytes(
    tmp_path: Path, key: FeatureKey, listing: Make, plain: ComponentKey, values: Make
) -> None:
    shards = [np.arange(i, i + 5) for i in range(0, 20, 5)]
    for name, cuts in (("straight", [4]), ("interrupted", [1, 3, 4])):
        done = 0
        for cut in cuts:
            made = Cache.create(tmp_path / name, "toys", "toy", key)
            made.put_listing(listing(20))
            with made.lock():
                for rows in shards[done:cut]:
                    made.append(plain, rows, values(rows), {int(rows[1]): "torn"}, HERE)
            done = cut
    straight = Cache.open(next((tmp_path / "straight").glob("*/*")))
    interrupted = Cache.open(next((tmp_path / "interrupted").glob("*/*")))
    assert files(straight) == files(interrupted)


def test_unreadable_images_keep_their_row(cache: Cache, plain: ComponentKey, values: Make) -> None:
    rows = np.arange(10, 13)
    poisoned = values(rows)
    poisoned[1] = np.nan
    cache.append(plain, rows, poisoned, {11: "is cut off"}, HERE)
    assert cache.bad_rows() == {11: "is cut off"}
    assert cache.covered("global")[11]
    assert not cache.covered("global", retry_bad=True)[11]
    assert cache.feature_set().ok.tolist() == [i != 11 for i in range(20)]
    assert cache.rows("global").gather(np.array([11])).tolist() == [[0.0] * 8]
    assert Cache.open(cache.path).bad_rows() == {11: "is cut off"}
    cache.append(plain, np.array([11]), values([11]), {}, HERE)
    assert Cache.open(cache.path).bad_rows() == {}
    assert cache.feature_set().ok.all()


def test_wrong_rows_are_refused(cache: Cache, plain: ComponentKey, values: Make) -> None:
    for rows in ([3, 2], [2, 2], [-1, 0], [19, 20]):
        with pytest.raises(UsageError, match="ascend"):
            cache.append(plain, np.array(rows), values(rows), {}, HERE)
    with pytest.raises(UsageError, match="ascend"):
        cache.append(plain, np.empty(0, dtype=np.int64), values([0])[:0], {}, HERE)
    with pytest.raises(UsageError, match="bad"):
        cache.append(plain, np.array([10]), values([10]), {11: "?"}, HERE)
    with pytest.raises(CacheError, match=r"rows \[8\] of float16, new ones are \[4\]"):
        cache.append(plain, np.array([10]), values([10], width=4), {}, HERE)
    with pytest.raises(CacheError, match=r"not finite.*train/ä 10"):
        cache.append(plain, np.array([10]), np.full((1, 8), 70_000.0, np.float32), {}, HERE)
    with pytest.raises(UsageError, match="float16"):
        cache.append(
            ComponentKey(kind="global", dtype="int8"), np.array([10]), values([10]), {}, HERE
        )
    assert Cache.open(cache.path).covered("global").sum() == 10


def test_relabelling_touches_no_shard(cache: Cache, listing: Make) -> None:
    before = {p: p.stat().st_mtime_ns for p in cache.path.glob("*/*.h5")}
    cache.put_listing(listing(20, labels=np.ones(20, dtype=np.int64), classes=("wasp", "bee")))
    cache.put_listing(listing(23))
    assert {p: p.stat().st_mtime_ns for p in cache.path.glob("*/*.h5")} == before
    assert cache.covered("global").tolist() == [i < 10 for i in range(23)]
    found = Cache.open(cache.path).listing()
    assert isinstance(found, Listing)
    assert len(found) == 23


def test_rows_never_change_their_image(cache: Cache, listing: Make) -> None:
    good = listing(20)
    with pytest.raises(CacheError, match="appended"):
        cache.put_listing(listing(20, hashes=tuple(reversed(good.hashes))))
    with pytest.raises(CacheError, match="appended"):
        cache.put_listing(listing(19))


def test_an_open_reader_sees_what_a_writer_lists_later(cache: Cache, listing: Make) -> None:
    reader = Cache.open(cache.path)
    assert len(reader.covered("global")) == 20
    cache.put_listing(listing(25))
    assert len(reader.covered("global")) == 25


def test_texts_round_trip(cache: Cache, bank: TextBank) -> None:
    cache.put_text(bank, HERE)
    found = Cache.open(cache.path).text()
    assert found is not None
    for name in TextBank.__dataclass_fields__:
        a, b = getattr(found, name), getattr(bank, name)
        assert torch.equal(a, b) if isinstance(b, torch.Tensor) else a == b, name


def test_texts_with_parts_missing(cache: Cache, bank: TextBank) -> None:
    assert bank.template_rows is not None
    cache.put_text(
        TextBank(
            classes=bank.classes,
            names=None,
            templates=("a",),
            template_rows=bank.template_rows[:, :1],
        ),
        HERE,
    )
    found = cache.text()
    assert found is not None
    assert found.names is None
    assert found.owner is None
    assert found.available() == ("template",)


def test_the_newest_texts_are_current_and_old_ones_are_not_written_twice(
    cache: Cache, bank: TextBank
) -> None:
    other = TextBank(
        classes=bank.classes, names=bank.names, templates=(), template_rows=None, default="name"
    )
    for current in (bank, other, other, bank):
        cache.put_text(current, HERE)
        found = Cache.open(cache.path).text()
        assert found is not None
        assert found.default == current.default
    assert len(list(cache.path.glob("text.*"))) == 2
    assert (cache.path / "manifest.jsonl").read_bytes().count(b'"kind":"text"') == 3


@pytest.mark.parametrize("file", ["strings.json", "rows.h5"])
def test_damaged_texts_are_found(cache: Cache, bank: TextBank, file: str) -> None:
    cache.put_text(bank, HERE)
    path = next(cache.path.glob(f"text.*/{file}"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptCacheError, match=file):
        cache.text()


def test_provenance_is_kept_with_every_shard_and_text(
    cache: Cache, plain: ComponentKey, values: Make, bank: TextBank
) -> None:
    said = {"threads": "2", "micro_batch": "32", "device": "cpu é"}
    cache.append(plain, np.array([10]), values([10]), {}, said)
    cache.put_text(bank, said)
    again = Cache.open(cache.path)
    assert again.shards["global"][-1].provenance == said
    assert again.text_line is not None
    assert again.text_line.provenance == said
    for wrong in ({"a": "x" * 200}, {str(i): "" for i in range(65)}):
        with pytest.raises(UsageError, match="provenance"):
            cache.append(plain, np.array([11]), values([11]), {}, wrong)
    assert Cache.open(cache.path).covered("global").sum() == 11


def test_reasons_are_kept_short_and_printable(
    cache: Cache, plain: ComponentKey, values: Make
) -> None:
    rows = np.arange(10, 13)
    cache.append(plain, rows, values(rows), {10: "x" * 1000, 12: "no \udc80"}, HERE)
    found = Cache.open(cache.path).bad_rows()
    assert found == {10: "x" * 300, 12: "no ?"}


def test_whole_numbers_are_stored_exactly(cache: Cache) -> None:
    rows = np.arange(4)
    boxes = np.arange(32, dtype=np.int32).reshape(4, 2, 4) * 100_003
    key = ComponentKey(kind="boxes", recipe="lazsl", count=2)
    cache.append(key, rows, boxes, {2: "is cut off"}, HERE)
    boxes[2] = 0
    again = Cache.open(cache.path)
    assert again.rows(key.folder).gather(rows).tolist() == boxes.tolist()
    assert again.shards[key.folder][0].facts.dtype == "int32"
    small = ComponentKey(kind="patches", variant="vanilla", dtype="int8")
    packed = np.arange(-128, 128, dtype=np.int8).reshape(4, 8, 8)
    with pytest.raises(CacheError, match="not finite in int8"):  # the last four bytes are a scale
        cache.append(small, rows, packed, {}, HERE)
    packed[..., 4:] = np.array([0.5], "<f4").view(np.int8)
    cache.append(small, rows, packed, {}, HERE)
    facts = Cache.open(cache.path).shards[small.folder][0].facts
    assert facts.dtype == "int8"
    data = (cache.path / small.folder / "00000000-00000004.h5").read_bytes()
    assert data[facts.offset : facts.offset + 256] == packed.tobytes()
    for wrong in (packed.astype(np.float16), packed.astype(np.int32)):
        with pytest.raises(UsageError, match="holds int8"):
            cache.append(small, rows, wrong, {}, HERE)
    with pytest.raises(UsageError, match="holds float16"):
        cache.append(ComponentKey(kind="global"), rows, packed[:, 0], {}, HERE)


def test_a_clock_that_was_set_back_does_not_reorder_passes(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cache.passes[-1].time
    monkeypatch.setattr(time, "time", lambda: before - 1800.0)
    cache.finish(components=["global"], images=1, seconds=0.0, complete=True)
    assert Cache.open(cache.path).passes[-1].time == before


def test_a_time_that_lies_ahead_of_the_clock_is_not_carried_on(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = cache.passes[-1].time - 2 * AHEAD
    monkeypatch.setattr(time, "time", lambda: now)
    cache.finish(components=["global"], images=1, seconds=0.0, complete=True)
    assert Cache.open(cache.path).passes[-1].time == now


def test_appending_does_not_replay_what_was_written_before(
    cache: Cache, plain: ComponentKey, values: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cache.lock():
        taken: list[object] = []
        real = manifest.Contents.take

        def take(self: manifest.Contents, line: Line) -> None:
            taken.append(line)
            real(self, line)

        monkeypatch.setattr(manifest.Contents, "take", take)
        for row in range(10, 16):
            cache.append(plain, np.array([row]), values([row]), {}, HERE)
    assert len(taken) == 6
    assert cache.covered("global").sum() == 16


def test_key_and_header_are_one_line(cache: Cache, key: FeatureKey) -> None:
    line = (cache.path / "key.json").read_bytes()
    assert (cache.path / "manifest.jsonl").read_bytes().startswith(line)
    other = Cache.create(cache.path.parents[1], "others", "Toy/1", key)
    (cache.path / "key.json").write_bytes((other.path / "key.json").read_bytes())
    with pytest.raises(CorruptCacheError, match=r"belongs to toys.*not to others"):
        Cache.open(cache.path)


def test_a_cache_without_listing_says_so(tmp_path: Path, key: FeatureKey) -> None:
    empty = Cache.create(tmp_path, "toys", "toy", key)
    assert empty.listing() is None
    with pytest.raises(CacheError, match="no listing yet"):
        empty.feature_set()


def test_looking_at_a_cache_needs_neither_torch_nor_h5py(cache: Cache) -> None:
    code = (
        "import sys; from pathlib import Path; from featcache.store.library import caches;"
        "from featcache.store.repair.verify import verify;"
        f"[found] = caches(Path({str(cache.path.parents[1])!r}));"
        "assert verify(found.path, full=True).is_sound;"
        "assert not {'torch', 'h5py', 'open_clip', 'PIL'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5, 8)])
def test_rows_that_no_reader_takes_are_refused(cache: Cache, shape: tuple[int, ...]) -> None:
    packed = ComponentKey(kind="patches", variant="vanilla", dtype="int8")
    with pytest.raises(UsageError):
        cache.append(packed, np.arange(2), np.zeros(shape, np.int8), {}, HERE)
    assert not (cache.path / packed.folder).exists()

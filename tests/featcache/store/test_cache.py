import os
import signal
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
    CacheNotFoundError,
    CorruptCacheError,
    NewerFormatError,
    UsageError,
)
from featcache.store.cache import AHEAD, Cache
from featcache.store.format import manifest
from featcache.store.format.files import make_folder
from featcache.store.format.records import Line
from featcache.store.format.seal import seal, unseal
from featcache.types import ComponentKey, FeatureKey, Listing, TextBank

Make = Callable[..., Any]
HERE = {"featcache": "0", "device": "cpu"}


def find_cache_folders(root: Path) -> list[Path]:
    return [p.parent for p in root.rglob("key.json")]


def files(cache: Cache) -> dict[str, bytes]:
    return {
        str(p.relative_to(cache.path)): p.read_bytes()
        for p in sorted(cache.path.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


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


def test_links_that_lead_out_of_a_cache_are_refused(
    cache: Cache, plain: ComponentKey, values: Make, tmp_path: Path
) -> None:
    """A cache from a stranger must not read, or write, anywhere else."""
    elsewhere = tmp_path / "elsewhere"
    (cache.path / "global").rename(elsewhere)
    (cache.path / "global").symlink_to(elsewhere)
    before = {p.name: p.read_bytes() for p in elsewhere.iterdir()}
    with pytest.raises(CorruptCacheError, match="symbolic link"):
        Cache.open(cache.path).feature_set().rows("global", np.array([1]))
    with pytest.raises(CorruptCacheError, match="symbolic link"):
        cache.append(plain, np.array([10]), values([10]), {}, HERE)
    with pytest.raises(CorruptCacheError, match="symbolic link"):
        cache.drop("global", "00000000-00000005.h5")
    assert {p.name: p.read_bytes() for p in elsewhere.iterdir()} == before
    for name in ("key.json", "manifest.jsonl"):
        path = cache.path / name
        path.rename(tmp_path / name)
        path.symlink_to(tmp_path / name)
        with pytest.raises(CorruptCacheError, match=rf"{name} is a symbolic link"):
            Cache.open(cache.path)
        path.unlink()
        (tmp_path / name).rename(path)
    (cache.path / "key.json").unlink()
    os.mkfifo(cache.path / "key.json")
    with pytest.raises(CorruptCacheError, match="no plain file"):
        Cache.open(cache.path)


def test_the_lock_file_is_no_way_out_either(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    (cache.path / ".lock").unlink()
    (cache.path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(CacheError), cache.lock():
        pass
    assert (tmp_path / "mine").read_text() == "precious"


def test_files_that_are_read_whole_have_a_limit(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATCACHE_MAX_METADATA", "1000")
    with pytest.raises(CacheError, match=r"manifest\.jsonl has .*FEATCACHE_MAX_METADATA"):
        Cache.open(cache.path)
    monkeypatch.setenv("FEATCACHE_MAX_METADATA", "lots")
    with pytest.raises(UsageError, match="number of bytes, got 'lots'"):
        Cache.open(cache.path)


def test_leftovers_are_cleaned_by_the_next_writer_only(cache: Cache) -> None:
    (cache.path / "global" / ".x.h5.tmp-1-ab").write_bytes(b"half")
    (cache.path / "global" / "00000010-00000015.h5").write_bytes(b"whole, but never entered")
    (cache.path / "global" / "notes.h5").write_bytes(b"somebody's own")
    with (cache.path / "manifest.jsonl").open("ab") as file:
        file.write(b'{"kind":"sha')
    before = files(cache)
    reader = Cache.open(cache.path)
    assert reader.covered("global").sum() == 10
    assert files(cache) == before
    with reader.lock():
        pass
    assert sorted(p.name for p in cache.path.glob("global/*")) == [
        "00000000-00000005.h5",
        "00000000-00000005.sums",
        "00000005-00000010.h5",
        "00000005-00000010.sums",
        "00000010-00000015.h5",  # for all that one knows somebody's own
        "notes.h5",
    ]
    assert any("Left " in note and "00000010" in note for note in reader.notes)
    assert (cache.path / "manifest.jsonl").read_bytes().endswith(b"}\n")
    assert any("unfinished last line" in note for note in reader.notes)


def test_a_full_disk_loses_nothing_that_was_finished(
    cache: Cache, plain: ComponentKey, values: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, before = np.arange(10, 20), files(cache)
    real, budget = os.write, [0]

    def write(handle: int, data: Any) -> int:
        count = min(len(data), budget[0])
        if not count:
            raise OSError(28, "No space left on device")
        budget[0] -= count
        return real(handle, data[:count])

    said: list[str] = []
    with cache.lock():
        for space in range(0, 100_000, 130):
            try:
                with monkeypatch.context() as patch:
                    patch.setattr(os, "write", write)
                    budget[0] = space
                    cache.append(plain, rows, values(rows), {}, HERE)
                break
            except CacheError as error:
                said.append(str(error))
            assert (cache.path / "manifest.jsonl").read_bytes() == before["manifest.jsonl"]
    assert len(said) > 10
    assert all("No space is left" in text for text in said)
    assert Cache.open(cache.path).covered("global").all()
    after = files(cache)
    assert all(after[name] == before[name] for name in before if name != "manifest.jsonl")


def test_read_only_caches_can_be_read(
    cache: Cache, values: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def read_only(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(30, "Read-only file system")
        return real(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", read_only)
    features = Cache.open(cache.path).feature_set()
    assert features.rows("global", np.array([3])).numpy().tolist() == values([3]).tolist()
    with pytest.raises(CacheError, match=r"Read-only.*another folder with root"), cache.lock():
        pass


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_shard_stops_the_reader_with_a_cure(cache: Cache, damage: str) -> None:
    path = cache.path / "global" / "00000005-00000010.h5"
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[:-100])
    features = Cache.open(cache.path).feature_set()
    assert features.rows("global", np.array([1])).shape == (1, 8)
    with pytest.raises(CorruptCacheError, match=r"00000005.*featcache repair"):
        features.rows("global", np.array([6]))


def test_what_is_no_cache_is_refused(tmp_path: Path, cache: Cache) -> None:
    with pytest.raises(CacheNotFoundError, match=r"key\.json"):
        Cache.open(tmp_path)
    key_file = cache.path / "key.json"
    data = key_file.read_bytes()
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 1
        key_file.write_bytes(broken)
        with pytest.raises(CorruptCacheError, match="featcache repair"):
            Cache.open(cache.path)
    value, _ = unseal(data[:-1])
    wrong: list[dict[str, object]] = [{"format": True}, {"dataset": 3}, {"key": {}}, {"more": 1}]
    for change in wrong:
        key_file.write_bytes(seal({**value, **change})[0])
        with pytest.raises(CorruptCacheError, match="featcache repair"):
            Cache.open(cache.path)
    key_file.write_bytes(seal({**value, "format": 3})[0])
    with pytest.raises(NewerFormatError, match="pip install --upgrade"):
        Cache.open(cache.path)
    key_file.write_bytes(b'{\n "format": 1,\n "dataset": "toys"\n}\n')
    with pytest.raises(CacheError, match=r"format 2 only.*featcache rm"):
        Cache.open(cache.path)


def test_key_and_header_are_one_line(cache: Cache, key: FeatureKey) -> None:
    line = (cache.path / "key.json").read_bytes()
    assert (cache.path / "manifest.jsonl").read_bytes().startswith(line)
    other = Cache.create(cache.path.parents[1], "others", "Toy/1", key)
    (cache.path / "key.json").write_bytes((other.path / "key.json").read_bytes())
    with pytest.raises(CorruptCacheError, match=r"belongs to toys.*not to others"):
        Cache.open(cache.path)


def test_a_creation_that_was_interrupted_is_finished(
    tmp_path: Path, key: FeatureKey, cache: Cache
) -> None:
    (cache.path / "key.json").unlink()
    with pytest.raises(CorruptCacheError, match=r"key\.json is missing.*featcache repair"):
        Cache.open(cache.path)
    again = Cache.create(cache.path.parents[1], "toys", "Toy/1", key)
    assert again.covered("global").sum() == 10


def test_a_cache_without_listing_says_so(tmp_path: Path, key: FeatureKey) -> None:
    empty = Cache.create(tmp_path, "toys", "toy", key)
    assert empty.listing() is None
    with pytest.raises(CacheError, match="no listing yet"):
        empty.feature_set()


CHILD = """
import sys
from pathlib import Path
import numpy as np
from featcache.keys import ComponentKey
from featcache.store.cache import Cache
cache = Cache.open(Path(sys.argv[1]))
rows = np.arange(20)
with cache.lock():
    print("locked", flush=True)
    while True:
        cache.append(ComponentKey(kind="views", recipe="weak", count=1), rows,
                     np.ones((20, 1, 4096), np.float16), {}, {})
"""


def test_kill_9_in_mid_append_loses_at_most_one_shard(
    cache: Cache, plain: ComponentKey, values: Make
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(cache.path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "locked\n"
    with pytest.raises(CacheError, match=rf"pid {child.pid}\) is writing"), cache.lock():
        pass
    time.sleep(0.15)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    found = Cache.open(cache.path)
    with found.lock():
        entered = {line.file for line in found.shards.get("views.weak-1", ())}
        files = {p.name for p in found.path.glob("views.weak-1/*")}
        assert {name for name in files if name.endswith(".h5")} == entered
        assert {name.replace(".sums", ".h5") for name in files} == entered  # none of no shard
        rows = np.arange(10, 20)
        found.append(plain, rows, values(rows), {}, HERE)
    features = Cache.open(cache.path).feature_set()
    assert torch.equal(features.rows("global", rows), torch.from_numpy(values(rows)))
    if entered:
        assert bool((features.rows("views.weak-1", np.arange(20)) == 1).all())


def test_looking_at_a_cache_needs_neither_torch_nor_h5py(cache: Cache) -> None:
    code = (
        "import sys; from pathlib import Path; from featcache.store.library import caches;"
        "from featcache.store.repair.verify import verify;"
        f"[found] = caches(Path({str(cache.path.parents[1])!r}));"
        "assert verify(found.path, full=True).is_sound;"
        "assert not {'torch', 'h5py', 'open_clip', 'PIL'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_new_folders_survive_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("featcache.store.format.files.sync_folder", synced.append)
    make_folder(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    make_folder(tmp_path / "a" / "b")
    assert len(synced) == 3


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5, 8)])
def test_rows_that_no_reader_takes_are_refused(cache: Cache, shape: tuple[int, ...]) -> None:
    packed = ComponentKey(kind="patches", variant="vanilla", dtype="int8")
    with pytest.raises(UsageError):
        cache.append(packed, np.arange(2), np.zeros(shape, np.int8), {}, HERE)
    assert not (cache.path / packed.folder).exists()

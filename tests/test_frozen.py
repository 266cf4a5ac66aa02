"""Caches, runs and heads that earlier versions wrote, opened by today's code.

Each folder of `tests/frozen` was written by the commit that its README.txt names, together with
`expected.json`: what that commit's own code read back from it. Nothing there is ever written again;
tests work on copies. A new format adds a folder and takes none away.

cache-1              format 1
cache-2-early        format 2, shards that do not say which images they were made of
cache-2-numerics-1   the same with images_crc32; a shard was dropped and encoded again
cache-2-sets         listing and texts with cupl and waffle; records say source and reads
cache-2-numerics-2   records say their texts
cache-2-numerics-3   imports in float16; hashes.tsv with size and time only; int8 patches
cache-2-inodes       imports keep their digits; hashes.tsv with ctime and inode; sealed runs
cache-2-sums         checksums beside the shards; records say their draws
runs-2-sealed        the first sealed runs, answers without the names of their images
runs-2-named         answers with the names of their images
runs-2-heads         records with spec, fit and version; kept heads of format 1
"""

import hashlib
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import featcache
import heads
from featcache.errors import CacheError, CorruptCacheError
from featcache.importers.npz import import_npz
from featcache.store.cache import Cache
from featcache.store.repair.verify import repair, verify
from featcache.wording import Part, in_python
from heads.protocols import episodes
from heads.results import store
from heads.results.verify import verify_runs

pytestmark = pytest.mark.long

FROZEN = Path(__file__).parent / "frozen"
SUMS = FROZEN / "SHA256SUMS"
STORES = sorted(path.parent.name for path in FROZEN.glob("*/expected.json"))
UNREAD = ("cache-1", "cache-2-early")
"""Caches that today's code refuses; their runs it reads."""
CACHES = [name for name in STORES if name.startswith("cache-") and name not in UNREAD]
TODAYS_KEY = ("cache-2-numerics-3", "cache-2-inodes", "cache-2-sums")
"""Caches whose images today's code encodes to the same key."""
KEPT_DIGITS = ("cache-2-inodes", "cache-2-sums")
WITH_SUMS = ("cache-2-sums",)
UNSEALED = [name for name in STORES if name.startswith("cache-") and name not in KEPT_DIGITS]


@cache
def expected(name: str) -> dict[str, Any]:
    """Return what the code of the time read from a store."""
    found: dict[str, Any] = json.loads((FROZEN / name / "expected.json").read_bytes())
    return found


def copy(name: str, to: Path) -> Path:
    """Copy a store; return the copy."""
    return Path(shutil.copytree(FROZEN / name, to / name))


def of_dataset(name: str, dataset: str, to: Path) -> Path:
    """Copy a store; return the folder of its cache of a data set."""
    (only,) = [c for c in expected(name)["caches"] if c.startswith(f"home/{dataset}/")]
    return copy(name, to) / str(only)


def files(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """Return the bytes of every file below a folder."""
    found = (path for path in folder.rglob(pattern) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def check_values(cache: Cache, wanted: dict[str, Any]) -> None:
    """Compare listing, rows and texts with what was read at the time."""
    found = cache.feature_set()
    listing = found.listing
    for field in ("dataset", "default_text"):
        assert getattr(listing, field) == wanted[field]
    for field in ("classes", "ids", "templates"):
        assert list(getattr(listing, field)) == wanted[field]
    assert listing.labels.tolist() == wanted["labels"]
    assert {k: v.tolist() for k, v in listing.splits.items()} == wanted["splits"]
    assert {k: list(v) for k, v in listing.descriptions.items()} == wanted["descriptions"]
    assert np.flatnonzero(~found.ok).tolist() == wanted["bad"]
    for name, facts in wanted["components"].items():
        rows = np.array(facts["rows"])
        values = np.ascontiguousarray(cache.rows(name).gather(rows))
        assert values.dtype.str == facts["dtype"]
        assert list(values.shape) == facts["shape"]
        assert values[0].reshape(-1)[:6].tolist() == facts["first"]
        assert hashlib.sha256(values.tobytes()).hexdigest() == facts["sha256"]
    assert found.text is not None
    # Since there are cupl, dclip and waffle, descriptions stand in where nobody gave DCLIP's.
    assert set(found.text.available()) - {"dclip"} == set(wanted["text"]) - {"dclip"}
    for kind, anchors in wanted["text"].items():
        # Stored rows, averaged in float32: the order of the sum is the library's.
        ours = found.text.raw_anchors(kind)[:, :6].double()
        torch.testing.assert_close(ours, torch.tensor(anchors).double(), rtol=1e-6, atol=1e-6)


def test_nothing_frozen_has_changed() -> None:
    wanted = {line[66:]: line[:64] for line in SUMS.read_text().splitlines()}
    found = files(FROZEN)
    del found[SUMS.name]
    assert {name: hashlib.sha256(data).hexdigest() for name, data in found.items()} == wanted
    assert sum(map(len, found.values())) < 2_000_000


@pytest.mark.parametrize("name", CACHES)
def test_a_cache_holds_what_was_stored(name: str, tmp_path: Path) -> None:
    place = copy(name, tmp_path)
    for folder, wanted in expected(name)["caches"].items():
        check_values(Cache.open(place / folder), wanted)


@pytest.mark.parametrize("name", CACHES)
def test_verify_calls_a_cache_sound_and_repair_adds_checksums(name: str, tmp_path: Path) -> None:
    place = copy(name, tmp_path)
    for folder, wanted in expected(name)["caches"].items():
        report = verify(place / folder, full=True)
        assert report.problems == ()
        assert report.shards == len(wanted["components"]) + 1
        lacking = [n for n in report.notes if "no checksums of their rows" in in_python([n])]
        assert list(report.notes) == lacking
        assert bool(lacking) == (name not in WITH_SUMS)
        shards = files(place / folder, "*.h5")
        assert repair(place / folder).is_sound
        assert verify(place / folder).notes == ()
        assert files(place / folder, "*.h5") == shards
        check_values(Cache.open(place / folder), wanted)


def test_a_cache_of_format_1_is_refused_and_left_alone(tmp_path: Path) -> None:
    place = copy("cache-1", tmp_path)
    before = files(place)
    for folder in expected("cache-1")["caches"]:
        with pytest.raises(CacheError, match=r"format 1, .* reads format 2 only") as caught:
            Cache.open(place / folder)
        assert not isinstance(caught.value, CorruptCacheError)
        assert "format 1" in in_python([verify(place / folder).problems[0].what])
    assert files(place) == before


def test_shards_that_name_no_images_get_no_row_and_are_kept(tmp_path: Path) -> None:
    place = copy("cache-2-early", tmp_path)
    for folder in expected("cache-2-early")["caches"]:
        with pytest.raises(CorruptCacheError, match="has no field 'images_crc32'"):
            Cache.open(place / folder)
        assert "images_crc32" in in_python([verify(place / folder).problems[0].what])
        shards = files(place / folder, "*.h5")
        notes = [in_python([note]) for note in repair(place / folder).notes]
        assert files(place / folder, "*.h5") == shards
        assert any("global" in n and "has no field 'images_crc32'" in n for n in notes)
        assert not Cache.open(place / folder).shards


def extract(tmp_path: Path, root: Path, crops: str) -> Cache:
    """Encode the frozen images, in another place, by today's code."""
    images = tmp_path / "moths"
    shutil.copytree(FROZEN / "images", images)
    found = featcache.extract(
        f"folder:{images}",
        "tiny",
        root=root,
        patches=["none"],
        crops=[crops],
        device="cpu",
        micro_batch=8,
        allow_bad=True,
        moved=True,
    )
    return Cache.open(found.path)


@pytest.mark.parametrize("name", TODAYS_KEY)
def test_a_cache_is_continued(name: str, tmp_path: Path) -> None:
    old = of_dataset(name, "moths", tmp_path)
    wanted, shards = expected(name)["caches"][f"home/moths/{old.name}"], files(old, "*.h5")
    new = extract(tmp_path, old.parents[1], "2:lazsl@test")
    assert new.path == old
    added = files(old, "*.h5")
    assert {n: data for n, data in added.items() if n in shards} == shards
    assert {n.split("/")[0] for n in added.keys() - shards.keys()} == {
        "boxes.lazsl-2",
        "crops.lazsl-2",
    }
    report = verify(old, full=True)
    assert (report.problems, report.notes) == ((), ())
    test = new.feature_set().usable("test")
    assert new.rows("crops.lazsl-2").present()[test].all()
    for component in ("crops.lazsl-2", "boxes.lazsl-2"):
        wanted["components"].pop(component, None)
    check_values(new, wanted)


@pytest.mark.parametrize("name", [n for n in CACHES if n not in TODAYS_KEY])
def test_images_of_other_numerics_get_a_cache_of_their_own(name: str, tmp_path: Path) -> None:
    old = of_dataset(name, "moths", tmp_path)
    before = files(old)
    new = extract(tmp_path, old.parents[1], "2:lazsl@val")
    assert new.path != old
    assert files(old) == before
    earlier = Cache.open(old)
    rows = new.feature_set().usable("test")
    ours = torch.nn.functional.normalize(new.rows("global").take(rows).float(), dim=1)
    theirs = torch.nn.functional.normalize(earlier.rows("global").take(rows).float(), dim=1)
    assert earlier.key.numerics < new.key.numerics
    assert (ours * theirs).sum(dim=1).min() > 0.999


@pytest.mark.parametrize("name", CACHES)
def test_an_import_is_found_again(name: str, tmp_path: Path) -> None:
    old = of_dataset(name, "fruit", tmp_path)
    said: list[Part] = []
    again = import_npz(FROZEN / "half.npz", old.parents[1], "fruit", "clip", say=said.append)
    assert again.path == old
    assert said == ["Imported before, and sound: nothing was left to do."]
    report = verify(old, full=True)
    assert (report.problems, report.notes) == ((), ())
    check_values(again, expected(name)["caches"][f"home/fruit/{old.name}"])


@pytest.mark.parametrize("name", CACHES)
def test_digits_that_were_rounded_come_back_beside(name: str, tmp_path: Path) -> None:
    old = of_dataset(name, "berries", tmp_path)
    before, said = files(old, "*.h5"), list[Part]()
    again = import_npz(FROZEN / "single.npz", old.parents[1], "berries", "clip", say=said.append)
    assert (again.path == old) == (name in KEPT_DIGITS)
    assert files(old, "*.h5") == before
    assert again.rows("global").gather(np.array([0])).dtype == np.float32
    assert any("rounded" in in_python([part]) for part in said) == (name not in KEPT_DIGITS)


@pytest.mark.parametrize("name", STORES)
def test_runs_say_what_they_said(name: str, tmp_path: Path) -> None:
    place = copy(name, tmp_path)
    for folder, wanted in expected(name)["runs"].items():
        result = store.load(place / folder, heads=True)
        assert result.sealed == (name not in UNSEALED)
        assert result.predictions is not None
        assert result.predictions.predicted.tolist() == wanted["predicted"]
        assert result.predictions.labels.tolist() == wanted["labels"]
        assert list(result.metrics["top1"].values) == wanted["values"]
        assert result.metrics["top1"].mean == wanted["mean"]
        assert result.metrics["macro_f1"].mean == pytest.approx(wanted["macro_f1"], abs=1e-12)
        assert result.zero_shot_top1 == wanted["zero_shot_top1"]
    report = verify_runs(place / "home" / "runs")
    assert report.problems == ()
    assert report.runs == len(expected(name)["runs"])
    assert len(report.unsealed) == (report.runs if name in UNSEALED else 0)


@pytest.mark.parametrize("name", STORES)
def test_runs_stand_in_a_table_with_todays(name: str, tmp_path: Path) -> None:
    """The same methods on the same features, so every difference to today's run is zero."""
    cache = Cache.open(of_dataset("cache-2-sums", "fruit", tmp_path)).feature_set()
    place = copy(name, tmp_path / "old") / "home" / "runs"
    old = store.load_all(place).results
    today = [
        heads.evaluate("zero-shot", cache, root=place, again=True),
        heads.evaluate("tip-adapter", cache, root=place, shots=2, seeds=2, again=True),
    ]
    found = heads.compare(root=place, dataset=["fruit"])
    assert found.problems == ()
    tables = [g for g in found.groups if g.ways is None]
    rows = {row.run: row for group in tables for row in group.rows}
    runs = {r.run: r for r in old if r.dataset == "fruit" and r.protocol != "episodic"}
    for result in today:
        twins = [r for r in runs.values() if r.method == result.method]
        assert twins
        for twin in twins:
            assert twin.metrics["top1"].values == result.metrics["top1"].values
            if twin.run not in rows:
                assert twin.sealed
                assert rows[result.run].equals >= 1
                continue
            assert ("unsealed" in rows[twin.run].marks) == (name in UNSEALED)
            assert rows[twin.run].top1 == rows[result.run].top1
    with_texts = all(r.texts for r in runs.values())
    assert len(tables) == (1 if with_texts else 2)


@pytest.mark.parametrize("name", CACHES)
def test_a_cache_trains_to_the_same_answers(name: str, tmp_path: Path) -> None:
    cache = Cache.open(of_dataset(name, "moths", tmp_path)).feature_set()
    runs = [r for r in expected(name)["runs"].values() if r["dataset"] == "moths"]
    assert {run["method"] for run in runs} == {"zero-shot", "tip-adapter"}
    for run in runs:
        result = heads.evaluate(run["method"], cache, root=tmp_path / "runs", shots=2, seeds=2)
        assert result.predictions is not None
        assert result.predictions.predicted.tolist() == run["predicted"]
        assert result.metrics["top1"].mean == run["mean"]


@pytest.mark.parametrize("name", [n for n in STORES if list((FROZEN / n).rglob(episodes.FILE))])
def test_a_list_of_episodes_is_drawn_and_answered_again(name: str, tmp_path: Path) -> None:
    cache = Cache.open(of_dataset("cache-2-sums", "fruit", tmp_path)).feature_set()
    (path,) = (copy(name, tmp_path / "old")).rglob(episodes.FILE)
    wanted = expected(name)["runs"][path.parent.relative_to(tmp_path / "old" / name).as_posix()]
    listed = episodes.read(path, cache)
    assert listed.rows.shape == (3, 2, 1 + 2)
    drawn = episodes.draw(
        cache, listed.split, ways=2, shots=1, queries=2, episodes=3, seed=listed.seed
    )
    assert np.array_equal(drawn.rows, listed.rows)
    assert np.array_equal(drawn.classes, listed.classes)
    result = store.load(path.parent)
    assert listed.digest(cache.listing) == result.ids.partition("-")[0]
    assert result.metrics["top1"].mean == wanted["mean"]


def test_heads_answer_as_they_did(tmp_path: Path) -> None:
    place = copy("runs-2-heads", tmp_path)
    facts = expected("runs-2-heads")
    query = torch.tensor(facts["query"], dtype=torch.float64).float()
    assert {head["method"] for head in facts["heads"].values()} > {"ridge", "tip-adapter"}
    for file, wanted in facts["heads"].items():
        path = place / file
        for head in (
            heads.load(path),
            heads.load(
                f"{path.parent.name}@{path.stem.partition('-')[2]}", root=place / "home" / "runs"
            ),
        ):
            assert head.method.name == wanted["method"]
            assert list(head.classes) == wanted["classes"]
            # The tensors are those of the file; a product of matrices may be summed in another
            # order on another processor, which float32 shows in its last digits.
            logits = head.logits(query).double()
            same = torch.tensor(wanted["logits"], dtype=torch.float64)
            assert (logits - same).abs().max() <= 1e-6 * same.abs().max()
        assert head.save(tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_heads_are_trained_to_the_same_answers(tmp_path: Path) -> None:
    cache = Cache.open(of_dataset("cache-2-sums", "fruit", tmp_path)).feature_set()
    facts = expected("runs-2-heads")
    query = cache.unit("global", cache.usable("test"))
    assert query.double().tolist() == facts["query"]
    for file, wanted in facts["heads"].items():
        if wanted["method"] == "zero-shot":  # nothing is trained
            continue
        seed = int(Path(file).stem.partition("-")[2])
        logits = heads.fit(wanted["method"], cache, shots=2, seed=seed).logits(query).double()
        same = torch.tensor(wanted["logits"], dtype=torch.float64)
        assert torch.equal(logits.argmax(dim=1), same.argmax(dim=1))
        if wanted["method"] != "linear-probe":  # whose solver stops short of the last digits
            assert (logits - same).abs().max() <= 1e-6 * same.abs().max()

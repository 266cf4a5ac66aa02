"""The file of a corpus: what is read is what was written; damage and strangers' files are told."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from featcache.errors import (
    CacheError,
    CorruptCacheError,
    LinkInCacheError,
    NewerFormatError,
    UnknownNameError,
    UsageError,
)
from featcache.store.cache import Cache
from featcache.store.corpora import (
    corpus_names,
    corpus_path,
    put_corpus,
    read_corpus,
    read_record,
    remove_corpus,
)
from featcache.store.format import corpus_file
from featcache.store.format.corpus_file import CorpusArrays, CorpusRecord, SourceRecord, encode
from featcache.store.format.files import canonical
from featcache.store.format.seal import seal, unseal
from featcache.store.repair.verify import Dropped, repair, verify

N, D = 6, 8


def make(dtype: str = "float16", **changes: Any) -> tuple[CorpusRecord, CorpusArrays]:
    rng = np.random.default_rng(0)
    source = SourceRecord(
        dataset="wild toys", key="0" * 12, component="global", splits=("train",),
        state="1" * 12, vectors=40,
    )  # fmt: skip
    fields: dict[str, Any] = {
        "name": "wild", "dataset": "toys", "key": "0" * 12, "by": "class", "of": "global",
        "rows": N, "dim": D, "dtype": dtype, "classes": 2, "classes_digest": "2" * 12,
        "queries_digest": "3" * 12, "leaks": False, "sources": (source,),
        "facts": {"k": 3, "threshold": {"cosine": 0.75}}, "provenance": {"featcache": "0"},
    }  # fmt: skip
    arrays = CorpusArrays(
        values=rng.normal(size=(N, D)).astype(dtype),
        labels=np.arange(N, dtype=np.int64) % 2,
        cosines=rng.random(N, dtype=np.float32),
        source=np.zeros(N, dtype=np.int32),
        row=np.arange(N, dtype=np.int64) + 5,
        part=np.zeros(N, dtype=np.int32),
    )
    return CorpusRecord(**{**fields, **changes}), arrays


def equal(a: CorpusArrays, b: CorpusArrays) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        and getattr(a, name).dtype == getattr(b, name).dtype
        for name in CorpusArrays.__dataclass_fields__
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_read_is_what_was_written(cache: Cache, dtype: str) -> None:
    record, arrays = make(dtype)
    stored, is_new = put_corpus(cache, record, arrays)
    assert is_new
    assert corpus_names(cache.path) == ["wild"]
    assert read_record(cache.path, "wild") == stored
    again, read = read_corpus(cache.path, "wild")
    assert again == stored
    assert equal(read, arrays)
    assert verify(cache.path, full=True).is_sound
    assert verify(cache.path).notes == ()


def test_other_programs_read_the_arrays(cache: Cache) -> None:
    record, arrays = make()
    put_corpus(cache, record, arrays)
    tensors = safetensors.numpy.load_file(corpus_path(cache.path, "wild"))
    assert equal(CorpusArrays(**tensors), arrays)


def test_the_same_content_is_not_written_twice(cache: Cache) -> None:
    record, arrays = make()
    put_corpus(cache, record, arrays)
    path = corpus_path(cache.path, "wild")
    before = path.stat().st_ino
    later = replace(record, provenance={"featcache": "1"})
    assert not put_corpus(cache, later, arrays)[1]
    assert path.stat().st_ino == before
    other = replace(record, facts={"k": 4})
    with pytest.raises(UsageError, match=r"other content.*again=True"):
        put_corpus(cache, other, arrays)
    assert put_corpus(cache, other, arrays, replace=True)[1]
    assert read_record(cache.path, "wild").facts == {"k": 4}
    assert put_corpus(cache, replace(record, name="second"), arrays)[1]
    assert corpus_names(cache.path) == ["second", "wild"]


@pytest.mark.parametrize("name", ["", "a/b", "../x", "Wild", ".hidden", "x" * 61, "a b"])
def test_invalid_names_are_refused(cache: Cache, name: str) -> None:
    record, arrays = make(name=name)
    with pytest.raises(UsageError, match="name of a corpus"):
        put_corpus(cache, record, arrays)


def test_a_corpus_is_removed(cache: Cache) -> None:
    put_corpus(cache, *make())
    size = corpus_path(cache.path, "wild").stat().st_size
    assert remove_corpus(cache, "wild") == size
    assert corpus_names(cache.path) == []
    assert verify(cache.path).is_sound
    with pytest.raises(UnknownNameError, match="wild"):
        remove_corpus(cache, "wild")
    with pytest.raises(UnknownNameError, match="corpus ls"):
        read_record(cache.path, "wild")


def test_a_corpus_of_another_data_set_is_named(cache: Cache) -> None:
    own = corpus_path(Path(), "wild")
    there = cache.path.parent.parent / "pets" / "tiny-000000000000" / own
    there.parent.mkdir(parents=True)
    there.touch()
    with pytest.raises(UnknownNameError, match="serves pets/tiny-000000000000, for which"):
        read_record(cache.path, "wild")
    with pytest.raises(UnknownNameError, match="corpus ls"):
        read_record(cache.path, "../wild")


def test_a_changed_byte_is_found_and_repaired(cache: Cache) -> None:
    put_corpus(cache, *make())
    path = corpus_path(cache.path, "wild")
    good = path.read_bytes()
    begin = 8 + int.from_bytes(good[:8], "little")
    for place in (*range(12), *range(12, begin, 17), *range(begin - 3, len(good), 5)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(CorruptCacheError, match="corpus build"):
            read_corpus(cache.path, "wild")
    [problem] = verify(cache.path).problems
    assert (problem.component, problem.file) == ("corpora", "wild.safetensors")
    report = repair(cache.path)
    assert report.is_sound
    assert report.dropped == (Dropped(component="corpora", file="wild.safetensors", rows=()),)
    assert any("corpus build" in str(note) for note in report.notes)
    assert put_corpus(cache, *make())[1]
    assert path.read_bytes() == good


@pytest.mark.parametrize("left", [0, 4, 100, -1])
def test_a_file_that_was_cut_is_found(cache: Cache, left: int) -> None:
    put_corpus(cache, *make())
    path = corpus_path(cache.path, "wild")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(CorruptCacheError):
        read_corpus(cache.path, "wild")
    assert not verify(cache.path).is_sound
    assert put_corpus(cache, *make())[1]  # a damaged one is replaced


def forged(change: Any) -> bytes:
    """Return a file whose description was changed and sealed anew."""
    data = b"".join(encode(*make())[1])
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    value, _ = unseal(header["__metadata__"]["corpus"].strip().encode())
    change(value, header)
    header["__metadata__"]["corpus"] = seal(value)[0].decode()
    text = canonical(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _set(name: str, new: Any) -> Any:
    return lambda value, header: value.update({name: new})


@pytest.mark.parametrize(
    "change",
    [
        _set("rows", 1 << 39),
        _set("rows", N - 1),
        _set("dim", 0),
        _set("dtype", "object"),
        _set("classes", 1),  # labels are then out of range
        _set("classes", 1 << 39),
        _set("sources", []),
        _set("sources", [{"dataset": "x"}]),
        _set("facts", []),
        _set("leaks", 1),
        _set("unknown", 1),
        _set("kind", "head"),
        _set("by", "magic"),
        _set("of", "dreams"),
        _set("sha256", "x"),
        lambda value, header: value.pop("key"),
        lambda value, header: header["values"].update(data_offsets=[0, 8]),
        lambda value, header: header["__metadata__"].update(more="x"),
    ],
)
def test_forged_descriptions_are_refused(cache: Cache, change: Any) -> None:
    put_corpus(cache, *make())
    corpus_path(cache.path, "wild").write_bytes(forged(change))
    with pytest.raises(CorruptCacheError):
        read_corpus(cache.path, "wild")


def test_vectors_without_direction_are_refused(cache: Cache) -> None:
    record, arrays = make()
    for bad in (0, np.nan):
        values = arrays.values.copy()
        values[2] = bad
        put_corpus(cache, record, replace(arrays, values=values), replace=True)
        with pytest.raises(CorruptCacheError, match="zero or not finite"):
            read_corpus(cache.path, "wild")


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_vectors_whose_length_is_no_float32_are_refused(cache: Cache, size: float) -> None:
    record, arrays = make("float32")
    values = arrays.values.copy()
    values[2] = size  # normalised, they would be zero or not a number
    put_corpus(cache, record, replace(arrays, values=values))
    with pytest.raises(CorruptCacheError, match="zero or not finite"):
        read_corpus(cache.path, "wild")


def test_a_later_format_is_told_and_kept(cache: Cache) -> None:
    put_corpus(cache, *make())
    path = corpus_path(cache.path, "wild")
    later = forged(_set("format", corpus_file.FORMAT + 1))
    path.write_bytes(later)
    with pytest.raises(NewerFormatError, match="upgrade"):
        read_corpus(cache.path, "wild")
    assert [str(p) for p in verify(cache.path).problems if "upgrade" in str(p)]
    repair(cache.path)
    assert path.read_bytes() == later
    with pytest.raises(NewerFormatError):
        put_corpus(cache, *make(), replace=True)


def test_links_and_large_files_are_refused(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_corpus(cache, *make())
    path = corpus_path(cache.path, "wild")
    monkeypatch.setenv("FEATCACHE_MAX_METADATA", "100")
    with pytest.raises(CacheError, match="FEATCACHE_MAX_METADATA"):
        read_record(cache.path, "wild")
    monkeypatch.delenv("FEATCACHE_MAX_METADATA")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LinkInCacheError):
        read_corpus(cache.path, "wild")
    path.unlink()
    path.parent.rmdir()
    (tmp_path / "folder").mkdir()
    path.parent.symlink_to(tmp_path / "folder")
    with pytest.raises(LinkInCacheError):
        put_corpus(cache, *make())
    assert not verify(cache.path).is_sound


def test_a_file_under_another_name_is_told(cache: Cache) -> None:
    put_corpus(cache, *make())
    corpus_path(cache.path, "wild").rename(corpus_path(cache.path, "tame"))
    with pytest.raises(CorruptCacheError, match="'wild'"):
        read_corpus(cache.path, "tame")

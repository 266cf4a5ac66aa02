import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.errors import CacheError, CorruptCacheError, NewerFormatError, UsageError
from featcache.keys import FeatureKey
from featcache.store.bad import bad_rows
from featcache.store.format.identity import Identity
from featcache.store.format.manifest import Contents, read_manifest, write_manifest
from featcache.store.format.records import (
    DropLine,
    PassLine,
    ShardLine,
    TextLine,
    from_json,
    to_json,
)
from featcache.store.format.seal import seal, unseal
from featcache.store.format.shard import ShardFacts

KEY = FeatureKey(
    architecture="toy", weights="0" * 64, activation="gelu", image_size=32, preprocessing="none"
)
MINE = Identity("toys", "Toy/1", KEY)


def shard(start: int, **changes: Any) -> ShardLine:
    facts = ShardFacts(
        offset=2048, shape=(4, 8), dtype="float16", bytes=4096, crc32=7, sha256="f" * 64
    )
    fields: dict[str, Any] = {
        "component": "global",
        "file": f"{start:08d}-{start + 4:08d}.h5",
        "rows": ((start, start + 4),),
        "bad": ((1, "is cut off"),),
        "images_crc32": 5,
        "facts": facts,
        "provenance": {"torch": "2"},
    }
    return ShardLine(**{**fields, **changes})


FINISHED = PassLine(time=12.5, components=("global",), images=8, seconds=1.25, complete=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "manifest.jsonl"
    write_manifest(target, MINE)
    manifest = read_manifest(target, MINE)
    for line in (shard(0), shard(4), FINISHED):
        manifest.append(line)
    return target


def sealed(path: Path, *values: dict[str, Any]) -> None:
    """Write lines with right checksums, whatever they say."""
    crc, out = 0, b""
    for value in values:
        line, crc = seal(value, crc)
        out += line
    path.write_bytes(out)


HEADER, _ = unseal(MINE.line()[:-1])


def test_lines_come_back_as_they_were_written(path: Path) -> None:
    manifest = read_manifest(path, MINE)
    assert manifest.lines == [shard(0), shard(4), FINISHED]
    assert manifest.torn == 0
    assert manifest.size == path.stat().st_size
    for line in path.read_bytes().splitlines():
        assert json.loads(line)["crc"]


def test_every_possible_tear_of_the_last_line_is_survived(path: Path) -> None:
    data = path.read_bytes()
    last = data.rindex(b"\n", 0, -1) + 1
    for end in range(last, len(data)):
        path.write_bytes(data[:end])
        manifest = read_manifest(path, MINE)
        assert manifest.lines == [shard(0), shard(4)]
        assert manifest.torn == end - last
    manifest.append(FINISHED)
    assert path.read_bytes() == data


def test_zeros_in_the_last_line_are_a_power_cut_and_in_others_damage(path: Path) -> None:
    """A file may be as long as it was to be, and sectors of it zeros."""
    data = path.read_bytes()
    last = data.rindex(b"\n", 0, -1) + 1
    for first in range(last, len(data)):
        for stop in (first + 1, (first + len(data) + 1) // 2, len(data)):
            path.write_bytes(data[:first] + bytes(stop - first) + data[stop:])
            manifest = read_manifest(path, MINE)
            assert manifest.lines == [shard(0), shard(4)]
            assert manifest.torn == len(data) - last
    manifest.append(FINISHED)
    assert path.read_bytes() == data
    path.write_bytes(data[: last - 9] + bytes(4) + data[last - 5 :])
    with pytest.raises(CorruptCacheError, match=r"Line 3 of .*featcache repair"):
        read_manifest(path, MINE)


def test_a_flipped_byte_anywhere_in_whole_lines_is_found(path: Path) -> None:
    data = path.read_bytes()
    for position in {*range(0, len(data), 5), *range(len(data) - 30, len(data))}:
        broken = bytearray(data)
        broken[position] ^= 1
        path.write_bytes(broken)
        with pytest.raises((CorruptCacheError, NewerFormatError)):
            read_manifest(path, MINE)


@pytest.mark.parametrize(
    ("order", "line"), [([0, 2, 1, 3], 2), ([0, 2, 3], 2), ([0, 1, 1, 2, 3], 3), ([1, 2, 3], 1)]
)
def test_swapped_missing_and_repeated_lines_are_found(
    path: Path, order: list[int], line: int
) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[i] for i in order))
    with pytest.raises(CorruptCacheError, match=f"Line {line} of .*manifest"):
        read_manifest(path, MINE)


def test_a_stray_byte_in_the_place_of_the_last_line_feed_is_damage(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert read_manifest(path, MINE).torn > 0
    path.write_bytes(data[:-1] + b"\x0b")
    with pytest.raises(CorruptCacheError, match=r"Line 4 of .*featcache repair"):
        read_manifest(path, MINE)


def test_other_formats_say_what_helps(path: Path) -> None:
    sealed(path, {**HEADER, "format": 3, "anything": "else"})
    with pytest.raises(NewerFormatError, match="pip install --upgrade featcache"):
        read_manifest(path, MINE)
    sealed(path, {**HEADER, "format": 1})
    with pytest.raises(CacheError, match=r"format 2 only.*featcache rm"):
        read_manifest(path, MINE)


def test_a_manifest_of_another_cache_is_refused(path: Path) -> None:
    with pytest.raises(CorruptCacheError, match="belongs to toys"):
        read_manifest(path, Identity("others", "Toy/1", KEY))


def test_a_manifest_written_at_once_is_the_one_written_line_by_line(path: Path) -> None:
    data = path.read_bytes()
    write_manifest(path, MINE, read_manifest(path, MINE).lines)
    assert path.read_bytes() == data


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"\0" * 64, b"[]\n"])
def test_what_is_no_manifest_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CorruptCacheError, match="featcache"):
        read_manifest(path, MINE)


WRONG: list[dict[str, Any]] = [
    {"file": "../../etc/passwd"},
    {"file": "/etc/passwd"},
    {"file": "00000000-00000004.h5\n"},
    {"file": ".h5"},
    {"component": ".."},
    {"component": "global/.."},
    {"component": "text.0123456789ab"},
    {"component": 3},
    {"rows": [[0, 3]]},
    {"rows": [[0, 5]]},
    {"rows": [[2, 4], [0, 2]]},
    {"rows": [[0, 2], [1, 3]]},
    {"rows": [[-1, 3]]},
    {"rows": [[4, 4], [0, 4]]},
    {"rows": [[0, 4, 8]]},
    {"rows": "0-4"},
    {"rows": [[0, True]]},
    {"bad": [1]},
    {"bad": [[4, "?"]]},
    {"bad": [[1, "?"], [1, "?"]]},
    {"bad": [[1, 2]]},
    {"bad": [[1, "x" * 301]]},
    {"bad": [[1]]},
    {"provenance": {"torch": 2}},
    {"provenance": {"torch": "x" * 200}},
    {"provenance": {str(i): "" for i in range(65)}},
    {"provenance": []},
    {"extra": 1},
    {"facts": {"offset": 4096}},
    {"facts": {"offset": -1}},
    {"facts": {"shape": [4, 0]}},
    {"facts": {"shape": [4, 8.0]}},
    {"facts": {"shape": [1 << 60, 8]}},
    {"facts": {"dtype": "object"}},
    {"facts": {"dtype": ["float16"]}},
    {"facts": {"crc32": 1 << 32}},
    {"facts": {"sha256": "F" * 64}},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_every_field_is_checked(path: Path, change: dict[str, Any]) -> None:
    good = json.loads(json.dumps(to_json(shard(0))))
    sealed(path, HEADER, good)
    assert read_manifest(path, MINE).lines == [shard(0)]
    facts = {**good["facts"], **change.get("facts", {})}
    sealed(path, HEADER, {**good, **change, "facts": facts})
    with pytest.raises(CorruptCacheError, match="Line 2 of"):
        read_manifest(path, MINE)


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(["kind", "component", "file", "rows", "facts", "bad", "time", "images"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
    )
)
def test_strange_lines_end_in_one_kind_of_error(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^(has|is|names) "):
        from_json(value)


def test_a_writer_notices_another_one(path: Path) -> None:
    first, second = read_manifest(path, MINE), read_manifest(path, MINE)
    first.append(shard(8))
    with pytest.raises(CacheError, match="another process"):
        second.append(shard(12))
    assert read_manifest(path, MINE).lines[-1] == shard(8)


def test_bad_positions_are_rows_of_the_listing() -> None:
    facts = ShardFacts(
        offset=2048, shape=(7, 8), dtype="float16", bytes=4096, crc32=7, sha256="f" * 64
    )
    rows = ((3, 5), (10, 11), (20, 24))
    bad = ((0, "a"), (1, "b"), (2, "c"), (6, "d"))
    assert shard(0, facts=facts, rows=rows, bad=bad).bad_rows() == {
        3: "a",
        4: "b",
        10: "c",
        23: "d",
    }


def test_later_shards_mend_or_break_rows() -> None:
    whole = shard(0, bad=((0, "a"), (1, "b"), (3, "c")))
    mended = shard(1, rows=((1, 3), (4, 6)), bad=((3, "z"),))
    assert bad_rows([whole]) == {0: "a", 1: "b", 3: "c"}
    assert bad_rows([whole, mended]) == {0: "a", 3: "c", 5: "z"}
    assert bad_rows([mended, whole]) == {0: "a", 1: "b", 3: "c", 5: "z"}
    assert bad_rows([shard(0, bad=())]) == {}


def test_dropped_shards_no_longer_count() -> None:
    again = shard(0, bad=())
    drop = DropLine(component="global", file=shard(0).file, rows=shard(0).rows)
    assert Contents([shard(0), drop]).shards == {}
    assert Contents([shard(0), shard(4), drop, again]).shards == {"global": [shard(4), again]}
    assert Contents([FINISHED]).passes == [FINISHED]


def test_no_line_is_written_that_no_reader_takes(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, MINE)
    manifest, before = read_manifest(path, MINE), path.read_bytes()
    for line in (
        shard(0, component="nonsense"),
        shard(0, rows=((0, 1),)),
        shard(0, rows=((3, 4), (0, 4))),
        shard(0, file="a.h5"),
        DropLine(component="global", file=shard(0).file, rows=((4, 4),)),
        DropLine(component="text.abc", file="rows.h5", rows=((0, 4),)),
        PassLine(time=float("nan"), components=(), images=0, seconds=0.0, complete=True),
        PassLine(time=1.0, components=(), images=-1, seconds=0.0, complete=True),
    ):
        with pytest.raises(UsageError, match="Nothing was written"):
            manifest.append(line)
    assert path.read_bytes() == before
    manifest.append(shard(0))
    assert read_manifest(path, MINE).lines == [shard(0)]


def text(component: str) -> TextLine:
    return TextLine(
        component=component, strings_bytes=2, strings_sha256="0" * 64, facts=shard(0).facts,
        provenance={},
    )  # fmt: skip


def test_older_texts_do_not_replace_dropped_ones() -> None:
    old, new = text("text.aa"), text("text.bb")
    drop = DropLine(component="text.bb", file="rows.h5", rows=())
    assert Contents([old, new, drop]).text is None
    assert Contents([old, new, drop, old]).text == old
    assert Contents([new, old, drop]).text == old


@pytest.mark.parametrize(
    "change", [{"kind": "tower"}, {"component": "depth.map-4"}, {"component": "global.x-1.int4"}]
)
def test_a_sealed_line_that_is_unknown_is_of_a_later_version(
    path: Path, change: dict[str, Any]
) -> None:
    sealed(path, HEADER, {**to_json(shard(0)), **change})
    with pytest.raises(NewerFormatError, match=r"Line 2 of .*later version.*upgrade featcache"):
        read_manifest(path, MINE)

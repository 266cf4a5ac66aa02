import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.errors import CacheError, CorruptCacheError, NewerFormatError
from featcache.store.lines import DropLine, PassLine, ShardLine, from_json, to_json
from featcache.store.manifest import (
    contents_of,
    create_manifest,
    read_manifest,
    truncate,
)
from featcache.store.shard import ShardFacts

DIGEST = "0123456789ab"


def shard(start: int, **changes: Any) -> ShardLine:
    facts = ShardFacts(
        offset=2048, shape=(4, 8), dtype="float16", bytes=4096, crc32=7, sha256="f" * 64
    )
    fields: dict[str, Any] = {
        "component": "global",
        "file": f"{start:08d}-{start + 4:08d}.h5",
        "rows": ((start, start + 4),),
        "bad": (1,),
        "facts": facts,
        "versions": {"torch": "2"},
    }
    return ShardLine(**{**fields, **changes})


FINISHED = PassLine(time=12.5, components=("global",), images=8, seconds=1.25, complete=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "manifest.jsonl"
    create_manifest(target, DIGEST)
    manifest = read_manifest(target, DIGEST)
    for line in (shard(0), shard(4), FINISHED):
        manifest.append(line)
    return target


def sealed(path: Path, *values: dict[str, Any]) -> None:
    """Write lines with right checksums, whatever they say."""
    crc, out = 0, b""
    for value in values:
        body = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        crc = zlib.crc32(body, zlib.crc32(b"%08x" % crc))
        out += body[:-1] + b',"crc":"%08x"}\n' % crc
    path.write_bytes(out)


HEADER = {"kind": "header", "format": 1, "key": DIGEST}


def test_lines_come_back_as_they_were_written(path: Path) -> None:
    manifest = read_manifest(path, DIGEST)
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
        manifest = read_manifest(path, DIGEST)
        assert manifest.lines == [shard(0), shard(4)]
        assert manifest.torn == end - last
    manifest.append(FINISHED)
    assert path.read_bytes() == data


def test_a_flipped_byte_anywhere_in_whole_lines_is_found(path: Path) -> None:
    data = path.read_bytes()
    for position in {*range(0, len(data), 5), *range(len(data) - 30, len(data))}:
        broken = bytearray(data)
        broken[position] ^= 1
        path.write_bytes(broken)
        if position == len(data) - 1:
            # Without its newline the last line is one that was never finished.
            assert read_manifest(path, DIGEST).lines == [shard(0), shard(4)]
            continue
        with pytest.raises((CorruptCacheError, NewerFormatError)):
            read_manifest(path, DIGEST)


@pytest.mark.parametrize(
    ("order", "line"), [([0, 2, 1, 3], 2), ([0, 2, 3], 2), ([0, 1, 1, 2, 3], 3), ([1, 2, 3], 1)]
)
def test_swapped_missing_and_repeated_lines_are_found(
    path: Path, order: list[int], line: int
) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[i] for i in order))
    with pytest.raises(CorruptCacheError, match=f"Line {line} of .*manifest"):
        read_manifest(path, DIGEST)


def test_salvage_keeps_what_stands_before_the_damage(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1] + lines[3] + lines[2])
    manifest = read_manifest(path, DIGEST, salvage=True)
    assert manifest.lines == [shard(0)]
    truncate(manifest)
    assert read_manifest(path, DIGEST).lines == [shard(0)]


def test_a_later_format_asks_for_an_update(path: Path) -> None:
    sealed(path, {**HEADER, "format": 2, "anything": "else"})
    with pytest.raises(NewerFormatError, match="pip install --upgrade featcache"):
        read_manifest(path, DIGEST)


def test_a_manifest_of_another_cache_is_refused(path: Path) -> None:
    with pytest.raises(CorruptCacheError, match="belongs to the key"):
        read_manifest(path, "f" * 12)


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"\0" * 64, b"[]\n"])
def test_what_is_no_manifest_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CorruptCacheError, match="featcache"):
        read_manifest(path, DIGEST)


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
    {"bad": [4]},
    {"bad": [1, 1]},
    {"versions": {"torch": 2}},
    {"extra": 1},
    {"kind": "pickle"},
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
    assert read_manifest(path, DIGEST).lines == [shard(0)]
    facts = {**good["facts"], **change.get("facts", {})}
    sealed(path, HEADER, {**good, **change, "facts": facts})
    with pytest.raises(CorruptCacheError, match="Line 2 of"):
        read_manifest(path, DIGEST)


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
    first, second = read_manifest(path, DIGEST), read_manifest(path, DIGEST)
    first.append(shard(8))
    with pytest.raises(CacheError, match="another process"):
        second.append(shard(12))
    assert read_manifest(path, DIGEST).lines[-1] == shard(8)


def test_dropped_shards_no_longer_count() -> None:
    again = shard(0, bad=())
    drop = DropLine(component="global", file=shard(0).file)
    assert contents_of([shard(0), drop]).shards == {}
    assert contents_of([shard(0), shard(4), drop, again]).shards == {"global": [shard(4), again]}
    assert contents_of([FINISHED]).passes == [FINISHED]

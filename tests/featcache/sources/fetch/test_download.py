"""Files from servers that cut, stall, lie, change their mind, or are not there."""

import hashlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from featcache.errors import DownloadNeededError, SourceError
from featcache.sources.fetch import partial
from featcache.sources.fetch.archive import Archive
from featcache.sources.fetch.download import Downloaded, download
from tests.featcache.sources.fetch.serving import (
    FileServer,
    Handler,
    cut_after,
    etag_of,
    in_turn,
    status,
    whole,
)

DATA = random.Random(1).randbytes(3 << 20)
OTHER = random.Random(2).randbytes(3 << 20)
Describe = Callable[..., Archive]


def same(got: Downloaded, data: bytes = DATA) -> bool:
    return got.path.read_bytes() == data and got.digest.endswith(hashlib.sha256(data).hexdigest())


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_fetched_checked_and_reported(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    said: list[tuple[str, int, int]] = []
    archive = describe(DATA, server.put("/a", DATA))
    got = download(archive, tmp_path, report=lambda *args: said.append(args))
    assert same(got)
    assert got.url == server.url("/a")
    assert leftovers(tmp_path) == ["pets.zip"]
    assert {what for what, _, _ in said} == {"downloading pets.zip"}
    assert said[-1][1:] == (len(DATA), len(DATA))
    assert download(archive, tmp_path).url == ""
    assert len(server.asked) == 1


def test_a_cut_connection_is_continued(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    url = server.put("/a", DATA, in_turn(cut_after(1_000_000), cut_after(1_000_000), whole))
    assert same(download(describe(DATA, url), tmp_path))
    assert server.ranges() == [0, 1_000_000, 2_000_000]
    assert server.asked[1][1]["if-range"] == etag_of(DATA)


def test_a_connection_that_is_cut_for_ever_ends_in_a_sentence(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    url = server.put("/a", DATA, cut_after(10))
    with pytest.raises(
        DownloadNeededError, match=r"ended after 40 of 3145728 bytes; tried 4 times"
    ):
        download(describe(DATA, url), tmp_path)
    server.put("/a", DATA)
    assert same(download(describe(DATA, url), tmp_path))
    assert server.ranges()[-1] == 40


def test_progress_renews_the_patience(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    data = DATA * 3
    url = server.put("/a", data, cut_after(1 << 20))
    assert same(download(describe(data, url), tmp_path), data)
    assert len(server.asked) == 9


def test_a_server_that_ignores_range_starts_again(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    def from_the_start(h: Handler, data: bytes) -> None:
        h.start(200, Content_Length=len(data))
        h.say(data)

    url = server.put("/a", DATA, in_turn(cut_after(1_000_000), from_the_start))
    assert same(download(describe(DATA, url), tmp_path))
    assert server.ranges() == [0, 1_000_000]


@pytest.mark.parametrize("vouched", [True, False])
def test_a_file_that_changes_between_two_parts_is_never_mixed(
    server: FileServer, tmp_path: Path, describe: Describe, vouched: bool
) -> None:
    once = in_turn(cut_after(1_000_000), status(404))
    archive = describe(OTHER, server.put("/a", DATA, once))
    if not vouched:
        archive = Archive("pets.zip", archive.urls)
    with pytest.raises(DownloadNeededError):
        download(archive, tmp_path)
    assert (tmp_path / "pets.zip.part").read_bytes() == DATA[:1_000_000]
    server.put("/a", OTHER)
    assert same(download(archive, tmp_path), OTHER)
    assert server.ranges() == [0, 1_000_000, 1_000_000]


def test_a_change_that_only_the_checksum_shows(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    def blind(h: Handler, data: bytes) -> None:
        first = h.first()
        h.start(
            206 if first else 200,
            Content_Length=len(data) - first,
            **({"Content_Range": f"bytes {first}-{len(data) - 1}/{len(data)}"} if first else {}),
        )
        h.say(data[first : first + 2_000_000])
        h.cut()

    url = server.put("/a", DATA, blind)
    archive = describe(OTHER, url)
    with pytest.raises(DownloadNeededError, match="is not the published one"):
        download(archive, tmp_path)

    (tmp_path / "pets.zip.part").write_bytes(DATA[:1_000_000])
    (tmp_path / "pets.zip.part.json").write_text(f'{{"url": "{url}", "size": {len(DATA)}}}')
    server.put("/a", OTHER, blind)
    assert same(download(archive, tmp_path), OTHER)


def test_416_of_a_whole_file_is_the_end_of_it(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    url = server.put("/a", DATA)
    (tmp_path / "pets.zip.part").write_bytes(DATA)
    (tmp_path / "pets.zip.part.json").write_text(f'{{"url": "{url}"}}')
    assert same(download(describe(DATA, url, bytes=None), tmp_path))
    assert server.ranges() == [len(DATA)]


def test_416_of_a_shorter_file_starts_again(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    url = server.put("/a", OTHER[:5])
    (tmp_path / "pets.zip.part").write_bytes(DATA)
    (tmp_path / "pets.zip.part.json").write_text(f'{{"url": "{url}"}}')
    assert same(download(describe(OTHER[:5], url, bytes=None), tmp_path), OTHER[:5])
    assert server.ranges() == [len(DATA), 0]


def test_416_for_ever(server: FileServer, tmp_path: Path, describe: Describe) -> None:
    url = server.put("/a", DATA, in_turn(cut_after(10), status(416)))
    with pytest.raises(DownloadNeededError, match=r"answered 416|other bytes"):
        download(describe(DATA, url), tmp_path)


def test_mirrors_are_tried_in_order_and_each_is_named(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    urls = (
        server.url("/none"),
        server.put("/forbidden", DATA, status(403)),
        server.put("/broken", DATA, status(500)),
        server.put("/wrong", OTHER),
        server.put("/short", DATA[:-1]),
    )
    with pytest.raises(DownloadNeededError) as caught:
        download(describe(DATA, *urls), tmp_path, title="Oxford Pets")
    message = str(caught.value)
    assert "pets.zip of Oxford Pets (3.1 MB) could not be fetched" in message
    reasons = (
        "answered 404 Not Found",
        "answered 403 Forbidden",
        "answered 500 Internal Server Error; tried 4 times",
        "is not the published one",
        "it offers 3145727 bytes, 3145728 were published",
    )
    for url, reason in zip(urls, reasons, strict=True):
        assert url in message.split(reason)[0], reason
    assert "dataset_root" in message
    assert leftovers(tmp_path) == []
    good = server.put("/good", DATA)
    assert same(download(describe(DATA, *urls, good), tmp_path))


def test_another_mirror_continues_what_the_first_began(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    urls = server.put("/a", DATA, cut_after(1000)), server.put("/b", DATA)
    assert same(download(describe(DATA, *urls), tmp_path))
    assert server.ranges()[-1] == 4000
    assert "if-range" not in server.asked[-1][1]


def test_a_busy_server_is_asked_again_after_the_time_it_names(
    server: FileServer, tmp_path: Path, describe: Describe, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    url = server.put(
        "/a", DATA, in_turn(status(503, Retry_After=7), status(429, Retry_After=9999), whole)
    )
    assert same(download(describe(DATA, url), tmp_path))
    assert [s for s in slept if s >= 1] == [7, 60]


def test_a_length_that_lies(server: FileServer, tmp_path: Path, describe: Describe) -> None:
    def short(h: Handler, data: bytes) -> None:
        h.start(200, Content_Length=len(data))
        h.say(data[:-7])
        h.cut()

    with pytest.raises(DownloadNeededError, match="ended after"):
        download(Archive("a.zip", (server.put("/a", DATA, short),)), tmp_path)


def test_more_than_was_said_is_never_written(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    def endless(h: Handler, data: bytes) -> None:
        h.start(200)
        while True:
            h.say(data)

    url = server.put("/a", DATA, endless)
    with pytest.raises(DownloadNeededError, match="sends more than 3145728 bytes"):
        download(describe(DATA, url), tmp_path)
    assert leftovers(tmp_path) == []


def test_the_limit_of_a_download(
    server: FileServer, tmp_path: Path, describe: Describe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATCACHE_MAX_DOWNLOAD", "1000000")
    url = server.put("/a", DATA)
    for archive in (describe(DATA, url), Archive("a.zip", (url,))):
        with pytest.raises(SourceError, match=r"more than the limit.*FEATCACHE_MAX_DOWNLOAD"):
            download(archive, tmp_path)
    assert leftovers(tmp_path) == []


def chunked(h: Handler, data: bytes) -> None:
    h.start(200, Transfer_Encoding="chunked")
    for at in range(0, len(data), 100_000):
        part = data[at : at + 100_000]
        h.say(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    h.say(b"0\r\n\r\n")


def test_a_body_without_a_length(server: FileServer, tmp_path: Path, describe: Describe) -> None:
    url = server.put("/a", DATA, chunked)
    assert same(download(describe(DATA, url), tmp_path))
    assert same(download(Archive("b.zip", (url,)), tmp_path))


def test_a_cut_chunk_is_no_end(server: FileServer, tmp_path: Path) -> None:
    def half(h: Handler, data: bytes) -> None:
        h.start(200, Transfer_Encoding="chunked")
        h.say(f"{len(data):x}\r\n".encode() + data[:1000])
        h.cut()

    with pytest.raises(DownloadNeededError, match="tried 4 times"):
        download(Archive("b.zip", (server.put("/a", DATA, half),)), tmp_path)


def test_md5_and_size_vouch_where_there_is_no_sha256(server: FileServer, tmp_path: Path) -> None:
    urls = (server.put("/a", OTHER), server.put("/b", DATA))
    md5 = hashlib.md5(DATA).hexdigest()
    got = download(Archive("a.zip", urls, md5=md5), tmp_path)
    assert got.path.read_bytes() == DATA
    assert got.digest == f"md5:{md5}"
    assert download(Archive("b.zip", urls, len(DATA)), tmp_path).path.read_bytes() == OTHER


def test_what_nothing_vouches_for_is_continued_from_what_was_synced_alone(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial, "SYNC_EVERY", 1 << 20)
    url = server.put("/a", DATA)
    (tmp_path / "a.zip.part").write_bytes(
        DATA[:1000] + bytes(1_000_000)
    )  # as a power cut leaves it
    note = f'{{"url": "{url}", "validator": "\\"{etag_of(DATA)[1:-1]}\\"", "synced": 1000}}'
    (tmp_path / "a.zip.part.json").write_text(note)
    assert same(download(Archive("a.zip", (url,)), tmp_path))
    assert server.ranges() == [1000]


@pytest.mark.parametrize(
    "note", ["", "[]", "{", '{"url": 3, "size": "x", "synced": -1}', "9" * 5000]
)
def test_a_damaged_note_of_a_part(
    server: FileServer, tmp_path: Path, describe: Describe, note: str
) -> None:
    (tmp_path / "pets.zip.part").write_bytes(OTHER[:500])
    (tmp_path / "pets.zip.part.json").write_text(note)
    assert same(download(describe(DATA, server.put("/a", DATA)), tmp_path))


def test_a_part_that_is_a_link_is_not_followed(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / "pets.zip.part").symlink_to(tmp_path / "precious")
    with pytest.raises(SourceError, match=r"pets\.zip\.part"):
        download(describe(DATA, server.put("/a", DATA)), tmp_path)
    assert (tmp_path / "precious").read_text() == "x"


def test_too_little_room_is_said_before_a_byte_is_asked_for(
    server: FileServer, tmp_path: Path
) -> None:
    def huge(h: Handler, _: bytes) -> None:
        h.start(200, Content_Length=1 << 37)

    import os

    with pytest.MonkeyPatch.context() as patch:
        real = os.statvfs(tmp_path)
        fields = list(real)
        fields[4] = 10  # free blocks
        patch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
        with pytest.raises(
            SourceError, match=r"a\.zip needs about 137\.4 GB.*free there.*data_root"
        ):
            download(Archive("a.zip", (server.put("/a", DATA, huge),)), tmp_path)
    assert leftovers(tmp_path) == []


def test_what_a_server_says_reaches_a_terminal_escaped(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    def rude(h: Handler, _: bytes) -> None:
        h.wfile.write(b"HTTP/1.1 418 \x1b[2J\x07gone\r\nContent-Length: 0\r\n\r\n")

    with pytest.raises(DownloadNeededError) as caught:
        download(describe(DATA, server.put("/a", DATA, rude)), tmp_path)
    assert "\x1b" not in str(caught.value)
    assert "418" in str(caught.value)


def test_a_body_longer_than_its_length_is_cut_there(
    server: FileServer, tmp_path: Path, describe: Describe
) -> None:
    def long(h: Handler, data: bytes) -> None:
        h.start(200, Content_Length=len(data))
        h.say(data + b"more")
        h.cut()

    assert same(download(describe(DATA, server.put("/a", DATA, long)), tmp_path))

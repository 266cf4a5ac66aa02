"""Zip archives: what is read in place, and everything that is refused."""

import io
import struct
import zipfile
from pathlib import Path

import pytest

from featcache.errors import SourceError
from featcache.limits import IMAGE_FILE
from featcache.sources.trees.archive import ArchiveTree, open_archive
from featcache.sources.trees.zip_index import FREE, RATIO

LONG = bytes(range(256)) * 40


def packed(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def read(tree: ArchiveTree, path: str) -> bytes:
    place = tree.find(path)
    assert place is not None
    return place.read(IMAGE_FILE)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return packed(tmp_path / "photos.zip", {"cat/1.jpg": LONG, "cat/2.jpg": b"", "dog/1.jpg": b"x"})


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_are_read_in_place(tmp_path: Path, method: int) -> None:
    files = {"cat/1.jpg": LONG, "cat/2.jpg": b"", "dog/été.jpg": b"x" * 1000}
    tree = open_archive(packed(tmp_path / "p.zip", files, method))
    assert {name: read(tree, name) for name in files} == files
    place = tree.find("cat/1.jpg")
    assert place is not None
    assert (str(place), place.within, place.container) == (
        "p.zip: cat/1.jpg", "cat/1.jpg", tmp_path / "p.zip",
    )  # fmt: skip
    assert tree.find("cat/3.jpg") is tree.find("cat") is tree.find("../cat/1.jpg") is None


def test_an_archive_written_to_a_pipe_has_its_sizes_behind_the_bytes(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.data += bytes(data)  # type: ignore[call-overload]
            return len(data)  # type: ignore[arg-type]

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.jpg", LONG)
    (tmp_path / "p.zip").write_bytes(pipe.data)
    assert read(open_archive(tmp_path / "p.zip"), "cat/1.jpg") == LONG


def test_numbers_of_64_bits(tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("cat/1.jpg", "w", force_zip64=True) as file,
    ):
        file.write(LONG)
    assert read(open_archive(path), "cat/1.jpg") == LONG
    # The same archive with every number in the directory where zip64 has it.
    data = path.read_bytes()
    at = data.index(b"PK\1\2")
    entry = bytearray(data[at : data.index(b"PK\5\6")])
    (size,) = struct.unpack_from("<L", entry, 24)
    (small,) = struct.unpack_from("<L", entry, 20)
    extra = struct.pack("<HHQQQ", 1, 24, size, small, 0)
    struct.pack_into("<LL", entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<L", entry, 42, 0xFFFFFFFF)
    name_length, old = struct.unpack_from("<HH", entry, 28)
    struct.pack_into("<H", entry, 30, len(extra))
    directory = bytes(entry[: 46 + name_length]) + extra + bytes(entry[46 + name_length + old :])
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(directory), at)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(data[:at] + directory + end64 + locator + end)
    with zipfile.ZipFile(path) as archive:
        assert archive.read("cat/1.jpg") == LONG
    assert read(open_archive(path), "cat/1.jpg") == LONG


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/etc/cat.jpg", "is absolute"),
        ("../cat.jpg", "leads out"),
        ("cat/../../1.jpg", "leads out"),
        ("cat\\1.jpg", "has a backslash"),
        ("cat/\n.jpg", "has control characters"),
        ("cat/\x9b31m.jpg", "has control characters"),
        ("a" * 5000 + ".jpg", "is longer than 4096 bytes"),
        ("a/" * 70 + "1.jpg", "lies in more than 64 folders"),
    ],
)
def test_names_that_are_refused(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(SourceError, match=f"{why}.*folder:PATH"):
        open_archive(packed(tmp_path / "p.zip", {"a/1.jpg": b"x", name: b"y"}))


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "p.zip", {"a/1.jpg": b"x"})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a/1.jpg", b"y")
    with pytest.raises(SourceError, match=r"two files called 'a/1\.jpg'"):
        open_archive(path)
    with pytest.raises(SourceError, match=r"two files called 'a/1\.jpg'"):
        open_archive(packed(tmp_path / "q.zip", {"a/1.jpg": b"x", "a//./1.jpg": b"y"}))
    with pytest.raises(SourceError, match=r"both a file and a folder called 'a/1\.jpg'"):
        open_archive(packed(tmp_path / "r.zip", {"a/1.jpg": b"x", "a/1.jpg/deep/2.jpg": b"y"}))


@pytest.mark.parametrize(
    ("mode", "what"), [(0o120777, "a symbolic link"), (0o010644, "a device or a pipe")]
)
def test_links_and_pipes_are_refused(tmp_path: Path, mode: int, what: str) -> None:
    entry = zipfile.ZipInfo("a/1.jpg")
    entry.create_system, entry.external_attr = 3, mode << 16
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr(entry, b"/etc/passwd")
    with pytest.raises(SourceError, match=f"holds {what}"):
        open_archive(tmp_path / "p.zip")


def changed(path: Path, signature: bytes, offset: int, layout: str, value: int) -> Path:
    """Write another number into the first header of a kind."""
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, data.index(signature) + offset, value)
    path.write_bytes(data)
    return path


def test_encrypted_archives_are_refused(photos: Path) -> None:
    with pytest.raises(SourceError, match=r"is encrypted.*Unpack it once"):
        open_archive(changed(photos, b"PK\1\2", 8, "<H", 1))


def test_other_methods_are_refused_by_number(tmp_path: Path) -> None:
    path = packed(tmp_path / "p.zip", {"a/1.jpg": LONG}, zipfile.ZIP_BZIP2)
    with pytest.raises(SourceError, match="by method 12"):
        open_archive(path)


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [
        (10, "<H", 0),  # method
        (16, "<L", 1),  # checksum
        (24, "<L", len(LONG) - 1),  # fewer bytes than there are
        (24, "<L", len(LONG) + 1),
    ],
)
def test_a_directory_that_lies_shows_when_the_file_is_read(
    photos: Path, offset: int, layout: str, value: int
) -> None:
    if offset == 10:  # stored files have one size
        data = bytearray(photos.read_bytes())
        at = data.index(b"PK\1\2")
        data[at + 24 : at + 28] = data[at + 20 : at + 24]
        photos.write_bytes(data)
    tree = open_archive(changed(photos, b"PK\1\2", offset, layout, value))
    with pytest.raises(OSError, match="is damaged"):
        read(tree, "cat/1.jpg")
    assert read(tree, "dog/1.jpg") == b"x"


@pytest.mark.parametrize("size", [len(LONG) - 1, len(LONG) + 1])
def test_two_headers_that_lie_alike_are_found_out_by_the_bytes(photos: Path, size: int) -> None:
    tree = open_archive(
        changed(changed(photos, b"PK\1\2", 24, "<L", size), b"PK\3\4", 22, "<L", size)
    )
    with pytest.raises(OSError, match=f"does not unpack to the {size} bytes"):
        read(tree, "cat/1.jpg")


@pytest.mark.parametrize("at", [8, 30, 45, 60])
def test_damaged_bytes_are_noticed(photos: Path, at: int) -> None:
    data = bytearray(photos.read_bytes())
    data[at] ^= 0x40
    photos.write_bytes(data)
    tree = open_archive(photos)
    with pytest.raises(OSError, match="is damaged"):
        read(tree, "cat/1.jpg")


def test_a_file_that_swells_beyond_the_ratio_is_not_unpacked(tmp_path: Path) -> None:
    files = {"a/bomb.bmp": bytes(FREE + 1), "a/flat.bmp": bytes(FREE)}
    tree = open_archive(packed(tmp_path / "p.zip", files))
    with pytest.raises(OSError, match=f"more than {RATIO} times"):
        read(tree, "a/bomb.bmp")
    assert read(tree, "a/flat.bmp") == files["a/flat.bmp"]


def test_a_file_above_the_limit_is_not_read(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IMAGE_FILE.variable, "1000")
    with pytest.raises(OSError, match=f"10240 bytes.*{IMAGE_FILE.variable} raises it"):
        read(open_archive(photos), "cat/1.jpg")


def test_files_that_share_bytes_are_refused(photos: Path) -> None:
    """Else a few megabytes could be listed a million times."""
    data = bytearray(photos.read_bytes())
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    struct.pack_into("<L", data, second + 42, 10)
    photos.write_bytes(data)
    with pytest.raises(SourceError, match="lie over each other"):
        open_archive(photos)


def test_too_many_files_are_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATCACHE_MAX_MEMBERS", "2")
    with pytest.raises(SourceError, match=r"more than 2 files.*FEATCACHE_MAX_MEMBERS raises"):
        open_archive(photos)


def test_every_cut_is_noticed(photos: Path) -> None:
    whole = photos.read_bytes()
    for length in range(len(whole)):
        photos.write_bytes(whole[:length])
        with pytest.raises(SourceError):
            open_archive(photos)


def test_any_changed_byte_gives_the_same_files_or_an_error(photos: Path) -> None:
    whole = photos.read_bytes()
    before = open_archive(photos)
    files = {image.id: image.place.read(IMAGE_FILE) for image in before.images().images}
    silent = 0
    for at in range(len(whole)):
        photos.write_bytes(whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :])
        try:
            found = open_archive(photos).images().images
            now = {image.id: image.place.read(IMAGE_FILE) for image in found}
        except (SourceError, OSError):
            continue
        silent += 1
        assert set(now.values()) <= set(files.values())  # a name may have changed, no content
    assert silent < len(whole) // 2  # dates, versions and permissions


def test_a_comment_may_follow_and_may_look_like_an_end(photos: Path) -> None:
    with zipfile.ZipFile(photos, "a") as archive:
        archive.comment = b"PK\5\6" + bytes(30)
    assert read(open_archive(photos), "cat/1.jpg") == LONG

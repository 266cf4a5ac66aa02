"""Tar archives without compression: every form of names, and everything that is refused."""

import io
import tarfile
from pathlib import Path

import pytest

from featcache.errors import SourceError
from featcache.limits import IMAGE_FILE
from featcache.sources.trees.archive import ArchiveTree, open_archive

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
DEEP = "/".join(["folder" * 5] * 8)


def packed(path: Path, files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def read(tree: ArchiveTree, path: str) -> bytes:
    place = tree.find(path)
    assert place is not None
    return place.read(IMAGE_FILE)


@pytest.mark.parametrize("form", FORMS)
def test_files_are_read_in_place(tmp_path: Path, form: str) -> None:
    files = {"cat/1.jpg": bytes(range(256)) * 9, "cat/2.jpg": b"", "dog/1.jpg": b"x" * 512}
    files |= {f"{'long' * 20}/{'name' * 20}.jpg": b"prefix"}
    if form != "ustar":
        files |= {f"{DEEP}/{'n' * 200}.jpg": b"deep", "dog/été.jpg": b"y"}
    path = packed(tmp_path / "p.tar", files, FORMS[form])
    tree = open_archive(path)
    assert {name: read(tree, name) for name in files} == files
    assert [i.id for i in tree.images().images] == sorted(files, key=lambda n: n.split("/"))


@pytest.mark.parametrize("form", FORMS)
def test_folders_and_the_dot_before_names(tmp_path: Path, form: str) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "empty").mkdir()
    (tmp_path / "photos" / "cat" / "1.jpg").write_bytes(b"x")
    with tarfile.open(tmp_path / "p.tar", "w", format=FORMS[form]) as archive:
        archive.add(tmp_path / "photos", "./")
    tree = open_archive(tmp_path / "p.tar")
    assert [i.id for i in tree.images().images] == ["cat/1.jpg"]
    assert tree.images().empty == (("empty",),)
    assert tree.has_folder("empty")


def test_sizes_in_base_256(tmp_path: Path) -> None:
    path = packed(tmp_path / "p.tar", {"a/1.jpg": b"x" * 700}, tarfile.GNU_FORMAT)
    data = bytearray(path.read_bytes())
    data[124:136] = b"\x80" + (700).to_bytes(11, "big")
    _seal(data, 0)
    path.write_bytes(data)
    assert read(open_archive(path), "a/1.jpg") == b"x" * 700


def _seal(data: bytearray, at: int) -> None:
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"Z", "unknown kind"),
    ],
)
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes, what: str) -> None:
    path = packed(tmp_path / "p.tar", {"a/1.jpg": b"", "b/1.jpg": b"x"})
    data = bytearray(path.read_bytes())
    data[156:157] = kind
    _seal(data, 0)
    path.write_bytes(data)
    with pytest.raises(SourceError, match=f"holds.*{what}.*folder:PATH"):
        open_archive(path)


def test_sparse_files_of_pax_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "p.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("a/1.jpg")
        entry.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        archive.addfile(entry)
    with pytest.raises(SourceError, match="a sparse file"):
        open_archive(tmp_path / "p.tar")


def test_a_global_header_may_comment_and_not_rename(tmp_path: Path) -> None:
    for header, fine in ({"comment": "of a commit"}, True), ({"path": "b/2.jpg"}, False):
        with tarfile.open(
            tmp_path / "p.tar", "w", format=tarfile.PAX_FORMAT, pax_headers=header
        ) as archive:
            archive.addfile(tarfile.TarInfo("a/1.jpg"))
        if fine:
            assert read(open_archive(tmp_path / "p.tar"), "a/1.jpg") == b""
        else:
            with pytest.raises(SourceError, match="one name or size"):
                open_archive(tmp_path / "p.tar")


@pytest.mark.parametrize(
    ("name", "why"), [("/etc/1.jpg", "is absolute"), ("a/../../1.jpg", "leads out")]
)
def test_names_that_are_refused(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(SourceError, match=why):
        open_archive(packed(tmp_path / "p.tar", {name: b"x"}))


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "p.tar", {"a/1.jpg": b"x"})
    with tarfile.open(path, "a") as archive:
        archive.addfile(tarfile.TarInfo("./a/1.jpg"))
    with pytest.raises(SourceError, match=r"two files called 'a/1\.jpg'"):
        open_archive(path)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_says_what_to_do(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "p.tgz"
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.addfile(tarfile.TarInfo("a/1.jpg"))
    with pytest.raises(SourceError, match=r"compressed as a whole.*Unpack it once.*\.zip or as"):
        open_archive(path)


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "p.tar", {"a/1.jpg": b"x" * 700, "b/1.jpg": b"y" * 700})
    whole = path.read_bytes()
    for length in (100, 600, 1100, 1536 + 100, 1536 + 512 + 600):
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError):
            open_archive(path)
    path.write_bytes(whole[: 2 * 1536])  # only the empty blocks at the end are missing
    assert len(open_archive(path).images().images) == 2


def test_an_archive_that_changed_since_it_was_opened(tmp_path: Path) -> None:
    path = packed(tmp_path / "p.tar", {"a/1.jpg": b"x" * 700})
    tree = open_archive(path)
    packed(path, {"b/2.jpg": b"y" * 700})
    with pytest.raises(SourceError, match="has changed since its labels were read"):
        read(tree, "a/1.jpg")
    path.write_bytes(b"")
    with pytest.raises(SourceError, match="has changed since its labels were read"):
        read(tree, "a/1.jpg")


@pytest.mark.long
def test_headers_of_any_bytes_end_in_a_sentence(tmp_path: Path) -> None:
    path = packed(tmp_path / "p.tar", {f"{DEEP}/{'n' * 200}.jpg": b"x"}, tarfile.PAX_FORMAT)
    whole = path.read_bytes()
    for at in range(0, 2048):
        data = bytearray(whole)
        data[at] ^= 0x15
        path.write_bytes(data)
        try:
            found = open_archive(path).images().images
        except SourceError:
            continue
        assert all(".." not in image.id.split("/") for image in found)


@pytest.mark.parametrize(("name", "kind"), [("label", b"V"), ("cat/", b"0"), ("cat/", b"7")])
@pytest.mark.parametrize("size", [1 << 20, 1 << 50, 1 << 80])
def test_nothing_is_skipped_by_a_size_beyond_the_end(
    tmp_path: Path, name: str, kind: bytes, size: int
) -> None:
    path = packed(tmp_path / "p.tar", {"x.jpg": b"", "y.jpg": b"y"}, tarfile.GNU_FORMAT)
    data = bytearray(path.read_bytes())
    data[:100] = name.encode().ljust(100, b"\0")
    data[124:136] = b"\x80" + size.to_bytes(11, "big")
    data[156:157] = kind
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    with pytest.raises(SourceError, match="is cut off"):
        open_archive(path)

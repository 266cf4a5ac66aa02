"""Archives as publishers make them, and as nobody should."""

import bz2
import gzip
import io
import os
import random
import stat
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from featcache.errors import SourceError
from featcache.sources.fetch import budget
from featcache.sources.fetch.unpack import unpack
from featcache.sources.fetch.zipped import zip_members
from tests.featcache.sources.fetch.hostile import HOSTILE, JPEG, Hostile, of_mode, tar, zipped

FILES = {
    "pets/images/a.jpg": JPEG,
    "pets/images/b b.JPG": random.Random(1).randbytes(3_000_000),
    "pets/images/empty.jpg": b"",
    "pets/images/größe ☂.jpg": b"1",
    f"pets/{'long' * 30}/{'name' * 40}.jpg": b"2",
    "README": b"3",
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "a.tar": bytes,
    "a.tar.gz": gzip.compress,
    "a.TGZ": gzip.compress,
    "a.tar.bz2": bz2.compress,
}


def written(folder: Path, file: str, data: bytes) -> tuple[Path, Path]:
    """Write an archive, and make an empty folder beside it."""
    folder.mkdir(exist_ok=True)
    (folder / file).write_bytes(data)
    target = folder / "into"
    target.mkdir()
    return folder / file, target


def content(folder: Path) -> Mapping[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("file", PACKERS)
def test_tar(tmp_path: Path, file: str, form: int) -> None:
    path, target = written(tmp_path, file, PACKERS[file](tar(*FILES.items(), form=form)))
    assert unpack(path, target) == len(FILES)
    assert content(target) == FILES


def test_ustar_with_a_prefix(tmp_path: Path) -> None:
    files = {f"{'d' * 90}/{'e' * 40}/a.jpg": JPEG}
    path, target = written(tmp_path, "a.tar", tar(*files.items(), form=tarfile.USTAR_FORMAT))
    unpack(path, target)
    assert content(target) == files


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip(tmp_path: Path, method: int) -> None:
    path, target = written(tmp_path, "a.zip", zipped(*FILES.items(), method=method))
    assert unpack(path, target) == len(FILES)
    assert content(target) == FILES


def test_zip64_and_a_comment(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        with file.open("a.jpg", "w", force_zip64=True) as member:
            member.write(JPEG)
        file.comment = b"PK of pictures" * 100
    path, target = written(tmp_path, "a.zip", out.getvalue())
    assert unpack(path, target) == 1


@pytest.mark.long
def test_a_zip_of_more_members_than_its_short_count_can_say(tmp_path: Path) -> None:
    path, _ = written(tmp_path, "a.zip", zipped(*((f"{i}", b"") for i in range(66_000))))
    found = zip_members(path, "a.zip", budget.Budget("a.zip", path.stat().st_size))
    assert next(found)[1] == 66_000


def test_what_tar_itself_packs(tmp_path: Path) -> None:
    for name, data in FILES.items():
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_bytes(data)
    subprocess.run(["tar", "czf", tmp_path / "a.tgz", "-C", tmp_path / "src", "."], check=True)
    (tmp_path / "into").mkdir()
    unpack(tmp_path / "a.tgz", tmp_path / "into")
    assert content(tmp_path / "into") == FILES


def test_modes_and_times_of_members_say_nothing(tmp_path: Path) -> None:
    info = tarfile.TarInfo("d")
    info.type, info.mode, info.uid = tarfile.DIRTYPE, 0, 12345
    path, target = written(tmp_path / "t", "a.tar", tar(info, ("d/a.jpg", JPEG)))
    unpack(path, target)
    other, beside = written(tmp_path / "z", "a.zip", zipped((of_mode("b.sh", 0o106777), JPEG)))
    unpack(other, beside)
    for file in (target / "d/a.jpg", beside / "b.sh"):
        mode = stat.S_IMODE(file.stat().st_mode)
        assert mode & ~0o666 == 0
        assert mode & 0o400
    assert (target / "d").stat().st_uid == os.getuid()


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    path, target = written(
        tmp_path, "a.tar", tar(("\udce9t\udce9.jpg", JPEG), form=tarfile.GNU_FORMAT)
    )
    unpack(path, target)
    assert os.listdir(os.fsencode(target)) == [b"\xe9t\xe9.jpg"]  # noqa: PTH208


def test_names_that_differ_in_capitals_only(tmp_path: Path) -> None:
    """Where the file system tells them apart, so does the archive."""
    path, target = written(tmp_path, "a.tar", tar(("a.jpg", b"1"), ("A.jpg", b"2")))
    (tmp_path / "probe").touch()
    if (tmp_path / "PROBE").exists():
        with pytest.raises(SourceError, match="two names that are one on this file system"):
            unpack(path, target)
    else:
        assert unpack(path, target) == 2


def test_a_tar_of_tars_as_of_imagenet(tmp_path: Path) -> None:
    inner = [
        (f"n0{i}.tar", tar((f"n0{i}_1.JPEG", JPEG), (f"n0{i}_2.JPEG", b"x"))) for i in range(3)
    ]
    path, target = written(tmp_path, "ILSVRC2012_img_train.tar", tar(*inner))
    assert unpack(path, target, nested=True) == 6
    assert set(content(target)) == {f"n0{i}/n0{i}_{k}.JPEG" for i in range(3) for k in (1, 2)}


def test_a_tar_in_a_zip_as_of_caltech(tmp_path: Path) -> None:
    categories = tar(("101_ObjectCategories/ant/image_0001.jpg", JPEG))
    data = zipped(
        ("caltech-101/101_ObjectCategories.tar.gz", gzip.compress(categories)),
        ("caltech-101/Annotations.tar", tar(("Annotations/ant/a.mat", b"m"))),
    )
    path, target = written(tmp_path, "caltech-101.zip", data)
    assert unpack(path, target, nested=True) == 2
    assert set(content(target)) == {
        "caltech-101/101_ObjectCategories/ant/image_0001.jpg",
        "caltech-101/Annotations/ant/a.mat",
    }


def test_archives_in_archives_stay_files_unless_asked_for(tmp_path: Path) -> None:
    innermost = tar(("c.tar", tar(("d.jpg", JPEG))))
    path, target = written(tmp_path / "1", "a.tar", tar(("b.tar", innermost)))
    unpack(path, target)
    assert content(target) == {"b.tar": innermost}
    path, target = written(tmp_path / "2", "a.tar", tar(("b.tar", innermost)))
    unpack(path, target, nested=True)
    assert set(content(target)) == {"b/c.tar"}


def test_progress(tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    files = [(f"{i}.jpg", JPEG) for i in range(600)]
    for file, data in (("a.zip", zipped(*files)), ("a.tar", tar(*files))):
        path, target = written(tmp_path / file[2:], file, data)
        unpack(path, target, report=lambda *args: said.append(args))
        assert said[-1] == (f"unpacking {file}", 600, 600)
        assert len(said) > 2
        said.clear()


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_hostile(tmp_path: Path, hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "FLOOR", 1 << 20)
    if hostile.env[0]:
        monkeypatch.setenv(*hostile.env)
    path, target = written(tmp_path, hostile.file, hostile.make())
    before = {p.name for p in tmp_path.iterdir()}
    begin = time.monotonic()
    with pytest.raises(SourceError, match=hostile.said) as caught:
        unpack(path, target, nested=hostile.nested)
    assert time.monotonic() - begin < 10
    assert len(str(caught.value)) < 900
    assert {p.name for p in tmp_path.iterdir()} == before
    assert not [p for p in target.rglob("*") if p.is_symlink() or not (p.is_file() or p.is_dir())]
    assert sum(p.stat().st_size for p in target.rglob("*") if p.is_file()) < 42 << 20


def test_every_limit_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "FLOOR", 1 << 10)
    path, target = written(tmp_path, "a.tgz", gzip.compress(tar(("a.jpg", bytes(1 << 20)))))
    with pytest.raises(SourceError, match="FEATCACHE_MAX_UNPACK_RATIO to more"):
        unpack(path, target)
    monkeypatch.setenv("FEATCACHE_MAX_UNPACK_RATIO", "2000")
    assert unpack(path, target) == 1


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    path, target = written(tmp_path, "a.tar", tar(("a.jpg", JPEG)))
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(SourceError, match="No space is left to write"):
        unpack(path, target)


@pytest.mark.parametrize("file", ["a.zip", "a.tar"])
def test_too_little_room_is_said_before_a_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    data = (zipped if file == "a.zip" else tar)(("a.jpg", bytes(1000)))
    path, target = written(tmp_path, file, data)
    fields = list(os.statvfs(tmp_path))
    fields[4] = 0
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    with pytest.raises(SourceError, match=f"Unpacking {file} needs about"):
        unpack(path, target)
    assert content(target) == {}


@pytest.mark.parametrize("name", ["...tar", "a/...tar", "..tar", ".tar", "...TGZ", "a/.tar.gz"])
def test_an_archive_in_an_archive_never_names_the_folder_above(tmp_path: Path, name: str) -> None:
    inner = tar(("evil.txt", b"x"))
    inner = inner if name.endswith("tar") else gzip.compress(inner)
    path, target = written(tmp_path, "a.tar", tar(("b.txt", b"b"), (name, inner)))
    with pytest.raises(SourceError, match="gives no folder for its files"):
        unpack(path, target, nested=True)
    assert not list(tmp_path.rglob("evil.txt"))

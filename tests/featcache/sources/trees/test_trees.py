"""A folder, a zip and a tar of the same files are the same tree."""

import os
import random
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from featcache.errors import SourceError
from featcache.limits import WORDS
from featcache.sources.trees.archive import open_archive
from featcache.sources.trees.base import Tree
from featcache.sources.trees.folder import FolderTree
from featcache.sources.trees.names import path_text
from featcache.sources.trees.opening import tree_at

FILES = [
    *("cat/1.jpg", "cat/2.JPEG", "cat/deep/er/3.png", "cat-2/1.jpg", "cat.txt", "cat/list.csv"),
    *("dog/été.jpg", "dog/zero\u200bwidth.jpg", "dog/.hidden.jpg", ".git/a/1.jpg", "dog/1.heic"),
    *("__MACOSX/cat/._1.jpg", "bee/notes.txt", "sign/00000.ppm", "e\u0301t\u0301/1.gif"),
]
Make = Callable[[Path], Tree]


def folder(root: Path) -> Tree:
    return FolderTree(root.resolve())


def zipped(root: Path) -> Tree:
    """Packed in no order, with entries for folders, as most archivers do it."""
    with zipfile.ZipFile(root.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _shuffled(root):
            archive.write(path, path.relative_to(root))
    return open_archive(root.with_suffix(".zip"), "zip")


def tarred(root: Path) -> Tree:
    with tarfile.open(root.with_suffix(".tar"), "w") as archive:
        for path in _shuffled(root):
            archive.add(path, path.relative_to(root), recursive=False)
    return open_archive(root.with_suffix(".tar"), "tar")


def _shuffled(root: Path) -> list[Path]:
    paths = sorted(root.rglob("*"))
    random.Random(0).shuffle(paths)
    return paths


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 50)
    (tmp_path / "photos" / "empty" / "inner").mkdir(parents=True)
    return tmp_path / "photos"


@pytest.fixture(params=[folder, zipped, tarred])
def tree(request: pytest.FixtureRequest, root: Path) -> Tree:
    make: Make = request.param
    return make(root)


def test_the_same_images_in_the_same_order(tree: Tree, root: Path) -> None:
    found, plain = tree.images(), folder(root).images()
    assert [(i.id, i.folders) for i in found.images] == [(i.id, i.folders) for i in plain.images]
    assert (found.notes, set(found.empty)) == (plain.notes, set(plain.empty))
    assert {path_text(i.id): i.place.read(WORDS) for i in found.images} == {
        name: name.encode() * 50
        for name in FILES
        if not name.endswith((".txt", ".csv", ".heic")) and "/." not in f"/{name}"
        and not name.startswith("__")
    }  # fmt: skip


def test_files_and_folders_are_found_by_path(tree: Tree) -> None:
    place = tree.find("dog/été.jpg")
    assert place is not None
    assert place.read(WORDS) == "dog/été.jpg".encode() * 50
    assert place.size() >= len(place.read(WORDS))
    assert place.stat() is not None
    for path in ("dog", "dog/2.jpg", "", "/etc/passwd", "cat/../cat/1.jpg", "cat/1.jpg/x", "\0"):
        assert tree.find(path) is None
    assert tree.has_folder("")
    assert tree.has_folder("cat/deep/er")
    assert tree.has_folder("empty/inner")
    for path in ("cat/1.jpg", "ca", "..", "/", "cat/nothing"):
        assert not tree.has_folder(path)


def test_what_lies_in_a_folder(tree: Tree) -> None:
    names = ["bee", "cat", "cat-2", "cat.txt", "dog", "empty", "e\u0301t\u0301", "sign"]
    assert list(tree.names()) == names
    assert list(tree.names("cat")) == ["1.jpg", "2.JPEG", "deep", "list.csv"]
    assert list(tree.names("cat/deep")) == ["er"]
    with pytest.raises(SourceError, match="There is no folder 'nothing'"):
        list(tree.names("nothing"))


def test_lists_are_read(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tree.read("cat/list.csv", WORDS) == b"cat/list.csv" * 50
    with pytest.raises(SourceError, match=r"There is no file 'list\.csv'"):
        tree.read("list.csv", WORDS)
    monkeypatch.setenv(WORDS.variable, "10")
    with pytest.raises(SourceError, match=f"600 bytes.*{WORDS.variable}"):
        tree.read("cat/list.csv", WORDS)


def test_a_folder_of_a_tree_is_a_tree(tree: Tree) -> None:
    below = tree.below("cat")
    assert [i.id for i in below.images().images] == ["1.jpg", "2.JPEG", "deep/er/3.png"]
    assert below.root == tree.root / "cat"
    assert below.find("../dog/1.heic") is None
    assert [i.id for i in below.below("deep/er").images().images] == ["3.png"]
    assert below.has_folder("deep")
    assert not below.has_folder("cat")
    again = tree_at(below.below("deep").root)
    assert [i.id for i in again.images().images] == ["er/3.png"]
    with pytest.raises(SourceError, match="There is no folder"):
        tree.below("nothing")


def test_names_that_are_no_utf8_have_the_id_of_the_unpacked_file(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    (root / "a").mkdir(parents=True)
    (root / os.fsdecode(b"a/\xff.jpg")).write_bytes(b"x")
    ids = [i.id for i in folder(root).images().images]
    assert ids == [r"a/\udcff.jpg"]
    assert [i.id for i in tarred(root).images().images] == ids


@pytest.mark.parametrize("flags", ["-q", "-q0"])
def test_archives_of_info_zip(root: Path, flags: str) -> None:
    try:
        subprocess.run(["zip", "-r", flags, "../p.zip", "."], cwd=root, check=True)
    except FileNotFoundError:
        pytest.skip("zip is not installed")
    tree = open_archive(root.parent / "p.zip")
    plain = folder(root).images()
    assert [i.id for i in tree.images().images] == [i.id for i in plain.images]
    for image, other in zip(tree.images().images, plain.images, strict=True):
        assert image.place.read(WORDS) == other.place.read(WORDS)


def test_links_of_a_folder_that_lead_out_are_not_found(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (root / "cat" / "out.jpg").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to(tmp_path)
    (root / "in.jpg").symlink_to(root / "cat" / "1.jpg")
    os.mkfifo(root / "pipe.jpg")
    tree = folder(root)
    assert tree.find("cat/out.jpg") is tree.find("up/secret") is tree.find("pipe.jpg") is None
    assert not tree.has_folder("up")
    assert tree.find("in.jpg") is not None


def test_folders_deeper_than_python_calls(tmp_path: Path) -> None:
    path = tmp_path / "photos"
    path.mkdir()
    here = os.open(path, os.O_RDONLY)
    for _ in range(1200):  # by descriptors: the whole path is longer than a call takes
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        assert folder(path).images().images == ()
    finally:
        subprocess.run(["rm", "-rf", path], check=True)  # deeper than pytest can delete


def test_what_is_no_archive(tmp_path: Path, root: Path) -> None:
    with pytest.raises(SourceError, match=r"is a folder, not an archive; write folder:"):
        open_archive(root)
    with pytest.raises(SourceError, match=r"There is no archive .*nowhere\.zip"):
        open_archive(tmp_path / "nowhere.zip")
    with pytest.raises(SourceError, match="is neither a zip nor a tar archive"):
        open_archive(root / "cat" / "1.jpg")
    zipped(root)
    with pytest.raises(SourceError, match=r"is a zip archive; write zip:"):
        open_archive(root.with_suffix(".zip"), "tar")

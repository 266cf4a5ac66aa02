"""Sheets are written whole or not at all, and refused before the work."""

import os
from pathlib import Path

import pytest

from featcache.errors import UsageError
from featcache.pages.files import save_sheet
from featcache.pages.sheet import Sheet

EMPTY = Sheet(kind="Text", title="owl", facts=(), thumbnail=None, sections=())


def never() -> Sheet:
    raise AssertionError("the sheet is made before its path is checked")


def test_the_suffix_chooses_the_format(tmp_path: Path) -> None:
    assert save_sheet(lambda: EMPTY, tmp_path / "a.HTML").read_bytes().startswith(b"<!doctype")
    assert save_sheet(lambda: EMPTY, tmp_path / "a.png").read_bytes()[1:4] == b"PNG"


def test_an_existing_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text("old")
    other = tmp_path / "linked"
    os.link(path, other)
    save_sheet(lambda: EMPTY, path)
    assert other.read_text() == "old"  # never written in place
    assert path.read_text().endswith("</html>")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "linked"]


def test_what_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text("old")
    with pytest.raises(AssertionError):
        save_sheet(never, path)
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("name", "says"),
    [("a.pdf", "ends in .html or .png"), ("a", "ends in"), ("no/a.html", "does not exist")],
)
def test_wrong_paths_are_refused_first(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        save_sheet(never, tmp_path / name)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.html").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        save_sheet(never, tmp_path / "a.html")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_closed_folder_is_told(tmp_path: Path) -> None:
    (closed := tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="cannot be written"):
        save_sheet(lambda: EMPTY, closed / "a.html")


def test_the_name_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        save_sheet(lambda: EMPTY, tmp_path / ("x" * 250 + ".html"))

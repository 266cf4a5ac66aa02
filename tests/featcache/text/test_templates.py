"""Templates and class names."""

from pathlib import Path

import pytest

from featcache.errors import UsageError
from featcache.text.templates import check_template, clean_name, fill, read_templates


def test_a_template_is_filled_once_and_braces_in_names_stay() -> None:
    assert fill(check_template(" a photo of a {}. "), "{x} cat") == "a photo of a {x} cat."


@pytest.mark.parametrize("bad", ["", "a photo", "{} and {}", "{0}", "{name}", "{} {", "}{"])
def test_anything_but_one_place_for_the_name_is_refused(bad: str) -> None:
    with pytest.raises(UsageError, match="exactly one"):
        check_template(bad)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("hot_dog", "hot dog"),
        (" a__b ", "a b"),
        ("cafe\u0301", "caf\u00e9"),
        ("t-shirt", "t-shirt"),
    ],
)
def test_folder_names_become_readable(folder: str, name: str) -> None:
    assert clean_name(folder) == name


def test_a_file_of_templates(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("\ufeff# mine\na {}.\n\n  art of {}.\na {}.\n", encoding="utf-8")
    assert read_templates(path) == ("a {}.", "art of {}.")


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"a photo\n", b"\xff\xfe{}"])
def test_bad_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"t\.txt"):
        read_templates(path)
    with pytest.raises(UsageError, match="could not be read"):
        read_templates(tmp_path / "missing.txt")

"""A file of prompts: what is a sentence there, and what is said about a line that is none."""

from pathlib import Path

import pytest

from featcache.errors import UsageError
from featcache.text.prompts import read_prompts


def test_lines_are_sentences_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(b"\xef\xbb\xbf# nouns\r\na dog.\r\n\r\n  a \xc3\xa4pple. \r\na dog.\r\n")
    assert read_prompts(path) == ("a dog.", "a äpple.")


def test_brackets_in_a_sentence_are_no_json(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("[CLS] a dog.\na cat {at night}\n")
    assert len(read_prompts(path)) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no sentence; write one a line"),
        (b"# only\n\n", "holds no sentence"),
        (b"a dog.\na photo of a {}.\n", "the template 'a photo of a {}.'"),
        (b'["a dog.", "a cat."]\n', "is JSON; write one sentence a line"),
        (b'{\n  "ant": [\n    "a leg."\n  ]\n}\n', "is JSON"),
        (b"a \x07 bell\n", "control characters"),
        (b"\xff\xfe", "could not be read"),
        (b"x" * 2001, "at most 2000 characters"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_prompts(path)
    assert says in str(caught.value)
    assert "prompts=" in str(caught.value)


def test_a_missing_file_and_too_many_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="could not be read"):
        read_prompts(tmp_path / "none.txt")
    path = tmp_path / "p.txt"
    path.write_text("a\nb\nc\n")
    monkeypatch.setenv("FEATCACHE_MAX_TEXTS", "2")
    with pytest.raises(UsageError, match=r"more than 2 sentences.*FEATCACHE_MAX_TEXTS"):
        read_prompts(path)

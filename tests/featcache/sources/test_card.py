"""Configurations that README.md declares: which files are meant, and what is refused."""

import textwrap
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.errors import SourceError, UnknownNameError
from featcache.sources.layouts.own.card import Configuration, choose, configurations_in, read_card
from featcache.sources.layouts.own.huggingface import open_huggingface
from featcache.sources.trees.folder import FolderTree


def card(configs: str) -> str:
    """Write a card with more declarations around, as published ones have."""
    return (
        f"---\nlicense: mit\ntags: [a, b]\n{textwrap.dedent(configs).strip()}\n"
        "dataset_info:\n  features:\n  - name: image\n---\n# Beasts\n\nconfigs: see above.\n"
    )


TWO = card("""
    configs:
    - config_name: small
      data_files:
      - split: train
        path: data/part-0*
      - split: validation
        path:
        - data/part-1.parquet
    - config_name: large
      default: true
      data_dir: all
      data_files:
      - split: train
        path: "**"
    """)


def said(text: str) -> str:
    with pytest.raises(SourceError) as caught:
        configurations_in(text.encode(), "README.md")
    return str(caught.value)


def test_splits_with_paths() -> None:
    small, large = configurations_in(TWO.encode(), "README.md")
    assert (small.name, small.is_default, large.is_default) == ("small", False, True)
    assert small.split_of("data/part-01.parquet") == "train"
    assert small.split_of("data/part-1.parquet") == "val"
    assert small.split_of("data/more/part-0.parquet") is None
    assert large.split_of("all/a/b.parquet") == "train"
    assert large.split_of("data/part-0.parquet") is None
    assert choose((small, large), "") is large
    assert choose((small, large), "small") is small
    with pytest.raises(UnknownNameError, match="small"):
        choose((small, large), "smal")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("data_files: x/*.parquet", (("train", "x/*.parquet"),)),
        ("data_files: [x.parquet, y.parquet]", (("train", "x.parquet"), ("train", "y.parquet"))),
        ("data_dir: x", (("", "x/**"),)),
        ("sep: ','", (("", "**"),)),
    ],
)
def test_other_forms(files: str, expected: tuple[tuple[str, str], ...]) -> None:
    text = card(f"configs:\n- config_name: a\n  {files}")
    assert configurations_in(text.encode(), "README.md")[0].patterns == expected


def test_line_ends_of_windows() -> None:
    assert len(configurations_in(TWO.replace("\n", "\r\n").encode(), "README.md")) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# Beasts\n\nconfigs:\n- config_name: a\n",
        "---\nlicense: mit\n---\n",
        "---\nconfigs:\n- sst2\n- cola\n---\n",
        "---\nconfigs:\n---\n",
        "---\nother: {broken\n---\n",
    ],
)
def test_cards_that_declare_nothing(text: str) -> None:
    assert configurations_in(text.encode(), "README.md") == ()


@pytest.mark.parametrize(
    ("configs", "expected"),
    [
        ("configs: {a: b}", "no list of configurations"),
        ("configs: [{a: b, - }", "that are no YAML"),
        ("configs:\n- 7", "a configuration that is no mapping"),
        ("configs:\n- config_name: 7", "without a name"),
        ("configs:\n- config_name: a\n- config_name: a", "two configurations of one name"),
        ("configs:\n- data_dir: [a]", "data_dir of 'default' that is no text"),
        ("configs:\n- data_files: {train: x}", "neither a path"),
        ("configs:\n- data_files:\n  - split: train", "neither a path"),
        ("configs:\n- data_files: ../x", "leads out of the repository"),
        ("configs:\n- data_files: /etc/*", "leads out of the repository"),
        ("configs:\n- data_files: https://example.org/x", "leads out of the repository"),
        ("configs:\n- data_files: &a [x]\n- data_files: *a", "references in its"),
        ("configs:\n- !!python/object/apply:os.system [x]", "that are no YAML"),
        ("configs:\n- " + "[" * 5000, "that are no YAML"),
        ("configs:\n" + "- config_name: a\n" * 5000, "characters of configurations"),
    ],
)
def test_declarations_that_are_refused(configs: str, expected: str) -> None:
    assert expected in said(card(configs))


def test_a_file_of_two_splits_is_refused() -> None:
    both = Configuration("a", True, (("train", "*"), ("test", "x*")))
    assert both.split_of("y") == "train"
    with pytest.raises(SourceError, match="x1 into the splits test and train"):
        both.split_of("x1")


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    one = Configuration("a", True, (("train", "*a" * 40 + "*b/**/" * 30 + "c"),))
    assert one.split_of("/".join(["a" * 200] * 60)) is None


@given(st.text(alphabet="abc:-*[]{}&!|>'\"#? \n/0", max_size=80))
def test_any_declaration_is_read_or_refused(text: str) -> None:
    with suppress(SourceError):
        configurations_in(f"---\nconfigs:\n{text}\n---\n".encode(), "README.md")


def test_a_card_that_is_a_link_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "other.md").write_text(TWO)
    (tmp_path / "set/README.md").symlink_to(tmp_path / "other.md")
    assert read_card(FolderTree(tmp_path / "set")) == ()


def test_shards_of_the_declared_configuration(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from tests.featcache.sources.test_huggingface import refusal, rows, shard

    shard(tmp_path, "data/part-00.parquet", ["a", "b"], [0, 1])
    shard(tmp_path, "data/part-1.parquet", ["c"], [0])
    shard(tmp_path, "all/x.parquet", ["d"], [2])
    (tmp_path / "README.md").write_text(TWO)
    assert rows(open_huggingface(str(tmp_path), {})) == {"all/x.parquet/0": ("red fox", "train")}
    small = open_huggingface(str(tmp_path), {"config": "small"})
    assert {n: split for n, (_, split) in rows(small).items()} == {
        "data/part-00.parquet/0": "train",
        "data/part-00.parquet/1": "train",
        "data/part-1.parquet/0": "val",
    }
    assert any("configuration 'small' in README.md" in note for note in small.notes)
    (tmp_path / "README.md").write_text(TWO.replace("  default: true\n", ""))
    message = refusal(tmp_path)
    assert "several configurations: small, large" in message
    assert f"hf:{tmp_path}?config=small" in message
    (tmp_path / "README.md").unlink()
    assert "declares parquet files" in refusal(tmp_path, config="small")

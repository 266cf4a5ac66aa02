"""What the README.md of a Hugging Face data set declares: configurations, and their files by split.

    ---
    configs:
      - config_name: small
        default: true
        data_files:
          - split: train
            path: small/train-*
    ---

Only the block `configs:` at the top of the file is parsed, within bounds and without references.

Reference: Hugging Face, "Manual Configuration" of the documentation of the hub.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module

from featcache.errors import SourceError, UnknownNameError
from featcache.paths import open_descriptor
from featcache.sources.layouts.split_names import split_of
from featcache.sources.trees.folder import FolderTree

CARD = "README.md"
MOST_CARD = 1 << 20
"""Bytes of the file that are looked at; prose follows the declarations."""
_MOST_BLOCK = 1 << 16
"""Characters of the declarations of configurations."""

_TOP = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|\Z)", re.DOTALL)
_BLOCK = re.compile(r"^configs:.*(?:\n(?:[ \t#-].*|\r?))*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Configuration:
    """One of the data sets that a repository holds."""

    name: str
    is_default: bool
    patterns: tuple[tuple[str, str], ...]
    """Split (empty: as the file's name says) and pattern of paths below the repository."""

    def splits_of(self, path: str) -> set[str]:
        """Return the splits that a file belongs to; none where it is not of the configuration.

        Args:
            path: Below the repository, with `/`.

        Example:
            >>> Configuration("x", True, (("train", "a/**/tr-*"),)).splits_of("a/b/tr-0.parquet")
            {'train'}
        """
        parts = path.split("/")
        return {split for split, pattern in self.patterns if _fits(parts, pattern.split("/"))}

    def split_of(self, path: str) -> str | None:
        """Return the split of a file; None where it is not of the configuration.

        Raises:
            SourceError: If it belongs to two splits.
        """
        found = self.splits_of(path)
        if len(found) > 1:
            raise SourceError(
                f"{CARD} puts {path[:200]} into the splits {' and '.join(sorted(found))}; expected "
                f"one, since images for training may not be test images too."
            )
        return found.pop() if found else None


def read_card(root: FolderTree) -> tuple[Configuration, ...]:
    """Return the configurations that the card in a folder declares; none without a card.

    Raises:
        SourceError: If the declarations cannot be read.
    """
    if root.find(CARD) is None:
        return ()
    path = root.root / CARD
    try:
        with os.fdopen(open_descriptor(path), "rb") as file:
            head = file.read(MOST_CARD)
    except OSError as error:
        raise SourceError(f"File {path} could not be read ({error.strerror}).") from error
    return configurations_in(head, str(path))


def configurations_in(head: bytes, where: str) -> tuple[Configuration, ...]:
    """Return the configurations that the beginning of a card declares.

    Args:
        head: At most `MOST_CARD` bytes.
        where: What the card is called, for errors.

    Raises:
        SourceError: If there are declarations, and they are not as the hub has them.
    """
    top = _TOP.match(head.decode("utf-8", "replace"))
    block = _BLOCK.search(top[1]) if top else None
    if block is None:
        return ()
    if len(block[0]) > _MOST_BLOCK:
        raise _strange(where, f"{len(block[0])} characters of configurations")
    content = _parsed(block[0], where)
    if content is None or (isinstance(content, list) and all(isinstance(c, str) for c in content)):
        return ()  # names alone, as cards had them before files could be declared
    if not isinstance(content, list):
        raise _strange(where, "no list of configurations")
    found = tuple(_configuration(entry, where) for entry in content)
    if len({c.name for c in found}) < len(found):
        raise _strange(where, "two configurations of one name")
    return found


def choose(found: Sequence[Configuration], wanted: str) -> Configuration | None:
    """Return the configuration that is meant; None where that is not clear.

    Args:
        found: Those of the card.
        wanted: Its name; empty for the default: the only one, or one that is marked or called so.

    Raises:
        UnknownNameError: If there is none of that name.

    Example:
        >>> found = [Configuration("small", False, ()), Configuration("default", False, ())]
        >>> choose(found, "").name
        'default'
    """
    if wanted:
        for one in found:
            if one.name == wanted:
                return one
        raise UnknownNameError("configuration", wanted, [c.name for c in found])
    if len(found) == 1:
        return found[0]
    marked = [c for c in found if c.is_default] or [c for c in found if c.name == "default"]
    return marked[0] if len(marked) == 1 else None


def _parsed(block: str, where: str) -> object:
    try:
        yaml = import_module("yaml")
    except ImportError as missing:
        raise SourceError(
            f"{where} declares configurations, which are read with PyYAML, and it is not "
            f"installed. Install it with: pip install pyyaml"
        ) from missing
    try:
        # A few references to references stand for more entries than memory holds.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(block, yaml.SafeLoader)):
            raise _strange(where, "references in its configurations")
        content = yaml.safe_load(block)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:160]
        raise _strange(where, f"configurations that are no YAML ({said})") from error
    return content.get("configs") if isinstance(content, dict) else None


def _configuration(entry: object, where: str) -> Configuration:
    if not isinstance(entry, dict):
        raise _strange(where, "a configuration that is no mapping")
    name, below = entry.get("config_name", "default"), entry.get("data_dir") or ""
    if not isinstance(name, str) or not name:
        raise _strange(where, "a configuration without a name")
    if not isinstance(below, str):
        raise _strange(where, f"a data_dir of {name[:80]!a} that is no text")
    files = entry.get("data_files")
    listed = list(_patterns(files, name, where)) if files is not None else [("", "**")]
    below = below.strip("/").removeprefix("./")
    patterns = tuple((split, _plain(f"{below}/{p}" if below else p, where)) for split, p in listed)
    return Configuration(name, entry.get("default") is True, patterns)


def _patterns(files: object, name: str, where: str) -> Iterable[tuple[str, str]]:
    """Yield split and pattern: one text, a list of texts, or a list of splits with their texts."""
    for one in files if isinstance(files, list) else [files]:
        if isinstance(one, str):
            yield "train", one
            continue
        split, paths = (
            (one.get("split"), one.get("path")) if isinstance(one, dict) else (None, None)
        )
        for path in paths if isinstance(paths, list) else [paths]:
            if not isinstance(split, str) or not split or not isinstance(path, str):
                raise _strange(
                    where,
                    f"data_files of {name[:80]!a} that are neither a path, paths, nor splits with "
                    f"their paths",
                )
            yield split_of(split), path


def _plain(pattern: str, where: str) -> str:
    """Refuse a pattern of files that lie elsewhere."""
    pattern = pattern.removeprefix("./")
    if "://" in pattern or pattern.startswith("/") or ".." in pattern.split("/"):
        raise _strange(where, f"the pattern {pattern[:200]!a}, which leads out of the repository")
    return pattern


def _fits(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Compare part by part; `**` stands for any number of parts, also none."""
    reached = {0}  # numbers of parts of the path that the pattern so far may have taken
    for i, part in enumerate(pattern):
        if part == "**":
            last = len(path) - 1 if i + 1 == len(pattern) else len(path)
            reached = set(range(min(reached), last + 1)) if reached else set()
            if i + 1 == len(pattern):
                return bool(reached)
        else:
            reached = {n + 1 for n in reached if n < len(path) and fnmatchcase(path[n], part)}
    return len(path) in reached


def _strange(where: str, what: str) -> SourceError:
    return SourceError(
        f"{where} has {what}; expected configs as the hub documents them: config_name, and "
        f"data_files with split and path. Correct it, or give the parquet files themselves."
    )

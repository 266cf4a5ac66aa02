"""The corpora of a cache: one file each in the folder `corpora`, outside the manifest.

A corpus can be built again from the caches that it names, and no other part of a cache needs it, so
that programs that do not know corpora leave it alone. docs/decisions/corpora-beside-the-manifest.md
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.errors import (
    CorruptCacheError,
    FeatcacheError,
    LinkInCacheError,
    UnknownNameError,
    UsageError,
)
from featcache.store.cache import Cache
from featcache.store.format.corpus_file import (
    CorpusArrays,
    CorpusRecord,
    encode,
    read_corpus_file,
)
from featcache.store.format.corpus_file import read_record as read_record_of
from featcache.store.format.files import (
    explained,
    make_folder,
    refuse_link,
    sync_folder,
    write_atomically,
)
from featcache.wording import Argument, Part, in_python

FOLDER = "corpora"
SUFFIX = ".safetensors"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
"""Valid names of corpora; without capitals, which some file systems do not tell apart."""


@dataclass(frozen=True, kw_only=True)
class ExaminedCorpus:
    """Result for the file of one corpus."""

    file: str
    bytes: int
    wrong: Part = ""
    """The fault with advice; empty for a sound file."""
    is_damaged: bool = False
    """Whether it must be deleted; False if it only could not be read."""


@dataclass(frozen=True, kw_only=True)
class CorpusSummary:
    """One corpus of a cache in a line."""

    name: str
    record: CorpusRecord | None
    """None if its description cannot be read."""
    problem: Part = ""
    """Why it cannot be read; empty if it can."""

    @property
    def text(self) -> str:
        """What it is, for people."""
        if self.record is None:
            return ""
        record = self.record
        sources = ", ".join(source.text for source in record.sources)
        mark = "; leaks" if record.leaks else ""
        return (
            f"{record.rows} {record.of} vectors of {sources} by {record.by}, {record.digest}{mark}"
        )

    def to_json(self, phrase: Callable[[Sequence[Part]], str] = in_python) -> dict[str, Any]:
        """Return one plain object.

        Args:
            phrase: Writes a message as text.
        """
        if self.record is None:
            return {"corpus": self.name, "problem": phrase([self.problem])}
        return {
            "corpus": self.name,
            "dataset": self.record.dataset,
            "digest": self.record.digest,
            "rows": self.record.rows,
            "by": self.record.by,
            "of": self.record.of,
            "sources": [source.text for source in self.record.sources],
            "leaks": self.record.leaks,
            "problem": "",
        }


def check_name(name: str) -> None:
    """Refuse names that are not valid for a corpus.

    Raises:
        UsageError: If it is not valid.
    """
    if NAME.fullmatch(name) is None:
        raise UsageError(
            "The name of a corpus takes lower-case letters, digits, _ and -, at most 60, beginning "
            f"with a letter or a digit; got {name[:80]!r}."
        )


def corpus_path(path: Path, name: str) -> Path:
    """Return the file of a corpus.

    Args:
        path: Folder of the cache.
        name: Valid name of the corpus.
    """
    return path / FOLDER / f"{name}{SUFFIX}"


def corpus_names(path: Path) -> list[str]:
    """Return the names of the corpora of a cache, sound or damaged, sorted.

    Args:
        path: Folder of the cache.

    Raises:
        LinkInCacheError: If the folder of the corpora is a symbolic link.
    """
    folder = path / FOLDER
    refuse_link(folder)
    files = folder.glob(f"*{SUFFIX}") if folder.is_dir() else ()
    return sorted(file.stem for file in files if NAME.fullmatch(file.stem))


def describe_corpora(path: Path) -> list[CorpusSummary]:
    """Summarise the corpora of a cache, also damaged ones; their arrays are not read.

    Args:
        path: Folder of the cache.
    """
    summaries = []
    for name in corpus_names(path):
        try:
            summaries.append(CorpusSummary(name=name, record=read_record(path, name)))
        except FeatcacheError as error:
            summaries.append(CorpusSummary(name=name, record=None, problem=error.parts))
    return summaries


def read_record(path: Path, name: str) -> CorpusRecord:
    """Read the description of a corpus.

    Args:
        path: Folder of the cache.
        name: Name of the corpus.

    Raises:
        UnknownNameError: If the cache has no such corpus.
        CorruptCacheError: If the file is damaged.
        NewerFormatError: If a later version wrote it.
    """
    return _named(read_record_of(_existing(path, name)), path, name)


def read_corpus(path: Path, name: str) -> tuple[CorpusRecord, CorpusArrays]:
    """Read a corpus and check every byte; arguments and errors as `read_record`."""
    record, arrays = read_corpus_file(_existing(path, name))
    return _named(record, path, name), arrays


def put_corpus(
    cache: Cache, record: CorpusRecord, arrays: CorpusArrays, *, replace: bool = False
) -> tuple[CorpusRecord, bool]:
    """Store a corpus atomically and durably.

    Args:
        cache: Cache of the data set that the corpus is for.
        record: Description; its checksums are computed here.
        arrays: Its rows.
        replace: Whether a corpus of the same name and other content may be replaced.

    Returns:
        The description with its checksums, and whether it was written: not if the same content was
        there already.

    Raises:
        UsageError: If the name is not valid, or names another corpus that may not be replaced.
        CacheError: If another process is writing, or writing fails.
    """
    check_name(record.name)
    path = corpus_path(cache.path, record.name)
    record, pieces = encode(record, arrays)
    with cache.lock():
        refuse_link(path.parent)
        if path.exists() or path.is_symlink():
            with suppress(CorruptCacheError):  # a damaged corpus is replaced
                old, _ = read_corpus_file(path)
                if old.digest == record.digest:
                    return record, False
                if not replace:
                    raise UsageError(
                        f"{cache.dataset} has a corpus '{record.name}' with other content, digest "
                        f"{old.digest}. Choose another name, or replace it with ",
                        Argument("again", True),
                        ".",
                    )
        make_folder(path.parent)
        write_atomically(path, *pieces)
    return record, True


def remove_corpus(cache: Cache, name: str) -> int:
    """Delete a corpus, damaged or not, and return the bytes it took.

    Raises:
        UnknownNameError: If the cache has no such corpus.
        CacheError: If another process is writing, or deleting fails.
    """
    with cache.lock():
        path = _existing(cache.path, name)
        with explained(path):
            size = path.lstat().st_size
            path.unlink()
            sync_folder(path.parent)
    return size


def examine_corpora(path: Path) -> Iterator[ExaminedCorpus]:
    """Read every byte of every corpus of a cache.

    Args:
        path: Folder of the cache.
    """
    try:
        names = corpus_names(path)
    except LinkInCacheError as error:
        yield ExaminedCorpus(file="", bytes=0, wrong=error.parts)
        return
    for name in names:
        file = corpus_path(path, name)
        wrong: Part = ""
        size, is_damaged = 0, False
        try:
            with suppress(OSError):
                size = file.lstat().st_size
            read_corpus(path, name)
        except FeatcacheError as error:
            wrong = error.parts
            is_link = isinstance(error, LinkInCacheError)
            is_damaged = isinstance(error, CorruptCacheError) and not is_link
        yield ExaminedCorpus(file=file.name, bytes=size, wrong=wrong, is_damaged=is_damaged)


def _existing(path: Path, name: str) -> Path:
    names = corpus_names(path)
    if name not in names:
        hint = "`featcache corpus ls` shows the corpora."
        if others := _other_caches(path, name):
            hint = f"The corpus of that name serves {', '.join(others)}, for which it was built."
        raise UnknownNameError("corpus", name, names, hint)
    return corpus_path(path, name)


def _other_caches(path: Path, name: str) -> list[str]:
    """Name the other caches, as data set/backbone, that have a corpus of this name."""
    if NAME.fullmatch(name) is None:
        return []
    found = path.parent.parent.glob(f"*/*/{FOLDER}/{name}{SUFFIX}")
    return sorted("/".join(file.parts[-4:-2]) for file in found)


def _named(record: CorpusRecord, path: Path, name: str) -> CorpusRecord:
    if record.name != name:
        raise CorruptCacheError(
            f"{corpus_path(path, name)} is the file of the corpus '{record.name}'. Give it back "
            f"its name, or delete it."
        )
    return record

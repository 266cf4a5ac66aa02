"""The corpora of all caches below one root."""

from collections.abc import Sequence
from pathlib import Path

from featcache.errors import FeatcacheError, UnknownNameError, UsageError
from featcache.retrieval.corpora.digests import has_other_texts
from featcache.retrieval.corpora.origins import changes
from featcache.retrieval.corpora.own import own_medians
from featcache.retrieval.corpora.read import check_fits
from featcache.retrieval.corpora.report import CorpusReport, report_of
from featcache.store.cache import Cache
from featcache.store.corpora import corpus_names, read_corpus, remove_corpus
from featcache.store.library import find_summaries
from featcache.wording import Argument


def find_corpora(
    root: Path,
    name: str | None = None,
    dataset: str | None = None,
    backbone: str | None = None,
    key: str | None = None,
) -> list[tuple[Path, str]]:
    """Return folder of the cache and name of every corpus that fits, damaged ones too.

    Args:
        root: Folder of all caches.
        name: Name of a corpus; None fits all.
        dataset: Data set that it is for; None fits all.
        backbone: Name of a backbone; None fits all.
        key: First digits of the digest of the key; None fits all.

    Raises:
        CacheNotFoundError: If there are no caches.
        UnknownNameError: If no cache has that data set, backbone or key, or none that corpus.
    """
    fitting = find_summaries(root, dataset, backbone, key)
    found = [(f.path, each) for f in fitting for each in corpus_names(f.path)]
    if name is None:
        return sorted(found)
    named = sorted((path, each) for path, each in found if each == name)
    if not named:
        known = {each for _, each in found}
        raise UnknownNameError("corpus", name, known, "`featcache corpus ls` shows the corpora.")
    return named


def describe_corpus(root: Path, path: Path, name: str) -> CorpusReport:
    """Read a corpus, check every byte, and tell what has happened to its sources.

    Args:
        root: Folder of all caches.
        path: Folder of its cache.
        name: Name of the corpus.

    Raises:
        CorruptCacheError: If it is damaged.
        NewerFormatError: If a later version wrote it.
    """
    record, arrays = read_corpus(path, name)
    changed = [change for source in record.sources if (change := changes(root, source))]
    classes = tuple(f"class {label}" for label in range(record.classes))
    own: Sequence[float | None] = ()
    try:
        features = Cache.open(path).feature_set()
        check_fits(record, features)
        if has_other_texts(record.facts, features):
            changed.append(f"the texts of {record.dataset} that chose its rows have changed")
        classes = features.classes
        own = own_medians(features, record)
    except FeatcacheError as error:
        changed.append(str(error))
    return report_of(path, classes, record, arrays, own=own, changes=changed)


def one_corpus(
    root: Path,
    name: str,
    dataset: str | None = None,
    backbone: str | None = None,
    key: str | None = None,
) -> Path:
    """Return the folder of the only cache that has a corpus of this name; arguments as above.

    Raises:
        UsageError: If several caches have one.
        UnknownNameError: If none has.
    """
    found = find_corpora(root, name, dataset, backbone, key)
    if len(found) > 1:
        which = ", ".join(str(path.relative_to(root)) for path, _ in found)
        raise UsageError(
            f"{len(found)} caches have a corpus '{name}': {which}. Say which one is meant with ",
            Argument("target"),
            " or ",
            Argument("key"),
            ".",
        )
    return found[0][0]


def remove(
    root: Path,
    name: str,
    dataset: str | None = None,
    backbone: str | None = None,
    key: str | None = None,
) -> tuple[Path, int]:
    """Delete the only corpus that fits; return the folder of its cache and the bytes it took.

    Raises:
        CacheError: If another process is writing, or deleting fails.
    """
    path = one_corpus(root, name, dataset, backbone, key)
    return path, remove_corpus(Cache.open(path), name)

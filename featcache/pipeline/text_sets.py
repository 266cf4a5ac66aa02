"""The text sets of a cache: each extraction with other texts adds one; all stay readable."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from featcache.bank import TextBank
from featcache.errors import CacheError
from featcache.keys import PROMPT, Listing
from featcache.store.cache import Cache
from featcache.store.format.records import TextLine
from featcache.store.text import read_sentences

_WAFFLE = "A photo of a "
"""What stands before the class name in every template of random words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSet:
    """One text set of a cache."""

    digest: str
    """12 hex digits that name its folder."""
    current: bool
    """Whether heads read it."""
    texts: dict[str, int]
    """Kind -> number of texts."""
    default: str
    """Kind that methods read by default."""
    usual: str = ""
    """Kind that zero-shot answers by; empty if no kind has texts for every class."""
    digests: dict[str, str] = field(default_factory=dict)
    """Kind that methods can read -> 12 hex digits, as the records of runs state them."""
    problem: str = ""
    """Why it cannot be read; empty if it can."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def stored_sets(cache: Cache) -> list[StoredSet]:
    """Describe every text set of a cache, the newest first. Features are not read.

    Args:
        cache: An open cache.
    """
    return [_describe(cache, line) for line in reversed(cache.texts)]


def use_texts(cache: Cache, digest: str) -> StoredSet:
    """Make a stored text set the current one; nothing is encoded.

    The listing gets its texts too, as texts of the user, so that later passes keep them.

    Args:
        cache: An open cache.
        digest: First digits of the digest.

    Raises:
        UnknownNameError: If no set begins like that.
        UsageError: If several do, or the set is for other classes.
        CorruptCacheError: If its files are damaged.
        CacheError: If the cache cannot be written, or has no listing.
    """
    with cache.lock():
        line, listing = cache.text_set(digest), cache.listing()
        if listing is None:
            raise CacheError(f"{cache.path} has no listing yet. Extract again first.")
        bank = cache.text_of_classes(line)
        cache.put_listing(with_texts_of(listing, bank))
        cache.choose_text(line)
        return _describe(cache, line)


def with_texts_of(listing: Listing, bank: TextBank) -> Listing:
    """Return a listing with the texts of a bank; those that differ count as texts of the user."""
    owned = {kind: _by_class(listing, bank, kind) for kind in bank.owned() if kind != PROMPT}
    described = owned.pop("description", {})
    waffle = _waffle(bank)
    prompts = bank.sets[PROMPT].texts if PROMPT in bank.sets else ()
    owned.pop("waffle", None)
    changed = replace(
        listing,
        templates=listing.templates if bank.template_rows is None else bank.templates,
        descriptions=described,
        sets=owned,
        waffle=waffle,
        prompts=prompts,
        default_text=bank.default,
    )
    own = {name for name in listing.own_texts if name in ("templates", "descriptions")}
    own |= {n for n in ("templates", "descriptions") if getattr(changed, n) != getattr(listing, n)}
    own |= {*owned, *(name for name in ("waffle", "prompts") if getattr(changed, name))}
    return replace(changed, own_texts=tuple(sorted(own)))


def _by_class(listing: Listing, bank: TextBank, kind: str) -> dict[str, tuple[str, ...]]:
    texts = bank.owned()[kind]
    by_label: dict[int, list[str]] = {}
    for text, label in zip(texts.texts, texts.owner.tolist(), strict=True):
        by_label.setdefault(label, []).append(text)
    return {listing.classes[label]: tuple(found) for label, found in sorted(by_label.items())}


def _waffle(bank: TextBank) -> tuple[str, ...]:
    """Return the templates of random words, which are stored with the class names filled in."""
    if "waffle" not in bank.sets:
        return ()
    held = bank.sets["waffle"]
    first = int(held.owner[0])
    begin = len(_WAFFLE) + len(bank.classes[first])
    return tuple(
        f"{_WAFFLE}{{}}{text[begin:]}"
        for text, label in zip(held.texts, held.owner.tolist(), strict=True)
        if label == first
    )


def _describe(cache: Cache, line: TextLine) -> StoredSet:
    is_current = line == cache.text_line
    try:
        bank = read_sentences(cache.path / line.component, line, cache.cure)
    except CacheError as error:
        return StoredSet(
            digest=line.digest, current=is_current, texts={}, default="", problem=str(error)
        )
    have = bank.available()
    return StoredSet(
        digest=line.digest,
        current=is_current,
        texts=_count(bank),
        default=bank.default,
        usual=bank.usual_kind() if have else "",
        digests={kind: bank.digest(kind) for kind in bank.readable()},
    )


def _count(bank: TextBank) -> dict[str, int]:
    numbers = {
        "name": 0 if bank.names is None else len(bank.names),
        "template": 0 if bank.template_rows is None else len(bank.classes) * len(bank.templates),
        **{kind: len(held.texts) for kind, held in bank.owned().items()},
    }
    return {kind: number for kind, number in numbers.items() if number}

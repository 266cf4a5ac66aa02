"""What texts a data set has: counts, duplicates, lengths and classes without any, by kind."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from featcache.keys import PROMPT
from featcache.text.encode import HasTexts, Texts, texts_of

CutCounter = Callable[[Sequence[str]], int]
"""Counts the sentences that are longer than a text tower reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindOverview:
    """Facts about the texts of one kind."""

    kind: str
    texts: int
    classes: int
    """Classes with at least one text; 0 for prompts, which are of no class."""
    without: tuple[str, ...]
    """Names of the classes without any, in label order; none for prompts."""
    repeated: int
    """Texts that stand a second time, or more often, in their own class."""
    shared: tuple[str, ...]
    """Distinct sentences that several classes have."""
    fewest_words: int
    median_words: float
    most_words: int
    cut: int | None = None
    """Texts that are longer than the text tower reads and lose their end; None if unknown."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def overview(words: HasTexts, cuts: CutCounter | None = None) -> list[KindOverview]:
    """Describe all texts of a data set, by kind; kinds without texts are left out.

    Args:
        words: Data set or listing.
        cuts: Counts the sentences that a text tower cuts; None if its tokenizer is not there.

    Raises:
        UsageError: If a template has not exactly one `{}`, or a text is too long to be encoded.

    Example:
        >>> from featcache.text.named import named_texts
        >>> [(kind.kind, kind.texts) for kind in overview(named_texts("eurosat"))]
        [('name', 10), ('template', 10), ('description', 41)]
    """
    found = []
    for kind, (texts, owner) in _by_kind(texts_of(words)).items():
        if texts:
            found.append(_describe(kind, texts, owner, words.classes, cuts))
    return found


def _describe(
    kind: str,
    texts: Sequence[str],
    owner: Sequence[int],
    classes: Sequence[str],
    cuts: CutCounter | None,
) -> KindOverview:
    in_class = Counter(zip(texts, owner, strict=True))
    number_of_classes = Counter(text for text, _ in in_class)
    lengths = [len(text.split()) for text in texts]
    present = set(owner) - {-1}
    lacking = () if kind == PROMPT else classes
    return KindOverview(
        kind=kind,
        texts=len(texts),
        classes=len(present),
        without=tuple(name for label, name in enumerate(lacking) if label not in present),
        repeated=len(texts) - len(in_class),
        shared=tuple(text for text, number in number_of_classes.items() if number > 1),
        fewest_words=min(lengths),
        median_words=float(median(lengths)),
        most_words=max(lengths),
        cut=None if cuts is None else cuts(texts),
    )


def _by_kind(texts: Texts) -> dict[str, tuple[Sequence[str], Sequence[int]]]:
    """Return kind -> its sentences and the class of each."""
    filled = [(text, label) for label, row in enumerate(texts.filled) for text in row]
    return {
        "name": (texts.names, range(len(texts.names))),
        "template": ([text for text, _ in filled], [label for _, label in filled]),
        **{kind: (held.texts, held.owner) for kind, held in texts.owned.items()},
    }

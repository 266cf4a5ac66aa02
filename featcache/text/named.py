"""Texts of a named data set, without its images."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from featcache.sources.named import DEFAULT_WORDS, NamedDataset
from featcache.sources.named_open import described_classes
from featcache.sources.registry import find


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedTexts:
    """Class names and texts that a named data set comes with."""

    dataset: str
    classes: tuple[str, ...]
    """Readable names, in label order."""
    templates: tuple[str, ...]
    descriptions: Mapping[str, tuple[str, ...]]
    default_text: str
    sets: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    waffle: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()


def named_texts(name: str, words: str = DEFAULT_WORDS) -> NamedTexts:
    """Return the texts of a named data set.

    Args:
        name: Name or alias.
        words: Class names and templates, as `extract` takes them: coop or openai. A drawn world
            has one set, which is returned for both.

    Raises:
        UnknownNameError: If there is none of that name.
        UsageError: If it is a path, or a source that is no named data set.
        SourceError: If it has no such words.

    Example:
        >>> len(named_texts("eurosat").classes)
        10
    """
    spec = find(name)
    if spec.kind == "drawn":
        return _of_a_world(spec)
    templates = spec.texts(words)
    classes, descriptions = described_classes(spec, words)
    return NamedTexts(
        dataset=spec.name,
        classes=classes,
        templates=templates,
        descriptions=descriptions,
        default_text=spec.default_text,
    )


def _of_a_world(spec: NamedDataset) -> NamedTexts:
    """Return the texts of a drawn world, which has one set of names and templates."""
    from featcache.sources.fieldguide.species import DEFAULT_TEXT, TEMPLATES, species, written

    return NamedTexts(
        dataset=spec.name,
        classes=tuple(kind.name for kind in species(spec.name)),
        templates=TEMPLATES,
        descriptions=written(spec.name).descriptions,
        default_text=DEFAULT_TEXT,
    )

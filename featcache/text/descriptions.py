"""Descriptions of classes from a file: `{class: [descriptor, ...]}`, as DCLIP and LaZSL share them.

The same object under the key "descriptions", beside author, method and licence, is read too; this
is what `featcache text --export` and `--generate` write.

A descriptor that ends with a full stop is a complete sentence. Any other is a phrase that is
appended to the class name: "goldfish, which has a long tail." The link word follows LaZSL's
released code, but compares the whole first word; there, a phrase that begins with a, such as
"antennae", is linked with "which is".
"""

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from featcache.errors import UsageError
from featcache.limits import TEXTS, WORDS
from featcache.paths import read_regular
from featcache.text.templates import check_length, clean_name, is_plain
from featcache.wording import Argument

SUGGESTED, SUGGESTED_FROM, LONGEST_NAME = 5, 1_000, 60
"""Most names that are compared with class names, most of these, and most characters of a name."""

_VERBS = ("has", "have", "is", "are", "often", "typically", "usually", "may", "can")

_OURS = frozenset({"author", "method", "licence", "descriptions"})
"""Keys of a file that says where its descriptions come from."""

Descriptions = dict[str, tuple[str, ...]]
"""Class name -> sentences."""


def read_descriptions(path: Path, argument: str = "descriptions") -> Descriptions:
    """Read a JSON file of descriptors; whitespace is normalised, empty descriptors are dropped.

    Args:
        path: The file.
        argument: Argument that named the file: descriptions, cupl or dclip.

    Raises:
        UsageError: If it cannot be read or is not of the form `{class: [descriptor, ...]}`.
    """
    given = Argument(argument, str(path))
    try:
        text = read_regular(path, WORDS).decode("utf-8-sig")
        content = json.loads(text, object_pairs_hook=_no_repeats)
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            given,
            f' could not be read ({why}); expected JSON of the form {{"class": ["text", ...]}}.',
        ) from error
    if not isinstance(content, dict) or not content:
        raise UsageError(given, ' is not of the form {"class": ["text", ...]}.')
    if isinstance(content.get("descriptions"), dict) and content.keys() <= _OURS:
        content = content["descriptions"]
    descriptions: Descriptions = {}
    left = TEXTS.value()
    for name, descriptors in content.items():
        if not isinstance(descriptors, list) or not all(isinstance(d, str) for d in descriptors):
            raise UsageError(
                given,
                f' has no list of strings for \'{name}\'; expected "{name}": ["text", ...].',
            )
        texts = tuple(dict.fromkeys(" ".join(d.split()) for d in descriptors if d.strip()))
        control = next((text for text in (name, *texts) if not is_plain(text)), None)
        if control is not None:
            plain = clean_name(name)
            advice = "; expected plain text."
            if control == name and plain and is_plain(plain):
                advice = f"; write that class as '{plain[:200]}', as `featcache info` does."
            raise UsageError(given, f" has control characters in {control[:200]!a}{advice}")
        left -= len(texts)
        if left < 0:
            raise UsageError(
                given,
                f" has more than {TEXTS.value()} sentences. Leave some out, or raise "
                f"{TEXTS.variable}.",
            )
        try:
            for text in (name, *texts):
                check_length(text)
        except UsageError as error:
            raise UsageError(given, ": ", error.parts) from error
        descriptions[name] = texts
    return descriptions


def match_descriptions(
    texts: Mapping[str, Iterable[str]],
    classes: Iterable[str],
    *,
    what: str = "descriptions",
    are_sentences: bool = False,
) -> tuple[Descriptions, list[str]]:
    """Match the texts of a file to the classes of a data set, ignoring case and underscores.

    Args:
        texts: Content of the file.
        classes: Class names of the data set.
        what: Name of the texts in messages.
        are_sentences: Whether texts are used unchanged; otherwise phrases are appended to the
            class name.

    Returns:
        Class -> sentences for the classes with texts, and notes about names that did not match.

    Raises:
        UsageError: If two names in the file match one class, or no class has texts.
    """
    by_key: dict[str, str] = {}
    for name in texts:
        other = by_key.setdefault(_key(name), name)
        if other != name:
            raise UsageError(f"The {what} name '{other}' and '{name}', which are one class.")
    wanted = {_key(c): c for c in classes}
    matched = {
        c: tuple(d if are_sentences else sentence(c, d) for d in texts[by_key[key]])
        for key, c in wanted.items()
        if key in by_key and texts[by_key[key]]
    }
    here = [c for key, c in wanted.items() if key in by_key]
    if not matched and here:
        raise UsageError(
            f"No class has {what}: the file names {_some(here)} with empty lists. Write sentences "
            "into them, or leave the file out."
        )
    if not matched:
        raise UsageError(
            f"No class has {what}: the file names {_some(texts)}, the data set has "
            f"{_some(wanted.values())}. Name the classes in the file as `featcache info` does."
        )
    missing = [c for c in wanted.values() if c not in matched]
    extra = [name for key, name in by_key.items() if key not in wanted]
    notes = [f"No {what} for {_some(missing)}."] if missing else []
    if extra:
        near = _near(extra[:SUGGESTED], missing)
        notes.append(f"{what[0].upper()}{what[1:]} of no class here: {_some(extra)}.{near}")
    return matched, notes


def sentence(name: str, descriptor: str) -> str:
    """Convert a descriptor to a sentence."""
    text = descriptor.strip()
    if text.endswith("."):
        return text
    first = text.split(maxsplit=1)[0].lower()
    if first in _VERBS:
        link = "which "
    elif first in ("a", "an", "used"):
        link = "which is "
    else:
        link = "which has "
    return f"{name}, {link}{text}."


def _key(name: str) -> str:
    return clean_name(name.replace("-", " ")).casefold()


def _near(extra: list[str], missing: list[str]) -> str:
    """Return a question for names of the file that are similar to a class without texts."""
    plain = {_key(name): name for name in missing[:SUGGESTED_FROM]}
    pairs = []
    for name in extra:
        if near := difflib.get_close_matches(_key(name)[:LONGEST_NAME], plain, n=1, cutoff=0.7):
            pairs.append(f"'{plain[near[0]]}' for '{name[:LONGEST_NAME]}'")
    return f" Did you mean {', '.join(pairs)}?" if pairs else ""


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(f"'{n}'" for n in listed[:5]) + more


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table: dict[str, object] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"'{name[:80]}' stands there twice")
        table[name] = value
    return table

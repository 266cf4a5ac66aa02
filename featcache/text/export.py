"""Write the texts of a data set to a file that `extract` reads, for editing."""

from collections.abc import Mapping
from pathlib import Path

from featcache.errors import UnknownNameError, UsageError
from featcache.keys import PROMPT
from featcache.sources.descriptions import ClassDescriptions, to_json
from featcache.sources.named import datasets, find
from featcache.store.format.files import write_atomically
from featcache.text.encode import HasTexts
from featcache.text.templates import is_plain
from featcache.wording import Argument, Part

EXPORTED = {
    "template": "templates",
    "description": "descriptions",
    "cupl": "cupl",
    "dclip": "dclip",
    PROMPT: "prompts",
}
"""Kind of texts -> argument of `extract` that reads the file."""


def export_texts(words: HasTexts, dataset: str, kind: str, path: Path) -> int:
    """Write the texts of one kind to a new file; return their number.

    Templates and prompts become lines. The other kinds become the project's JSON, with every class
    in label order, those without texts too; `extract` leaves these out.

    Args:
        words: Data set or listing.
        dataset: Its name.
        kind: template, description, cupl, dclip or prompt.
        path: File to write; it must not exist.

    Raises:
        UnknownNameError: If texts of that kind cannot be read from a file.
        UsageError: If there are no texts of that kind, the file exists or its folder does not, or a
            class name cannot be a key.
        CacheError: If it cannot be written.
    """
    if kind not in EXPORTED:
        raise UnknownNameError("kind of text in a file", kind, EXPORTED)
    _refuse_none(words, dataset, kind)
    given = Argument("export", str(path))
    if path.exists() or path.is_symlink():
        raise UsageError(given, " exists. Choose another file, or move it away.")
    if not path.parent.is_dir():
        raise UsageError(given, f": there is no folder {path.parent}. Make it first.")
    if kind in _lines(words):
        lines = _lines(words)[kind]
        write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
        return len(lines)
    odd = next((name for name in words.classes if not is_plain(name)), None)
    if odd is not None:
        raise UsageError(
            f"The class {odd!a} has control characters, which no file of texts can have. Rename "
            "its folder, or the class in its list, and extract again."
        )
    by_class = _by_class(words, kind)
    whole = {name: by_class.get(name, ()) for name in dict.fromkeys(words.classes)}
    write_atomically(path, to_json(_described(dataset, kind, by_class, whole)))
    return sum(map(len, whole.values()))


def _lines(words: HasTexts) -> dict[str, tuple[str, ...]]:
    """Return the kinds that are the same for every class."""
    return {"template": words.templates, PROMPT: words.prompts}


def _by_class(words: HasTexts, kind: str) -> Mapping[str, tuple[str, ...]]:
    return words.descriptions if kind == "description" else words.sets.get(kind, {})


def _refuse_none(words: HasTexts, dataset: str, kind: str) -> None:
    """Refuse a kind without texts, and name those that a file can hold."""
    lines = _lines(words)
    found = [each for each in EXPORTED if any(lines.get(each) or _by_class(words, each).values())]
    if kind in found:
        return
    parts: list[Part] = [f"{dataset} has no texts of kind '{kind}'. "]
    parts += (
        ["Those that can be exported are: "] if found else ["It has none that can be exported."]
    )
    for each in found:
        parts += [Argument("kind", each), "." if each == found[-1] else ", "]
    raise UsageError(*parts)


def _described(
    dataset: str,
    kind: str,
    by_class: Mapping[str, tuple[str, ...]],
    whole: Mapping[str, tuple[str, ...]],
) -> ClassDescriptions:
    """Return texts with their origin, which is known for those that a named data set came with."""
    known = {d.name for d in datasets()}
    if kind == "description" and dataset in known:
        came_with = find(dataset).described
        if set(came_with.descriptions.values()) == set(by_class.values()):
            return ClassDescriptions(
                author=came_with.author,
                method=came_with.method,
                licence=came_with.licence,
                descriptions=whole,
            )
    return ClassDescriptions(
        author="unknown",
        method=f"Texts of kind {kind}, exported from {dataset}.",
        licence="unknown",
        descriptions=whole,
    )

"""Every error a user can expect, in one tree.

    FeatcacheError                    exit 1: one sentence, no traceback
    +-- UsageError                    exit 2: the call itself is wrong
    |   +-- UnknownNameError          an unknown name, with suggestions
    +-- SourceError                   images or listings that cannot be used
    |   +-- DownloadNeededError       a named data set that is not on this machine
    +-- BackboneError                 weights or architecture that cannot be used
    |   +-- WeightsMissingError       weights that are not on this machine
    |   +-- TextsMissingError         a text side whose packages or files are not on this machine
    +-- CacheError                    a cache that cannot be read or written
    |   +-- CacheNotFoundError        no cache has that name
    |   +-- CorruptCacheError         bytes on disk differ from what was written
    |   |   +-- LinkInCacheError      a symbolic link in place of a file of a cache
    |   +-- UnreadableCacheError      a file that could not be read; it may be sound
    |   +-- NewerFormatError          written by a later version
    |   +-- MissingComponentError     features a method needs and the cache lacks
    +-- ImportedFileError             an untrusted file that is refused
    +-- HeadError                     a trained head that does not fit the given rows
    +-- TaskError                     a split, shots or labels that do not allow training
    +-- TrainingError                 training that failed, e.g. a non-finite loss

Messages say what was expected, what was found, and what to do next. They contain arguments and
calls as data (`featcache.wording`): `str` writes them as Python, the command line as flags. Any
other exception that reaches the user is a bug.
"""

import difflib
import re
from collections.abc import Iterable, Sequence

from featcache.escapes import shown
from featcache.wording import Call, Part, in_python, named

LONGEST = 2_000
"""Maximum length of a message in characters."""
COMPARED, COMPARED_NAMES = 60, 1_000
"""Most characters of a name, and most names, that are compared to suggest similar ones: the time
is quadratic in the length of a name and linear in the number of names."""


class FeatcacheError(Exception):
    """Base of every expected error; its message is written for the user."""

    def __init__(self, *parts: Part) -> None:
        """Store the message, safe for a terminal.

        Args:
            parts: Texts, arguments and calls. Untrusted text is allowed: control characters are
                escaped, and a message longer than `LONGEST` is shortened in the middle.
        """
        self.parts = parts
        super().__init__(presentable(in_python(parts)))

    @property
    def suggestion(self) -> Call | None:
        """First call in the message; None if there is none."""
        return next((part for part in named(self.parts) if isinstance(part, Call)), None)


def presentable(message: str) -> str:
    """Return a message of bounded length with control characters escaped."""
    if len(message) > LONGEST:
        message = f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 + 5 :]}"
    return shown(message, keep="\n")


class UsageError(FeatcacheError):
    """The call is wrong: an invalid value, or arguments that exclude each other."""


class UnknownNameError(UsageError):
    """An unknown name; the message lists similar names, or all of a short list."""

    def __init__(
        self,
        kind: Part,
        name: str,
        known: Iterable[str],
        hint: Part = "",
        *,
        also: Iterable[str] = (),
        examples: Sequence[str] = (),
    ) -> None:
        """Compose the message.

        Args:
            kind: What the name should be, as a noun: "method", "backbone".
            name: The unknown name.
            known: All accepted names.
            hint: How to list all names, e.g. "`heads list` shows all."
            also: Further accepted names, such as aliases, which are suggested where they are
                similar and never listed.
            examples: Names that stand for a long list, most useful first; without any, the first
                of the list.
        """
        names = sorted(set(known), key=_by_number)
        compared = [*names, *sorted(also)][:COMPARED_NAMES]
        plain = {_plain(n): n for n in compared}
        close = difflib.get_close_matches(_plain(name), plain, n=4, cutoff=0.5)
        near = [plain[n] for n in close] or [n for n in names if name.lower() in n.lower()][:4]
        if near:
            choice = f"did you mean {_either(near)}?"
        elif len(names) <= 12:
            choice = f"known: {', '.join(names)}." if names else "none are known."
        else:
            shown_few = ", ".join((examples or names)[:4])
            choice = f"{len(names)} are known, for example {shown_few}."
        tail = (" ", hint) if hint else ()
        super().__init__("Unknown ", kind, f" '{name}'; {choice}", *tail)
        self.kind, self.name, self.known = kind, name, tuple(names)


class SourceError(FeatcacheError):
    """Images, folders or split files that cannot be used as they are."""


class DownloadNeededError(SourceError):
    """A named data set whose files are not on this machine."""


class BackboneError(FeatcacheError):
    """An architecture, its weights or its image size that do not fit together."""


class WeightsMissingError(BackboneError):
    """Weights that are not on this machine and could not be downloaded."""


class TextsMissingError(BackboneError):
    """A text side whose packages or files are not on this machine; images can be encoded."""


class CacheError(FeatcacheError):
    """A cache that cannot be read or written."""


class CacheNotFoundError(CacheError):
    """No cache has the given name."""


class CorruptCacheError(CacheError):
    """Bytes on disk differ from what the manifest recorded."""


class LinkInCacheError(CorruptCacheError):
    """A symbolic link in place of a file or folder of a cache; it is not followed."""


class UnreadableCacheError(CacheError):
    """A file of a cache that could not be read and may be undamaged."""


class NewerFormatError(CacheError):
    """A cache or record written by a later version of this program."""


class MissingComponentError(CacheError):
    """Features that a method needs and the cache does not contain."""


class ImportedFileError(FeatcacheError):
    """An imported file whose content is refused."""


class HeadError(FeatcacheError):
    """A trained head that cannot be saved, loaded or applied to the given rows."""


class TaskError(FeatcacheError):
    """A split, a number of shots or labels that do not allow training."""


class TrainingError(FeatcacheError):
    """Training that produced non-finite numbers or cannot be continued."""


class FitWarning(UserWarning):
    """Something that whoever reads a result must know of how its head was made."""


class ConvergenceWarning(FitWarning):
    """A solver that did not converge; the message names the settings to change."""


def _plain(name: str) -> str:
    """Return what is compared of a name: all flags begin alike."""
    return name[:COMPARED].lower().lstrip("-")


def _by_number(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key of a name that orders numbers near its start by value: 4 before 16."""
    parts = re.split(r"([0-9]{1,18})", name[:COMPARED])
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(parts)], name


def _either(names: list[str]) -> str:
    quoted = [f"'{n}'" for n in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]

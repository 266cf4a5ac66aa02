"""Every error a user can expect, in one tree.

    FeatcacheError                    exit 1: one sentence, no traceback
    +-- UsageError                    exit 2: the call itself is wrong
    |   +-- UnknownNameError          a name nobody knows, with near ones
    +-- SourceError                   images or listings that cannot be used
    |   +-- DownloadNeededError       a named data set that is not on this machine
    +-- BackboneError                 weights or architecture that cannot be used
    |   +-- WeightsMissingError       weights that are not on this machine
    +-- CacheError                    a cache that cannot be read or written
    |   +-- CacheNotFoundError        no cache answers to that name
    |   +-- CorruptCacheError         bytes on disk are not what was written
    |   |   +-- LinkInCacheError      a symbolic link where a file of a cache belongs
    |   +-- UnreadableCacheError      bytes that the system does not hand out; may be sound
    |   +-- NewerFormatError          written by a later version
    |   +-- MissingComponentError     features a method needs and the cache lacks
    +-- ImportedFileError             a stranger's file that is refused
    +-- HeadError                     a trained head that does not fit what it is asked
    +-- TaskError                     a split, shots or labels that allow no training
    +-- TrainingError                 a fit that went wrong (non-finite loss)

Messages say what was expected, what came, and what to do next. They name arguments and calls as
data (`featcache.wording`): `str` tells them in Python, the command line in flags. Anything else
that reaches the user is a bug of ours.
"""

import difflib
import re
from collections.abc import Iterable

from featcache.escapes import shown
from featcache.wording import Call, Part, in_python, named

LONGEST = 2_000
"""Characters of a message."""
COMPARED, COMPARED_NAMES = 60, 1_000
"""Characters of a name, and names, among which near ones are looked for: the time grows with the
square of the one and with the other."""


class FeatcacheError(Exception):
    """Base of every expected error; its message is written for the user."""

    def __init__(self, *parts: Part) -> None:
        """Keep the message, as far as a terminal may be given it.

        Args:
            parts: Text, and the arguments and calls that it names. May quote what strangers wrote:
                control characters are shown as escapes, and what is longer than `LONGEST` loses
                its middle.
        """
        self.parts = parts
        super().__init__(presentable(in_python(parts)))

    @property
    def suggestion(self) -> Call | None:
        """The call that the message names; None where it names none."""
        return next((part for part in named(self.parts) if isinstance(part, Call)), None)


def presentable(message: str) -> str:
    """Return a message that a terminal may be given: not too long, control characters escaped."""
    if len(message) > LONGEST:
        message = f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 + 5 :]}"
    return shown(message, keep="\n")


class UsageError(FeatcacheError):
    """The call is wrong: an argument's value, or arguments that exclude each other."""


class UnknownNameError(UsageError):
    """A name that is not known; the message lists near ones, or all of a short list."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: Part = "") -> None:
        """Compose the sentence.

        Args:
            kind: What the name should have been, as a noun: "method", "backbone".
            name: What came.
            known: Every name that would have been accepted.
            hint: What to run for the whole list, e.g. "`heads list` shows all."
        """
        names = sorted(set(known), key=_by_number)
        plain = {n[:COMPARED].lower(): n for n in names[:COMPARED_NAMES]}
        close = difflib.get_close_matches(name[:COMPARED].lower(), plain, n=4, cutoff=0.5)
        near = [plain[n] for n in close] or [n for n in names if name.lower() in n.lower()][:4]
        if near:
            choice = f"did you mean {_either(near)}?"
        elif len(names) <= 12:
            choice = f"known: {', '.join(names)}." if names else "none are known."
        else:
            choice = f"{len(names)} are known, for example {', '.join(names[:4])}."
        super().__init__(f"Unknown {kind} '{name}'; {choice}", *((" ", hint) if hint else ()))
        self.kind, self.name, self.known = kind, name, tuple(names)


class SourceError(FeatcacheError):
    """Images, folders or split files that cannot be used as they are."""


class DownloadNeededError(SourceError):
    """A named data set whose files are not on this machine."""


class BackboneError(FeatcacheError):
    """An architecture, its weights or its image size that do not fit together."""


class WeightsMissingError(BackboneError):
    """Weights that are not on this machine and could not be fetched."""


class CacheError(FeatcacheError):
    """A cache that cannot be read or written."""


class CacheNotFoundError(CacheError):
    """No cache answers to the given name."""


class CorruptCacheError(CacheError):
    """Bytes on disk differ from what the manifest recorded."""


class LinkInCacheError(CorruptCacheError):
    """A symbolic link where a file or folder of a cache belongs; it is not followed."""


class UnreadableCacheError(CacheError):
    """A file of a cache that could not be read; nothing says that it is damaged."""


class NewerFormatError(CacheError):
    """A cache or record written by a later version of this program."""


class MissingComponentError(CacheError):
    """Features that a method needs and the cache does not hold."""


class ImportedFileError(FeatcacheError):
    """A file from elsewhere whose content is refused."""


class HeadError(FeatcacheError):
    """A trained head that cannot be kept, read or asked about these rows."""


class TaskError(FeatcacheError):
    """A split, a number of shots or labels from which nothing can be trained."""


class TrainingError(FeatcacheError):
    """A fit that produced non-finite numbers or cannot be continued."""


class ConvergenceWarning(UserWarning):
    """A solver stopped before it was done; the message names the knobs."""


def _by_number(name: str) -> list[tuple[int, str]]:
    """Order names so that numbers in them go by size: 4 before 16."""
    parts = re.split(r"([0-9]{1,18})", name)
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(parts)]


def _either(names: list[str]) -> str:
    quoted = [f"'{n}'" for n in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]

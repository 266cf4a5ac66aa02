"""How many support images each class gives: the imbalanced supports of the few-shot protocol.

    long-tail:RATIO             n_i = max(1, floor(K RATIO^(i / (c - 1)))), i = 0 .. c - 1
    long-tail:RATIO:by-label    the same, class i in the order of the labels
    counts:FILE                 a file with one count a class, in the order of the labels
    counts:8,4,1                the counts themselves

K are the shots: images of the largest class. RATIO is the size of the smallest class over that of
the largest, as far as whole images allow. Which class comes at which place i is drawn by the seed,
so that the tail is not always made of the same classes; `by-label` keeps their order.

Reference: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019 (the
exponential profile; there `by-label`, and a class may be left without an image).
"""

import hashlib
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from featcache.errors import UsageError
from featcache.limits import WORDS
from featcache.paths import expand, read_regular
from featcache.wording import Argument

LONG_TAIL, COUNTS, BY_LABEL = "long-tail", "counts", "by-label"
MOST = 10**9
"""Largest count of a class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Counts of support images, class by class."""

    text: str
    """What determines it, as it is recorded: `long-tail:0.01`, `counts:8,4,1`."""
    ratio: float = 1.0
    """Smallest class over largest, of a long tail."""
    by_label: bool = False
    given: tuple[int, ...] = ()
    """The counts, where they were given."""

    def shots(self, requested: int | None) -> int | None:
        """Return the images to draw of each class before the subset is taken.

        Args:
            requested: Images a class; None is all. Given counts determine it instead.
        """
        return max(self.given) if self.given else requested

    def counts(self, most: int, classes: int, seed: int) -> Int64[np.ndarray, " c"]:
        """Return the images of each class, by label.

        Args:
            most: Images of the largest class.
            classes: Number of classes.
            seed: Seed of the order of the classes, of a long tail.

        Example:
            >>> profile("long-tail:0.1:by-label", ("a", "b", "c")).counts(10, 3, 1).tolist()
            [10, 3, 1]
        """
        if self.given:
            return np.array(self.given, dtype=np.int64)
        places = [i / max(classes - 1, 1) for i in range(classes)]
        # rounded first: 10 * 0.1 ** 1 may be just below 1
        sizes = [max(1, math.floor(round(most * self.ratio**place, 9))) for place in places]
        order = list(range(classes))
        if not self.by_label:
            digest = hashlib.blake2b(f"long-tail/{seed}".encode(), digest_size=8).digest()
            random.Random(int.from_bytes(digest, "big")).shuffle(order)
        counts = np.zeros(classes, dtype=np.int64)
        counts[order] = sizes
        return counts


def profile(text: str, classes: Sequence[str]) -> Profile:
    """Read a profile.

    Args:
        text: As above.
        classes: Names by label.

    Raises:
        UsageError: If it is none, or its file cannot be read or does not fit the classes.
    """
    kind, _, rest = text.partition(":")
    if kind == COUNTS and rest:
        inline = re.fullmatch(r"[0-9, ]+", rest) is not None
        lines = rest.split(",") if inline else _lines(rest)
        given = _counts(lines, classes, text)
        return Profile(text=f"{COUNTS}:{','.join(map(str, given))}", given=given)
    ratio, _, order = rest.partition(":")
    if kind != LONG_TAIL or order not in ("", BY_LABEL) or rest.endswith(":"):
        raise _wrong(text, "")
    try:
        number = float(ratio)
    except ValueError:
        raise _wrong(text, "") from None
    if not 0 < number < 1:
        raise _wrong(text, "The ratio of the smallest class to the largest is between 0 and 1. ")
    ends = f":{order}" if order else ""
    return Profile(
        text=f"{LONG_TAIL}:{number:g}{ends}", ratio=float(f"{number:g}"), by_label=bool(order)
    )


def _lines(name: str) -> list[str]:
    """Read the lines of a file that are neither empty nor comments."""
    path = expand(Path(name))
    try:
        text = read_regular(path, WORDS).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text ({error.reason}).") from error
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _counts(lines: Sequence[str], classes: Sequence[str], text: str) -> tuple[int, ...]:
    """Read one count a line, and after it the name of the class where it is there."""
    if len(lines) != len(classes):
        raise UsageError(
            Argument("support", text[:80]),
            f" has {len(lines)} counts, and the data set has {len(classes)} classes; give one "
            f"count a class, in the order of the classes.",
        )
    counts = []
    for line, name in zip(lines, classes, strict=True):
        number, *said = line.split(maxsplit=1)[:2] or [""]
        if not re.fullmatch(r"[0-9]{1,10}", number) or int(number) > MOST:
            raise UsageError(
                Argument("support", text[:80]),
                f" has '{line[:80]}' where a whole number of images from 0 is expected.",
            )
        if said and said[0] != name:
            raise UsageError(
                Argument("support", text[:80]),
                f" names class '{said[0][:80]}' where the data set has '{name}'; give the counts "
                f"in the order of the classes.",
            )
        counts.append(int(number))
    if sum(count > 0 for count in counts) < 2:
        raise UsageError(
            Argument("support", text[:80]),
            " leaves fewer than two classes with images; a classifier needs two or more.",
        )
    return tuple(counts)


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(
        f"{why}",
        Argument("support"),
        f" takes long-tail:RATIO, long-tail:RATIO:by-label or counts:FILE, got '{text[:80]}'; "
        f"write e.g. ",
        Argument("support", "long-tail:0.01"),
        ".",
    )

"""Ask for sentences class by class; keep what came in one file that is always whole.

The file is the state: a class that it holds is not asked for again, so an interrupted run goes on
where it stopped.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from featcache.counts import counted
from featcache.errors import FeatcacheError, SourceError, UnknownNameError, UsageError
from featcache.limits import TEXT, WORDS
from featcache.paths import read_regular
from featcache.progress import Report
from featcache.sources.descriptions import ClassDescriptions, read_json, to_json
from featcache.store.format.files import write_atomically
from featcache.store.lock import file_lock
from featcache.text.writer.answers import (
    MOST_WORDS,
    BadAnswerError,
    Refused,
    parse_answer,
    plain_form,
    why_refused,
)
from featcache.text.writer.endpoint import Endpoint
from featcache.wording import Argument, Placeholder

MOST_PER_CLASS = 50
ROUNDS = 3
"""Most questions about one class: sentences that are refused are asked for again."""
FAILURES = 3
"""Classes in a row without any usable answer after which asking ends."""
TOKENS_A_WORD = 1.5
"""Tokens of an English word, generously."""

INSTRUCTIONS: Mapping[str, str] = {
    "description": (
        "You describe how classes of an image data set look, so that a text tower can tell their "
        "images apart. Write short plain English sentences of 6 to 16 words about what can be "
        "seen: shape, colour, texture, parts, surroundings. Begin like the caption of a photo and "
        "end with a full stop. Never use the name of the class or a word of it. Every sentence "
        "says something else. Answer with a JSON array of strings and nothing else."
    ),
    "cupl": (
        "You write prompts for image classification. Write plain English sentences of 8 to 30 "
        "words that describe what an image of the class looks like. Every sentence contains the "
        "name of the class exactly as given and ends with a full stop. Every sentence says "
        "something else. Answer with a JSON array of strings and nothing else."
    ),
}
"""Kind of texts -> what the model is told, if the user gives no instructions."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be written, and by whom."""

    dataset: str
    classes: tuple[str, ...]
    """Class names; equal ones count once."""
    endpoint: Endpoint
    kind: str = "description"
    """description or cupl."""
    per_class: int = 5
    instructions: str = ""
    """What the model is told; the default of the kind if empty."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UnknownNameError: If the kind cannot be written.
            UsageError: If the number of sentences is out of range, or the instructions too long.
        """
        if self.kind not in INSTRUCTIONS:
            raise UnknownNameError("kind of text to write", self.kind, INSTRUCTIONS)
        if not 1 <= self.per_class <= MOST_PER_CLASS:
            raise UsageError(
                Argument("per_class"), f" takes 1 to {MOST_PER_CLASS}, got {self.per_class}."
            )

    @property
    def system(self) -> str:
        """What the model is told first."""
        return self.instructions or INSTRUCTIONS[self.kind]

    @property
    def method(self) -> str:
        """How the sentences come about, without the date."""
        digest = hashlib.sha256(self.system.encode()).hexdigest()[:12]
        return (
            f"Texts of kind {self.kind} for {self.dataset}, {self.per_class} a class, by the model "
            f"{self.endpoint.model} at {self.endpoint.host} after instructions {digest}."
        )

    def question(self, name: str, count: int, taken: Iterable[str] = ()) -> str:
        """Return the question about one class."""
        had = list(taken)
        without = f" Not these: {json.dumps(had, ensure_ascii=False)}." if had else ""
        return (
            f"Data set: {self.dataset}. Class: {json.dumps(name, ensure_ascii=False)}. "
            f"Write {counted(count, 'sentence')}.{without}"
        )

    def most_tokens(self, count: int) -> int:
        """Return the most tokens of an answer with so many sentences."""
        return 100 + math.ceil(count * MOST_WORDS[self.kind] * TOKENS_A_WORD)


@dataclass(frozen=True, slots=True)
class Cost:
    """What is asked for, before anything is."""

    requests: int
    """Questions if no sentence is refused."""
    tokens_in: int
    tokens_out: int
    """Estimates from the number of words."""
    classes: int
    written: int
    """Classes that the file has already."""

    def sentence(self, order: Order) -> str:
        """Return the cost in one sentence."""
        had = (
            f" ({self.written} of {self.classes} classes are written already)"
            if self.written
            else ""
        )
        return (
            f"{counted(self.requests, 'request')} to {order.endpoint.host} for {order.dataset}, "
            f"model {order.endpoint.model}: about {self.tokens_in:,} tokens in and "
            f"{self.tokens_out:,} out{had}; up to {ROUNDS} times as many where sentences are "
            "refused."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a run wrote."""

    path: Path
    classes: int
    """Classes of the data set with sentences now."""
    without: tuple[str, ...]
    """Classes for which no sentence could be used; the same order asks for them again."""
    sentences: int
    requests: int
    refused: tuple[Refused, ...]


def cost_of(order: Order, path: Path) -> Cost:
    """Estimate what an order costs, given what its file has already.

    Raises:
        UsageError: As `written_before`.
    """
    had = written_before(order, path).descriptions
    left = [name for name in dict.fromkeys(order.classes) if name not in had]
    words_in = sum(len((order.system + order.question(name, 1)).split()) + 10 for name in left)
    words_out = len(left) * order.per_class * MOST_WORDS[order.kind] * 0.8
    return Cost(
        requests=len(left),
        tokens_in=round(words_in * TOKENS_A_WORD),
        tokens_out=round(words_out * TOKENS_A_WORD),
        classes=len(set(order.classes)),
        written=len(had),
    )


def write_texts(
    order: Order,
    path: Path,
    *,
    report: Report | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Written:
    """Ask for the sentences that a file lacks; each class is on disk before the next is asked for.

    Args:
        order: What is written.
        path: JSON file, created or continued; `extract` reads it as descriptions or cupl.
        report: Called with the number of classes.
        say: Called with sentences that the user should read.

    Raises:
        UsageError: As `written_before`.
        SourceError: If the endpoint refuses or stays busy, or its answers cannot be used.
        CacheError: If the file cannot be written, or another process is writing to it.
    """
    written_before(order, path)  # says what to do about a folder that cannot be written
    with file_lock(path):
        return _write(order, path, report, say)


def _write(order: Order, path: Path, report: Report | None, say: Callable[[str], None]) -> Written:
    """Do what `write_texts` says, as the only writer."""
    state = written_before(order, path)
    kept = dict(state.descriptions)
    seen = {plain_form(sentence) for sentences in kept.values() for sentence in sentences}
    names = list(dict.fromkeys(order.classes))
    asking = _Asking(order, seen)
    failures = 0
    for name in (name for name in names if name not in kept):
        try:
            sentences = asking.about(name, say)
        except SourceError as error:
            raise SourceError(*error.parts, _goes_on(path, kept, names)) from error
        failures = 0 if sentences else failures + 1
        if failures == FAILURES:
            raise SourceError(
                f"{order.endpoint.model} gave nothing usable for {FAILURES} classes in a row; the "
                f"last was refused because it {asking.last}. Change the instructions with ",
                Argument("instructions", Placeholder("FILE")),
                ", or choose another ",
                Argument("model"),
                ".",
                _goes_on(path, kept, names),
            )
        if sentences:
            kept[name] = sentences
            state = replace(state, descriptions={c: kept[c] for c in names if c in kept})
            write_atomically(path, to_json(state))
        if report:
            report("writing texts", len(kept), len(names))
    return Written(
        path=path,
        classes=len(kept),
        without=tuple(name for name in names if name not in kept),
        sentences=sum(map(len, kept.values())),
        requests=asking.requests,
        refused=tuple(asking.refused),
    )


def written_before(order: Order, path: Path) -> ClassDescriptions:
    """Return what a file has of an order; an empty one if there is no file.

    Raises:
        UsageError: If the file cannot be read or written, or has texts of another order.
    """
    target = Argument("export", str(path))
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(target, " lies in no folder that can be written. Choose another file.")
    today = datetime.now(UTC).date().isoformat()
    fresh = ClassDescriptions(
        author=f"{order.endpoint.model} ({order.endpoint.host})",
        method=f"{order.method} Begun on {today}.",
        licence=f"as the terms of {order.endpoint.host} have it",
        descriptions={},
    )
    if not path.exists():
        return fresh
    try:
        found = read_json(path.stem, read_regular(path, WORDS), where=str(path))
    except (OSError, FeatcacheError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(target, f" cannot be continued ({why}). Choose another file.") from error
    others = [name for name in found.descriptions if name not in order.classes]
    if not found.method.startswith(order.method) or others:
        raise UsageError(
            target,
            f" holds other texts ({found.method[:200]}). Choose another file, or move it away.",
        )
    return found


def read_instructions(path: Path) -> str:
    """Read what the model is told from a text file.

    Raises:
        UsageError: If it cannot be read, is empty, or is longer than a text may be.
    """
    given = Argument("instructions", str(path))
    try:
        text = read_regular(path, WORDS).decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(given, f" could not be read ({why}); expected UTF-8 text.") from error
    if not text or len(text) > 4 * TEXT.value():
        raise UsageError(given, f" has {len(text)} characters, expected 1 to {4 * TEXT.value()}.")
    return text


class _Asking:
    """Questions of one order."""

    def __init__(self, order: Order, seen: set[str]) -> None:
        """Start.

        Args:
            order: What is written.
            seen: Plain forms of all sentences that were taken.
        """
        self.order = order
        self.requests = 0
        self.refused: list[Refused] = []
        self.last = ""
        """Why the last answer or sentence was refused."""
        self._seen = seen

    def about(self, name: str, say: Callable[[str], None]) -> tuple[str, ...]:
        """Return the sentences that were taken for one class, at most as many as ordered."""
        taken: list[str] = []
        for _ in range(ROUNDS):
            left = self.order.per_class - len(taken)
            if left <= 0:
                break
            self.requests += 1
            body = self.order.endpoint.ask(
                self.order.system,
                self.order.question(name, left, taken),
                most_tokens=self.order.most_tokens(left),
            )
            try:
                sentences = parse_answer(body)
            except BadAnswerError as error:
                self.last = str(error)
                say(f"The answer about '{name}' {error}; asking again.")
                continue
            for sentence in sentences:
                if len(taken) < self.order.per_class and self._takes(name, sentence):
                    taken.append(sentence)
        return tuple(taken)

    def _takes(self, name: str, sentence: str) -> bool:
        why = why_refused(self.order.kind, name, sentence)
        if not why and plain_form(sentence) in self._seen:
            why = "was written before"
        if why:
            self.last = why
            self.refused.append(Refused(name, sentence, why))
            return False
        self._seen.add(plain_form(sentence))
        return True


def _goes_on(path: Path, kept: Mapping[str, object], names: list[str]) -> str:
    if not kept:
        return ""
    return f" {len(kept)} of {len(names)} classes are in {path}; the same command goes on."

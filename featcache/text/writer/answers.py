"""What counts as an answer of the model, and which of its sentences are refused."""

import json
from dataclasses import dataclass
from typing import Any

from featcache.text.naming import given_away, names_class, words_of
from featcache.text.templates import is_plain

FEWEST_WORDS = 5
MOST_WORDS = {"description": 19, "cupl": 40}
LONGEST = 400
"""Most characters of a sentence."""
MOST_SENTENCES = 200
"""Most sentences of one answer."""


class BadAnswerError(Exception):
    """An answer that cannot be used; the message is a predicate."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A sentence that was not taken."""

    class_: str
    sentence: str
    why: str
    """A predicate: names its class (Forest)."""


def parse_answer(body: bytes) -> list[str]:
    r"""Return the sentences of an answer: a JSON array of strings in the model's message.

    Args:
        body: Body of a chat completion.

    Raises:
        BadAnswerError: If it is anything else.

    Example:
        >>> parse_answer(b'{"choices": [{"message": {"content": "[\\"Green tree tops.\\"]"}}]}')
        ['Green tree tops.']
    """
    content = _message(_load(body.decode("utf-8", "replace"), "is not JSON"))
    text = content.strip()
    if text.startswith("```") and text.endswith("```") and len(text) >= 6:
        text = text[3:-3].strip().removeprefix("json")
    value = _load(text, "has a message that is not a JSON array of sentences")
    if isinstance(value, dict) and len(value) == 1:  # what models in JSON mode send
        value = next(iter(value.values()))
    if not isinstance(value, list) or not all(isinstance(s, str) for s in value):
        raise BadAnswerError("has a message that is not a JSON array of sentences")
    if not value or len(value) > MOST_SENTENCES:
        raise BadAnswerError(f"has {len(value)} sentences")
    return [" ".join(s.split()) if is_plain(s) else s for s in value]


def why_refused(kind: str, name: str, sentence: str) -> str:
    """Return why a sentence about a class is refused; empty if it is taken.

    Descriptions do not name their class, since the sentence would say no more than the name; CuPL's
    sentences name it.

    Args:
        kind: description or cupl.
        name: Name of the class.
        sentence: Sentence of the model.

    Example:
        >>> why_refused("description", "Forest", "a photo of a dense forest from above.")
        "names its class ('forest')"
    """
    count = len(sentence.split())
    if not is_plain(sentence):
        return "has control characters"
    if len(sentence) > LONGEST or not FEWEST_WORDS <= count <= MOST_WORDS[kind]:
        return f"has {count} words, expected {FEWEST_WORDS} to {MOST_WORDS[kind]}"
    if not sentence.endswith(".") or "{" in sentence or "}" in sentence:
        return "has braces or no full stop at its end"
    if kind == "cupl":
        return "" if names_class(name, sentence) else "does not name its class"
    told = given_away(name, sentence)
    return f"names its class ({', '.join(map(repr, sorted(told)))})" if told else ""


def plain_form(sentence: str) -> str:
    """Return what two sentences have in common that differ in case and punctuation only."""
    return " ".join(words_of(sentence))


def _message(value: Any) -> str:
    try:
        content = value["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise BadAnswerError("has no choices[0].message.content") from None
    if not isinstance(content, str):
        raise BadAnswerError("has a message without text")
    return content


def _load(text: str, otherwise: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadAnswerError(otherwise) from None

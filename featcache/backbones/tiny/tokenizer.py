"""Tokeniser with a short vocabulary of words; every other word is split into characters.

Token 0 is padding, followed by the start token, the characters and the words. The end token has the
highest id, because open_clip reads the features of a sentence at the largest token id. Case and
punctuation are dropped.
"""

import re
import unicodedata
from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

_WORDS = """
    a abdomen an and antennae are around at black blue body border brown butterfly called
    carries carry chevrons close clubbed coloured curled dot dots drawing drawn each edged end
    ends eyespot feathered forewing forewings fringe from front green grey has have hindwing
    hindwings image in insect is its kind large long marked markings moth night no of on one
    orange pale photo photograph picture pink plain purple red rings round scan seen sketch
    small species spots stripes tails that the there this tips trail two view white wide wing
    with without yellow
"""
WORDS: tuple[str, ...] = tuple(_WORDS.split())
"""Words that are one token, sorted."""

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_PIECES = ("<pad>", "<start>", "<word>", "<byte>", *CHARACTERS, *(f"{w} " for w in WORDS))
# The trailing space of words separates the word "a" from the letter "a".
_ID = {piece: i for i, piece in enumerate(_PIECES)}
_SPLIT = re.compile(r"[^\W_]+")


def _pieces(text: str) -> Iterator[str]:
    """Split a text; a word outside the vocabulary becomes <word> and its characters."""
    plain = unicodedata.normalize("NFKD", text.lower())
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    for word in _SPLIT.findall(plain):
        if f"{word} " in _ID:
            yield f"{word} "
            continue
        yield "<word>"
        for character in word:
            if character in CHARACTERS:
                yield character
            else:
                yield "<byte>"
                yield from character.encode().hex()


class TinyTokenizer:
    """Maps sentences to rows of token ids; there is no unknown token."""

    def __init__(self, *, context_length: int = 32, vocab_size: int = 133) -> None:
        """Set the context length and the vocabulary size of the text model.

        Args:
            context_length: Tokens per row, with start and end.
            vocab_size: Rows of the embedding table; the last one is the end token.

        Raises:
            ValueError: If the vocabulary is larger.
        """
        if vocab_size <= len(_PIECES):
            message = f"vocab_size must exceed {len(_PIECES)}, got {vocab_size}."
            raise ValueError(message)
        self.context_length = context_length
        self.vocab_size = vocab_size

    @property
    def end(self) -> int:
        """Id of the end token."""
        return self.vocab_size - 1

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, with start and end, not truncated."""
        return [_ID["<start>"], *(_ID[p] for p in _pieces(text)), self.end]

    def __call__(self, texts: str | list[str]) -> Int[Tensor, "m length"]:
        """Encode texts into rows padded with 0; long texts are truncated before the end token."""
        rows = torch.zeros(
            (1 if isinstance(texts, str) else len(texts), self.context_length), dtype=torch.long
        )
        for row, text in zip(rows, [texts] if isinstance(texts, str) else texts, strict=True):
            tokens = self.encode(text)
            if len(tokens) > self.context_length:
                tokens = [*tokens[: self.context_length - 1], self.end]
            row[: len(tokens)] = torch.tensor(tokens)
        return rows

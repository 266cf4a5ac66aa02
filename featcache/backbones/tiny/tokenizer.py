"""Words become numbers: a short list of whole words, and letters for every other word.

Token 0 pads, then come the start, the characters and the words; the end has the highest number,
because open_clip reads the sentence's features where the largest token stands. Case and
punctuation carry nothing here and are dropped.
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
"""Words with a token of their own, sorted."""

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_PIECES = ("<pad>", "<start>", "<word>", "<byte>", *CHARACTERS, *(f"{w} " for w in WORDS))
# A word has a trailing space here, so that the word "a" and the letter "a" stay two things.
_NUMBER = {piece: i for i, piece in enumerate(_PIECES)}
_SPLIT = re.compile(r"[^\W_]+")


def _pieces(text: str) -> Iterator[str]:
    """Split a text; an unlisted word is its characters after a mark that a word begins."""
    plain = unicodedata.normalize("NFKD", text.lower())
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    for word in _SPLIT.findall(plain):
        if f"{word} " in _NUMBER:
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
    """Turn sentences into rows of token numbers; there is no unknown token."""

    def __init__(self, *, context_length: int = 32, vocab_size: int = 133) -> None:
        """Fix the row length and the number of tokens of the text model.

        Args:
            context_length: Tokens in a row, start and end included.
            vocab_size: Rows of the embedding table; its last one is the end of a sentence.
        """
        if vocab_size <= len(_PIECES):
            message = f"vocab_size must exceed {len(_PIECES)}, got {vocab_size}."
            raise ValueError(message)
        self.context_length = context_length
        self.vocab_size = vocab_size

    @property
    def end(self) -> int:
        """Number of the token that closes a sentence."""
        return self.vocab_size - 1

    def encode(self, text: str) -> list[int]:
        """List a text's tokens, start and end included, however long it is."""
        return [_NUMBER["<start>"], *(_NUMBER[p] for p in _pieces(text)), self.end]

    def __call__(self, texts: str | list[str]) -> Int[Tensor, "m length"]:
        """Encode texts, padded with 0; a long one loses its last words and keeps its end."""
        rows = torch.zeros(
            (1 if isinstance(texts, str) else len(texts), self.context_length), dtype=torch.long
        )
        for row, text in zip(rows, [texts] if isinstance(texts, str) else texts, strict=True):
            tokens = self.encode(text)
            if len(tokens) > self.context_length:
                tokens = [*tokens[: self.context_length - 1], self.end]
            row[: len(tokens)] = torch.tensor(tokens)
        return rows

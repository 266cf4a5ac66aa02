"""A tokenizer read from local files, as they are: no code of theirs runs, no package converts them.

tokenizer.json            of Hugging Face, with tokenizer_config.json or special_tokens_map.json
                          beside it, which name the padding token
*.model                   sentencepiece, as SigLIP's authors publish it

Ids of a sentence are those of its cleaned text, cut to the context with its last special token
kept, and padded. Which cleaning a tower was trained with is part of its config: SigLIP's removes
punctuation and lowers letters.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from open_clip.tokenizer import get_clean_fn
from torch import Tensor

from featcache.errors import BackboneError, UsageError
from featcache.limits import WORDS
from featcache.paths import read_regular
from featcache.wording import Argument, Placeholder

TOKENIZER = "tokenizer.json"
SPECIAL = ("tokenizer_config.json", "special_tokens_map.json")
"""Files that name the special tokens of tokenizer.json."""
MODELS = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
"""Usual names of sentencepiece models."""
SPARE = 256
"""Largest difference between the sizes of a tokenizer and of its tower's vocabulary."""
CONTEXT = 77
"""Tokens of a sentence, for configs that do not say."""
END = 1
"""Id of the end of a sentence in SigLIP's sentencepiece models."""


@dataclass(frozen=True)
class FileTokenizer:
    """A tokenizer from files; called like those of open_clip."""

    split: Callable[[str], tuple[list[int], bool]] = field(repr=False)
    """Cleaned text -> its ids within the context, special tokens included, and whether it was
    longer."""
    clean: Callable[[str], str] = field(repr=False)
    context_length: int
    pad: int
    erased: int | None
    """Id that is replaced by 0, as towers trained without separators want; None for none."""
    vocabulary: int
    """Size of the tower's vocabulary."""
    digest: str
    """sha256 of the files, 64 hex digits."""

    def cuts(self, text: str) -> bool:
        """Tell whether a sentence is longer than the context."""
        return self.split(self.clean(text))[1]

    def __call__(self, texts: Sequence[str]) -> Int64[Tensor, "m context"]:
        """Return the ids of sentences.

        Raises:
            BackboneError: If an id is outside of the tower's vocabulary.
        """
        rows = torch.full((len(texts), self.context_length), self.pad, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            ids, _ = self.split(self.clean(text))
            row[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
        if rows.numel() and int(rows.max()) >= self.vocabulary:
            raise BackboneError(
                f"The tokenizer gave the id {int(rows.max())} and the text tower knows "
                f"{self.vocabulary}. Give the tokenizer that the model was trained with: ",
                Argument("tokenizer", Placeholder("PATH")),
                ".",
            )
        return rows if self.erased is None else rows.masked_fill(rows == self.erased, 0)


def has_tokenizer(folder: Path) -> bool:
    """Tell whether a folder has files that `read_tokenizer` reads."""
    return any((folder / name).is_file() for name in (TOKENIZER, *MODELS))


def read_tokenizer(path: Path, text: Mapping[str, Any]) -> FileTokenizer:
    """Read a tokenizer for a text tower.

    Args:
        path: tokenizer.json, a sentencepiece model, or a folder with one of them.
        text: The part `text_cfg` of open_clip's config.

    Raises:
        UsageError: If there is no such file, or the tower uses CLIP's own tokenizer.
        BackboneError: If it cannot be read, or is not one of this tower.
    """
    if not text.get("hf_tokenizer_name"):
        raise UsageError(
            "This backbone uses CLIP's own tokenizer, which is always there. Leave ",
            Argument("tokenizer"),
            " out.",
        )
    file = path
    if path.is_dir():
        file = next((path / n for n in (TOKENIZER, *MODELS) if (path / n).is_file()), path)
    if not file.is_file():
        raise UsageError(
            f"There is no tokenizer at {path}: expected {TOKENIZER}, one of {', '.join(MODELS)}, "
            f"or a folder with one of them, after ",
            Argument("tokenizer"),
            ".",
        )
    try:
        read = _read_json if file.suffix == ".json" else _read_sentencepiece
        return read(file, text)
    except ImportError as error:
        raise BackboneError(
            f"Reading {file} needs a package that is not installed ({error}). Run `pip install "
            f"'featcache[hf]'`."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BackboneError(
            f"{file} cannot be read as a tokenizer ({' '.join(str(error).split())[:160]}). Copy it "
            f"again from the model's page."
        ) from error


def _read_json(file: Path, text: Mapping[str, Any]) -> FileTokenizer:
    from tokenizers import Tokenizer

    data = read_regular(file, WORDS)
    sha256 = hashlib.sha256(data)
    tokens: dict[str, str] = {}
    for name in SPECIAL:
        beside = file.parent / name
        if beside.is_file():
            content = read_regular(beside, WORDS)
            sha256.update(content)
            tokens = _special_tokens(json.loads(content)) | tokens
    try:
        tokenizer = Tokenizer.from_str(data.decode())
    except Exception as error:  # the package raises bare exceptions
        raise ValueError(str(error)) from error
    _check_size(file, tokenizer.get_vocab_size(), text)
    given = tokenizer.padding or {}
    tokenizer.no_padding()
    pad = tokenizer.token_to_id(tokens["pad_token"]) if "pad_token" in tokens else None
    pad = given.get("pad_id") if pad is None else pad
    if pad is None:
        raise BackboneError(
            f"{file} does not say which token pads a sentence. Put {SPECIAL[0]} of the model, "
            f"which has pad_token, beside it."
        )
    strip = bool((text.get("tokenizer_kwargs") or {}).get("strip_sep_token"))
    separator = tokenizer.token_to_id(tokens.get("sep_token", "[SEP]")) if strip else None
    tokenizer.enable_truncation(_context(text))

    def split(sentence: str) -> tuple[list[int], bool]:
        encoding = tokenizer.encode(sentence)
        return list(encoding.ids), bool(encoding.overflowing)

    return _made(
        text,
        split=split,
        pad=int(pad),
        erased=separator,
        digest=sha256.hexdigest(),
    )


def _read_sentencepiece(file: Path, text: Mapping[str, Any]) -> FileTokenizer:
    """Read SigLIP's kind: pieces, then the end; SigLIP pads with the end, SigLIP2 with 0."""
    from sentencepiece import SentencePieceProcessor

    name = str(text["hf_tokenizer_name"])
    if "siglip" not in name.lower():
        raise BackboneError(
            f"sentencepiece models are read for SigLIP and SigLIP2 only, and this backbone has the "
            f"tokenizer {name}. Give its {TOKENIZER} instead of {file}."
        )
    data = read_regular(file, WORDS)
    pieces = SentencePieceProcessor()
    pieces.LoadFromSerializedProto(data)
    _check_size(file, pieces.GetPieceSize(), text)
    context = _context(text)

    def split(sentence: str) -> tuple[list[int], bool]:
        ids: list[int] = pieces.EncodeAsIds(sentence)
        return [*ids[: context - 1], END], len(ids) >= context

    return _made(
        text,
        split=split,
        pad=0 if "siglip2" in name.lower() else END,
        erased=None,
        digest=hashlib.sha256(data).hexdigest(),
    )


def _made(text: Mapping[str, Any], **parts: Any) -> FileTokenizer:
    settings = text.get("tokenizer_kwargs") or {}
    return FileTokenizer(
        clean=get_clean_fn(settings.get("clean", "whitespace")),
        context_length=_context(text),
        vocabulary=int(text.get("vocab_size", 2**31)) if "hf_model_name" not in text else 2**31,
        **parts,
    )


def _context(text: Mapping[str, Any]) -> int:
    return int(text.get("context_length", CONTEXT))


def _check_size(file: Path, size: int, text: Mapping[str, Any]) -> None:
    """Refuse the tokenizer of another model: its ids would mean other words.

    Raises:
        BackboneError: If its vocabulary has another size.
    """
    expected = text.get("vocab_size")
    if expected is not None and abs(size - int(expected)) > SPARE:
        raise BackboneError(
            f"{file} has {size} tokens and this backbone's text tower {expected}, so it belongs to "
            f"another model. Give the files of {text['hf_tokenizer_name']}."
        )


def _special_tokens(value: Any) -> dict[str, str]:
    """Return special tokens by role; a token is a text, or an object with `content`."""
    if not isinstance(value, dict):
        raise ValueError("the file of its special tokens is no JSON object")
    contents = {k: v.get("content") if isinstance(v, dict) else v for k, v in value.items()}
    return {k: v for k, v in contents.items() if k.endswith("_token") and isinstance(v, str)}

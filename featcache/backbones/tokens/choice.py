"""The tokenizer of a model: CLIP's own, local files, or a Hugging Face tokenizer by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
from open_clip.tokenizer import HFTokenizer

from featcache.backbones.hub import hub_file, offline_reason
from featcache.backbones.tokens.files import CONTEXT, read_tokenizer
from featcache.errors import TextsMissingError
from featcache.wording import Argument, Placeholder

EXTRA = "pip install 'featcache[hf]'"
"""Installs what Hugging Face tokenizers need."""


def build_tokenizer(config: Mapping[str, Any], own: Path | None = None) -> Any:
    """Return the tokenizer of a model: sentences -> int64 ids [m, context].

    Args:
        config: open_clip's config of the model.
        own: File or folder of the tokenizer; None takes the one that the config names.

    Raises:
        TextsMissingError: If the config names one whose package or files are missing.
        BackboneError: If the files of `own` are no tokenizer of this model.
        UsageError: If `own` is given for a model that uses CLIP's own tokenizer.
    """
    text = config["text_cfg"]
    if own is not None:
        return read_tokenizer(own, text)
    name = text.get("hf_tokenizer_name")
    context = int(text.get("context_length", CONTEXT))
    settings = dict(text.get("tokenizer_kwargs") or {})
    if not name:
        return open_clip.SimpleTokenizer(context_length=context, **settings)
    reason = None if hub_file(name, "tokenizer_config.json") else offline_reason(name)
    if reason is not None:
        raise lacking_texts(f"the tokenizer {name}", reason)
    try:
        return HFTokenizer(name, context_length=context, trust_remote_code=False, **settings)
    except Exception as error:  # transformers and the hub's client fail in many ways
        raise lacking_texts(f"the tokenizer {name}", error) from error


def lacking_texts(what: str, why: Exception | str) -> TextsMissingError:
    """Return the error of a text side that cannot be had, with what helps.

    Args:
        what: What is missing, as a noun.
        why: What stood in the way.
    """
    kind = "" if isinstance(why, str) else f"{type(why).__name__}: "
    reason = kind + " ".join(str(why).split())[:160]
    return TextsMissingError(
        f"Texts cannot be encoded: {what} could not be loaded ({reason}). Images do not need it, "
        f"and neither do methods that read no class texts, as linear-probe, ridge and knn; "
        f"zero-shot and methods that start from it do. Run `{EXTRA}` and try once with network, or "
        f"give the files of the tokenizer with ",
        Argument("tokenizer", Placeholder("PATH")),
        ".",
    )

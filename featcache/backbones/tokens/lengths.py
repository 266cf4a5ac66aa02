"""Whether a sentence is longer than a text tower reads."""

from typing import Any

import open_clip

from featcache.backbones.tokens.files import FileTokenizer


def is_cut(tokenizer: Any, text: str) -> bool:
    """Tell whether a sentence, its start and end included, is longer than the context.

    Args:
        tokenizer: Of this package, of open_clip or of Hugging Face.
        text: Sentence.
    """
    if isinstance(tokenizer, FileTokenizer):
        return tokenizer.cuts(text)
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        count = len(tokenizer.encode(text)) + 2
    elif hasattr(tokenizer, "encode"):
        count = len(tokenizer.encode(text))
    else:
        count = len(tokenizer.tokenizer(tokenizer.clean_fn(text)).input_ids)
    return count > int(tokenizer.context_length)

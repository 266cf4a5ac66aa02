"""The optional pyarrow, and what Hugging Face's library writes into a parquet schema."""

import json
from importlib import import_module
from typing import Any

from featcache.errors import FeatcacheError
from featcache.limits import WORDS

OLDEST = (14, 0, 1)
"""Versions of pyarrow before this one run code that a file brings (CVE-2023-47248)."""


def load_pyarrow(error: type[FeatcacheError]) -> Any:
    """Import pyarrow's parquet module.

    Args:
        error: Kind of error to raise.

    Raises:
        FeatcacheError: Of the given kind, if pyarrow is not installed, or too old.
    """
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as missing:
        raise error(
            "Parquet files are read with pyarrow, which is not installed. Install it with: "
            "pip install 'featcache[data]'"
        ) from missing
    version = tuple(int(part) for part in pyarrow.__version__.split(".")[:3] if part.isdigit())
    if version < OLDEST:
        raise error(
            f"Parquet files are read with pyarrow from {'.'.join(map(str, OLDEST))} on, and "
            f"{pyarrow.__version__} is installed, which can run code that a file brings. Install "
            f"it with: pip install 'featcache[data]'"
        )
    return parquet


def huggingface_features(schema: Any) -> dict[str, Any]:
    """Return the features that Hugging Face's `datasets` wrote into a schema; empty without any.

    Args:
        schema: pyarrow's schema.
    """
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    if len(text) > WORDS.value():
        return {}
    try:
        match json.loads(text):
            case {"info": {"features": dict(features)}}:
                return features
    except (ValueError, RecursionError):
        pass
    return {}

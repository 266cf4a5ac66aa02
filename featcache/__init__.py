"""Encode a data set once with a CLIP-like model; keep the features in a cache that cannot rot.

    cache = featcache.extract("folder:photos", "ViT-B/16", patches=["clearclip"])
    cache = featcache.open("photos", "ViT-B/16")
    found = featcache.embed(["photo.jpg"], "ViT-B/16")
    featcache.search("a red bicycle", caches="photos").save_sheet("bicycles.html")

Nothing is imported before it is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featcache.api import embed as embed
    from featcache.api import extract as extract
    from featcache.api import open as open
    from featcache.api import search as search

__all__ = ["embed", "extract", "open", "search"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'featcache' has no attribute '{name}'")
    import importlib

    value = getattr(importlib.import_module("featcache.api"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

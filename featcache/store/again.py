"""The call that continues a cache."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache.store.provenance import weights_argument
from featcache.store.root import cache_root
from featcache.wording import Call

if TYPE_CHECKING:
    from featcache.store.cache import Cache


def extract_call(path: Path, dataset: str, backbone: str, weights: str = "") -> Call:
    """Compose the call that continues a cache, without further components and options.

    Args:
        path: Folder of the cache.
        dataset: Name of its data set.
        backbone: Name of its backbone.
        weights: Weights that were named when it was made; empty if none were.
    """
    arguments: dict[str, Any] = {"dataset": dataset, "backbone": backbone}
    arguments |= {"weights": weights} if weights else {}
    root = path.parent.parent
    arguments |= {"root": str(root)} if root != cache_root(None) else {}
    return Call("featcache.extract", arguments)


def extract_with(cache: "Cache", **added: str | list[str]) -> Call:
    """Compose the call that continues a cache with further arguments, e.g. `views=["2"]`."""
    weights = weights_argument(cache.key, cache.shards)
    call = extract_call(cache.path, cache.dataset, cache.backbone, weights)
    return Call(call.function, {**call.arguments, **added})


def command(call: Call) -> str:
    """Write an extraction as a command, for records and reports that outlive the process.

    Args:
        call: Call from `extract_call`, with further components or without.

    Example:
        >>> command(Call("featcache.extract", {"dataset": "pets", "views": ["10", "4:cdfsl"]}))
        'featcache extract --dataset pets --views 10 --views 4:cdfsl'
    """
    words = ["featcache", "extract"]
    for name, value in call.arguments.items():
        flag = "--cache" if name == "root" else f"--{name.replace('_', '-')}"
        for each in value if isinstance(value, list) else [value]:
            words += [flag, each]
    return shlex.join(words)

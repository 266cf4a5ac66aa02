"""The extraction that goes on with a cache, as a call and as a command."""

import shlex
from pathlib import Path
from typing import Any

from featcache.recipes import FLAGS
from featcache.store.library import cache_root
from featcache.wording import Call


def extraction(path: Path, dataset: str, backbone: str, weights: str = "") -> Call:
    """Compose the call of `featcache.extract` for a cache, without components that were added.

    Args:
        path: The cache.
        dataset: Its data set.
        backbone: Its backbone.
        weights: Weights as `extract` was given them; empty where it was given none.
    """
    arguments: dict[str, Any] = {"dataset": dataset, "backbone": backbone}
    arguments |= {"weights": weights} if weights else {}
    root = path.parent.parent
    arguments |= {"root": str(root)} if root != cache_root(None) else {}
    return Call("featcache.extract", arguments)


def command(call: Call) -> str:
    """Write an extraction as a command, for records and reports that outlive the process.

    Args:
        call: From `extraction`, with further components or without.

    Example:
        >>> command(Call("featcache.extract", {"dataset": "pets", "views": ["10", "4:cdfsl"]}))
        'featcache extract --dataset pets --views 10 --views 4:cdfsl'
    """
    words = ["featcache", "extract"]
    for name, value in call.arguments.items():
        flag = "--cache" if name == "root" else FLAGS.get(name, f"--{name}")
        for each in value if isinstance(value, list) else [value]:
            words += [flag, each]
    return shlex.join(words)

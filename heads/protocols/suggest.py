"""Suggest the extraction that adds what a method needs and a cache lacks."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from featcache.recipes import FEW_SHOT, RECIPES, USUAL, ComponentRequest, Scope
from featcache.store.library import cache_root
from featcache.types import FeatureSet
from featcache.wording import Call
from heads.contract import Need

ROLES: Mapping[str, Scope] = {"support": FEW_SHOT, "query": Scope("query"), "pool": Scope("pool")}
"""Role -> the rows that play it, unless the protocol knows better."""


def support_scope(shots: int | None, seeds: Iterable[int]) -> Scope:
    """Name the rows that draws of so many shots with these seeds use."""
    if shots is None:
        return Scope("train")
    low, high = min(seeds), max(seeds)
    first, last = FEW_SHOT.seeds
    # The usual rows serve every power of two up to 16 shots, so one pass will do for all of them.
    usual = shots <= FEW_SHOT.shots and shots & (shots - 1) == 0 and first <= low <= high <= last
    return FEW_SHOT if usual else Scope("few-shot", shots, (low, high))


def extraction(features: FeatureSet, needs: Iterable[Need], scopes: Mapping[str, Scope]) -> Call:
    """Compose the call of `featcache.extract` that adds what some needs ask for.

    Args:
        features: The cache that lacks it.
        needs: One or more, none of kind global.
        scopes: Role -> its rows, where they are not the usual ones.
    """
    wanted: dict[str, Any] = {"dataset": features.listing.dataset, "backbone": features.backbone}
    wanted |= {"weights": features.weights} if features.weights else {}
    root = features.path.parent.parent
    wanted |= {"root": str(root)} if root != cache_root(None) else {}
    for need in sorted(needs, key=lambda n: (n.kind, n.recipe or "")):
        value = _request(need, {**ROLES, **scopes}[need.role]).value()
        wanted[need.kind] = [*wanted.get(need.kind, ()), value]
    return Call("featcache.extract", wanted)


def command(call: Call) -> str:
    """Tell an extraction as a command: the notes of a record are in the words of the command line.

    Args:
        call: From `extraction`.
    """
    words = ["featcache", "extract"]
    for name, value in call.arguments.items():
        for each in value if isinstance(value, list) else [value]:
            words += ["--cache" if name == "root" else f"--{name.replace('_', '-')}", each]
    return shlex.join(words)


def _request(need: Need, scope: Scope) -> ComponentRequest:
    if need.kind == "patches":
        return ComponentRequest(kind="patches", variant=need.recipe or "clearclip")
    recipe = need.recipe or USUAL[need.kind]
    return ComponentRequest(
        kind=need.kind, count=need.at_least or RECIPES[recipe].count, recipe=recipe, scope=scope
    )

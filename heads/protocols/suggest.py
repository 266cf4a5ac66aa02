"""What to type when a cache lacks something that a method needs."""

import shlex
from collections.abc import Iterable, Mapping

from featcache.recipes import FEW_SHOT, FLAGS, RECIPES, USUAL, ComponentRequest, Scope
from featcache.store.again import extract_command
from featcache.types import FeatureSet
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


def command(features: FeatureSet, needs: Iterable[Need], scopes: Mapping[str, Scope]) -> str:
    """Compose the `featcache extract` command that adds what some needs ask for.

    Args:
        features: The cache that lacks it.
        needs: One or more, none of kind global.
        scopes: Role -> its rows, where they are not the usual ones.
    """
    dataset = features.listing.dataset
    words = [extract_command(features.path, dataset, features.backbone, features.weights)]
    for need in sorted(needs, key=lambda n: (n.kind, n.recipe or "")):
        wanted = _request(need, {**ROLES, **scopes}[need.role])
        words += [FLAGS[need.kind], shlex.quote(wanted.value())]
    return " ".join(words)


def _request(need: Need, scope: Scope) -> ComponentRequest:
    if need.kind == "patches":
        return ComponentRequest(kind="patches", variant=need.recipe or "clearclip")
    recipe = need.recipe or USUAL[need.kind]
    return ComponentRequest(
        kind=need.kind, count=need.at_least or RECIPES[recipe].count, recipe=recipe, scope=scope
    )

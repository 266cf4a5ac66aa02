"""Suggest the extraction that adds what a method needs and a cache lacks."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from featcache.recipes import FEW_SHOT, LAST_BLOCK, RECIPES, USUAL, ComponentRequest, Scope
from featcache.store.again import extract_call
from featcache.types import FeatureSet
from featcache.wording import Call
from heads.contract.method import Need

ROLES: Mapping[str, Scope] = {"support": FEW_SHOT, "query": Scope("query"), "pool": Scope("pool")}
"""Role -> its rows, unless the protocol states others."""


def support_scope(shots: int | None, seeds: Iterable[int]) -> Scope:
    """Return the scope of all rows that few-shot draws with these shots and seeds can use."""
    if shots is None:
        return Scope("train")
    low, high = min(seeds), max(seeds)
    first, last = FEW_SHOT.seeds
    # The rows of FEW_SHOT include the draws of every power of two up to 16 shots, so that one pass
    # serves all of these.
    covered = shots <= FEW_SHOT.shots and shots & (shots - 1) == 0 and first <= low <= high <= last
    return FEW_SHOT if covered else Scope("few-shot", shots, (low, high))


def extraction(features: FeatureSet, needs: Iterable[Need], scopes: Mapping[str, Scope]) -> Call:
    """Compose the call of `featcache.extract` that adds what a cache lacks.

    Args:
        features: The cache.
        needs: What it lacks, at least one; never of kind global, which every cache has.
        scopes: Role -> its rows, where they differ from `ROLES`.
    """
    call = extract_call(
        features.path, features.listing.dataset, features.backbone, features.weights
    )
    arguments = dict(call.arguments)
    for need in sorted(needs, key=lambda n: (n.kind, n.recipe or "")):
        value = _request(need, {**ROLES, **scopes}[need.role]).value()
        arguments[need.kind] = [*arguments.get(need.kind, ()), value]
    return replace(call, arguments=arguments)


def _request(need: Need, scope: Scope) -> ComponentRequest:
    if need.kind == "patches":
        return ComponentRequest(kind="patches", variant=need.recipe or "clearclip")
    if need.kind == "tokens":
        return ComponentRequest(kind="tokens", variant=need.recipe or LAST_BLOCK, scope=scope)
    recipe = need.recipe or USUAL[need.kind]
    return ComponentRequest(
        kind=need.kind,
        count=need.at_least or RECIPES[recipe].count,
        recipe=recipe,
        variant=need.variant or "",
        scope=scope,
    )

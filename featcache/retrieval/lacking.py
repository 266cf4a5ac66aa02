"""What to do about a kind of vectors that a cache lacks."""

from featcache.errors import UnknownNameError
from featcache.recipes import RECIPES, USUAL, VARIANTS, ComponentRequest, recipes_of, usual_scope
from featcache.store.again import extract_call
from featcache.types import FeatureSet
from featcache.wording import Call, Part


def how_to_add(cache: FeatureSet, kind: str, recipe: str | None) -> Part:
    """Return the advice that ends an error about missing vectors.

    Args:
        cache: The cache that lacks them.
        kind: global, patches, views or crops.
        recipe: Recipe of views and crops, or variant of patches; None for the usual one.

    Raises:
        UnknownNameError: If there is no such recipe or variant, so that nothing can add it.
    """
    if cache.key.is_imported:
        return "It was imported without images; choose another kind."
    call = extract_call(cache.path, cache.listing.dataset, cache.backbone, cache.weights)
    added = {} if kind == "global" else {kind: [_request(kind, recipe).value()]}
    return ("Add it with: ", Call(call.function, {**call.arguments, **added}))


def _request(kind: str, recipe: str | None) -> ComponentRequest:
    known = VARIANTS if kind == "patches" else recipes_of(kind)
    if recipe is not None and recipe not in known:
        what = "patch variant" if kind == "patches" else f"recipe of {kind}"
        raise UnknownNameError(what, recipe, known)
    if kind == "patches":
        return ComponentRequest(kind=kind, variant=recipe or VARIANTS[0])
    name = recipe or USUAL[kind]
    return ComponentRequest(
        kind=kind, count=RECIPES[name].count, recipe=name, scope=usual_scope(name)
    )

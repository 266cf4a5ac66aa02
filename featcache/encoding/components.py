"""From requests to components: which views each is made of, and how wide a row is."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from featcache.backbones.base import Backbone
from featcache.errors import UnknownNameError, UsageError
from featcache.imaging.views import CENTRAL, ViewSpec
from featcache.keys import ComponentKey, parse_component
from featcache.quantise import SCALE as SCALE_BYTES
from featcache.recipes import (
    LARGEST_SEED,
    ComponentRequest,
    Scope,
    parse_requests,
    recipes_of,
)
from featcache.wording import Argument, Part

BOX = 4
"""left, top, right, bottom."""


@dataclass(frozen=True, kw_only=True)
class ComponentSpec:
    """A requested component, how a row of it is made, and the rows it is requested for."""

    key: ComponentKey
    row_shape: tuple[int, ...]
    """Shape of one row as stored."""
    scopes: tuple[Scope, ...] = (Scope("all"),)

    @property
    def name(self) -> str:
        """Folder of the component."""
        return self.key.folder

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """Return the shape of one row as the encoder gives it, before it is packed."""
        if self.key.dtype != "int8":
            return self.row_shape
        return (*self.row_shape[:-1], self.row_shape[-1] - SCALE_BYTES)

    @property
    def row_bytes(self) -> int:
        """Size of one stored row."""
        return int(np.prod(self.row_shape)) * np.dtype(self.key.dtype).itemsize

    @property
    def views(self) -> ViewSpec:
        """What the encoder is shown for it."""
        key = self.key
        return ViewSpec(key.recipe, key.count, key.seed) if key.recipe else CENTRAL

    @property
    def encodes(self) -> bool:
        """Tell whether the encoder has to run for it; boxes come with the crops."""
        return self.key.kind != "boxes"

    @property
    def output(self) -> str:
        """Which of the encoder's outputs it keeps: a patch variant, or global."""
        return self.key.variant or "global"


def component_specs(
    backbone: Backbone,
    *,
    patches: Sequence[str] | None = None,
    views: Sequence[str] = (),
    crops: Sequence[str] = (),
    view_patches: Sequence[str] = (),
    seed: int = 0,
) -> tuple[tuple[ComponentSpec, ...], tuple[str, ...]]:
    """Turn requests into components, and notes on what was left out.

    Args:
        backbone: What it has decides what is possible.
        patches: Requests, or `none`; None is the default, dropped where the tower has no patches.
        views: Requests, e.g. 10 or 8:strong@pool; see `featcache.recipes`.
        crops: Likewise; each brings its boxes.
        view_patches: Likewise.
        seed: Of views and crops.

    Raises:
        UsageError: If a request cannot be read, or the backbone has no patch tokens of that
            variant.
    """
    if not 0 <= seed < LARGEST_SEED:
        raise UsageError(f"seed must be 0 to {LARGEST_SEED - 1}, got {seed}.")
    notes: list[str] = []
    requests = parse_requests(patches, views, crops, view_patches)
    if patches is None:
        requests = [
            *(ComponentRequest(kind="patches", variant=v) for v in backbone.variants[:1]),
            *requests,
        ]
        if not backbone.variants:
            notes.append(f"{backbone.name} has no patch features in the joint space; left out.")
    specs: dict[ComponentKey, ComponentSpec] = {}
    _add(specs, ComponentKey(kind="global"), Scope("all"), backbone)
    for request in requests:
        if request.kind in ("patches", "view_patches"):
            _check_variant(request, backbone)
        key = request.component(backbone.variants[0] if backbone.variants else "", seed)
        _add(specs, key, request.scope, backbone)
        if request.kind == "crops":
            _add(specs, boxes_of(key), request.scope, backbone)
    return tuple(specs.values()), tuple(notes)


def spec_of(component: ComponentKey, backbone: Backbone) -> ComponentSpec:
    """Return how a component of a given name is made."""
    return ComponentSpec(key=component, row_shape=_row_shape(component, backbone))


def spec_named(name: str, backbone: Backbone) -> ComponentSpec:
    """Return how a component is made, by the name that it has in a cache.

    Raises:
        UsageError: If it is none, or one that is not made of images.
        UnknownNameError: If its recipe or variant is not known.
    """
    key = parse_component(name)
    kind = "crops" if key.kind == "boxes" else key.kind
    if kind == "text":
        raise UsageError(f"Component '{name}' is made of texts, not of images.")
    made = recipes_of(kind)
    if kind in ("global", "patches") and (key.recipe or key.count):
        raise UsageError(f"Component '{name}' has a recipe or a count, which {kind} have not.")
    if kind not in ("global", "patches") and key.recipe not in made:
        raise UnknownNameError(f"recipe of {kind}", key.recipe, made)
    if kind not in ("global", "patches") and not key.count:
        raise UsageError(f"Component '{name}' does not say how many; expected e.g. {name}-10.")
    if kind in ("patches", "view_patches") and key.variant not in backbone.variants:
        raise UnknownNameError(f"patch variant of {backbone.name}", key.variant, backbone.variants)
    return spec_of(key, backbone)


def boxes_of(crops: ComponentKey) -> ComponentKey:
    """Name the component that holds the boxes of some crops."""
    return ComponentKey(kind="boxes", recipe=crops.recipe, count=crops.count, seed=crops.seed)


def _encoded_of(component: ComponentKey) -> ComponentKey:
    """Name the crops of boxes, and everything else itself."""
    if component.kind != "boxes":
        return component
    return replace(component, kind="crops", dtype="")


def settle(
    specs: Sequence[ComponentSpec], backbone: Backbone, held: Collection[str]
) -> tuple[tuple[ComponentSpec, ...], tuple[str, ...]]:
    """Let more views stand for fewer, since ten views are the first ten of twenty.

    A component of another that is requested as well, or of one that the cache holds while it has
    none of the smaller, becomes that one; its rows are joined. Boxes go with their crops, whichever
    of the two the cache holds: a pass may have been killed between them.

    Returns:
        The components, and a sentence for every one that became another.
    """
    settled: dict[ComponentKey, ComponentSpec] = {}
    notes = []
    there = {_encoded_of(parse_component(name)) for name in held}
    known = there | {_encoded_of(spec.key) for spec in specs}
    for spec in specs:
        key, encoded = spec.key, _encoded_of(spec.key)
        larger = [other.count for other in known if _begins_with(other, encoded)]
        if larger and encoded not in there:
            key = replace(key, count=min(larger))
            notes.append(f"{key.folder} stands for {spec.name} too: its first are the same.")
        for scope in spec.scopes:
            _add(settled, key, scope, backbone)
    return tuple(settled.values()), tuple(notes)


def _begins_with(larger: ComponentKey, component: ComponentKey) -> bool:
    if not 0 < component.count < larger.count:
        return False
    return replace(larger, count=component.count) == component


def _add(
    specs: dict[ComponentKey, ComponentSpec],
    component: ComponentKey,
    scope: Scope,
    backbone: Backbone,
) -> None:
    """Add a component; requested twice, its rows are joined."""
    before = specs[component].scopes if component in specs else ()
    scopes = before if scope in before else (*before, scope)
    shape = _row_shape(component, backbone)
    specs[component] = ComponentSpec(key=component, row_shape=shape, scopes=scopes)


def _row_shape(component: ComponentKey, backbone: Backbone) -> tuple[int, ...]:
    if component.kind == "boxes":
        return (component.count, BOX)
    width = backbone.dim + (SCALE_BYTES if component.dtype == "int8" else 0)
    row = (backbone.patches, width) if component.variant else (width,)
    return (component.count, *row) if component.count else row


def _check_variant(request: ComponentRequest, backbone: Backbone) -> None:
    if not backbone.variants:
        advice: Part = ("leave ", Argument(request.kind), " out.")
        if request.kind == "patches":
            advice = ("use ", Argument("patches", "none"), ".")
        raise UsageError(
            f"{backbone.name} has no patch features in the joint space, but ",
            Argument(request.kind, request.value()),
            " requests them; ",
            advice,
        )
    if request.variant and request.variant not in backbone.variants:
        known = (*backbone.variants, "none") if request.kind == "patches" else backbone.variants
        raise UnknownNameError(f"patch variant of {backbone.name}", request.variant, known)

"""Convert requests to components: their views and the shapes of their rows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from featcache.backbones.base import Backbone
from featcache.errors import UnknownNameError, UsageError
from featcache.imaging.views import CENTRAL, ViewSpec
from featcache.keys import ComponentKey, parse_component
from featcache.quantise import SCALE as SCALE_BYTES
from featcache.recipes import (
    LARGEST_SEED,
    TOKENS,
    ComponentRequest,
    Scope,
    parse_requests,
    recipes_of,
    split_requests,
)
from featcache.units import human_bytes
from featcache.wording import Argument, Part

BOX = 4
"""left, top, right, bottom."""
PLAIN = ("global", "patches", "tokens")
"""Kinds made from the central view, without recipe and count."""


@dataclass(frozen=True, kw_only=True)
class ComponentSpec:
    """A requested component: its key, the shape of a row, and the requested rows."""

    key: ComponentKey
    row_shape: tuple[int, ...]
    """Shape of one row as stored."""
    scopes: tuple[Scope, ...] = (Scope("all"),)

    @property
    def name(self) -> str:
        """Folder name of the component."""
        return self.key.folder

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """Shape of one row from the encoder, before quantisation."""
        if self.key.dtype != "int8":
            return self.row_shape
        return (*self.row_shape[:-1], self.row_shape[-1] - SCALE_BYTES)

    @property
    def row_bytes(self) -> int:
        """Size of one stored row."""
        return int(np.prod(self.row_shape)) * np.dtype(self.key.dtype).itemsize

    @property
    def views(self) -> ViewSpec:
        """Views that the encoder needs for it."""
        key = self.key
        return ViewSpec(key.recipe, key.count, key.seed) if key.recipe else CENTRAL

    @property
    def encodes(self) -> bool:
        """Tell whether the encoder computes it; boxes come with the crops."""
        return self.key.kind != "boxes"

    @property
    def output(self) -> str:
        """Output of the encoder to store: a patch variant, a place of tokens, or global."""
        return self.key.variant or "global"


def component_specs(
    backbone: Backbone,
    *,
    patches: Sequence[str] | None = None,
    views: Sequence[str] = (),
    crops: Sequence[str] = (),
    view_patches: Sequence[str] = (),
    tokens: Sequence[str] = (),
    seed: int = 0,
) -> tuple[tuple[ComponentSpec, ...], tuple[str, ...]]:
    """Convert requests to components, with notes on what was left out.

    Args:
        backbone: Backbone that computes the components.
        patches: Requests, or `none`; None for the default variant, if the tower has patches.
        views: Requests, e.g. 10 or 8:strong@pool; see `featcache.recipes`.
        crops: Requests, as for views; boxes are added.
        view_patches: Requests, as for views.
        tokens: Requests, e.g. last-block or last-block:int8@train.
        seed: Seed of views and crops.

    Raises:
        UsageError: If a request is malformed, or the backbone does not have the patch variant.
        BackboneError: If it does not have the tokens.
    """
    if not 0 <= seed < LARGEST_SEED:
        raise UsageError(f"seed must be 0 to {LARGEST_SEED - 1}, got {seed}.")
    notes: list[str] = []
    requests = parse_requests(patches, views, crops, view_patches, tokens)
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
        if request.kind == "tokens" and not backbone.tokens:
            backbone.last_block()  # says why not
        key = request.component(backbone.variants[0] if backbone.variants else "", seed)
        _add(specs, key, request.scope, backbone)
        if request.kind == "crops":
            _add(specs, boxes_of(key), request.scope, backbone)
    notes += [_size_note(spec, backbone) for spec in specs.values() if spec.key.kind == "tokens"]
    return tuple(specs.values()), tuple(notes)


def _size_note(spec: ComponentSpec, backbone: Backbone) -> str:
    """Say what tokens cost: they are by far the widest component."""
    shape, weights = backbone.token_shape, backbone.last_block().bytes
    return (
        f"{spec.name} takes {human_bytes(spec.row_bytes)} an image ({shape[0]} tokens of width "
        f"{shape[1]}), and {human_bytes(weights)} once for the weights of the last block."
    )


def spec_of(component: ComponentKey, backbone: Backbone) -> ComponentSpec:
    """Return the specification of a component."""
    return ComponentSpec(key=component, row_shape=_row_shape(component, backbone))


def spec_named(name: str, backbone: Backbone) -> ComponentSpec:
    """Return the specification of a component from its folder name.

    Raises:
        UsageError: If the name is malformed, or the component is not made from images.
        UnknownNameError: If its recipe or variant is unknown.
    """
    key = parse_component(name)
    kind = "crops" if key.kind == "boxes" else key.kind
    if kind == "text":
        raise UsageError(f"Component '{name}' is made of texts, not of images.")
    made = recipes_of(kind)
    if kind in PLAIN and (key.recipe or key.count):
        raise UsageError(f"Component '{name}' has a recipe or a count, which {kind} have not.")
    if kind not in PLAIN and key.recipe not in made:
        raise UnknownNameError(f"recipe of {kind}", key.recipe, made)
    if kind not in PLAIN and not key.count:
        raise UsageError(f"Component '{name}' does not say how many; expected e.g. {name}-10.")
    if kind in ("patches", "view_patches") and key.variant not in backbone.variants:
        raise UnknownNameError(f"patch variant of {backbone.name}", key.variant, backbone.variants)
    if kind == "tokens" and key.variant not in backbone.tokens:
        raise UnknownNameError(f"place of tokens of {backbone.name}", key.variant, backbone.tokens)
    return spec_of(key, backbone)


def boxes_of(crops: ComponentKey) -> ComponentKey:
    """Return the key of the boxes of some crops."""
    return ComponentKey(kind="boxes", recipe=crops.recipe, count=crops.count, seed=crops.seed)


def _encoded_of(component: ComponentKey) -> ComponentKey:
    """Return the key of the crops for boxes, and the key itself otherwise."""
    if component.kind != "boxes":
        return component
    return replace(component, kind="crops", dtype="")


def merge_counts(
    specs: Sequence[ComponentSpec], backbone: Backbone, stored: Collection[str]
) -> tuple[tuple[ComponentSpec, ...], tuple[str, ...]]:
    """Replace components by others with more views, since ten views are the first ten of twenty.

    A component is replaced if a larger one is requested or stored, unless it is stored itself. The
    rows of both are joined. Boxes follow their crops, even if only one of the two is stored because
    a pass was killed between them.

    Args:
        specs: Requested components.
        backbone: Backbone that computes them.
        stored: Folder names of the components in the cache.

    Returns:
        The components, and a note for every one that was replaced.
    """
    merged: dict[ComponentKey, ComponentSpec] = {}
    notes = []
    present = {_encoded_of(parse_component(name)) for name in stored}
    known = present | {_encoded_of(spec.key) for spec in specs}
    for spec in specs:
        key, encoded = spec.key, _encoded_of(spec.key)
        larger = [other.count for other in known if _begins_with(other, encoded)]
        if larger and encoded not in present:
            key = replace(key, count=min(larger))
            notes.append(f"{key.folder} replaces {spec.name}: its first views are the same.")
        for scope in spec.scopes:
            _add(merged, key, scope, backbone)
    return tuple(merged.values()), tuple(notes)


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
    """Add a component; if it is requested twice, its rows are joined."""
    before = specs[component].scopes if component in specs else ()
    scopes = before if scope in before else (*before, scope)
    shape = _row_shape(component, backbone)
    specs[component] = ComponentSpec(key=component, row_shape=shape, scopes=scopes)


def _row_shape(component: ComponentKey, backbone: Backbone) -> tuple[int, ...]:
    if component.kind == "boxes":
        return (component.count, BOX)
    *axes, width = output_shape(backbone, component.variant)
    row = (*axes, width + (SCALE_BYTES if component.dtype == "int8" else 0))
    return (component.count, *row) if component.count else row


def output_shape(backbone: Backbone, output: str) -> tuple[int, ...]:
    """Return the shape of one row of an output of the encoder.

    Args:
        backbone: Backbone that encodes.
        output: A patch variant, a place of tokens, or empty for the global feature.
    """
    if output in TOKENS:
        return backbone.token_shape
    return (backbone.patches, backbone.dim) if output else (backbone.dim,)


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


def check_of_every_image(requests: Mapping[str, Sequence[str]]) -> None:
    """Refuse requests that name rows, where every image gets every component.

    Args:
        requests: Kind of component -> its requests, e.g. views -> 10, 8:strong.

    Raises:
        UsageError: If one names rows.
    """
    for kind, texts in requests.items():
        for text in split_requests(texts):
            if "@" in text:
                raise UsageError(
                    f"{kind}='{text[:80]}' names rows of a data set, and here every image gets "
                    f"every component. Leave {text[text.index('@') :][:80]} out."
                )

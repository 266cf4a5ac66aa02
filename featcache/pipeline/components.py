"""From what a user wishes for to components: which pictures they are made of, how wide a row is."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from featcache.backbones.base import Backbone
from featcache.errors import UnknownNameError, UsageError
from featcache.keys import ComponentKey, parse_component
from featcache.recipes import LARGEST_SEED, Scope, Wish, parse_wishes
from featcache.store.format.quantise import SCALE as SCALE_BYTES

BOX = 4
"""left, top, right, bottom."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """What the encoder is shown of an image; components of equal pictures share one forward."""

    recipe: str = ""
    """Empty for the central view."""
    count: int = 1
    """Pictures of one image."""
    seed: int = 0


CENTRAL = Pictures()


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A component that was asked for, and the rows it is asked for."""

    component: ComponentKey
    row_shape: tuple[int, ...]
    """Of one row as stored."""
    scopes: tuple[Scope, ...] = (Scope("all"),)

    @property
    def name(self) -> str:
        """Folder of the component."""
        return self.component.folder

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """Return the shape of one row as the encoder gives it, before it is packed."""
        if self.component.dtype != "int8":
            return self.row_shape
        return (*self.row_shape[:-1], self.row_shape[-1] - SCALE_BYTES)

    @property
    def row_bytes(self) -> int:
        """Size of one stored row."""
        return int(np.prod(self.row_shape)) * np.dtype(self.component.dtype).itemsize

    @property
    def pictures(self) -> Pictures:
        """What it is made of."""
        key = self.component
        return Pictures(key.recipe, key.count, key.seed) if key.recipe else CENTRAL

    @property
    def encodes(self) -> bool:
        """Tell whether the encoder has to run for it; boxes come with the crops."""
        return self.component.kind != "boxes"

    @property
    def output(self) -> str:
        """Which of the encoder's outputs it keeps: a patch variant, or global."""
        return self.component.variant or "global"


def asks_for(
    backbone: Backbone,
    *,
    patches: Sequence[str] | None = None,
    views: Sequence[str] = (),
    crops: Sequence[str] = (),
    view_patches: Sequence[str] = (),
    seed: int = 0,
) -> tuple[tuple[Ask, ...], tuple[str, ...]]:
    """Turn the user's flags into components, and notes on what was left out.

    Args:
        backbone: What it has decides what is possible.
        patches: Wishes, or `none`; None is the default, dropped where the tower has no patches.
        views: Wishes, e.g. 10 or 8:strong@pool; see `featcache.recipes`.
        crops: Likewise; each brings its boxes.
        view_patches: Likewise.
        seed: Of views and crops.

    Raises:
        UsageError: If a wish cannot be read, or the backbone has no patch tokens of that variant.
    """
    if not 0 <= seed < LARGEST_SEED:
        raise UsageError(f"seed must be 0 to {LARGEST_SEED - 1}, got {seed}.")
    notes: list[str] = []
    wishes = parse_wishes(patches, views, crops, view_patches)
    if patches is None:
        wishes = [*(Wish(kind="patches", variant=v) for v in backbone.variants[:1]), *wishes]
        if not backbone.variants:
            notes.append(f"{backbone.name} has no patch features in the joint space; left out.")
    asks: dict[ComponentKey, Ask] = {}
    _add(asks, ComponentKey(kind="global"), Scope("all"), backbone)
    for wish in wishes:
        if wish.kind in ("patches", "view_patches"):
            _check_variant(wish, backbone)
        key = wish.component(backbone.variants[0] if backbone.variants else "", seed)
        _add(asks, key, wish.scope, backbone)
        if wish.kind == "crops":
            _add(asks, boxes_of(key), wish.scope, backbone)
    return tuple(asks.values()), tuple(notes)


def ask_again(component: ComponentKey, backbone: Backbone) -> Ask:
    """Ask for a component that a cache held before."""
    return Ask(component=component, row_shape=_row_shape(component, backbone))


def boxes_of(crops: ComponentKey) -> ComponentKey:
    """Name the component that holds the boxes of some crops."""
    return ComponentKey(kind="boxes", recipe=crops.recipe, count=crops.count, seed=crops.seed)


def _encoded_of(component: ComponentKey) -> ComponentKey:
    """Name the crops of boxes, and everything else itself."""
    if component.kind != "boxes":
        return component
    return replace(component, kind="crops", dtype="")


def settle(
    asks: Sequence[Ask], backbone: Backbone, held: Collection[str]
) -> tuple[tuple[Ask, ...], tuple[str, ...]]:
    """Let more views stand for fewer, since ten views are the first ten of twenty.

    A component of another that is asked for as well, or of one that the cache holds while it has
    none of the smaller, becomes that one; its rows are joined. Boxes go with their crops, whichever
    of the two the cache holds: a pass may have been killed between them.

    Returns:
        The asks, and a sentence for every one that became another.
    """
    settled: dict[ComponentKey, Ask] = {}
    notes = []
    there = {_encoded_of(parse_component(name)) for name in held}
    known = there | {_encoded_of(ask.component) for ask in asks}
    for ask in asks:
        key, encoded = ask.component, _encoded_of(ask.component)
        larger = [other.count for other in known if _begins_with(other, encoded)]
        if larger and encoded not in there:
            key = replace(key, count=min(larger))
            notes.append(f"{key.folder} stands for {ask.name} too: its first are the same.")
        for scope in ask.scopes:
            _add(settled, key, scope, backbone)
    return tuple(settled.values()), tuple(notes)


def _begins_with(larger: ComponentKey, component: ComponentKey) -> bool:
    if not 0 < component.count < larger.count:
        return False
    return replace(larger, count=component.count) == component


def _add(
    asks: dict[ComponentKey, Ask], component: ComponentKey, scope: Scope, backbone: Backbone
) -> None:
    """Ask for a component; asking twice joins the rows."""
    before = asks[component].scopes if component in asks else ()
    scopes = before if scope in before else (*before, scope)
    shape = _row_shape(component, backbone)
    asks[component] = Ask(component=component, row_shape=shape, scopes=scopes)


def _row_shape(component: ComponentKey, backbone: Backbone) -> tuple[int, ...]:
    if component.kind == "boxes":
        return (component.count, BOX)
    width = backbone.dim + (SCALE_BYTES if component.dtype == "int8" else 0)
    row = (backbone.patches, width) if component.variant else (width,)
    return (component.count, *row) if component.count else row


def _check_variant(wish: Wish, backbone: Backbone) -> None:
    flag = "--patches" if wish.kind == "patches" else "--view-patches"
    if not backbone.variants:
        raise UsageError(
            f"{backbone.name} has no patch features in the joint space, but {flag} "
            f"{wish.value()} asks for them; "
            + ("use --patches none." if wish.kind == "patches" else f"leave {flag} out.")
        )
    if wish.variant and wish.variant not in backbone.variants:
        known = (*backbone.variants, "none") if wish.kind == "patches" else backbone.variants
        raise UnknownNameError(f"patch variant of {backbone.name}", wish.variant, known)

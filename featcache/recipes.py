"""Views, crops, patches and tokens that a cache can hold, and the grammar of their requests.

    COUNT[:RECIPE][:VARIANT][:int8][@SCOPE]      10   4:cdfsl   60:lazsl@test   4:cdfsl:vanilla
    VARIANT[:int8][@SCOPE]                       clearclip   vanilla:int8@few-shot(4,seeds=1-5)
    last-block[:int8][@SCOPE]                    last-block   last-block@few-shot

A scope names the rows: few-shot(SHOTS,seeds=A-B), train, query, pool, all, or one split. This
module does not import torch, so that suggesting a request is fast.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from featcache.errors import UnknownNameError, UsageError
from featcache.keys import VARIED, ComponentKey
from featcache.wording import Argument

MOST = 1000
"""Most views or crops of one image."""

LARGEST_SEED = 10**18
"""Upper bound of seeds (exclusive): the name of a component has at most 18 digits for it."""

KEYWORDS = ("few-shot", "train", "query", "pool", "all")

_FEW_SHOT = re.compile(
    r"few-shot(?:\(\s*(?P<shots>[0-9]{1,6})\s*"
    r"(?:,\s*seeds=(?P<first>[0-9]{1,9})(?:-(?P<last>[0-9]{1,9}))?\s*)?\))?"
)


@dataclass(frozen=True, slots=True)
class Scope:
    """The rows that a component is computed for."""

    name: str
    """few-shot, train, query (all splits except train), pool (train without labels), all, or the
    name of a split."""
    shots: int = 16
    """few-shot: largest number of shots per class; draws of 1, 2, 4, ... shots are included."""
    seeds: tuple[int, int] = (1, 3)
    """few-shot: first and last seed, inclusive."""

    def __str__(self) -> str:
        """Return the text that `parse_scope` reads."""
        if self.name != "few-shot" or self == FEW_SHOT:
            return self.name
        first, last = self.seeds
        seeds = f"{first}-{last}" if last > first else f"{first}"
        return f"few-shot({self.shots},seeds={seeds})"


FEW_SHOT = Scope("few-shot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """An augmentation: a window of the image, and optionally a distortion of its pixels."""

    kinds: tuple[str, ...]
    """Kinds of components it applies to."""
    scope: Scope
    """Default rows."""
    count: int
    """Default number of views or crops per image."""
    window: Literal["central", "random", "square"]
    """central: the evaluation view; random: RandomResizedCrop with mirroring; square: a square."""
    share: tuple[float, float] = (1.0, 1.0)
    """Range of the share of the image's area (random) or of its shorter side (square)."""
    distortion: Literal["", "rand_augment", "cdfsl"] = ""
    """rand_augment: two random operations; cdfsl: rotation, colour jitter and mirroring in turn."""


RECIPES: Mapping[str, Recipe] = {
    "rrc50": Recipe(
        kinds=("views", "view_patches"),
        scope=FEW_SHOT,
        count=10,
        window="random",
        share=(0.5, 1.0),
    ),
    "weak": Recipe(
        kinds=("views", "view_patches"),
        scope=Scope("pool"),
        count=1,
        window="square",
    ),
    "strong": Recipe(
        kinds=("views", "view_patches"),
        scope=Scope("pool"),
        count=8,
        window="random",
        share=(0.3, 1.0),
        distortion="rand_augment",
    ),
    "cdfsl": Recipe(
        kinds=("views", "view_patches"),
        scope=FEW_SHOT,
        count=4,
        window="central",
        distortion="cdfsl",
    ),
    "lazsl": Recipe(
        kinds=("crops",),
        scope=Scope("query"),
        count=60,
        window="square",
        share=(0.6, 0.9),
    ),
    "fair": Recipe(
        kinds=("crops",),
        scope=Scope("pool"),
        count=16,
        window="square",
        share=(0.5, 0.9),
    ),
}
"""Name -> recipe; docs/cache-format.md specifies them exactly."""

VARIANTS = ("clearclip", "vanilla", "maskclip")
"""Patch variants that a tower can have, the default first; see backbones/patches."""

LAST_BLOCK = "last-block"
"""The tokens that go into the last block of an image tower, the class token first."""
TOKENS = (LAST_BLOCK,)
"""Places in a tower whose tokens can be stored."""

USUAL = {"views": "rrc50", "crops": "lazsl", "view_patches": "cdfsl"}
"""Kind -> default recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRequest:
    """A user's request for a component."""

    kind: str
    count: int = 0
    """Views or crops per image; 0 for patches and tokens."""
    recipe: str = ""
    """Empty for patches and tokens."""
    variant: str = ""
    """Patch variant, empty for the backbone's default; or the place of tokens."""
    int8: bool = False
    scope: Scope = Scope("all")

    def component(self, variant: str, seed: int) -> ComponentKey:
        """Return the key of the component.

        Args:
            variant: Patch variant if the request names none.
            seed: Seed of views and crops.
        """
        return ComponentKey(
            kind=self.kind,
            recipe=self.recipe,
            count=self.count,
            variant=(self.variant or variant) if self.kind in VARIED else "",
            seed=seed if self.recipe else 0,
            dtype="int8" if self.int8 else "",
        )

    def value(self) -> str:
        """Return the shortest text that `parse_request` reads as this request."""
        parts = [str(self.count)] if self.count else []
        if self.recipe and self.recipe != USUAL[self.kind]:
            parts.append(self.recipe)
        parts += [self.variant] if self.variant else []
        parts += ["int8"] if self.int8 else []
        return ":".join(parts) + (
            f"@{self.scope}" if self.scope != usual_scope(self.recipe) else ""
        )


def usual_scope(recipe: str) -> Scope:
    """Return the default rows of a recipe; all rows for patches and tokens, which have none."""
    return RECIPES[recipe].scope if recipe else Scope("all")


def parse_request(kind: str, text: str) -> ComponentRequest:
    """Parse one request.

    Args:
        kind: views, crops, view_patches, patches or tokens; also the name of the argument.
        text: A request in the grammar above.

    Raises:
        UsageError: If it does not follow the grammar.
        UnknownNameError: If it names an unknown recipe, or one of another kind.

    Example:
        >>> parse_request("views", "4:cdfsl@train").scope
        Scope(name='train', shots=16, seeds=(1, 3))
    """
    words, at, where = text.strip().partition("@")
    first, *rest = words.split(":")
    if at and not where:
        raise _wrong(kind, text, "has no rows behind its @")
    if not (first and all(rest)) or len(set(rest)) < len(rest):
        raise _wrong(kind, text, "has an empty or a repeated part")
    count, recipe, variant = 0, "", ""
    if kind in ("patches", "tokens"):
        variant = first
    else:
        if not first.isascii() or not first.isdigit() or not 1 <= int(first) <= MOST:
            raise _wrong(kind, text, f"should begin with a number from 1 to {MOST}")
        count, recipe = int(first), USUAL[kind]
    int8 = "int8" in rest
    named = [word for word in rest if word != "int8"]
    if int8 and kind not in VARIED:
        raise _wrong(kind, text, "asks for int8, which only patches and tokens have")
    for word in named:
        if word in RECIPES and kind in RECIPES[word].kinds:
            recipe = word
        elif kind in ("patches", "tokens"):
            raise _wrong(kind, text, f"has an unknown part '{word[:40]}'; only int8 is allowed")
        elif kind == "view_patches" and not variant and word not in RECIPES:
            variant = word
        else:
            raise UnknownNameError(("recipe of ", Argument(kind)), word, recipes_of(kind))
    scope = parse_scope(where) if at else usual_scope(recipe)
    return ComponentRequest(
        kind=kind, count=count, recipe=recipe, variant=variant, int8=int8, scope=scope
    )


def parse_scope(text: str) -> Scope:
    """Parse a scope.

    Raises:
        UsageError: If it is malformed, or its seeds descend.
    """
    name = text.strip()
    if not name.startswith("few-shot"):
        if not name or len(name) > 200 or not name.isprintable():
            raise UsageError(f"'{text[:80]}' names no rows; expected {_SCOPES}.")
        return Scope(name)
    match = _FEW_SHOT.fullmatch(name)
    if match is None:
        raise UsageError(f"'{text[:80]}' names no few-shot rows; expected {_SCOPES}.")
    shots = int(match["shots"] or FEW_SHOT.shots)
    first = int(match["first"] or FEW_SHOT.seeds[0])
    last = int(match["last"] or match["first"] or FEW_SHOT.seeds[1])
    if shots < 1 or not 0 <= last - first < MOST:
        raise UsageError(
            f"'{name}' needs at least 1 shot and 1 to {MOST} seeds from low to high, e.g. "
            f"few-shot(16,seeds=1-3)."
        )
    return Scope("few-shot", shots, (first, last))


def split_requests(texts: Iterable[str]) -> list[str]:
    """Split requests at commas outside parentheses."""
    return [part.strip() for text in texts for part in re.split(r",(?![^(]*\))", text)]


def parse_requests(
    patches: Sequence[str] | None,
    views: Sequence[str],
    crops: Sequence[str],
    view_patches: Sequence[str],
    tokens: Sequence[str] = (),
) -> list[ComponentRequest]:
    """Parse all requests of an extraction before a model is loaded.

    Raises:
        UsageError: If a request cannot be read.
        UnknownNameError: If a patch variant or a place of tokens is unknown.
    """
    requests = [] if patches is None else _patch_requests(split_requests(patches))
    given = {"views": views, "crops": crops, "view_patches": view_patches, "tokens": tokens}
    for kind, texts in given.items():
        requests += [parse_request(kind, text) for text in split_requests(texts)]
    for request in requests:
        if request.kind == "tokens" and request.variant not in TOKENS:
            raise UnknownNameError("place of tokens", request.variant, TOKENS)
        if request.kind != "tokens" and request.variant and request.variant not in VARIANTS:
            none = ("none",) if request.kind == "patches" else ()
            raise UnknownNameError("patch variant", request.variant, (*VARIANTS, *none))
    return requests


def recipes_of(kind: str) -> tuple[str, ...]:
    """Return the names of the recipes for a kind of component."""
    return tuple(name for name, recipe in RECIPES.items() if kind in recipe.kinds)


_SCOPES = "few-shot(16,seeds=1-3), train, query, pool, all or a split"


def _wrong(kind: str, text: str, what: str) -> UsageError:
    example = {
        "views": "10, 4:cdfsl or 10:rrc50@train",
        "crops": "60, 60:lazsl or 16:fair@pool",
        "view_patches": "4, 4:cdfsl:vanilla or 4:cdfsl:int8@train",
        "patches": "clearclip, vanilla:int8 or clearclip@query",
        "tokens": "last-block, last-block:int8 or last-block@train",
    }[kind]
    return UsageError(Argument(kind, text[:80]), f" {what}; expected for example {example}.")


def _patch_requests(texts: Sequence[str]) -> list[ComponentRequest]:
    if list(texts) == ["none"]:
        return []
    if any(text.startswith(("none:", "none@")) or text == "none" for text in texts):
        raise UsageError(
            Argument("patches", "none"),
            f" excludes other requests, got '{','.join(texts)}'. Leave none or the rest out.",
        )
    return [parse_request("patches", text) for text in texts]

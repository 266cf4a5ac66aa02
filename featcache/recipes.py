"""What can be cached of an image beside its global features, and the short words that ask for it.

    COUNT[:RECIPE][:VARIANT][:int8][@SCOPE]      10   4:cdfsl   60:lazsl@test   4:cdfsl:vanilla
    VARIANT[:int8][@SCOPE]                       clearclip   vanilla:int8@few-shot(4,seeds=1-5)

A scope names the rows: few-shot(SHOTS,seeds=A-B), train, query, pool, all, or one split. Needs no
torch, so that a method's unmet need can be put into the same words.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from featcache.errors import UnknownNameError, UsageError
from featcache.keys import ComponentKey

FLAGS = {
    "views": "--views",
    "crops": "--crops",
    "view_patches": "--view-patches",
    "patches": "--patches",
}
"""Kind -> the flag of `featcache extract` that asks for it."""

MOST = 1000
"""Views or crops of one image."""

LARGEST_SEED = 10**18
"""A component's name holds at most so many digits."""

KEYWORDS = ("few-shot", "train", "query", "pool", "all")

_FEW_SHOT = re.compile(
    r"few-shot(?:\(\s*(?P<shots>[0-9]{1,6})\s*"
    r"(?:,\s*seeds=(?P<first>[0-9]{1,9})(?:-(?P<last>[0-9]{1,9}))?\s*)?\))?"
)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which rows a component is computed for."""

    name: str
    """few-shot, train, query (every split but train), pool (train, labels unread), all, or the
    name of a split."""
    shots: int = 16
    """few-shot: draws of up to this many images a class; 1, 2, 4, ... are included."""
    seeds: tuple[int, int] = (1, 3)
    """few-shot: first and last seed of the draws."""

    def __str__(self) -> str:
        """Return the words that `parse_scope` reads."""
        if self.name != "few-shot" or self == FEW_SHOT:
            return self.name
        first, last = self.seeds
        seeds = f"{first}-{last}" if last > first else f"{first}"
        return f"few-shot({self.shots},seeds={seeds})"


FEW_SHOT = Scope("few-shot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A way to make views of an image."""

    kinds: tuple[str, ...]
    """Components it can make."""
    scope: Scope
    """Rows it is usually computed for."""
    count: int
    """Views or crops an image that its users usually take."""
    what: str


RECIPES: Mapping[str, Recipe] = {
    "rrc50": Recipe(
        kinds=("views", "view_patches"),
        scope=FEW_SHOT,
        count=10,
        what="random windows of 50-100 % of the area, half of them mirrored",
    ),
    "weak": Recipe(
        kinds=("views", "view_patches"),
        scope=Scope("pool"),
        count=1,
        what="the largest square at a random place",
    ),
    "strong": Recipe(
        kinds=("views", "view_patches"),
        scope=Scope("pool"),
        count=8,
        what="windows of 30-100 % of the area, mirrored, with two random distortions",
    ),
    "cdfsl": Recipe(
        kinds=("views", "view_patches"),
        scope=FEW_SHOT,
        count=4,
        what="rotated, jittered and mirrored; rotated; jittered; mirrored; and again",
    ),
    "lazsl": Recipe(
        kinds=("crops",),
        scope=Scope("query"),
        count=60,
        what="squares of 60-90 % of the shorter side",
    ),
    "fair": Recipe(
        kinds=("crops",),
        scope=Scope("pool"),
        count=16,
        what="squares of 50-90 % of the shorter side",
    ),
}
"""Specified to the last number in docs/cache-format.md."""

VARIANTS = ("clearclip", "vanilla", "maskclip")
"""Patch variants that a tower can have, the default first; see backbones/patches."""

USUAL = {"views": "rrc50", "crops": "lazsl", "view_patches": "cdfsl"}
"""Kind -> recipe where none is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRequest:
    """A component as a user requests it."""

    kind: str
    count: int = 0
    """Views or crops of an image; 0 for patches."""
    recipe: str = ""
    """Empty for patches."""
    variant: str = ""
    """Variant of patch tokens; empty is the backbone's default."""
    int8: bool = False
    scope: Scope = Scope("all")

    def component(self, variant: str, seed: int) -> ComponentKey:
        """Name the component.

        Args:
            variant: Patch variant that stands in where the request names none.
            seed: Of views and crops.
        """
        has_patches = self.kind in ("patches", "view_patches")
        return ComponentKey(
            kind=self.kind,
            recipe=self.recipe,
            count=self.count,
            variant=(self.variant or variant) if has_patches else "",
            seed=seed if self.recipe else 0,
            dtype="int8" if self.int8 else "",
        )

    def value(self) -> str:
        """Return the shortest words that `parse_request` reads as this request."""
        parts = [str(self.count)] if self.count else []
        if self.recipe and self.recipe != USUAL[self.kind]:
            parts.append(self.recipe)
        parts += [self.variant] if self.variant else []
        parts += ["int8"] if self.int8 else []
        return ":".join(parts) + (
            f"@{self.scope}" if self.scope != usual_scope(self.recipe) else ""
        )


def usual_scope(recipe: str) -> Scope:
    """Return the rows that a recipe is computed for unless others are named; patches have none."""
    return RECIPES[recipe].scope if recipe else Scope("all")


def parse_request(kind: str, text: str, *, spelled: Mapping[str, str] = FLAGS) -> ComponentRequest:
    """Read what a user wrote behind one of the flags.

    Args:
        kind: views, crops, view_patches or patches.
        text: See the grammar above.
        spelled: Kind -> what messages call the flag or argument behind which it stood.

    Raises:
        UsageError: If it does not follow the grammar.
        UnknownNameError: If it names a recipe that does not exist or makes another kind.
    """
    words, at, where = text.strip().partition("@")
    first, *rest = words.split(":")
    if at and not where:
        raise _wrong(kind, text, spelled, "has no rows behind its @")
    if not (first and all(rest)) or len(set(rest)) < len(rest):
        raise _wrong(kind, text, spelled, "has an empty or a repeated part")
    count, recipe, variant = 0, "", ""
    if kind == "patches":
        variant = first
    else:
        if not first.isascii() or not first.isdigit() or not 1 <= int(first) <= MOST:
            raise _wrong(kind, text, spelled, f"should begin with a number from 1 to {MOST}")
        count, recipe = int(first), USUAL[kind]
    int8 = "int8" in rest
    named = [word for word in rest if word != "int8"]
    if int8 and kind not in ("patches", "view_patches"):
        raise _wrong(kind, text, spelled, "asks for int8, which only patches have")
    for word in named:
        if word in RECIPES and kind in RECIPES[word].kinds:
            recipe = word
        elif kind == "patches":
            raise _wrong(
                kind, text, spelled, f"has an unknown part '{word[:40]}', where only int8 may stand"
            )
        elif kind == "view_patches" and not variant and word not in RECIPES:
            variant = word
        else:
            raise UnknownNameError(f"recipe of {spelled[kind]}", word, recipes_of(kind))
    scope = parse_scope(where) if at else usual_scope(recipe)
    return ComponentRequest(
        kind=kind, count=count, recipe=recipe, variant=variant, int8=int8, scope=scope
    )


def parse_scope(text: str) -> Scope:
    """Read the name of some rows.

    Raises:
        UsageError: If few-shot is spelled wrongly, or its seeds run backwards.
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
    """Take values apart at commas, those inside parentheses excepted."""
    return [part.strip() for text in texts for part in re.split(r",(?![^(]*\))", text)]


def parse_requests(
    patches: Sequence[str] | None,
    views: Sequence[str],
    crops: Sequence[str],
    view_patches: Sequence[str],
    *,
    spelled: Mapping[str, str] = FLAGS,
) -> list[ComponentRequest]:
    """Read the flags or arguments; what they cannot mean is told before any model is loaded.

    Raises:
        UsageError: If a request cannot be read.
        UnknownNameError: If no tower has patch features of that name.
    """
    requests = [] if patches is None else _patch_requests(split_requests(patches), spelled)
    for kind, texts in (("views", views), ("crops", crops), ("view_patches", view_patches)):
        requests += [parse_request(kind, text, spelled=spelled) for text in split_requests(texts)]
    for request in requests:
        if request.variant and request.variant not in VARIANTS:
            none = ("none",) if request.kind == "patches" else ()
            raise UnknownNameError("patch variant", request.variant, (*VARIANTS, *none))
    return requests


def recipes_of(kind: str) -> tuple[str, ...]:
    """Name the recipes that can make a kind of component."""
    return tuple(name for name, recipe in RECIPES.items() if kind in recipe.kinds)


_SCOPES = "few-shot(16,seeds=1-3), train, query, pool, all or a split"


def _wrong(kind: str, text: str, spelled: Mapping[str, str], what: str) -> UsageError:
    example = {
        "views": "10, 4:cdfsl or 10:rrc50@train",
        "crops": "60, 60:lazsl or 16:fair@pool",
        "view_patches": "4, 4:cdfsl:vanilla or 4:cdfsl:int8@train",
        "patches": "clearclip, vanilla:int8 or clearclip@query",
    }[kind]
    return UsageError(f"{spelled[kind]} {text[:80]} {what}; expected for example {example}.")


def _patch_requests(texts: Sequence[str], spelled: Mapping[str, str]) -> list[ComponentRequest]:
    if list(texts) == ["none"]:
        return []
    if any(text.startswith(("none:", "none@")) or text == "none" for text in texts):
        raise UsageError(
            f"{spelled['patches']} none stands alone, got '{','.join(texts)}'. Leave none or the "
            f"rest out."
        )
    return [parse_request("patches", text, spelled=spelled) for text in texts]

"""The nouns without tensors, so that looking at a cache needs no torch.

FeatureKey     everything that fixes the numbers; its digest names the cache folder
ComponentKey   one kind of tensor; names a sub-folder
Listing        images, classes, labels, splits; in no key, so relabelling re-encodes nothing
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Int64

from featcache.errors import UnknownNameError, UsageError

NUMERICS = 3
"""Raised when our own code changes the numbers that a pass writes."""

TextKind: TypeAlias = Literal["name", "template", "description", "cupl", "dclip", "waffle"]
"""Which texts of a class: the `text` setting of every method that reads texts."""
TEXT_KINDS: tuple[str, ...] = get_args(TextKind)
"""What a class can be represented by."""
IMPORTED_TEMPLATE = "imported"
"""Stands in for the sentences that imported class vectors were made of."""
SENTENCE_SETS = ("cupl", "dclip")
"""Kinds of text that a user may bring class by class, beside the descriptions."""
FURTHER_SETS = (*SENTENCE_SETS, "waffle")
"""Kinds of text that are there on request only."""

_NATURAL = {"boxes": "int32"}
"""Kind -> type of its values where that is not float16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureKey:
    """Everything that fixes the numbers of a cache, and nothing that does not."""

    architecture: str
    """open_clip's name of the model, e.g. ViT-B-16-quickgelu; `tiny` for the embedded one."""
    weights: str
    """sha256 of the weights file; `unknown` for imported features, `random-<seed>` without any."""
    activation: str
    """quick_gelu, gelu or unknown: the same weights under the other one give other features."""
    image_size: int
    """Side of the square input in pixels; 0 for imported features."""
    preprocessing: str
    """How pixels become input, in one line, mean and deviation included."""
    norms: str = "raw"
    """raw: rows as the encoder gave them; unit: normalised before they reached us."""
    numerics: int = NUMERICS

    @property
    def is_imported(self) -> bool:
        """Tell whether the features came from a file, so that no encoder can make them again."""
        return self.image_size == 0

    def digest(self) -> str:
        """Return 12 hex digits that name the cache folder."""
        return _digest(asdict(self))[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentKey:
    """One kind of tensor in a cache: its recipe, not its rows."""

    kind: str
    """global, views, crops, boxes (of crops), patches, view_patches or text."""
    recipe: str = ""
    """The augmentation or the text digest: rrc50, cdfsl, ...; empty for global and patches."""
    count: int = 0
    """Views or crops of each image; 0 where the kind has no such axis."""
    variant: str = ""
    """Patch variant: clearclip, vanilla, maskclip; empty elsewhere."""
    seed: int = 0
    """Seed of the augmentation; 0 is the default stream."""
    dtype: str = ""
    """float16 unless given; int32 for boxes. int8 has a scale behind each token; float32 are
    features that were imported so."""

    def __post_init__(self) -> None:
        """Fill in the type that the kind has by nature."""
        if not self.dtype:
            object.__setattr__(self, "dtype", _NATURAL.get(self.kind, "float16"))

    @property
    def folder(self) -> str:
        """Name the sub-folder: global, patches.clearclip, views.rrc50-10, text.1a2b3c4d5e6f."""
        parts = [self.kind, *(p for p in (self.variant, self.recipe) if p)]
        name = ".".join(parts) + (f"-{self.count}" if self.count else "")
        name += f"@{self.seed}" if self.seed else ""
        return f"{name}.int8" if self.dtype == "int8" else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The images of a data set in row order, and what is known of them now.

    Rows are only ever appended: a photograph that is gone leaves its row without a split, so no
    shard has to move. Row `i` of every component belongs to row `i` here.
    """

    dataset: str
    root: str
    """Where the images were; empty for imported features."""
    classes: tuple[str, ...]
    """In label order. A class is its label: names may repeat, and nothing keys on them."""
    ids: Sequence[str]
    hashes: Sequence[str]
    """sha256 of each file's bytes, hex; `import:<row>` for imported features."""
    labels: Int64[np.ndarray, " n"]
    """Index into `classes`; -1 unlabelled."""
    splits: Mapping[str, Int64[np.ndarray, " _"]]
    """Split name -> its rows, in the source's order: draws depend on it, and must not depend on
    the history of a cache. Stored few-shot sets are splits named `train@K`."""
    templates: tuple[str, ...] = ()
    descriptions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sets: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """cupl and dclip, as far as they were given: class name -> sentences."""
    waffle: tuple[str, ...] = ()
    """Templates of random words, the same for every class; empty where nobody asked for them."""
    default_text: str = "template"
    draws: str = "sampled"
    """sampled: shots are drawn from train by seed; stored: the few-shot sets came with the data."""
    own_texts: tuple[str, ...] = ()
    """Which of templates, descriptions, cupl, dclip and waffle the user gave; they stay until
    others are given."""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def count_texts(self) -> dict[str, int]:
        """Count the texts by kind, as far as there are any, beside the bare class names."""
        c = len(self.classes)
        counts = {"template": c * len(self.templates), "waffle": c * len(self.waffle)}
        for kind, given in {"description": self.descriptions, **self.sets}.items():
            counts[kind] = sum(len(given.get(name, ())) for name in self.classes)
        return {kind: counts[kind] for kind in TEXT_KINDS if counts.get(kind)}

    def rows(self, split: str) -> Int64[np.ndarray, " r"]:
        """Return the rows of one split.

        Raises:
            UnknownNameError: If the data set has no such split.
        """
        if split not in self.splits:
            raise UnknownNameError("split", split, self.splits)
        return self.splits[split]


def parse_component(folder: str) -> ComponentKey:
    """Read a component's folder name back into its key.

    Raises:
        UsageError: If the name is none that `ComponentKey.folder` could have written.
    """
    pattern = (
        r"(?P<kind>global|views|crops|boxes|patches|view_patches|text)(?P<mid>(?:\.[a-z0-9]+)*?)"
        r"(?:-(?P<count>[1-9][0-9]{0,5}))?(?:@(?P<seed>[0-9]{1,18}))?(?:\.(?P<dtype>int8))?"
    )
    match = re.fullmatch(pattern, folder)
    if match is None:
        raise UsageError(
            f"'{folder}' is not the name of a component; expected e.g. views.rrc50-10."
        )
    middle = [p for p in match["mid"].split(".") if p]
    has_variant = match["kind"] in ("patches", "view_patches")
    variant = middle.pop(0) if has_variant and middle else ""
    return ComponentKey(
        kind=match["kind"],
        recipe=".".join(middle),
        count=int(match["count"] or 0),
        variant=variant,
        seed=int(match["seed"] or 0),
        dtype=match["dtype"] or "",
    )


def _digest(value: Mapping[str, object]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()

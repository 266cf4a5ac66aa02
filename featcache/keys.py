"""Keys and listing. This module does not import torch, so that inspecting a cache is fast.

FeatureKey     everything that determines the features; its digest names the cache folder
ComponentKey   one kind of features; names a sub-folder
Listing        images, classes, labels, splits; not in the key, so relabelling encodes nothing again
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
from featcache.escapes import shown_notes

NUMERICS = 3
"""Version of the numerics; increased when our code changes the features."""

TextKind: TypeAlias = Literal["name", "template", "description", "cupl", "dclip", "waffle"]
"""Kind of class texts: the `text` setting of methods that use texts."""
TEXT_KINDS: tuple[str, ...] = get_args(TextKind)
"""All kinds of class texts."""
PROMPT: Literal["prompt"] = "prompt"
"""Kind of the texts that belong to no class."""
AnyTextKind: TypeAlias = Literal[TextKind, "prompt"]
"""The `text` setting of methods that do not ask which class a text belongs to."""
ANY_TEXT_KINDS: tuple[str, ...] = get_args(AnyTextKind)
"""All kinds of texts."""
IMPORTED_TEMPLATE = "imported"
"""Placeholder for the unknown texts of imported class vectors."""
SENTENCE_SETS = ("cupl", "dclip")
"""Kinds of texts per class that users can provide besides descriptions."""
FURTHER_SETS = (*SENTENCE_SETS, "waffle", PROMPT)
"""Kinds of texts that exist on request only."""

VARIED = ("patches", "view_patches", "tokens")
"""Kinds whose components have a variant: a patch variant, or a place in the tower."""

_NATURAL = {"boxes": "int32"}
"""Kind -> default type of its values if it is not float16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureKey:
    """Everything that determines the features of a cache, and nothing else."""

    architecture: str
    """open_clip's name of the model, e.g. ViT-B-16-quickgelu; `tiny` for the embedded one."""
    weights: str
    """sha256 of the weights file; `unknown` for imported features, `random-<seed>` without any."""
    activation: str
    """quick_gelu, gelu or unknown."""
    image_size: int
    """Side of the square input in pixels; 0 for imported features."""
    preprocessing: str
    """Preprocessing in one line: resizing, mean and standard deviation."""
    norms: str = "raw"
    """raw: as the encoder computed them; unit: imported features that were normalised."""
    numerics: int = NUMERICS

    @property
    def is_imported(self) -> bool:
        """Tell whether the features were imported, so that they cannot be encoded again."""
        return self.image_size == 0

    def digest(self) -> str:
        """Return 12 hex digits that name the cache folder."""
        return _digest(asdict(self))[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentKey:
    """One kind of features in a cache."""

    kind: str
    """global, views, crops, boxes (of crops), patches, view_patches, tokens or text."""
    recipe: str = ""
    """Recipe of views and crops (rrc50, cdfsl, ...), or digest of texts; else empty."""
    count: int = 0
    """Views or crops per image; 0 if the kind has no such axis."""
    variant: str = ""
    """Patch variant (clearclip, vanilla, maskclip), or place of tokens in the tower (last-block);
    empty elsewhere."""
    seed: int = 0
    """Seed of the augmentation; 0 is the default stream."""
    dtype: str = ""
    """float16 by default, int32 for boxes. In int8, a scale follows each token; float32 is used for
    imported features only."""

    def __post_init__(self) -> None:
        """Set the default type of the kind."""
        if not self.dtype:
            object.__setattr__(self, "dtype", _NATURAL.get(self.kind, "float16"))

    @property
    def folder(self) -> str:
        """Folder name: global, patches.clearclip, views.rrc50-10, text.1a2b3c4d5e6f."""
        parts = [self.kind, *(p for p in (self.variant, self.recipe) if p)]
        name = ".".join(parts) + (f"-{self.count}" if self.count else "")
        name += f"@{self.seed}" if self.seed else ""
        return f"{name}.int8" if self.dtype == "int8" else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The images of a data set in row order, with labels, splits and texts.

    Rows are only appended: the row of a removed image stays without a split, so that shards stay
    valid. Row `i` of every component belongs to row `i` of the listing.
    """

    dataset: str
    root: str
    """Folder of the images; empty for imported features."""
    classes: tuple[str, ...]
    """In label order. A class is its label: names may repeat, and nothing keys on them."""
    ids: Sequence[str]
    hashes: Sequence[str]
    """sha256 of each file's bytes, hex; `import:<row>` for imported features."""
    labels: Int64[np.ndarray, " n"]
    """Index into `classes`; -1 for unlabelled images."""
    splits: Mapping[str, Int64[np.ndarray, " _"]]
    """Split name -> rows in the order of the source, so that draws do not depend on the history of
    a cache. Stored few-shot sets are splits named `train@K`."""
    templates: tuple[str, ...] = ()
    descriptions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sets: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """cupl and dclip, if given: class name -> sentences."""
    waffle: tuple[str, ...] = ()
    """Templates of random words, the same for every class; empty if not requested."""
    prompts: tuple[str, ...] = ()
    """Sentences of no class; empty if not given."""
    default_text: str = "template"
    draws: str = "sampled"
    """sampled: draw shots from train by seed; stored: the few-shot sets came with the data."""
    own_texts: tuple[str, ...] = ()
    """Which of templates, descriptions, cupl, dclip, waffle and prompts the user provided; they are
    kept until replaced."""
    spec: str = ""
    """Source that opens the images again, if the root alone does not tell how they are listed."""
    notes: tuple[str, ...] = ()
    """Sentences for the user about the images; escaped, as errors are."""

    def __post_init__(self) -> None:
        """Escape the notes, which quote names of files."""
        object.__setattr__(self, "notes", shown_notes(self.notes))

    def __len__(self) -> int:
        return len(self.ids)

    def count_texts(self) -> dict[str, int]:
        """Return the number of texts by kind, without class names and empty kinds."""
        c = len(self.classes)
        counts = {"template": c * len(self.templates), "waffle": c * len(self.waffle)}
        for kind, given in {"description": self.descriptions, **self.sets}.items():
            counts[kind] = sum(len(given.get(name, ())) for name in self.classes)
        counts[PROMPT] = len(self.prompts)
        return {kind: counts[kind] for kind in ANY_TEXT_KINDS if counts.get(kind)}

    def rows(self, split: str) -> Int64[np.ndarray, " r"]:
        """Return the rows of one split.

        Raises:
            UnknownNameError: If the data set has no such split.
        """
        if split not in self.splits:
            raise UnknownNameError("split", split, self.splits)
        return self.splits[split]


def parse_component(folder: str) -> ComponentKey:
    """Parse the folder name of a component.

    Raises:
        UsageError: If it is not the name of a component.
    """
    pattern = (
        r"(?P<kind>global|views|crops|boxes|patches|view_patches|tokens|text)"
        r"(?P<mid>(?:\.[a-z0-9]+(?:-[a-z]+)*)*?)"
        r"(?:-(?P<count>[1-9][0-9]{0,5}))?(?:@(?P<seed>[0-9]{1,18}))?(?:\.(?P<dtype>int8))?"
    )
    match = re.fullmatch(pattern, folder)
    if match is None:
        raise UsageError(
            f"'{folder}' is not the name of a component; expected e.g. views.rrc50-10."
        )
    middle = [p for p in match["mid"].split(".") if p]
    variant = middle.pop(0) if match["kind"] in VARIED and middle else ""
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

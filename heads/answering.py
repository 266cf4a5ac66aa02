"""Inputs of a head -> the rows that it reads.

Rows, a tensor or an array of floats [n d]     as they are
FeatureSet                                     the usable rows of a split
images                                         encoded as `extract` would, without a cache
Embedded                                       what `featcache.embed` gave
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from featcache.backbones.locations import is_location
from featcache.backbones.names import COMPUTE_FLAGS, choose, is_published
from featcache.errors import HeadError, SourceError, UsageError
from featcache.keys import FeatureKey, parse_component
from featcache.store.provenance import COMPUTE, MICRO_BATCH
from featcache.types import FeatureSet
from featcache.wording import Argument, Part
from heads.contract.method import Need
from heads.contract.rows import Kind, LazyRows, Rows
from heads.contract.settings import Real
from heads.reading import MappedRows, read_rows

if TYPE_CHECKING:  # what encodes images is loaded for images only
    from featcache.embedded import Embedded
    from featcache.embedding import Embedder
    from featcache.imaging.inputs import ImageLike
    from heads.head import Head

    Answerable: TypeAlias = (
        Rows | Tensor | FeatureSet | Embedded | ImageLike | Iterable[ImageLike] | np.ndarray
    )
else:
    Answerable = Any

NAMED = 3
"""Number of unreadable images that a message names."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """Rows to be answered, and their positions among the inputs."""

    rows: Rows | Tensor
    at: Int64[np.ndarray, " r"] | None = None
    """Position of each row; None where every input has a row."""
    n: int = 0
    """Number of inputs, where `at` is not None."""

    def spread(self, answers: Shaped[Tensor, "r ..."], missing: Real) -> Shaped[Tensor, "n ..."]:
        """Put answers at the positions of their inputs, and `missing` where an input has no row."""
        if self.at is None:
            return answers
        full = answers.new_full((self.n, *answers.shape[1:]), missing)
        full[torch.from_numpy(self.at).to(full.device)] = answers
        return full


def given(
    head: "Head", what: Answerable, *, split: str | None = None, strict: bool = True
) -> Given:
    """Read the inputs of a head.

    Args:
        head: The head.
        what: The inputs; see above.
        split: Split of a FeatureSet; None is `test`.
        strict: Whether an unreadable image is an error.

    Raises:
        HeadError: If features were not made like those of training, or the head does not say
            how to encode images.
        MissingComponentError: If a cache lacks what the head reads.
        SourceError: If an image is unreadable under `strict`.
        UsageError: If `split` is given without a cache, or an input is no image.
    """
    if isinstance(what, FeatureSet):
        head.check_key(what.key, f"the cache {what.path}")
        rows, needs = what.usable("test" if split is None else split), query_needs(head)
        return Given(rows=read_rows(what, rows, "query", needs, head.device))
    if split is not None:
        raise UsageError(f"split='{split}' is for a cache; got {type(what).__name__}.")
    if isinstance(what, Rows | Tensor):
        return Given(rows=what)
    if isinstance(what, np.ndarray) and what.dtype.kind == "f":
        return Given(rows=torch.from_numpy(what).to(head.device))
    from featcache.embedded import Embedded

    embedded = what if isinstance(what, Embedded) else embedder_for(head).embed(what)
    head.check_key(embedded.key, "what was embedded")
    usable = embedded.usable()
    if len(usable) < len(embedded) and strict:
        named = [f"{embedded.ids[row]} {why}" for row, why in embedded.reasons.items()]
        raise SourceError(
            f"{len(named)} of {len(embedded)} images cannot be used: {'; '.join(named[:NAMED])}"
            f"{'; ...' if len(named) > NAMED else ''}. Leave them out, or give strict=False: then "
            f"their label is -1 and their logits are NaN."
        )
    return Given(rows=rows_of(head, embedded, usable), at=usable, n=len(embedded))


def query_needs(head: "Head") -> list[Need]:
    """Return what a head reads of the images that it answers."""
    return [need for need in head.method.needs(head.fitted.config) if need.role == "query"]


def embedder_for(head: "Head", *, device: str = "auto", strict: bool = False) -> "Embedder":
    """Load what encodes images like those of training, after checking that the key fits.

    Args:
        head: The head.
        device: auto, cpu, cuda, cuda:1, ...
        strict: Whether an unreadable image is an error.

    Raises:
        HeadError: If the head does not say how to encode images, or other weights are here.
        BackboneError: If the backbone cannot be loaded.
    """
    from featcache.embedding import Embedder

    key = key_of_images(
        head, "how images become its rows", "Give it rows that were made as those of training."
    )
    micro_batch, compute = _encoding(head)
    embedder = Embedder(
        head.backbone,
        weights=head.about.get("weights") or None,
        device=device,
        compute=compute,
        components=[name for name in head.reads if name != "global"],
        image_size=key.image_size,
        micro_batch=micro_batch,
        strict=strict,
    )
    head.check_key(embedder.key, f"backbone {head.backbone} as it is here")
    return embedder


def key_of_images(head: "Head", unknown: str, *instead: Part) -> FeatureKey:
    """Return the key of a head that may encode images.

    Args:
        head: The head.
        unknown: What nothing says, where features were imported or plain arrays.
        instead: What to do then.

    Raises:
        HeadError: If nothing says how, or its backbone is at a place that only its file names.
    """
    check_place(head)
    if head.key is None or head.key.is_imported or not head.backbone:
        source = "plain arrays" if head.key is None else "imported features"
        raise HeadError(
            f"This head of {head.method.name} was trained on {source}, so nothing says {unknown}. ",
            *instead,
        )
    return head.key


def check_place(head: "Head") -> None:
    """Refuse to read or fetch a backbone from a place that only the file of a head names.

    Raises:
        HeadError: If the head came as a file, and its backbone or weights are a path or a
            repository that the user has not named (`encoded_by`).
    """
    weights = head.about.get("weights") or None
    if not head.is_foreign or is_published(head.backbone, weights):
        return
    place = f"weights {weights} for {head.backbone}" if weights else f"backbone {head.backbone}"
    raise HeadError(
        f"The file of this head names the {place}, which is nothing that featcache or open_clip "
        f"publishes. If you trust that place, name it yourself with ",
        *((Argument("weights"), " and ") if weights else ()),
        Argument("backbone"),
        "; then it is loaded, and refused if its weights are not those of training.",
    )


def encoded_by(head: "Head", backbone: str | None = None, weights: str | None = None) -> "Head":
    """Return a head whose images are encoded by a backbone that the user names.

    What is named is believed, as in `featcache extract`, and compared with the key of the head when
    it is loaded. So a folder of weights that was moved can be named, too.

    Args:
        head: The head.
        backbone: Name of the backbone; None for that of the head.
        weights: A tag or a file; None for those of the head.

    Raises:
        HeadError: If both backbones are published and of other architectures; other differences
            show when the weights are loaded.
        UsageError: If the backbone cannot be chosen.

    Example:
        >>> import featcache, heads
        >>> from heads.answering import encoded_by
        >>> head = heads.fit("ridge", featcache.open("fieldguide", "tiny"), shots=4)
        >>> encoded_by(head, weights="copy.safetensors").about["weights"]
        'copy.safetensors'
    """
    if backbone is None and weights is None:
        return head
    if backbone is not None:
        _check_architecture(head, backbone, weights)
    about = {**head.about, "weights": weights}
    named = head.backbone if backbone is None else backbone
    return replace(head, backbone=named, about=about, is_foreign=False)


def _check_architecture(head: "Head", backbone: str, weights: str | None) -> None:
    """Refuse a backbone of another architecture before its weights are downloaded."""
    if head.key is None or is_location(backbone) or is_location(head.backbone):
        return
    architecture = choose(backbone, weights).architecture
    if architecture != head.key.architecture:
        raise HeadError(
            f"This head of {head.method.name} was trained on features of {head.key.architecture}, "
            f"and {backbone} is {architecture}. Name a backbone of that architecture, or none to "
            f"take the one of training."
        )


def _encoding(head: "Head") -> tuple[int | None, str]:
    """Return micro-batch and compute type of the features of training, so that bits agree.

    Heads that were kept before these were recorded take those of a new pass.
    """
    encoding = head.about.get("encoding") or {}
    if not isinstance(encoding, Mapping):
        raise _unreadable_encoding(encoding)
    if not encoding:
        return None, "auto"
    size, compute = str(encoding.get(MICRO_BATCH)), str(encoding.get(COMPUTE))
    if not (size.isascii() and size.isdecimal() and len(size) < 7) or compute not in COMPUTE_FLAGS:
        raise _unreadable_encoding(encoding)
    return int(size), COMPUTE_FLAGS[compute]


def _unreadable_encoding(encoding: object) -> HeadError:
    return HeadError(
        f"This head should say with which micro-batch and compute type its features were encoded, "
        f"and says {str(encoding)[:80]!r}. Give it rows, or train it again."
    )


def rows_of(head: "Head", embedded: "Embedded", rows: Int64[np.ndarray, " r"]) -> Rows:
    """Return embedded rows as `read_rows` does those of a cache."""
    x, norms = (t.to(head.device) for t in embedded.unit_and_length("global", rows))
    kinds: dict[Kind, Tensor | LazyRows] = {}
    for need in query_needs(head):
        if need.kind == "global":
            continue
        for name in head.reads:
            key = parse_component(name)
            fits = key.kind == need.kind and need.recipe in (None, "", key.recipe, key.variant)
            if fits and name in embedded.components:
                kinds[need.key] = MappedRows(embedded, name, rows, head.device)
    return Rows(
        x=x, norms=torch.ones_like(norms) if embedded.key.norms == "unit" else norms, kinds=kinds
    )


def checked(head: "Head", rows: Rows | Float[Tensor, "n d"]) -> Rows:
    """Return rows as the method of a head reads them.

    Raises:
        HeadError: If they have another length, or lack something that the method reads.
        UsageError: If they are not finite.
    """
    x = rows.x if isinstance(rows, Rows) else rows
    if x.dim() != 2 or (head.width is not None and x.shape[1] != head.width):
        raise HeadError(
            f"This head of {head.method.name} answers rows [n, {head.width or 'd'}], got "
            f"{list(x.shape)}."
        )
    strange = (~torch.isfinite(x).all(1)).nonzero().flatten().tolist()
    if strange:
        first = ", ".join(map(str, strange[:5])) + (", ..." if len(strange) > 5 else "")
        raise UsageError(
            f"{len(strange)} of {len(x)} rows hold NaN or infinite values (rows {first}); "
            f"leave them out, or extract their features again."
        )
    if not isinstance(rows, Rows):
        rows = rows.to(head.dtype)
        norms = rows.norm(dim=-1)
        rows = Rows(x=F.normalize(rows, dim=-1), norms=norms)
    elif rows.x.dtype != head.dtype:  # of a cache, and the head learned from float64 arrays
        rows = replace(rows, x=rows.x.to(head.dtype), norms=rows.norms.to(head.dtype))
    for need in query_needs(head):
        if need.kind != "global" and not need.optional and need.key not in rows.kinds:
            raise HeadError(
                f"This head of {head.method.name} reads {need.key} of every image, and these "
                f"rows have {', '.join(map(str, rows.kinds)) or 'global features alone'}."
            )
    return rows

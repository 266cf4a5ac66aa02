"""Everything known of one backbone before it is built or downloaded."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from featcache.backbones.last_block import why_not
from featcache.backbones.licences import licence_of
from featcache.backbones.measure import measure
from featcache.backbones.models import build_model, parameters, without_texts
from featcache.backbones.names import (
    EMBEDDED,
    OPENAI,
    choose,
    default_tag,
    image_size_of,
    tags_of,
)
from featcache.backbones.patches import tower_of
from featcache.backbones.weights import find_cached

BYTES = 2
"""Bytes of a stored number: float16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Published weights of a backbone."""

    tag: str
    source: str
    """Where they are downloaded from: a hub repository or an address."""
    licence: str
    file: Path | None
    """Their file on this machine; None if they would be downloaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneDetails:
    """One backbone as `featcache backbones NAME` describes it."""

    name: str
    architecture: str
    image_size: int
    resize_mode: str
    dim: int
    variants: tuple[str, ...]
    """Patch variants, the default first."""
    patches: int
    """Patches of an image; 0 if there are none in the joint space."""
    gflops: float
    """GFLOPs of one image, 2 per multiply-add."""
    image_parameters: int
    parameters: int | None
    """Parameters of both towers; None if the text model's config is not on this machine."""
    bytes_an_image: int
    """Stored bytes of the global feature."""
    patch_bytes_an_image: int
    """Stored bytes of the patches of one variant."""
    token_bytes_an_image: int
    """Stored bytes of the tokens before the last block; 0 if they cannot be stored."""
    no_tokens: str
    """Why they cannot be, as a predicate ("ends in an attention pool"); empty if they can."""
    tokenizer: str
    """Hugging Face tokenizer that its texts need; empty for those that are always there."""
    default: str
    """Weights used if none are named; empty if the user must choose."""
    weights: tuple[Published, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            **asdict(self),
            "weights": [
                {**asdict(w), "file": None if w.file is None else str(w.file)} for w in self.weights
            ],
        }


def details(name: str) -> BackboneDetails:
    """Describe a backbone; its model is built on torch's meta device, without numbers.

    Raises:
        UnknownNameError: If the backbone is unknown.
        BackboneError: If its config cannot be built.
        WeightsMissingError: If it is named by a place that has no config.

    Example:
        >>> found = details("ViT-B/32")
        >>> found.dim, found.patches, found.bytes_an_image, round(found.gflops, 2)
        (512, 49, 1024, 8.82)
    """
    from featcache.backbones.names import preprocess_of

    choice = choose(name, "random")
    side = image_size_of(choice.config)
    with torch.device("meta"):
        model = build_model(without_texts(choice.config), seed=None).eval().requires_grad_(False)
    dim, patches, gflops = measure(model, side, torch.device("meta"))
    tower = tower_of(model.visual)
    whole, no_tokens = parameters(choice.config), why_not(model.visual)
    base = OPENAI.get(name) or name.replace("/", "-")
    tags = {} if choice.is_foreign or name in EMBEDDED else tags_of(base)
    usual = "embedded" if name in EMBEDDED else "" if choice.is_foreign else default_tag(name) or ""
    return BackboneDetails(
        name=choice.name,
        architecture=choice.architecture,
        image_size=side,
        resize_mode=preprocess_of(choice.entry)["resize_mode"],
        dim=dim,
        variants=() if tower is None else tower.variants,
        patches=patches,
        gflops=gflops,
        image_parameters=sum(p.numel() for p in model.visual.parameters()),
        parameters=None if whole is None else whole[1],
        bytes_an_image=BYTES * dim,
        patch_bytes_an_image=BYTES * dim * patches,
        token_bytes_an_image=0 if no_tokens else BYTES * (patches + 1) * model.visual.proj.shape[0],
        no_tokens=no_tokens,
        tokenizer=choice.config["text_cfg"].get("hf_tokenizer_name") or "",
        default=usual,
        weights=tuple(
            Published(
                tag=tag,
                source=str(entry.get("hf_hub") or entry.get("url", "")).rstrip("/"),
                licence=licence_of(base, tag, entry),
                file=find_cached(entry),
            )
            for tag, entry in tags.items()
        ),
    )

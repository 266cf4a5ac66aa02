"""Load a backbone by name.

tiny                      the embedded model; its weights are part of the package
tiny-local                the same, trained further so that its patches match texts
ViT-B/16, RN50, ...       OpenAI's names: OpenAI's weights with QuickGELU by default
ViT-B-16, ViT-H/14, ...   every model of open_clip, with slash or hyphen
local-dir:PATH            a folder with open_clip_config.json and weights
hf-hub:org/repo           the same in a repository of the hub

`weights` is a tag of open_clip, a file, or `random` (`random-7` sets the seed).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.backbones.base import Backbone
from featcache.backbones.names import (
    EMBEDDED,
    OPENAI,
    TINY,
    Choice,
    check_activation,
    choose,
    default_tag,
    image_size_of,
    names,
    preprocess_of,
    tags_of,
)
from featcache.errors import FeatcacheError, TextsMissingError
from featcache.paths import expand


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneInfo:
    """A backbone as `featcache backbones` lists it."""

    name: str
    architecture: str
    weights: tuple[str, ...]
    """Pretrained tags to choose from."""
    default: str
    """Weights used if none are named; empty if the user must choose."""
    image_size: int
    dim: int
    gflops: float | None
    """GFLOPs of one image, 2 per multiply-add; None if only the built model could tell."""
    patches: bool
    """Whether it has patch tokens in the joint space."""


def load_backbone(
    name: str,
    *,
    weights: str | None = None,
    device: str = "auto",
    compute: str = "auto",
    compiled: bool = False,
    tokenizer: Path | None = None,
    image_size: int | None = None,
) -> Backbone:
    """Load a frozen backbone with its weights.

    Args:
        name: tiny, tiny-local, OpenAI's name, open_clip's name, local-dir:PATH or hf-hub:org/repo.
        weights: open_clip's tag, a safetensors file or torch state dict, or `random`; None takes
            the embedded weights, OpenAI's, or the only published ones.
        device: auto, cpu, cuda, cuda:N.
        compute: auto, bf16 or fp32 for the image tower; auto is bf16 if the device has units for
            it. Features of bf16 and fp32 differ by less than 0.001 in cosine.
        compiled: Whether to compile the image tower with torch.compile, which takes some seconds
            per batch size.
        tokenizer: File or folder of the tokenizer, for a text tower that does not use CLIP's; None
            takes the one its config names, from this machine or the hub. Where that cannot be had,
            the backbone encodes images only and `lacks_texts` says why.
        image_size: Pixels of its square input, for plain ViTs: position embeddings are interpolated
            to it. None is the size that the model was trained on.

    Raises:
        UnknownNameError: If the backbone or the weights are unknown.
        UsageError: If the backbone has no default weights and none are named.
        WeightsMissingError: If the weights are not on this machine and cannot be downloaded.
        BackboneError: If the weights do not fit the model, or torch.compile does not work here.
    """
    # Importing open_clip takes seconds; looking up names must not pay for it.
    from featcache.backbones.devices import pick_device, pick_dtype
    from featcache.backbones.fit import fit_weights
    from featcache.backbones.models import PreprocessConfig, build_model, check_fits, without_texts
    from featcache.backbones.openclip import OpenClipBackbone
    from featcache.backbones.sizes import resized
    from featcache.backbones.weights import read_weights

    target = pick_device(device)
    dtype = pick_dtype(compute, target)
    choice = choose(name, weights)
    side = image_size_of(choice.config) if image_size is None else image_size
    config = resized(choice.config, side, name=name)
    content = None
    if choice.seed is None:
        content = read_weights(choice.file or _fetch(choice))
        check_activation(choice, is_quick=None if content.openai is None else True)
    if choice.is_foreign:
        size = None if content is None else content.path.stat().st_size
        check_fits(config, size, what=choice.name)
    texts = _tokenizer(choice, tokenizer)
    try:
        model = build_model(config, seed=choice.seed)
    except TextsMissingError as error:
        texts, model = error, build_model(without_texts(config), seed=choice.seed)
    if content is not None:
        fit_weights(model, content, name=choice.name, resize=image_size is not None)
    return OpenClipBackbone(
        model,
        texts,
        name=choice.name,
        architecture=choice.architecture,
        activation="quick_gelu" if choice.is_quick else "gelu",
        weights=f"random-{choice.seed}" if content is None else content.sha256,
        preprocess=PreprocessConfig(image_size=side, **preprocess_of(choice.entry)),
        device=target,
        compute_dtype=dtype,
        compiled=compiled,
    )


def backbones() -> list[BackboneInfo]:
    """List all backbones without building them: the embedded ones, OpenAI's, then open_clip's."""
    return [_info(name) for name in names()]


def text_cuts(name: str) -> Callable[[Sequence[str]], int] | None:
    """Return what counts the sentences that a text tower cuts; its weights are not loaded.

    Args:
        name: Name of the backbone.

    Returns:
        None if the backbone is not known here, or its tokenizer is not on this machine. Nothing is
        downloaded.

    Example:
        >>> count = text_cuts("tiny")
        >>> count(["a moth", "a moth " * 40])
        1
    """
    try:
        choice = choose(name, "random")
    except FeatcacheError:
        return None
    if choice.config["text_cfg"].get("hf_tokenizer_name") and not _has_own(choice):
        return None
    tokenizer = _tokenizer(choice, None)
    if isinstance(tokenizer, FeatcacheError):
        return None
    from featcache.backbones.tokens.lengths import is_cut

    return lambda texts: sum(is_cut(tokenizer, text) for text in texts)


def _fetch(choice: Choice) -> Path:
    from featcache.backbones import weights
    from featcache.backbones.models import weights_size

    size = weights_size(choice.config)
    return weights.fetch(
        choice.entry, what=f"The weights '{choice.label}' of {choice.name}", size=size
    )


def _tokenizer(choice: Choice, own: Path | None) -> Any:
    """Return the tokenizer of a model, or why there is none on this machine."""
    if own is None and _has_own(choice):
        own = choice.tokenizer
    if choice.architecture == TINY and own is None:
        from featcache.backbones.tiny.tokenizer import TinyTokenizer

        text = choice.config["text_cfg"]
        return TinyTokenizer(context_length=text["context_length"], vocab_size=text["vocab_size"])
    from featcache.backbones.tokens.choice import build_tokenizer

    try:
        return build_tokenizer(choice.config, None if own is None else expand(own))
    except TextsMissingError as error:
        return error


def _has_own(choice: Choice) -> bool:
    """Tell whether a folder holds the tokenizer that its config names."""
    from featcache.backbones.tokens.files import has_tokenizer

    named = choice.config["text_cfg"].get("hf_tokenizer_name")
    return bool(named) and choice.tokenizer is not None and has_tokenizer(choice.tokenizer)


def _info(name: str) -> BackboneInfo:
    from featcache.backbones.models import config_gflops, has_patches

    choice = choose(name, "random")
    tags = tags_of(OPENAI.get(name, name))
    return BackboneInfo(
        name=name,
        architecture=choice.architecture,
        weights=tuple(tags),
        default="embedded" if name in EMBEDDED else default_tag(name) or "",
        image_size=image_size_of(choice.config),
        dim=int(choice.config["embed_dim"]),
        gflops=config_gflops(choice.config),
        patches=has_patches(choice.config),
    )

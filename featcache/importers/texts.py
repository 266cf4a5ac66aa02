"""Encode class names with the backbone of imported features."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from featcache.backbones.names import choose
from featcache.bank import TextBank
from featcache.errors import WeightsMissingError
from featcache.text.encode import encode_texts


@dataclass(frozen=True, kw_only=True)
class Words:
    """Class names and templates, the input of `encode_texts`."""

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    descriptions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sets: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    waffle: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    default_text: str = "template"


def encode_names(
    classes: tuple[str, ...], templates: tuple[str, ...], backbone: str, weights: str | None
) -> TextBank:
    """Encode class names in templates, without downloading weights.

    Args:
        classes: Readable names in label order.
        templates: Sentences with one `{}`.
        backbone: Name of the backbone.
        weights: Its weights, if not the usual ones.

    Raises:
        UnknownNameError: If there is no such backbone.
        UsageError: If it has several weights and none is chosen.
        WeightsMissingError: If its weights are not on this machine.
    """
    choice = choose(backbone, weights)
    if choice.file is None and choice.seed is None:
        from featcache.backbones.weights import find_cached

        if find_cached(choice.entry) is None:
            raise WeightsMissingError(
                f"the weights '{choice.label}' of {backbone} are not on this machine. Extract "
                f"something with this backbone once, then import again."
            )
    from featcache.backbones.registry import load_backbone

    tower = load_backbone(backbone, weights=weights, device="cpu", compute="fp32")
    return encode_texts(Words(classes=classes, templates=templates), tower)

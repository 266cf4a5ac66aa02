"""Licences of published weights, as far as they are the same for a whole family.

From the model cards and repositories of their authors. Where one was not known for sure there is
no entry; the model card says it. Code of open_clip has a licence of its own (MIT).
"""

from collections.abc import Mapping
from typing import Any

from featcache.backbones.names import EMBEDDED, choose, is_published
from featcache.errors import FeatcacheError

UNKNOWN = "see the model card"
_OWNERS = {
    "apple": "Apple's machine learning research model licence: research only",
    "facebook": UNKNOWN,
    "laion": "MIT (LAION)",
}
"""Organisation on the hub -> licence, where all its models of open_clip have one."""
_TAGS = {
    "openai": "MIT (OpenAI)",
    "webli": "Apache-2.0 (Google)",
    "metaclip": "CC-BY-NC-4.0 (Meta): no commercial use",
    "laion": "MIT (LAION)",
    "dfn": "Apple's machine learning research model licence: research only",
    "datacompdr": "Apple's machine learning research model licence: research only",
}
"""Beginning of a tag -> licence."""


def licence_of(architecture: str, tag: str, entry: Mapping[str, Any]) -> str:
    """Return the licence of published weights.

    Args:
        architecture: open_clip's name of the model.
        tag: Name of the weights.
        entry: open_clip's entry of the tag.

    Example:
        >>> licence_of("ViT-B-16-SigLIP2", "webli", {})
        'Apache-2.0 (Google)'
    """
    if architecture.startswith("PE-Core"):
        return "Apache-2.0 (Meta)"
    for beginning, licence in _TAGS.items():
        if tag.startswith(beginning):
            return licence
    owner = str(entry.get("hf_hub", "")).partition("/")[0]
    return _OWNERS.get(owner, UNKNOWN)


def licence_named(backbone: str, weights: str | None) -> str:
    """Return the licence of the weights of a backbone, as far as it is known without a download.

    Args:
        backbone: Name of the backbone.
        weights: As `load_backbone` takes them; None is the default.

    Example:
        >>> licence_named("ViT-B/32", None)
        'MIT (OpenAI)'
    """
    if backbone in EMBEDDED and not weights:
        return "MIT (featcache)"
    if not is_published(backbone, weights):
        return UNKNOWN
    try:
        choice = choose(backbone, weights)
    except FeatcacheError:
        return UNKNOWN
    if choice.seed is not None:
        return "none, as they are random"
    if choice.file is not None:
        return UNKNOWN
    return licence_of(choice.architecture, choice.label, choice.entry)

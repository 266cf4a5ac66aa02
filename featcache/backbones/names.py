"""Resolve the name of a backbone and its weights, before anything is built or downloaded."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from featcache.backbones.locations import (
    WEIGHTS_FILES,
    check_location,
    is_location,
    locate,
    settled,
)
from featcache.errors import BackboneError, UnknownNameError, UsageError, WeightsMissingError
from featcache.paths import expand
from featcache.wording import Argument, Part, Placeholder

TINY = "tiny"
"""The embedded model that is taken where none is named; also the architecture of all of them."""
EMBEDDED = {TINY: "featcache.backbones.tiny", "tiny-local": "featcache.backbones.tiny_local"}
"""Name of an embedded model -> the package with its weights."""
COMPUTE = ("auto", "bf16", "fp32")
"""Choices of the compute type."""
COMPUTE_FLAGS = {"float32": "fp32", "bfloat16": "bf16"}
"""torch's name of a compute type -> the user's."""
OPENAI = {
    "RN50": "RN50",
    "RN101": "RN101",
    "RN50x4": "RN50x4",
    "RN50x16": "RN50x16",
    "RN50x64": "RN50x64",
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}
"""OpenAI's name of a model -> open_clip's name."""

_RANDOM = re.compile(r"random(?:-([0-9]{1,9}))?")
_QUICK = "-quickgelu"
_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt", ".npz")
_HINT = "`featcache backbones` shows all."


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A model and its weights: from a file, from a published tag, or random."""

    name: str
    architecture: str
    config: Mapping[str, Any]
    """open_clip's config of the model."""
    label: str
    """Name of the weights as the user typed it."""
    file: Path | None = None
    """Weights file; None loads the tag, or random weights if there is a seed."""
    seed: int | None = None
    """Seed of random weights; None if they are not random."""
    entry: Mapping[str, Any]
    """open_clip's entry of the tag, or the preprocessing that all tags of the model share."""
    tokenizer: Path | None = None
    """Folder with the files of the tokenizer, beside the weights of a folder."""

    @property
    def is_foreign(self) -> bool:
        """Tell whether the config came from a file, not from open_clip."""
        return is_location(self.name)

    @property
    def is_quick(self) -> bool:
        """Tell whether the model computes QuickGELU."""
        return bool(self.config.get("quick_gelu"))


def choose(name: str, weights: str | None) -> Choice:
    """Resolve a name and weights to a model and where its weights come from.

    Raises:
        UnknownNameError: If the backbone or the weights are unknown.
        UsageError: If the backbone has no default weights and none are named.
        WeightsMissingError: If the named file does not exist.
        BackboneError: If the weights of a tag were trained with another kind of GELU.
    """
    match = _RANDOM.fullmatch(weights or "")
    seed = int(match[1] or 0) if match else None
    if name in EMBEDDED:
        return _choose_embedded(name, weights, seed)
    if is_location(name):
        return _choose_location(name, weights, seed)
    base = OPENAI.get(name) or name.replace("/", "-")
    configs = _models()
    if base not in configs:
        raise UnknownNameError("backbone", name, names(), hint=_HINT)
    tags = tags_of(base)
    tag = None if weights is None else weights.lower().replace("-", "_")
    if weights is None:
        tag = default_tag(name)
        if tag is None:
            raise _no_default(name, tags, is_quick=bool(configs[base].get("quick_gelu")))
    if tag in tags:
        entry = tags[tag]
        is_openai = name in OPENAI and entry.get("quick_gelu") and base + _QUICK in configs
        architecture = base + _QUICK if is_openai else base
        choice = Choice(
            name=name,
            architecture=architecture,
            config=configs[architecture],
            label=str(tag),
            entry=entry,
        )
        check_activation(choice, is_quick=bool(entry.get("quick_gelu")))
        return choice
    architecture = base + _QUICK if name in OPENAI else base
    file = None if seed is not None else _local_file(name, str(weights), tags)
    return Choice(
        name=name,
        architecture=architecture,
        config=configs[architecture],
        label=str(weights),
        file=file,
        seed=seed,
        entry=_common(tags),
    )


def is_published(name: str, weights: str | None) -> bool:
    """Tell whether model and weights are part of this program or in open_clip's list.

    Others are read from a path or fetched from a repository that somebody chose.

    Args:
        name: Name of a backbone.
        weights: A tag, a file or `random`; None or "" for the usual ones.

    Example:
        >>> is_published("tiny", None), is_published("hf-hub:org/repo", None)
        (True, False)
        >>> is_published("tiny", "weights.safetensors")
        False
    """
    if is_location(name):
        return False
    if not weights or _RANDOM.fullmatch(weights):
        return True
    base = OPENAI.get(name) or name.replace("/", "-")
    return name not in EMBEDDED and weights.lower().replace("-", "_") in tags_of(base)


def check_known(name: str, weights: str | None) -> None:
    """Check what `choose` checks, as far as possible without importing open_clip and torch.

    Raises:
        UnknownNameError: If the backbone is unknown.
        WeightsMissingError: If the named file does not exist.
    """
    if name in EMBEDDED:
        choose(name, weights)
        return
    if is_location(name):
        check_location(name)
        return
    known = [*EMBEDDED, *OPENAI, *_model_names()]
    if name not in known and name.replace("/", "-") not in known:
        raise UnknownNameError("backbone", name, known, hint=_HINT)
    if weights and _is_path(expand(weights)):
        _local_file(name, weights, {})


def embedded_weights(name: str) -> Path:
    """Return where the weights of an embedded model are, or would be."""
    return Path(str(resources.files(EMBEDDED[name]).joinpath("weights.safetensors")))


def _choose_embedded(name: str, weights: str | None, seed: int | None) -> Choice:
    config = resources.files(EMBEDDED[TINY]).joinpath("config.json")
    stored = json.loads(config.read_text(encoding="utf-8"))
    file = None
    if weights is None:
        file = embedded_weights(name)
        if not file.is_file():
            raise WeightsMissingError(
                f"This installation lacks the weights of the embedded backbone '{name}'. Install "
                "featcache again, or give others with ",
                Argument("weights", Placeholder("FILE")),
                ".",
            )
    elif seed is None:
        file = _local_file(name, weights, {})
    return Choice(
        name=name,
        architecture=TINY,
        config=stored["model_cfg"],
        label=weights or "embedded",
        file=file,
        seed=seed,
        entry=stored["preprocess_cfg"],
    )


def _choose_location(name: str, weights: str | None, seed: int | None) -> Choice:
    place = locate(name)
    file = place.file
    if weights is not None:
        file = None if seed is not None else _local_file(name, weights, {})
    elif place.folder is not None and file is None:
        raise WeightsMissingError(
            f"{place.folder} has a config and no weights; expected one of "
            f"{', '.join(WEIGHTS_FILES)}. Give a file with ",
            Argument("weights", Placeholder("FILE")),
            ".",
        )
    return Choice(
        name=settled(name),
        architecture=place.architecture,
        config=place.config,
        label=weights or "",
        file=file,
        seed=seed,
        entry=place.entry,
        tokenizer=place.folder,
    )


def check_activation(choice: Choice, *, is_quick: bool | None) -> None:
    """Refuse weights trained with another kind of GELU, if open_clip has a model with that kind.

    Args:
        choice: Model and weights.
        is_quick: Whether the weights were trained with QuickGELU; None if unknown.

    Raises:
        BackboneError: If another model fits the weights.
    """
    if is_quick is None or is_quick == choice.is_quick:
        return
    name = choice.architecture
    right = name + _QUICK if is_quick else name.removesuffix(_QUICK)
    if right == name or right not in _models():  # no other model fits: the choice is intended
        return
    raise BackboneError(
        f"The weights '{choice.label}' were trained with {'QuickGELU' if is_quick else 'GELU'} and "
        f"{choice.name} computes {'GELU' if is_quick else 'QuickGELU'}: every feature would be "
        f"wrong. Use ",
        Argument("backbone", right),
        ".",
    )


def _local_file(name: str, weights: str, tags: Mapping[str, Any]) -> Path:
    path = expand(weights)
    if path.is_file():
        return path
    if path.is_dir():
        raise WeightsMissingError(
            Argument("weights", weights),
            " is a folder, expected a file. Name the safetensors file or torch state dict in it.",
        )
    if _is_path(path):
        raise WeightsMissingError(
            f"There is no weights file at {weights}. Check the path after ",
            Argument("weights"),
            ", or leave it out to take published weights.",
        )
    raise UnknownNameError(
        f"weights of {name}",
        weights,
        (*tags, "random"),
        hint=("A file is taken as well: ", Argument("weights", Placeholder("FILE")), "."),
    )


def _is_path(path: Path) -> bool:
    return len(path.parts) > 1 or path.suffix.lower() in _SUFFIXES


def _model_names() -> list[str]:
    """List open_clip's models from the files of its package, without importing it."""
    package = find_spec("open_clip")
    folders = [] if package is None else package.submodule_search_locations or []
    return [f.stem for folder in folders for f in Path(folder).glob("model_configs/*.json")]


def _models() -> dict[str, Any]:
    """Map open_clip's names to its model configs."""
    import open_clip

    return {name: open_clip.get_model_config(name) for name in open_clip.list_models()}


def names() -> list[str]:
    """List all backbones: the embedded ones, then OpenAI's names, then open_clip's."""
    return [*EMBEDDED, *OPENAI, *(name for name in _models() if name not in OPENAI)]


def tags_of(architecture: str) -> dict[str, Any]:
    """Map the pretrained tags of an open_clip model to their entries."""
    from open_clip import pretrained

    known = pretrained.list_pretrained_tags_by_model(architecture)
    return {tag: pretrained.get_pretrained_cfg(architecture, tag) for tag in known}


def default_tag(name: str) -> str | None:
    """Return the tag used if no weights are named; None if the user must choose."""
    tags = tags_of(OPENAI.get(name) or name.replace("/", "-"))
    if "openai" in tags and (name in OPENAI or name.endswith(_QUICK)):
        return "openai"
    return next(iter(tags)) if len(tags) == 1 else None


def _no_default(name: str, tags: Mapping[str, Any], *, is_quick: bool) -> UsageError:
    if not tags:
        return UsageError(
            f"Nobody has published weights for {name}. Give a file with ",
            Argument("weights", Placeholder("FILE")),
            ", or take one of the backbones with weights (`featcache backbones`).",
        )
    fitting = [t for t, entry in tags.items() if bool(entry.get("quick_gelu")) == is_quick]
    some = ", ".join(fitting[:5])
    openai = next((k for k, v in OPENAI.items() if v == name.replace("/", "-")), None)
    hint: list[Part] = []
    if openai:
        hint = [", or take OpenAI's weights with ", Argument("backbone", openai)]
    return UsageError(
        f"{name} has {len(fitting)} sets of weights, {'among them ' if fitting[5:] else ''}{some}. "
        "Choose one with ",
        Argument("weights", Placeholder("TAG")),
        hint,
        ".",
    )


def _common(tags: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an entry with the preprocessing that all tags share; empty if they differ."""
    distinct = {json.dumps(preprocess_of(entry)): entry for entry in tags.values()}
    return next(iter(distinct.values())) if len(distinct) == 1 else {}


def preprocess_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the preprocessing of a tag; OpenAI's for what the entry leaves out."""
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    return {
        "mean": tuple(entry.get("mean", OPENAI_DATASET_MEAN)),
        "std": tuple(entry.get("std", OPENAI_DATASET_STD)),
        "resize_mode": entry.get("resize_mode", "shortest"),
        "interpolation": entry.get("interpolation", "bicubic"),
    }


def image_size_of(config: Mapping[str, Any]) -> int:
    """Return the side of a model's square input in pixels."""
    size = config["vision_cfg"].get("image_size", 224)
    return int(size[0] if isinstance(size, list | tuple) else size)

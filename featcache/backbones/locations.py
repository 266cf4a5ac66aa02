"""Models that are named by where they are: `local-dir:PATH` and `hf-hub:org/repo`.

Both hold open_clip_config.json and weights. A config that equals one of open_clip's has its name;
any other is named by its digest, so that the key of a cache fixes all of it: the towers, how texts
are cleaned, the context, the preprocessing.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.backbones.config_file import CONFIG_FILE, read_config
from featcache.backbones.hub import NAME, fetch_file
from featcache.errors import UsageError, WeightsMissingError
from featcache.paths import expand
from featcache.wording import Argument, Placeholder

LOCAL, HUB = "local-dir:", "hf-hub:"
WEIGHTS_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""Names of weights in a folder, the preferred first: safetensors before torch files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A model that was found at a place."""

    architecture: str
    config: Mapping[str, Any]
    """open_clip's config of the model, checked."""
    entry: Mapping[str, Any]
    """Preprocessing, and for a repository where its weights are, as open_clip's tags have them."""
    file: Path | None
    """Weights in a folder; None in a repository, or if the folder has none."""
    folder: Path | None
    """The folder; None for a repository."""


def is_location(name: str) -> bool:
    """Tell whether a backbone is named by where it is."""
    return name.startswith((LOCAL, HUB))


def settled(name: str) -> str:
    """Return a name that holds from any working folder."""
    if not name.startswith(LOCAL):
        return name
    return LOCAL + str(expand(name.removeprefix(LOCAL)).absolute())


def check_location(name: str) -> None:
    """Check the form of a name, and for a folder that it is one with a config.

    Raises:
        UsageError: If the name has no path, or no repository of the form org/repo.
        WeightsMissingError: If there is no such folder, or no config in it.
    """
    if name.startswith(HUB):
        if not re.fullmatch(f"{NAME}/{NAME}", name.removeprefix(HUB)):
            raise UsageError(
                "A repository of the hub is named ",
                Argument("backbone", Placeholder(f"{HUB}ORG/REPO")),
                f", got '{name}'.",
            )
        return
    if not name.removeprefix(LOCAL).strip():
        raise UsageError(
            "A folder with a model is named ",
            Argument("backbone", Placeholder(f"{LOCAL}PATH")),
            f", got '{name}'.",
        )
    folder = expand(name.removeprefix(LOCAL))
    if not (folder / CONFIG_FILE).is_file():
        what = f"no {CONFIG_FILE} in" if folder.is_dir() else "no folder"
        raise WeightsMissingError(
            f"There is {what} {folder}. Check the path; a model's folder has {CONFIG_FILE} and "
            f"weights, as {WEIGHTS_FILES[0]}."
        )


def locate(name: str) -> Location:
    """Find a model at its place; a config that is not on this machine is downloaded.

    Raises:
        UsageError: If the name has not the right form.
        WeightsMissingError: If the place or its config is missing.
        BackboneError: If the config is refused.
    """
    check_location(name)
    if name.startswith(HUB):
        repository = name.removeprefix(HUB)
        config, entry = read_config(fetch_file(repository, CONFIG_FILE))
        return Location(
            architecture=_name_of(config),
            config=config,
            entry={**entry, "hf_hub": f"{repository}/"},
            file=None,
            folder=None,
        )
    folder = expand(name.removeprefix(LOCAL))
    config, entry = read_config(folder / CONFIG_FILE)
    file = next((folder / n for n in WEIGHTS_FILES if (folder / n).is_file()), None)
    return Location(
        architecture=_name_of(config), config=config, entry=entry, file=file, folder=folder
    )


def _name_of(config: Mapping[str, Any]) -> str:
    """Return open_clip's name of a config, or one made of its digest."""
    import open_clip

    digest = _digest(config)
    for name in open_clip.list_models():
        if _digest(open_clip.get_model_config(name)) == digest:
            return str(name)
    return f"config-{digest[:12]}"


def _digest(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()

"""Check the width of features against the backbone, without loading it."""

import json
from importlib.util import find_spec
from pathlib import Path

from featcache.backbones.names import OPENAI
from featcache.errors import ImportedFileError
from featcache.importers.contents import Contents
from featcache.limits import WORDS
from featcache.paths import read_regular


def width_of(backbone: str) -> int | None:
    """Return the width of a backbone's global features, or None for an unknown name.

    Args:
        backbone: Name of the backbone, e.g. ViT-B/32, or a model name of open_clip.

    Example:
        >>> width_of("ViT-B/32"), width_of("RN50"), width_of("my own model")
        (512, 1024, None)
    """
    name = OPENAI.get(backbone) or backbone.replace("/", "-")
    spec = find_spec("open_clip")
    for place in (spec.submodule_search_locations or []) if spec else []:
        file = Path(place) / "model_configs" / f"{name}.json"
        if file.name == f"{name}.json" and file.is_file():
            return int(json.loads(read_regular(file, WORDS))["embed_dim"])
    return None


def check_widths(contents: Contents, backbone: str) -> None:
    """Refuse features of different widths, or of another width than the backbone's.

    Raises:
        ImportedFileError: If they are of different widths, or not as wide as those of the
            backbone; the message names the files.
    """
    files: dict[int, list[str]] = {}
    for name, array in contents.arrays.items():
        if name.endswith("_features") and array.ndim == 2:
            files.setdefault(array.shape[1], []).append(_called(contents, name))
    if len(files) > 1:
        groups = "; ".join(f"{w} wide are {', '.join(dict.fromkeys(n))}" for w, n in files.items())
        raise ImportedFileError(
            f"{contents.path} holds features of different models: {groups}. Take those of all but "
            f"one model out of the folder."
        )
    width = width_of(backbone)
    for found, names in files.items():
        if width is not None and found != width:
            same = [known for known in OPENAI if width_of(known) == found]
            which = f"; features of {', '.join(same)} are {found} wide" if same else ""
            raise ImportedFileError(
                f"{names[0]} of {contents.path} is {found} wide, and features of {backbone} are "
                f"{width} wide{which}. Name the backbone that they came from, or give the files of "
                f"{backbone}."
            )


def _called(contents: Contents, name: str) -> str:
    """Return the name of the file of an array; that of the array where all are in one file."""
    file = contents.file_of(name)
    return name if file == contents.path else file.name

"""Advice for imported features: only the file they came from can restore them."""

from pathlib import Path

from featcache.keys import FeatureKey
from featcache.wording import Call, Part, Placeholder


def import_advice(key: FeatureKey, path: Path, dataset: str, backbone: str) -> Part:
    """Suggest importing the file again; empty for features that can be encoded again.

    Args:
        key: Key of the cache.
        path: Folder of the cache.
        dataset: Name of its data set.
        backbone: Name of its backbone.
    """
    if not key.is_imported:
        return ""
    form = key.preprocessing.split(":")[2:]  # imported:<digest>, or imported:<digest>:<format>
    if form:
        return (
            f"Import the same files again in the same way (as {form[0]}), which puts back what is "
            f"damaged or lost."
        )
    arguments = {"path": Placeholder("FILE"), "name": dataset, "backbone": backbone}
    arguments["root"] = str(path.parent.parent)
    return (
        "Import the same file again, which puts back what is damaged or lost: ",
        Call("featcache.importers.npz.import_npz", arguments),
    )

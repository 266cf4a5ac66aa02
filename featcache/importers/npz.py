"""Import features from .npz files as they are shared for few-shot learning.

train{K}_features [r d]   stored few-shot set of K a class -> split train@K
<split>_features  [r d]   train, val, test, or any further test split
<split>_labels    [r]     indices into classnames          <split>_paths [r]  image ids
classnames        [c]     text_features [c d]   one vector a class
"""

from collections.abc import Callable
from pathlib import Path

from featcache.importers.storing import check_names, store_table
from featcache.importers.table import read_table
from featcache.importers.widths import other_width
from featcache.paths import expand
from featcache.progress import Report
from featcache.store.cache import Cache
from featcache.wording import Part


def import_npz(
    path: Path | str,
    root: Path | str,
    name: str,
    backbone: str,
    report: Report | None = None,
    say: Callable[[Part], None] = lambda _: None,
) -> Cache:
    """Import an .npz file into a cache; importing it again restores damaged or lost parts.

    Args:
        path: File to import.
        root: Folder of all caches.
        name: Name for the data set.
        backbone: Name of the backbone of the features, e.g. ViT-B/32.
        report: Called with the number of stored rows.
        say: Called with messages about other caches and repairs.

    Raises:
        ImportedFileError: If the file is refused; the message names the array.
        CacheError: If the cache cannot be written, or a file in it is a link or cannot be read.
    """
    path, root = expand(path), expand(root)
    check_names(root, name, backbone)
    table = read_table(path)
    width = table.rows.shape[1]
    if wrong := other_width(width, backbone):
        say(f"The features are {width} wide, but {wrong}: is this the backbone they came from?")
    return store_table(table, path, root, name, backbone, report, say)

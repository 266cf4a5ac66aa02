"""The images of a listing, wherever they are now: files, members of archives, rows of tables."""

from collections.abc import Callable
from pathlib import Path

from featcache.errors import SourceError
from featcache.keys import Listing
from featcache.paths import file_in, from_text
from featcache.places import Place
from featcache.sources.registry import open_dataset
from featcache.sources.trees.names import path_text
from featcache.sources.trees.opening import tree_at
from featcache.store.moved import current_root
from featcache.wording import Call, Placeholder


class ListedImages:
    """Finds the images of a listing. Whether their bytes are those listed is not checked."""

    def __init__(self, listing: Listing, home: Path, backbone: str, *, download: bool) -> None:
        """Open the folder, archive, list or table that holds them.

        Args:
            listing: Listing of images, not of imported features.
            home: Folder of all caches.
            backbone: Name of the cache's backbone, for the error message.
            download: Whether a named data set may be fetched.

        Raises:
            SourceError: If it is gone or cannot be used.
        """
        self.listing = listing
        self.root = from_text(current_root(listing.root, listing.dataset, home))
        if not self.root.is_dir() and file_in(self.root) is None:
            raise SourceError(
                f"The images were in {self.root}, which is gone. Put them back, or run ",
                Call(
                    "featcache.extract",
                    {
                        "dataset": Placeholder("folder:..."),
                        "name": listing.dataset,
                        "backbone": backbone,
                        "moved": True,
                    },
                ),
                " on their new place.",
            )
        if listing.spec:
            dataset = open_dataset(listing.spec, root=home, name=listing.dataset, download=download)
            places = {sample.id: sample.place for sample in dataset.samples}
            self._find: Callable[[str], Place | None] = lambda name: places.get(name)
        else:
            self._find = tree_at(self.root).find

    def places(self, row: int) -> list[Place]:
        """Return where the image of a row may be; empty if it is gone."""
        name = self.listing.ids[row]
        # Earlier versions gave names with a backslash ids that read like escapes.
        paths = dict.fromkeys((path_text(name), name))
        return [place for path in paths if (place := self._find(path)) is not None]

"""A file with images and labels in it, as it was when its labels were read."""

from pathlib import Path

from featcache.errors import SourceError
from featcache.sources.trees.unchanged import check_unchanged


class Container:
    """A file that many images are parts of.

    Labels are read first and images later. What is put in place of the file in between has its
    images in another order, so it is refused.
    """

    __slots__ = ("path", "state")

    def __init__(self, path: Path) -> None:
        """Keep the state that the file has now; to be called before labels are read.

        Args:
            path: The file; links are followed.

        Raises:
            SourceError: If it cannot be looked at.
        """
        self.path = path
        try:
            self.state = path.stat()
        except (OSError, ValueError) as error:
            raise SourceError(f"{path} cannot be looked at ({error}); check the path.") from error

    def check_same(self) -> None:
        """Check that the file is as it was; to be called after a part of it was read.

        Raises:
            OSError: If the file is gone.
            SourceError: If it has changed.
        """
        check_unchanged(self.path, self.state, self.path.stat())

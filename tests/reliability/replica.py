"""Any tree of files, put on the real disk by changing what differs from the one before."""

import shutil
from pathlib import Path

from tests.reliability.disk import Tree


class Replica:
    """A folder that becomes one tree after the other; only we write to it."""

    def __init__(self, root: Path) -> None:
        """Begin with an empty folder."""
        self.root = root
        self._now: dict[str, bytes | None] = {}
        root.mkdir(parents=True)

    def show(self, tree: Tree) -> Path:
        """Become this tree."""
        for path in sorted(self._now.keys() - tree.keys(), reverse=True):
            self._remove(path)
        for path in sorted(tree):
            content = tree[path]
            if path in self._now and (self._now[path] is None) != (content is None):
                self._remove(path)
            if path in self._now and self._now[path] == content:
                continue
            if content is None:
                (self.root / path).mkdir()
            else:
                (self.root / path).write_bytes(content)
            self._now[path] = content
        return self.root

    def copy_to(self, root: Path) -> Path:
        """Copy the tree to a folder that somebody else may change."""
        if root.exists():
            shutil.rmtree(root)
        return Path(shutil.copytree(self.root, root))

    def _remove(self, path: str) -> None:
        place = self.root / path
        if self._now.pop(path) is None:
            place.rmdir()
        else:
            place.unlink()

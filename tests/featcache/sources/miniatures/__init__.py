"""Small copies of the named data sets, each in the layout that its archive or its users have."""

from tests.featcache.sources.miniatures.base import Miniature
from tests.featcache.sources.miniatures.coop import COOP
from tests.featcache.sources.miniatures.further import FURTHER
from tests.featcache.sources.miniatures.imagenet import IMAGENET

MINIATURES: tuple[Miniature, ...] = (*COOP, *IMAGENET, *FURTHER)

__all__ = ["MINIATURES", "Miniature"]

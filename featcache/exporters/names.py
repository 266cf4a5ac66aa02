"""The projections by name; read before torch is loaded, so that a wrong word is told at once."""

from featcache.errors import UnknownNameError

PROJECTIONS = ("pca", "tsne", "none")
"""Projections by name; `featcache.exporters.projection` computes them."""


def check_name(projection: str) -> None:
    """Refuse a projection that there is not.

    Raises:
        UnknownNameError: If it is unknown.
    """
    if projection not in PROJECTIONS:
        raise UnknownNameError("projection", projection, PROJECTIONS)

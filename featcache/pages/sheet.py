"""A contact sheet: what was searched for on top, what was found below, in sections."""

from dataclasses import dataclass

from featcache.pages.page import render
from featcache.pages.thumbnails import Thumbnail

MOST = 500
"""Most images of a sheet."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A box on an image."""

    box: tuple[int, int, int, int]
    """left, top, right, bottom in pixels of the original image."""
    rank: int
    """From 1."""
    cosine: float


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One image of a sheet."""

    ranks: tuple[int, ...]
    """Ranks of what was found in this image, from 1; one for a whole image."""
    title: str
    """Its class; empty for an unlabelled image."""
    id: str
    tags: tuple[str, ...]
    """Split, and the cache where there are several."""
    cosine: float
    """The largest in this image."""
    thumbnail: Thumbnail | None
    problem: str = ""
    """Why there is no thumbnail."""
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Section:
    """Images of a sheet that belong together, nearest first."""

    title: str = ""
    """The class of all its images; empty for images of different classes, without a heading."""
    facts: tuple[str, ...] = ()
    """What stands beside the title."""
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A contact sheet."""

    kind: str
    """What was searched for: Text, Image, Class or Row."""
    title: str
    facts: tuple[str, ...]
    """What was searched and how."""
    thumbnail: Thumbnail | None
    """The query, if it is an image."""
    sections: tuple[Section, ...]

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """The images of all sections."""
        return tuple(tile for section in self.sections for tile in section.tiles)

    def share(self, cosine: float) -> float:
        """Return a cosine relative to the largest one of the sheet, in [0, 1]: length of a bar."""
        largest = max((tile.cosine for tile in self.tiles), default=0.0)
        return min(max(cosine / largest, 0.0), 1.0) if largest > 0 else 0.0


def to_html(sheet: Sheet) -> str:
    """Write a sheet as a self-contained page.

    Example:
        >>> sheet = Sheet(kind="Text", title="<b>", facts=(), thumbnail=None, sections=())
        >>> "&lt;b&gt;" in to_html(sheet)
        True
    """
    return render("sheet.html", sheet=sheet)

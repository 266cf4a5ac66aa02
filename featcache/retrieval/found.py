"""What a search found: rows or patches of caches, nearest first."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache.imaging.windows import Box
from featcache.retrieval.query import Query
from featcache.types import FeatureSet

if TYPE_CHECKING:
    from featcache.pages.sheet import Sheet


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A patch of an image."""

    number: int
    """Its number, row by row from the top left."""
    grid: int | None
    """Patches per side; None if they form no square."""
    box: Box | None = None
    """What it shows, in pixels of the upright image; None if unknown."""
    problem: str = ""
    """Why there is no box."""

    @property
    def row(self) -> int | None:
        """Row of the grid, from 0 at the top."""
        return None if self.grid is None else self.number // self.grid

    @property
    def column(self) -> int | None:
        """Column of the grid, from 0 at the left."""
        return None if self.grid is None else self.number % self.grid


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One vector that was found."""

    cosine: float
    """In [-1, 1]."""
    source: int
    """Position of its cache among those searched."""
    dataset: str
    backbone: str
    row: int
    """Row of the listing."""
    id: str
    split: str
    label: int
    """-1 for unlabelled images."""
    class_name: str
    """Empty for unlabelled images."""
    patch: Patch | None = None
    """None where whole images are searched."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        value: dict[str, Any] = {
            "cosine": self.cosine,
            "dataset": self.dataset,
            "backbone": self.backbone,
            "row": self.row,
            "id": self.id,
            "split": self.split,
            "label": self.label,
            "class": self.class_name,
        }
        if self.patch is not None:
            value["patch"] = {
                "number": self.patch.number,
                "grid": self.patch.grid,
                "row": self.patch.row,
                "column": self.patch.column,
            }
            value["box"] = None if self.patch.box is None else list(self.patch.box)
            value["problem"] = self.patch.problem
        return value


@dataclass(frozen=True, kw_only=True)
class Found:
    """The answer of a search."""

    query: Query
    """What was searched for; of a class and a row, the name and the id."""
    place: tuple[int, int] | None
    """Cache and label of the class, or cache and row of the row; None for other queries."""
    caches: tuple[FeatureSet, ...]
    hits: tuple[Hit, ...]
    """Nearest first."""
    searched: int
    """Number of vectors that were compared, or that an index holds."""
    kind: str
    """What a vector is the feature of: global or patches."""
    how: str = "exact"
    """How it was searched: exact, or the kind of an index."""

    def __len__(self) -> int:
        return len(self.hits)

    def sheet(self) -> "Sheet":
        """Return the contact sheet of what was found; reads the images.

        Raises:
            UsageError: If there are more images than a sheet holds.
        """
        from featcache.retrieval.contact_sheet import sheet_of

        return sheet_of(self)

    def save_sheet(self, path: Path | str) -> Path:
        """Write the contact sheet to a file whose suffix is .html or .png.

        Raises:
            UsageError: If the suffix is another, the folder does not exist or cannot be written,
                or there are more images than a sheet holds.
        """
        from featcache.pages.files import save_sheet

        return save_sheet(self.sheet, path)

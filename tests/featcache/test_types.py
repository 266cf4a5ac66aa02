from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import CacheError, MissingComponentError, UsageError
from featcache.keys import FeatureKey, Listing
from featcache.types import FeatureSet

KEY = FeatureKey(
    architecture="toy", weights="0" * 64, activation="gelu", image_size=32, preprocessing="none"
)


class Rows:
    """Rows in memory, of which some may be missing."""

    def __init__(self, values: torch.Tensor, missing: tuple[int, ...] = ()) -> None:
        self.values, self.missing = values, missing

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape[1:])

    def present(self) -> Any:
        return ~np.isin(np.arange(len(self.values)), self.missing)

    def take(self, rows: Any) -> torch.Tensor:
        if np.isin(rows, self.missing).any():
            raise MissingComponentError("it lacks a row")
        return self.values[torch.from_numpy(rows)]


def features(**components: Rows) -> FeatureSet:
    return FeatureSet(
        path=Path("toys"),
        backbone="tiny",
        key=KEY,
        listing=Listing(
            dataset="toys",
            root="photos",
            classes=("ant", "bee"),
            ids=("a", "b", "c"),
            hashes=("import:0", "import:1", "import:2"),
            labels=np.array([0, 1, 0]),
            splits={"train": np.array([2, 0, 1])},
        ),
        components=components,
        ok=np.array([True, False, True]),
        text=None,
    )


def half(*shape: int) -> Rows:
    return Rows(torch.arange(1, 1 + int(np.prod(shape))).reshape(shape).half())


def named(**shapes: tuple[int, ...]) -> FeatureSet:
    return features(**{name: half(3, *shape) for name, shape in shapes.items()})


def test_float16_is_found_before_int8_and_few_views_before_many() -> None:
    int8 = {"patches.clearclip.int8": (4, 8)}
    both = {**int8, "patches.clearclip": (4, 8), "patches.vanilla.int8": (2, 8)}
    assert named(**int8).fitting("patches", "clearclip") == ["patches.clearclip.int8"]
    order = ["patches.clearclip", "patches.clearclip.int8"]
    assert named(**both).fitting("patches", "clearclip") == order
    assert named(**dict(reversed(both.items()))).fitting("patches", "clearclip") == order
    assert named(**both).fitting("patches")[0] == "patches.clearclip"
    assert named(**both).fitting("patches", "vanilla") == ["patches.vanilla.int8"]
    for wrong in ("int8", "clear", "maskclip"):
        assert named(**both).fitting("patches", wrong) == []
    views = {"views.rrc50-10": (10, 8), "views.rrc50-3": (3, 8), "views.cdfsl-4": (4, 8)}
    assert named(**views).fitting("views", "rrc50") == ["views.rrc50-3", "views.rrc50-10"]
    assert named(**views).fitting("views", "rrc50", at_least=4) == ["views.rrc50-10"]
    assert named(**views).fitting("views", at_least=4) == ["views.cdfsl-4", "views.rrc50-10"]
    assert named(**views).fitting("views", "rrc50", at_least=11) == []
    assert named(**views).fitting("global") == []


def test_missing_rows_are_counted() -> None:
    found = features(**{"global": Rows(torch.ones(3, 2).half(), missing=(1,))})
    assert found.rows("global", np.array([2, 0])).shape == (2, 2)
    with pytest.raises(MissingComponentError, match="lacks 2 of 3 rows"):
        found.rows("global", np.array([1, 0, 1]))
    with pytest.raises(MissingComponentError, match="has no component 'crops'; it holds global"):
        found.rows("crops", np.array([0]))


def test_unit_rows() -> None:
    found = features(
        **{
            "global": Rows(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, float("nan")]]).half()),
            "boxes.grid-2": Rows(torch.ones(3, 2, 4, dtype=torch.int32)),
        }
    )
    torch.testing.assert_close(found.unit("global", np.array([0])), torch.tensor([[0.6, 0.8]]))
    for row, image in ((1, "b"), (2, "c")):
        with pytest.raises(CacheError, match=f"first: row {row}, {image}"):
            found.unit("global", np.array([0, row]))
    assert found.rows("boxes.grid-2", np.array([0])).dtype == torch.int32
    with pytest.raises(UsageError, match="holds boxes"):
        found.unit("boxes.grid-2", np.array([0]))


def test_usable_rows_keep_the_order_of_the_split() -> None:
    assert named().usable("train").tolist() == [2, 0]

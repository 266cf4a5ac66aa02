"""The forecast counts what costs time, and says by how much it may be off."""

from typing import Any

import numpy as np
import pytest

from featcache.imaging.views import CENTRAL, ViewSpec
from featcache.pipeline.forecast import human_range, predict_seconds

TINY: dict[str, Any] = {
    "gflops": 0.17, "micro_batch": 256, "device": "cpu", "dtype": "bfloat16", "cores": 2
}  # fmt: skip
ROWS = np.arange(256)


def predicted(*pictures: ViewSpec, blocks: int = 1, **other: Any) -> float:
    encoded = [(p, ROWS) for p in pictures]
    return predict_seconds(encoded, np.split(ROWS, blocks), **(TINY | other))


def test_a_picture_costs_more_than_its_flops_say() -> None:
    """Those alone promised 8 s of 24: a small tower waits for memory, and windows are cut."""
    flops = 61 * 256 * 0.17 / 250 / 2
    assert predicted(CENTRAL, ViewSpec("lazsl", 60)) > 3 * flops


def test_views_crops_and_images_add_up() -> None:
    alone, views = predicted(CENTRAL), predicted(CENTRAL, ViewSpec("rrc50", 10))
    crops = predicted(CENTRAL, ViewSpec("lazsl", 60))
    both = predicted(CENTRAL, ViewSpec("rrc50", 10), ViewSpec("lazsl", 60))
    assert both == pytest.approx(views + crops - alone)
    assert crops - alone == pytest.approx(6 * (views - alone))
    assert predicted(CENTRAL, ViewSpec("strong", 10)) > views


def test_padded_batches_are_counted_whole() -> None:
    assert predicted(CENTRAL, blocks=4) > 1.5 * predicted(CENTRAL)


def test_a_device_computes_beside_the_threads() -> None:
    drawing = predicted(CENTRAL, device="cuda", gflops=0.0)
    assert predicted(CENTRAL, device="cuda") == drawing
    assert predicted(CENTRAL, device="cuda", gflops=1e6) > 10 * drawing


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.1, "1 s"), (12.0, "6 s to 24 s"), (120.0, "60 s to 4 min")]
)
def test_a_range_is_said(seconds: float, said: str) -> None:
    assert human_range(seconds) == said

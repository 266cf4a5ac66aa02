"""`featcache datasets` and `featcache backbones`."""

import json
from collections.abc import Callable
from typing import Any

Run = Callable[..., Any]


def test_lists_have_names(featcache: Run) -> None:
    named = [json.loads(line)["name"] for line in featcache("datasets", "--json").out.splitlines()]
    assert {"fieldguide", "fieldguide-2", "eurosat"} <= set(named)
    models = featcache("backbones", "ViT-B", "--json").out.splitlines()
    assert {"ViT-B/16", "ViT-B-32-quickgelu"} <= {json.loads(line)["name"] for line in models}
    assert "tiny" in featcache("backbones").out

"""Licences of weights: of what is published, and nothing is asked for elsewhere."""

import pytest

from featcache.backbones import names
from featcache.backbones.licences import UNKNOWN, licence_named


@pytest.mark.parametrize(
    ("backbone", "weights", "licence"),
    [
        ("tiny", None, "MIT (featcache)"),
        ("tiny-local", None, "MIT (featcache)"),
        ("tiny", "own.safetensors", UNKNOWN),
        ("tiny", "random", "none, as they are random"),
        ("ViT-B/32", None, "MIT (OpenAI)"),
        ("no-such-model", None, UNKNOWN),
    ],
)
def test_licences(backbone: str, weights: str | None, licence: str) -> None:
    assert licence_named(backbone, weights) == licence


def test_no_repository_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def locate(name: str) -> None:
        raise AssertionError(f"{name} was looked for")

    monkeypatch.setattr(names, "locate", locate)
    assert licence_named("hf-hub:somebody/towers", None) == UNKNOWN
    assert licence_named("local-dir:/somewhere", None) == UNKNOWN

"""Windows in words: what a card tells of the preprocessing is what is done."""

import pytest

from featcache.backbones.models import PreprocessConfig
from featcache.imaging.windows import MODES, in_words


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_words(mode: str) -> None:
    config = PreprocessConfig(
        image_size=224, mean=(0.5, 0.4, 0.25), std=(0.1, 0.2, 0.3), resize_mode=mode
    )
    told = in_words(str(config))
    assert not told.startswith(mode)
    for part in ("resized to 224 pixels", "bicubic", "mean 0.5,0.4,0.25", "by 0.1,0.2,0.3"):
        assert part in told


@pytest.mark.parametrize("line", ["none", "", "imported:0123", "odd bicubic 1 antialias; mean 0"])
def test_other_lines_stay_as_they_are(line: str) -> None:
    assert in_words(line) == line

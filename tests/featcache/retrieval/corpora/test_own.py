"""The cosines of a class's own images, beside those of a corpus."""

from pathlib import Path

import numpy as np
import pytest

from featcache.retrieval.corpora.build import build_corpus
from featcache.retrieval.corpora.find import describe_corpus
from tests.featcache.retrieval.corpora.worlds import target_in, wild_in


def test_own_images_of_a_class_are_compared_with_its_text(tmp_path: Path) -> None:
    target, wild = target_in(tmp_path), wild_in(tmp_path)
    report = build_corpus("own", target, [wild], k=5)
    assert target.text is not None
    anchors = target.text.anchors()
    for one in report.classes:
        rows = [r for r in target.listing.rows("train").tolist() if target.labels[r] == one.label]
        cosines = target.unit("global", np.array(rows)) @ anchors[one.label]
        assert one.own == pytest.approx(float(np.median(cosines.numpy())), abs=1e-5)
    assert len(report.own) == len(report.classes)
    for one in report.classes:
        assert one.median is not None
        assert one.own is not None
        assert (one.name in report.below) == (one.median < one.own)
    assert describe_corpus(tmp_path, target.path, "own").classes == report.classes
    assert all(c.own is None for c in build_corpus("i", target, [wild], by="image").classes)

"""The page in a real browser: images go in, classes come out, its policy has nothing to refuse."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from heads.certainty.asked import Asked
from heads.head import Head
from heads.predicting import Predictor
from heads.serve.hosts import Hosts
from heads.serve.limits import Limits
from heads.serve.service import Service
from tests.browser import browser, chromium
from tests.heads.serve.conftest import listening

pytestmark = pytest.mark.skipif(chromium() is None, reason="chromium is not installed")
LONG = "a-very-long-name-of-a-class-" * 4


@pytest.fixture
def url(head: Head) -> Iterator[str]:
    """Serve the head at a free port; one class has a long name."""
    from heads.serve.app import make_app

    named = replace(head, classes=(LONG, *head.classes[1:]))
    asked = Asked(coverage=0.6, reject=0.3)
    service = Service(Predictor(named, top=3, device="cpu", asked=asked), Limits())
    with listening(make_app(service, Hosts.of("127.0.0.1")), service.limits) as address:
        yield address


def test_images_go_in_and_classes_come_out(url: str, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "profile").mkdir()
    torn = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    torn.write_bytes(photos[0].read_bytes()[:20])
    with browser(tmp_path / "profile") as tab:
        tab.look(width=390)
        tab.open(url)
        tab.choose("#files", [*photos[:3], torn])
        tab.wait("document.querySelector('#status').textContent === '4 images'")
        assert tab.value("document.querySelectorAll('#answers .tile').length") == 4
        assert tab.value("document.querySelectorAll('#answers .verdict.waits').length") == 0
        assert tab.value("document.querySelectorAll('#answers .verdict.problem').length") == 1
        assert tab.value("document.querySelectorAll('#answers .cosine').length") == 9
        shown = tab.value("document.querySelector('#answers').innerText")
        assert "<b>bee</b>" in shown
        assert torn.name in shown
        assert "\u202e" not in shown
        assert tab.value("document.querySelectorAll('#answers b, #answers [onerror]').length") == 0
        # On a phone nothing is wider than the window, and a percentage stays on one line.
        assert tab.value("document.documentElement.scrollWidth") <= 390
        assert tab.value(
            "[...document.querySelectorAll('#answers .cosine')]"
            ".every(each => each.getClientRects().length === 1 && each.offsetHeight < 30)"
        )
        refused = [line for line in tab.log if "Content Security Policy" in line]
        assert refused == []
        (tmp_path / "phone.png").write_bytes(tab.picture())

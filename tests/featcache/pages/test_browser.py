"""Sheets in a real browser: the style applies, the policy holds, a phone does not scroll sideways.

A page may run no script, so the frame around it measures: it opens the sheet in an iframe of the
width of a window and writes what it sees into its own title.
"""

import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.pages.sheet import Mark, Section, Sheet, Tile, to_html
from featcache.pages.thumbnails import thumbnail

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
]

FRAME = """<!doctype html><html><body>
<iframe width="{width}" height="900" srcdoc="{page}"></iframe>
<script>
onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  const of = (selector) => getComputedStyle(page.querySelector(selector));
  const images = [...page.images];
  const box = page.querySelector(".box").getBoundingClientRect();
  const frame = page.querySelector(".frame").getBoundingClientRect();
  document.title = JSON.stringify({{
    columns: of(".tiles").gridTemplateColumns.split(" ").length,
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    loaded: images.filter((image) => image.naturalWidth > 0).length,
    images: images.length,
    paper: of("body").backgroundColor,
    box: [box.left - frame.left, box.top - frame.top, box.width, box.height]
      .map((edge) => edge / frame.width),
    scripts: page.title === "scripted",
  }});
}};
</script></body></html>
"""
HOSTILE = "<img src=x onerror=\"document.title='scripted'\">" + "long-name-" * 30


def measure(tmp_path: Path, width: int, *options: str) -> dict[str, Any]:
    """Open a sheet in a window of a width and return what the browser sees."""
    wide = thumbnail(np.full((100, 200, 3), 90, dtype=np.uint8))
    tile = Tile(
        ranks=(1,), title="owl", id=HOSTILE, tags=("test",), cosine=0.3, thumbnail=wide,
        marks=(Mark(box=(100, 0, 200, 100), rank=1, cosine=0.3),),
    )  # fmt: skip
    gone = Tile(
        ranks=(2,), title=HOSTILE, id="b", tags=(), cosine=0.2, thumbnail=None, problem=HOSTILE
    )
    page = to_html(
        Sheet(
            kind="Row",
            title=HOSTILE,
            facts=(HOSTILE,),
            thumbnail=wide,
            sections=(
                Section(tiles=(tile, gone) * 6),
                Section(title=HOSTILE, facts=(HOSTILE,), tiles=(tile, gone)),
            ),
        )
    )
    assert "loading=" in page
    page = page.replace('loading="lazy"', "")  # images below the window would not load
    (tmp_path / "frame.html").write_text(FRAME.format(width=width, page=escape(page)))
    command = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000",
        "--virtual-time-budget=5000", *options, (tmp_path / "frame.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    title = re.search(r"<title>(.*?)</title>", done.stdout, flags=re.DOTALL)
    assert title is not None, done.stdout[:500]
    seen: dict[str, Any] = json.loads(title[1])
    return seen


@pytest.mark.parametrize(("width", "columns"), [(390, 2), (1200, 5)])
def test_a_sheet_fits_its_window(tmp_path: Path, width: int, columns: int) -> None:
    seen = measure(tmp_path, width)
    assert seen["columns"] == columns
    assert seen["overflow"] == 0
    assert seen["loaded"] == seen["images"] == 8
    assert seen["paper"] == "rgb(250, 249, 246)"
    assert not seen["scripts"]
    # The right half of an image twice as wide as high, in the middle of a square frame.
    assert seen["box"] == pytest.approx([0.5, 0.25, 0.5, 0.5], abs=0.02)


def test_dark_is_followed(tmp_path: Path) -> None:
    dark = measure(tmp_path, 800, "--blink-settings=preferredColorScheme=0")
    assert dark["paper"] == "rgb(23, 22, 20)"

"""Sheets: what strangers wrote stays text, nothing is loaded, every fact is shown."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from featcache.pages.sheet import Mark, Section, Sheet, Tile, to_html
from featcache.pages.sheet_png import COLUMNS, HEADING, to_png
from featcache.pages.thumbnails import thumbnail

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "</style><style>*{display:none}",
    "{{ 7 * 7 }}",
    "\x1b]0;title\x07",
    "a\u202egpj.exe",
    "\udcff\udcfe.jpg",
    "&lt;b&gt;",
)


class Tags(HTMLParser):
    """Elements and their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def tile(**changes: object) -> Tile:
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    given = {
        "ranks": (1,),
        "title": "owl",
        "id": "test/owl/1.jpg",
        "tags": ("test",),
        "cosine": 0.5,
        "thumbnail": thumbnail(pixels),
    }
    return Tile(**{**given, **changes})  # type: ignore[arg-type]


def sheet(*tiles: Tile, title: str = "owl", **changes: object) -> Sheet:
    given = {"kind": "Text", "facts": ("2 nearest",), "thumbnail": None}
    sections = (Section(tiles=tiles),)
    return Sheet(title=title, **{**given, "sections": sections, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_stay_texts(text: str) -> None:
    plain = {tag for tag, _ in Tags(to_html(sheet(tile(), tile(thumbnail=None)))).tags}
    missing = tile(thumbnail=None, problem=text)
    tiles = (tile(title=text, id=text, tags=(text,)), missing)
    page = Tags(to_html(sheet(*tiles, title=text, kind=text, facts=(text,))))
    assert {tag for tag, _ in page.tags} == plain
    for _, attributes in page.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    to_html(sheet(*tiles, title=text)).encode()  # whatever surrogates an id has
    assert "\x1b" not in "".join(page.text)
    assert "\u202e" not in "".join(page.text)
    assert to_png(sheet(*tiles, title=text))[1:4] == b"PNG"


def test_a_page_loads_nothing_and_runs_nothing() -> None:
    html = to_html(sheet(tile(), thumbnail=tile().thumbnail))
    page = Tags(html)
    assert not {"script", "link", "a", "iframe", "object", "form", "base"} & {
        tag for tag, _ in page.tags
    }
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action"):
            if name in attributes:
                assert tag == "img"
                assert str(attributes[name]).startswith("data:image/jpeg;base64,")
    assert "url(" not in html
    assert "@import" not in html


def test_the_policy_admits_the_style_inside_alone() -> None:
    html = to_html(sheet(tile()))
    (style,) = re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)
    policy = next(
        a["content"]
        for tag, a in Tags(html).tags
        if a.get("http-equiv") == "Content-Security-Policy"
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy is not None
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_images_have_alternative_texts_and_sizes() -> None:
    images = [a for tag, a in Tags(to_html(sheet(tile(), tile(title="")))).tags if tag == "img"]
    assert [a["alt"] for a in images] == [
        "owl: test/owl/1.jpg",
        "Unlabelled image: test/owl/1.jpg",
    ]
    assert {(a["width"], a["height"]) for a in images} == {("120", "90")}


def test_patches_are_boxes_in_pixels_of_the_original() -> None:
    marked = tile(ranks=(1, 7), marks=(Mark(box=(30, 10, 60, 40), rank=1, cosine=0.5),))
    tags = Tags(to_html(sheet(marked))).tags
    assert any(a.get("viewbox") == "0 0 120 90" for tag, a in tags if tag == "svg")
    boxes = [a for tag, a in tags if a.get("class") == "box"]
    assert boxes == [{"class": "box", "x": "30", "y": "10", "width": "30", "height": "30"}]
    plain, drawn = (np.asarray(Image.open(BytesIO(to_png(sheet(t))))) for t in (tile(), marked))
    assert (plain != drawn).any()


def test_a_missing_image_says_why() -> None:
    gone = tile(thumbnail=None, problem="is no longer in /photos")
    assert "is no longer in /photos" in "".join(Tags(to_html(sheet(gone))).text)
    assert to_png(sheet(gone)) != to_png(sheet(tile(thumbnail=None, problem="has changed")))


@pytest.mark.parametrize(
    ("cosines", "shares"),
    [((0.5, 0.25), [1, 0.5]), ((0.5, -0.1), [1, 0]), ((-0.1, -0.2), [0, 0]), ((0.0,), [0])],
)
def test_bars_are_relative_to_the_largest(cosines: tuple[float, ...], shares: list[float]) -> None:
    made = sheet(*(tile(cosine=c) for c in cosines))
    assert [made.share(c) for c in cosines] == pytest.approx(shares)
    assert to_png(made)
    assert to_html(made)


@pytest.mark.parametrize("count", [0, 1, COLUMNS, COLUMNS + 1])
def test_any_number_of_tiles_fits(count: int) -> None:
    made = sheet(*[tile(id="x/" * 200 + "end.jpg", title="long name " * 30)] * count)
    assert Image.open(BytesIO(to_png(made))).width > 600
    assert to_html(made).count('class="tile"') == count


def test_a_section_has_a_heading_in_place_of_the_class_of_each_image() -> None:
    sections = [
        Section(title=name, facts=("9 rows",), tiles=(tile(),) * 2) for name in ("ant", "bee")
    ]
    made = sheet(sections=tuple(sections))
    html = to_html(made)
    page = Tags(html)
    assert [tag for tag, _ in page.tags if tag in ("h1", "h2")] == ["h1", "h2", "h2"]
    assert html.index("ant</h2>") < html.index("bee</h2>") < html.rindex('class="tile"')
    assert "".join(page.text).count("9 rows") == 2
    assert 'class="class' not in html
    plain = Image.open(BytesIO(to_png(sheet(*made.tiles, title="owl"))))
    drawn = Image.open(BytesIO(to_png(made)))
    assert drawn.height - plain.height > 2 * HEADING  # and a second row
    for text in HOSTILE:
        hostile = sheet(sections=(Section(title=text, facts=(text,) * 9, tiles=(tile(),)),))
        assert {tag for tag, _ in Tags(to_html(hostile)).tags} == {tag for tag, _ in page.tags}
        assert to_png(hostile)[1:4] == b"PNG"


@pytest.mark.parametrize("shape", [(1, 1), (2000, 3), (3, 2000), (700, 900)])
def test_thumbnails_of_any_shape(shape: tuple[int, int]) -> None:
    small = thumbnail(np.zeros((*shape, 3), dtype=np.uint8), side=100)
    image = Image.open(BytesIO(small.jpeg))
    assert max(image.size) == min(100, max(shape))
    assert (small.height, small.width) == shape
    assert to_png(sheet(tile(thumbnail=small, marks=(Mark(box=(0, 0, 1, 1), rank=1, cosine=0.0),))))


def test_thumbnails_carry_no_metadata() -> None:
    image = Image.open(BytesIO(thumbnail(np.zeros((40, 40, 3), dtype=np.uint8)).jpeg))
    assert not image.getexif()
    assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}

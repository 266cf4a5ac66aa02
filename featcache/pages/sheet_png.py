"""A contact sheet as a PNG, for documents and terminals that show no HTML.

Text is in Pillow's own font, which has Latin letters only; the HTML has every script.
"""

from bisect import bisect_right
from functools import cache
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from featcache.escapes import shown
from featcache.pages.sheet import Section, Sheet, Tile

COLUMNS = 5
SIDE = 208
"""Side of a tile's image in pixels."""
GAP, MARGIN, CAPTION = 20, 36, 68
HEADING, RULE = 72, 14
"""Height of a section's heading, and of the room above its line, in pixels."""
QUERY = 104
"""Side of the image that was searched for."""
PAPER, WELL, INK, SOFT, LINE = "#faf9f6", "#efece5", "#23211d", "#6f6a60", "#e2ded4"
ACCENT, MARK, HALO = "#a4492b", "#ffffff", "#14110e"
SMALL, PLAIN, HEAD, LARGE = 11, 14, 19, 26
"""Sizes of text in pixels."""
LONGEST = 400
"""Most characters of a text that are measured."""


def to_png(sheet: Sheet) -> bytes:
    """Draw a sheet.

    Example:
        >>> sheet = Sheet(kind="Text", title="owl", facts=(), thumbnail=None, sections=())
        >>> to_png(sheet)[1:4]
        b'PNG'
    """
    columns = _columns(max((len(section.tiles) for section in sheet.sections), default=0))
    width = 2 * MARGIN + columns * SIDE + (columns - 1) * GAP
    top = MARGIN + QUERY + 28
    below = sum(_height(section, columns) for section in sheet.sections)
    canvas = Image.new("RGB", (width, top + below + MARGIN - GAP), PAPER)
    draw = ImageDraw.Draw(canvas)
    _draw_query(canvas, draw, sheet)
    for section in sheet.sections:
        first = top
        if section.title:
            _draw_heading(draw, section, top, width - MARGIN)
            first += HEADING
        for number, tile in enumerate(section.tiles):
            row, column = divmod(number, columns)
            at = (MARGIN + column * (SIDE + GAP), first + row * (SIDE + CAPTION + GAP))
            share = sheet.share(tile.cosine)
            _draw_tile(canvas, draw, tile, at, share, is_named=not section.title)
        top += _height(section, columns)
    buffer = BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _columns(most: int) -> int:
    """Return how many tiles stand side by side: at most COLUMNS, in rows of about equal length."""
    rows = max(1, -(-most // COLUMNS))
    return max(3, -(-most // rows))


def _height(section: Section, columns: int) -> int:
    rows = -(-len(section.tiles) // columns)
    return (HEADING if section.title else 0) + rows * (SIDE + CAPTION + GAP)


def _draw_heading(draw: ImageDraw.ImageDraw, section: Section, top: int, right: int) -> None:
    top += RULE
    draw.rectangle((MARGIN, top, right - 1, top), LINE)
    facts = _cut(draw, "  ·  ".join(section.facts), PLAIN, (right - MARGIN) // 2)
    taken = round(draw.textlength(facts, _font(PLAIN))) + GAP if facts else 0
    title = _cut(draw, section.title, HEAD, right - MARGIN - taken)
    draw.text((MARGIN, top + 36), title, INK, _font(HEAD), anchor="ls")
    draw.text((right, top + 36), facts, SOFT, _font(PLAIN), anchor="rs")


def _draw_query(canvas: Image.Image, draw: ImageDraw.ImageDraw, sheet: Sheet) -> None:
    left = MARGIN
    if sheet.thumbnail is not None:
        image = _fitted(sheet.thumbnail.jpeg, QUERY)
        canvas.paste(image, (left, MARGIN + (QUERY - image.height) // 2))
        left += image.width + GAP
    room = canvas.width - MARGIN - left
    draw.text(
        (left, MARGIN + 12), _cut(draw, sheet.kind.upper(), SMALL, room), ACCENT, _font(SMALL)
    )
    draw.text((left, MARGIN + 30), _cut(draw, sheet.title, LARGE, room), INK, _font(LARGE))
    facts = _cut(draw, "  ·  ".join(sheet.facts), PLAIN, room)
    draw.text((left, MARGIN + 70), facts, SOFT, _font(PLAIN))


def _draw_tile(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    tile: Tile,
    at: tuple[int, int],
    share: float,
    *,
    is_named: bool,
) -> None:
    x, y = at
    draw.rounded_rectangle((x, y, x + SIDE - 1, y + SIDE - 1), 5, WELL)
    if tile.thumbnail is None:
        _draw_problem(draw, f"It {tile.problem}.", at)
    else:
        image = _fitted(tile.thumbnail.jpeg, SIDE)
        left, top = x + (SIDE - image.width) // 2, y + (SIDE - image.height) // 2
        canvas.paste(image, (left, top), _rounded(image.size))
        scale = image.width / tile.thumbnail.width, image.height / tile.thumbnail.height
        for mark in reversed(tile.marks):
            edges = [round(edge * scale[i % 2]) for i, edge in enumerate(mark.box)]
            _draw_box(draw, (left + edges[0], top + edges[1], left + edges[2], top + edges[3]))
    y += SIDE + 8
    cosine = f"{tile.cosine:.3f}"
    room = SIDE - 10 - round(draw.textlength(cosine, _font(PLAIN)))
    ranks = ", ".join(map(str, tile.ranks[:4])) + (", ..." if len(tile.ranks) > 4 else "")
    title = (tile.title or "unlabelled") if is_named else ranks
    colour = INK if tile.title or not is_named else SOFT
    draw.text((x, y), _cut(draw, title, PLAIN, room), colour, _font(PLAIN))
    draw.text((x + SIDE, y), cosine, SOFT, _font(PLAIN), anchor="ra")
    y += 21
    draw.rectangle((x, y, x + SIDE - 1, y + 1), LINE)
    if share > 0:
        draw.rectangle((x, y, x + max(0, round(share * SIDE) - 1), y + 1), ACCENT)
    tags = "  ·  ".join(tile.tags)
    if is_named:
        draw.text((x, y + 8), ranks, INK, _font(SMALL))
        tags = _cut(draw, tags, SMALL, SIDE - 80)
        draw.text((x + SIDE, y + 8), tags, SOFT, _font(SMALL), anchor="ra")
    else:
        draw.text((x, y + 8), _cut(draw, tags, SMALL, SIDE), SOFT, _font(SMALL))
    draw.text((x, y + 24), _cut(draw, tile.id, SMALL, SIDE), SOFT, _font(SMALL))


def _draw_problem(draw: ImageDraw.ImageDraw, text: str, at: tuple[int, int]) -> None:
    x, y = at
    lines, line = [], ""
    for word in shown(text).split():
        longer = f"{line} {word}".strip()
        if line and draw.textlength(longer, _font(SMALL)) > SIDE - 32:
            lines.append(line)
            longer = word
        line = longer
    lines = [_cut(draw, each, SMALL, SIDE - 32) for each in [*lines, line][:8]]
    top = y + (SIDE - 16 * (len(lines) + 1)) // 2
    draw.text((x + SIDE // 2, top), "No image", INK, _font(SMALL), anchor="ma")
    for number, each in enumerate(lines, start=1):
        middle = (x + SIDE // 2, top + 16 * number)
        draw.text(middle, each, SOFT, _font(SMALL), anchor="ma")


def _fitted(jpeg: bytes, side: int) -> Image.Image:
    """Decode a thumbnail, at most so large; it is one that `thumbnails` encoded."""
    with Image.open(BytesIO(jpeg), formats=("JPEG",)) as image:
        shrink = side / max(image.size)
        width, height = (max(1, round(edge * shrink)) for edge in image.size)
        return image.resize((width, height), Image.Resampling.LANCZOS)


def _rounded(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), 5, 255)
    return mask


def _draw_box(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
    """Draw a light line between two dark ones, inside a box whose right and bottom are exclusive.

    The lines are seen on any image.
    """
    left, top, right, bottom = box
    for inset, width, colour in ((0, 4, HALO), (1, 2, MARK)):
        corner = max(left + inset, right - 1 - inset), max(top + inset, bottom - 1 - inset)
        draw.rectangle((left + inset, top + inset, *corner), outline=colour, width=width)


def _cut(draw: ImageDraw.ImageDraw, text: str, size: int, room: int) -> str:
    """Shorten a text in the middle until it fits: the end of an id tells most."""
    text = shown(text)
    if len(text) > LONGEST:
        text = text[: LONGEST // 2] + text[-LONGEST // 2 :]
    if draw.textlength(text, _font(size)) <= room:
        return text

    def short(kept: int) -> str:
        return f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}"

    fitting = bisect_right(
        range(len(text)), room, key=lambda kept: int(draw.textlength(short(kept), _font(size)))
    )
    return short(max(fitting - 1, 0))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)

"""A plate of a whole world on one page: every species in a clean pose, then how pictures vary."""

from PIL import Image, ImageDraw, ImageFont

from featcache.sources.fieldguide.draw import draw
from featcache.sources.fieldguide.scene import BACKGROUNDS, Scene
from featcache.sources.fieldguide.shifts import SHIFTS
from featcache.sources.fieldguide.species import species
from featcache.sources.fieldguide.world import drawing

_CELL, _GAP, _LABEL, _MARGIN = 168, 10, 24, 22
_COLUMNS = 6
_PAPER, _TEXT, _QUIET = (250, 247, 240), (52, 46, 40), (138, 128, 116)


def sheet(world: str) -> Image.Image:
    """Draw a world's plate, a genus to a column.

    Raises:
        UnknownNameError: There is no such world.
    """
    kinds = species(world)
    rows = len(kinds) // _COLUMNS
    splits = ("test", *SHIFTS)  # two to a row
    width = 2 * _MARGIN + _COLUMNS * (_CELL + _GAP) - _GAP
    height = 2 * _MARGIN + (rows + len(splits) // 2) * (_CELL + _LABEL) + _MARGIN
    page = Image.new("RGB", (width, height), _PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=14)

    def put(
        picture: Image.Image, column: int, top: int, label: str, colour: tuple[int, ...]
    ) -> None:
        left = _MARGIN + column * (_CELL + _GAP)
        page.paste(picture, (left, top))
        pen.text((left + _CELL / 2, top + _CELL + 3), label, fill=colour, font=font, anchor="ma")

    for index, kind in enumerate(kinds):
        column, row = divmod(index, rows)
        background = BACKGROUNDS[(column + 2 * row) % len(BACKGROUNDS)]
        scene = Scene(background=background, texture=7919 * (index + 3), shadow=0.08)
        picture = Image.fromarray(draw(kind.moth, scene, size=_CELL).pixels)
        put(picture, column, _MARGIN + row * (_CELL + _LABEL), kind.name, _TEXT)
    half = _COLUMNS // 2
    for number, split in enumerate(splits):
        row, first = number // 2, number % 2 * half
        top = 2 * _MARGIN + (rows + row) * (_CELL + _LABEL)
        for column in range(first, first + half):
            pixels = drawing(world, split, column * rows + row, column, masks=False).pixels
            picture = Image.fromarray(pixels).resize((_CELL, _CELL), Image.Resampling.BICUBIC)
            put(picture, column, top, split, _QUIET)
    return page

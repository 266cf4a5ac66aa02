"""Tables on stdout: drawn for people, tab-separated where stdout is no terminal."""

import sys
from collections.abc import Collection, Sequence

from cli.ui import terminal
from cli.ui.output import emit_lines, say
from featcache.escapes import shown

GAP = 3
"""Characters between two columns."""


def emit_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    spare: Sequence[str] = (),
    whole: Sequence[str] = (),
    prose: Sequence[str] = (),
    by: str = "",
) -> None:
    """Write a table to stdout: drawn for people, tab-separated where stdout is no terminal.

    Args:
        columns: The head.
        rows: Cells as they are shown.
        right: Columns of numbers.
        spare: Columns that are left out, in this order, while the window is too narrow; columns
            without a single entry go before them. Longer cells then wrap; nothing is cut.
        whole: Columns of what is typed elsewhere, whose cells do not wrap while others can.
        prose: Columns of sentences and lists, which take what room is left and need no more than
            their longest word.
        by: Column by which the rows are grouped, in their order. Drawn, it is no column: its value
            stands above the rows that share it.
    """
    columns = list(map(shown, columns))
    rows = [list(map(shown, row)) for row in rows]
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            emit_lines("\t".join(row))
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    console = terminal.console(err=False)
    groups = [row[columns.index(by)] if by else "" for row in rows]
    if by:
        at = columns.index(by)
        columns, *rows = ([*row[:at], *row[at + 1 :]] for row in (columns, *rows))
    kept = fitting(columns, rows, spare, console.width, prose)
    widths = prose_widths(kept, columns, rows, prose, console.width)
    stay_whole = _fit_whole(kept, columns, rows, {*right, *whole}, console.width)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    if left_out := [c for c in columns if c not in kept]:
        say(f"Left out in this narrow window: {', '.join(left_out)}.")
    rows = [[cell for c, cell in zip(columns, row, strict=True) if c in kept] for row in rows]
    for column in kept:
        numeric = column in right
        stiff = numeric or (column in whole and stay_whole)
        table.add_column(
            terminal.styled(column),
            justify="right" if numeric else "left",
            no_wrap=stiff,
            overflow="fold",  # truncation could hide a mark or a figure
            width=widths.get(column),
        )
    for before, group, row in zip(["", *groups], groups, rows, strict=False):
        if group != before:
            table.add_section()
            table.add_row(terminal.styled(group, "bold"))
        table.add_row(*map(terminal.styled, row))
    console.print(table)


def fitting(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    spare: Sequence[str],
    width: int,
    prose: Sequence[str] = (),
) -> list[str]:
    """Choose the columns that fit a window side by side; those that are not spare always stay.

    A column of prose fits where its longest word does, any other where its longest cell does. Of a
    column that may go, one without a single entry goes first, whether it is spare or not.
    """
    needed = {c: least + GAP for c, (least, _) in _extents(columns, rows, prose).items()}
    empty = [c for c, *cells in zip(columns, *rows, strict=True) if cells and not any(cells)]
    order = (*empty, *(c for c in spare if c not in empty))
    kept = set(columns)
    room = width + 1  # no separator after the last column
    for column in order:
        if column in kept and sum(needed[c] for c in kept) > room:
            kept.remove(column)
    for column in reversed(order):  # a column left out before a wider one may fit again
        if column in columns and sum(needed[c] for c in kept | {column}) <= room:
            kept.add(column)
    return [c for c in columns if c in kept]


def prose_widths(
    kept: Sequence[str],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    prose: Sequence[str],
    width: int,
) -> dict[str, int]:
    """Share the room that other columns leave, so that no column of prose breaks a word.

    Returns:
        Column of prose -> its width; none where even the longest words do not fit together, and
        the cells wrap as they can.
    """
    extents = _extents(columns, rows, prose)
    sharing = [c for c in kept if c in prose]
    room = width + 1 - sum(GAP + (0 if c in sharing else extents[c][0]) for c in kept)
    given = {c: extents[c][0] for c in sharing}
    left = room - sum(given.values())
    if left < 0:
        return {}
    while left and (open_ := [c for c in sharing if given[c] < extents[c][1]]):
        given[min(open_, key=given.__getitem__)] += 1
        left -= 1
    return given


def _fit_whole(
    kept: Sequence[str],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    whole: Collection[str],
    width: int,
) -> bool:
    """Tell whether columns can stay whole, with a character for each other one.

    Where they cannot, cells that may not wrap would be cut.
    """
    extents = _extents(columns, rows, ())
    return sum(GAP + (extents[c][1] if c in whole else 1) for c in kept) <= width + 1


def _extents(
    columns: Sequence[str], rows: Sequence[Sequence[str]], prose: Sequence[str]
) -> dict[str, tuple[int, int]]:
    """Return the characters that each column needs at least, and those that leave no cell wrapped.

    They differ in columns of prose alone.
    """
    found = {}
    for column, *cells in zip(columns, columns, *rows, strict=True):
        longest = max(map(len, cells))
        words = (len(word) for cell in cells for word in cell.split())
        found[column] = (max(words, default=0) if column in prose else longest, longest)
    return found

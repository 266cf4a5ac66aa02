"""Tables on stdout: drawn for people, tab-separated where stdout is no terminal."""

import sys
from collections.abc import Sequence

from cli.ui import terminal
from cli.ui.output import emit_lines, say
from featcache.escapes import shown


def emit_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    spare: Sequence[str] = (),
    whole: Sequence[str] = (),
    by: str = "",
) -> None:
    """Write a table to stdout: drawn for people, tab-separated where stdout is no terminal.

    Args:
        columns: The head.
        rows: Cells as they are shown.
        right: Columns of numbers.
        spare: Columns that are left out, in this order, while the window is too narrow. Longer
            cells then wrap; nothing is cut.
        whole: Columns of what is typed elsewhere, whose cells do not wrap while others can.
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
    kept = fitting(columns, rows, spare, console.width)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    if left_out := [c for c in columns if c not in kept]:
        say(f"Left out in this narrow window: {', '.join(left_out)}.")
    rows = [[cell for c, cell in zip(columns, row, strict=True) if c in kept] for row in rows]
    for column in kept:
        numeric = column in right
        table.add_column(
            terminal.styled(column),
            justify="right" if numeric else "left",
            no_wrap=numeric or column in whole,
            overflow="fold",  # truncation could hide a mark or a figure
        )
    for before, group, row in zip(["", *groups], groups, rows, strict=False):
        if group != before:
            table.add_section()
            table.add_row(terminal.styled(group, "bold"))
        table.add_row(*map(terminal.styled, row))
    console.print(table)


def fitting(
    columns: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str], width: int
) -> list[str]:
    """Choose the columns that fit a window side by side; those that are not spare always stay."""
    needed = {
        c: max(map(len, cells)) + 3 for c, *cells in zip(columns, columns, *rows, strict=True)
    }
    kept = set(columns)
    room = width + 1  # no separator after the last column
    for column in spare:
        if column in kept and sum(needed[c] for c in kept) > room:
            kept.remove(column)
    for column in reversed(spare):  # a column left out before a wider one may fit again
        if column in columns and sum(needed[c] for c in kept | {column}) <= room:
            kept.add(column)
    return [c for c in columns if c in kept]

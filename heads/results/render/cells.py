"""The cells of a table of results as people read them, and the notes below it.

Intervals are not adjusted for the number of rows; the word beside a difference is (Holm). Details
that do not fit a cell are in notes.
"""

from string import ascii_lowercase

from heads.results.compare.compare import Group
from heads.results.compare.pairing import seeds_text
from heads.results.compare.rows import REFERENCE, ZERO_SHOT, Row
from heads.results.record import BATCHES, LISTS, QUERY_ORDER, QUERY_SET, STREAM
from heads.results.render import certainty as sure

ORACLE = "chosen on the queries"
STATUS = ("paper", "released code", "reconstruction")
"""What a method's `source` begins with, or names."""

COLUMNS = (
    "method",
    "top-1 %",
    "seeds",
    "balanced %",
    "macro F1 %",
    "over zero-shot",
    "seconds",
    "protocol",
    "selection",
    "source",
    "also reads",
)
"""Columns of the table that people read."""
SPARE = ("source", "protocol", "macro F1 %", "balanced %", "also reads", "seconds", "selection")
"""Columns that a narrow window leaves out, in this order."""
OF_TAIL = "worst tenth %"
"""Column of streams, behind the first accuracy: expected tail accuracy."""
THESE_HEADS = "(these heads)"
"""Suffix of a word that holds for one draw of the shots, not for the method."""
NOT_SHOWN = "not shown"
"""Short for a difference that is not shown."""
OVER = {
    "repetitions and queries": "over seeds and queries",
    "repetitions": "over seeds alone, in records without predictions",
    "episodes": "over episodes",
    "batches": "over batches",
    "streams": "over streams, which are orders of the same images",
    "queries": "over queries",
}
"""What an interval is over, in words."""


MEASURED = {"top1": "", "balanced_accuracy": "balanced, ", "macro_f1": "macro F1, "}
"""What a difference is of, in the head of its column."""


def columns(group: Group, *, certainty: bool = False) -> tuple[str, ...]:
    """Return COLUMNS with the reference's name in them, and what the repetitions are.

    Args:
        group: Rows of one table.
        certainty: Whether the columns of calibrated heads follow.
    """
    what = MEASURED[group.metric]
    named = {f"over {ZERO_SHOT}": f"{what}over {group.against}"}
    if group.protocol:
        named["seeds"] = LISTS[group.protocol]
    first, rest = COLUMNS[:2], COLUMNS[2:]
    every = (*first, *([OF_TAIL] if group.protocol == STREAM else []), *rest)
    every = (*every, *(sure.COLUMNS if certainty else ()))
    return tuple(named.get(column, column) for column in every)


def cells(group: Group, *, certainty: bool = False) -> list[tuple[str, ...]]:
    """Write the rows for people, as `columns`: percent, the interval beside each figure."""
    letters = {said: letter for letter, said in _lettered(group)}
    of_one_draw = _differences_of_one_draw(group)
    return [
        (
            *_cells(row, letters, row.run in of_one_draw),
            *(sure.cells(row.certainty) if certainty else ()),
        )
        for row in group.rows
    ]


def notes(group: Group, *, certainty: bool = False) -> list[str]:
    """Explain the intervals, words and letters of the table."""
    rows = [row for row in group.rows if row.ci95 is not None]
    over = dict.fromkeys(OVER.get(row.interval, row.interval) for row in rows)
    told = [f"Intervals: 95 %, unadjusted; {', '.join(over)}."] if over else []
    if any(_of_these_heads(row) for row in rows) or _differences_of_one_draw(group):
        told.append(
            "A row of one seed says what holds of these heads, not of the method: as a claim about "
            "the method one draw of few shots is often wrong (docs/benchmarks.md#coverage)."
        )
    if tested := sum(row.word is not None for row in group.rows):
        many = f"{tested} differences" if tested > 1 else "1 difference"
        told.append(f"Better, worse, not shown: at 5 %, corrected for {many} (Holm).")
    told += [f"({letter}) {said}" for letter, said in _lettered(group)]
    told += [
        f"{row.name}: the newest of {1 + row.equals} equal runs."
        for row in group.rows
        if row.equals
    ]
    if certainty:
        told.append(sure.note([row.certainty for row in group.rows if row.certainty]))
    return told


def scope(interval: str, *, of_one_draw: bool) -> str:
    """Say what an interval is over, and whether it covers only these heads."""
    text = OVER.get(interval, interval)
    return f"{text}, of these heads" if interval == "queries" and of_one_draw else text


def protocol_text(protocol: str) -> str:
    """Return a protocol of a record as it is written on the command line.

    Example:
        >>> protocol_text("few_shot")
        'few-shot'
    """
    return protocol.replace("_", "-")


def _of_these_heads(row: Row) -> bool:
    """Tell whether shots were drawn once, so that the interval does not cover other draws."""
    return row.interval == "queries" and row.drawn


def _differences_of_one_draw(group: Group) -> set[str]:
    """Return the runs whose difference is over one draw of the shots, theirs or the reference's."""
    drawn = any(row.drawn for row in group.rows if row.why == REFERENCE)
    over_queries = [row for row in group.rows if row.gain and row.gain.over == "queries"]
    return {row.run for row in over_queries if drawn or row.drawn}


def _lettered(group: Group) -> list[tuple[str, str]]:
    """Return the remarks that cells refer to by a letter, each once."""
    said = dict.fromkeys(filter(None, map(_remark, group.rows)))
    return [(_letter(i), text) for i, text in enumerate(said)]


def _letter(i: int) -> str:
    return ascii_lowercase[i] if i < 26 else f"{ascii_lowercase[i // 26 - 1]}{i % 26}"


def _remark(row: Row) -> str:
    """Return a remark on the difference that does not fit its cell."""
    if row.gain is None:
        return "" if row.why == REFERENCE else row.why
    return f"Paired over {seeds_text(row.gain.seeds)} alone." if row.gain.seeds else ""


def _cells(row: Row, letters: dict[str, str], of_one_draw: bool) -> tuple[str, ...]:
    top1 = f"{100 * row.top1:.1f}" + ("" if row.ci95 is None else f" ± {100 * row.ci95:.1f}")
    seeds = str(row.repetitions) if row.drawn or row.protocol in (BATCHES, STREAM) else "-"
    selection = f"{row.selection} ({ORACLE})" if row.oracle else row.selection
    status = ", ".join(s for s in STATUS if s in row.source.partition(":")[0]) or "-"
    kinds = dict.fromkeys(_kind(what) for what in row.reads)
    also = ", ".join(kinds) or "-"
    gain, took = _gain(row, letters, of_one_draw), f"{row.seconds:.1f}"
    balanced, f1 = _percent(row.balanced_accuracy), _percent(row.macro_f1)
    tail = [] if row.protocol != STREAM else [_percent(row.tail_top1)]
    about = protocol_text(row.protocol), selection, status, also
    return (row.name, top1, *tail, seeds, balanced, f1, gain, took, *about)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _kind(what: str) -> str:
    """Shorten `support views.rrc50` to `views`; `pool` and `query set` stay."""
    return what if what in (QUERY_SET, QUERY_ORDER) else what.rpartition(" ")[2].partition(".")[0]


def _gain(row: Row, letters: dict[str, str], of_one_draw: bool) -> str:
    d, remark = row.gain, _remark(row)
    if d is None:
        text = "reference" if row.why == REFERENCE else "-"
    else:
        text = f"{100 * d.mean:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
        if row.word is not None:
            text += f" {NOT_SHOWN if row.word == 'no difference shown' else row.word}"
        text += f" {THESE_HEADS}" if of_one_draw and row.word in ("better", "worse") else ""
    return f"{text} ({letters[remark]})" if remark else text

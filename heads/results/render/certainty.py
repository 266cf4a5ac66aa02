"""How sure calibrated heads were, in words and in the cells of a table."""

from statistics import fmean

from heads.results.record import Certainty

COLUMNS = ("ECE before %", "ECE %", "coverage %", "set size")
"""Columns of a table that is asked for them; coverage and size are of the sets of a record."""


def sureness(certainty: Certainty) -> str:
    """Say it in a sentence."""
    before, after, covered, size = cells(certainty)
    text = f"calibration error {after} % (before the temperature {before} %)"
    if not certainty.covered:
        return text
    return (
        f"{text}, {certainty.rule} sets for a coverage of {100 * certainty.asked:g} %: coverage "
        f"{covered} %, {size} classes"
    )


def cells(certainty: Certainty | None) -> tuple[str, ...]:
    """Write the cells of COLUMNS, means over the repetitions."""
    if certainty is None:
        return ("-",) * len(COLUMNS)
    shares = (certainty.ece_before, certainty.ece, certainty.covered)
    size = f"{fmean(certainty.size):.2f}" if certainty.size else "-"
    return (*(f"{100 * fmean(s):.1f}" if s else "-" for s in shares), size)


def note(certainties: list[Certainty]) -> str:
    """Say what the columns are of."""
    with_sets = [one for one in certainties if one.covered]
    if not certainties:
        return "No head of this table was calibrated, or it is of an earlier version."
    if not with_sets:
        return "ECE: expected calibration error, 15 bins."
    few, kinds = min(one.rows for one in with_sets), {one.kind for one in with_sets}
    text = (
        f"ECE: expected calibration error, 15 bins. Sets: {with_sets[0].rule}, asked for "
        f"{100 * with_sets[0].asked:g} %, from {few} calibration rows or more."
    )
    if "cross" in kinds:
        text += " By folds 1 - 2 (1 - coverage) is guaranteed, less a little (docs/certainty.md)."
    return text

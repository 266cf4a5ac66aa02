"""The five methods of this project beside the baselines, one of each chosen on validation rows.

No maximum is taken over test figures: the method with the best top-1 on validation rows stands for
its group; the first in alphabetical order where several are equal.
"""

from collections.abc import Mapping, Sequence

from heads import registry
from heads.results.compare.pairing import paired_difference, words
from heads.results.record import Result

FIVE = ("cmm", "dac", "lazsl", "fair", "cc-cdfsl")


def chosen_table(
    results: Mapping[tuple[str, str], Result],
    validation: Mapping[tuple[str, str], float],
    titles: Sequence[str],
) -> str:
    """Write, for each column, both choices and their paired difference on the queries.

    Args:
        results: (method, title of a column) -> run.
        validation: (method, title of a column) -> top-1 on validation rows.
        titles: Columns.
    """
    rows, differences = [], []
    for title in titles:
        ours = _best(results, validation, title, five=True)
        other = _best(results, validation, title, five=False)
        if ours is None or other is None:
            continue
        d = paired_difference(ours, other)
        differences.append(d)
        points = f"{100 * d.mean:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
        rows.append((title, _said(ours), _said(other), points))
    lines = ["| column | of the five | of the baselines | points | |", "|---|---|---|---|---|"]
    for row, word in zip(rows, words(differences), strict=True):
        lines.append(f"| {' | '.join(row)} | {word} |")
    return "\n".join(lines) + "\n"


def _best(
    results: Mapping[tuple[str, str], Result],
    validation: Mapping[tuple[str, str], float],
    title: str,
    *,
    five: bool,
) -> Result | None:
    """Return the inductive run of a group that is best on validation, without compositions."""
    methods = [
        method
        for method, column in sorted(results)
        if column == title
        and (method in FIVE) == five
        and (method, title) in validation
        and registry.get(method).composition is None
    ]
    best = max(methods, key=lambda method: validation[method, title], default=None)
    return None if best is None else results[best, title]


def _said(run: Result) -> str:
    return f"{run.method} {100 * run.metrics['top1'].mean:.1f}"

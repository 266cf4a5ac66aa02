"""One run as a row of a table: its name with marks, its figures, its difference to the reference.

Marks are warnings such as `oracle`. No two rows of a table have the same name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from featcache.draws import VAL_SHOTS
from featcache.errors import UsageError
from heads.results.compare.pairing import (
    Difference,
    Word,
    check_not_repeated,
    difference_to_zero_shot,
    paired_difference,
    seeds_text,
    words,
)
from heads.results.metrics import TAIL
from heads.results.record import Certainty, Result

ZERO_SHOT = "zero-shot"
OLDER_TEXTS = "older texts"
"""The mark of a run whose own kind of text has changed since."""
NO_SHOTS = "no shots"
"""The mark of a run without labelled images among runs that had some; zero-shot says it itself."""
REFERENCE = "the others are compared with it"
"""Why the reference has no difference."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run in one group; accuracies are fractions in [0, 1], times are seconds."""

    method: str
    variant: str
    marks: tuple[str, ...]
    """Warnings: oracle, transductive, stored draw, augmented, leaking corpus, unsealed, no shots,
    older texts."""
    apart: tuple[str, ...] = ()
    """What distinguishes it from rows of the same name."""
    top1: float
    ci95: float | None
    """Half-width of the 95 % interval."""
    interval: str
    """What the interval is over, as in the record."""
    tail_top1: float | None
    """Mean of the worst tenth of the streams; None where there are none."""
    balanced_accuracy: float | None
    macro_f1: float | None
    metric: str
    """What `gain` is of."""
    gain: Difference | None
    """Over the reference on the same queries; None where that is not known."""
    word: Word | None
    """Result of Holm's correction over the group's differences; None for a run that saw the labels
    or images of the queries (oracle, leaking corpus), which is not ranked and not counted."""
    why: str
    """Why there is no difference."""
    seconds: float
    """Fitting and evaluating together."""
    protocol: str
    selection: str
    oracle: bool
    source: str
    """Where the equations come from."""
    reads: tuple[str, ...]
    """What was read beyond one feature an image."""
    transductive: bool
    corpus: str
    """The corpus that it learned from, with its weight and digest; empty without one."""
    leaks: bool
    """Whether that corpus holds queries."""
    texts: str
    """As in the record."""
    stale: bool
    """Whether the texts it was set to read have changed since."""
    validated: int | None
    """Validation images a class that were asked for; None where none or all were."""
    drawn: bool
    """Whether shots were drawn, so that one repetition is one draw."""
    seeds: tuple[int, ...]
    draws: str
    """As in the record."""
    repetitions: int
    equals: int
    """Number of older equal runs."""
    certainty: Certainty | None
    """As in the record."""
    run: str

    @property
    def name(self) -> str:
        """Return the name with its marks and what distinguishes it."""
        name = f"{self.method} [{self.variant}]" if self.variant else self.method
        said = ", ".join((*self.marks, *self.apart))
        return f"{name} ({said})" if said else name


def label(result: Result) -> str:
    """Name a run by its method and settings."""
    return f"{result.method} {result.variant}".rstrip()


def own_texts(result: Result) -> tuple[object, str]:
    """Return the kind of text that a run was set to read, and its digest."""
    return result.config.get("text"), result.texts.partition(":")[2]


def rows_of(
    here: Sequence[Result],
    against: str,
    latest: Mapping[object, str],
    equals: Mapping[str, int],
    metric: str = "top1",
) -> tuple[Row, ...]:
    """Make the rows of a group: differences, words over all of them, names that tell apart."""
    named = [r for r in here if label(r) == against]
    reference = min(named, key=_fairness, default=None)
    gains = [_gain(r, against, reference, metric) for r in here]
    tested = zip(here, gains, strict=True)
    classified = words(
        [g if isinstance(g, Difference) and not (r.oracle or r.leaks) else None for r, g in tested]
    )
    rows, with_shots = [], any(r.shots != 0 for r in here)
    for result, gain, word in zip(here, gains, classified, strict=True):
        kind, own = own_texts(result)
        stale = own != latest[kind]
        row = _row(result, metric, gain, word, equals[result.run], stale=stale)
        if with_shots and result.shots == 0 and result.method != ZERO_SHOT:
            row = replace(row, marks=(*row.marks, NO_SHOTS))
        rows.append(row)
    return tuple(sorted(_told_apart(rows), key=_rank))


def _fairness(result: Result) -> tuple[object, ...]:
    """Order the runs of one name: without oracle and with seal first, then by repetitions."""
    return (
        result.oracle,
        result.leaks,
        not result.sealed,
        result.selection != "few-shot-val",
        -result.repetitions,
    )


def _rank(row: Row) -> tuple[object, ...]:
    first = row.method != ZERO_SHOT
    last = row.oracle or row.leaks
    measured = getattr(row, row.metric)
    return last, row.transductive, bool(row.corpus), first, -(measured or 0.0), row.name


def _gain(result: Result, against: str, reference: Result | None, metric: str) -> Difference | str:
    """Return the difference to the reference, or why there is none."""
    try:
        if against == ZERO_SHOT:
            return (
                REFERENCE if label(result) == against else difference_to_zero_shot(result, metric)
            )
        if reference is None:
            return f"There is no run of {against} in this table."
        if result.run == reference.run:
            return REFERENCE
        check_not_repeated(result, reference)
        return paired_difference(result, reference, metric)
    except UsageError as error:
        return str(error)


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """Add to equal names what their rows differ in."""
    same: dict[str, list[Row]] = {}
    for row in rows:
        same.setdefault(row.name, []).append(row)
    told = []
    for twins in same.values():
        named = [_differing(row, twins) for row in twins]
        lasts: tuple[Callable[[Row], str], ...] = (_drawn, lambda r: r.run)
        for last in lasts:
            if len(set(named)) < len(twins) and len({last(twin) for twin in twins}) > 1:
                named = [(*apart, last(row)) for apart, row in zip(named, twins, strict=True)]
        told += [replace(row, apart=apart) for row, apart in zip(twins, named, strict=True)]
    return told


def _drawn(row: Row) -> str:
    return f"draws {row.draws[:6]}" if row.draws else "draws not recorded"


def _differing(row: Row, twins: Sequence[Row]) -> tuple[str, ...]:
    kinds = (
        lambda r: seeds_text(r.seeds),
        lambda r: " and ".join(r.reads) or "no views",
        lambda r: r.corpus,
        lambda r: r.selection,
        lambda r: r.protocol,
    )
    said = [kind(row) for kind in kinds if len({kind(twin) for twin in twins}) > 1]
    chosen_alike = [twin for twin in twins if twin.selection == row.selection]
    if len({twin.validated for twin in chosen_alike}) > 1:
        many = "all" if row.validated is None else f"{row.validated} a class"
        said.append(f"validated on {many}")
    return tuple(said)


def _validated(result: Result) -> int | None:
    """Return how many validation images a class the selection asks for."""
    if result.selection == "k-shot-val":
        return result.shots
    if result.selection != "few-shot-val":
        return None
    return VAL_SHOTS if result.shots is None else min(result.shots, VAL_SHOTS)


def _row(
    result: Result,
    metric: str,
    gain: Difference | str,
    word: Word | None,
    equals: int,
    *,
    stale: bool,
) -> Row:
    top1, f1 = result.metrics["top1"], result.metrics.get("macro_f1")
    balanced, tail = result.metrics.get("balanced_accuracy"), result.metrics.get(TAIL)
    return Row(
        method=result.method,
        variant=result.variant,
        marks=(*result.marks, *([OLDER_TEXTS] if stale else [])),
        top1=top1.mean,
        ci95=top1.ci95,
        interval=top1.interval,
        tail_top1=None if tail is None else tail.mean,
        balanced_accuracy=None if balanced is None else balanced.mean,
        macro_f1=None if f1 is None else f1.mean,
        metric=metric,
        gain=None if isinstance(gain, str) else gain,
        word=word,
        why=gain if isinstance(gain, str) else "",
        seconds=result.seconds["fit"] + result.seconds["evaluate"],
        protocol=result.protocol,
        selection=result.selection,
        oracle=result.oracle,
        source=result.source,
        reads=result.reads,
        transductive=result.transductive,
        corpus="" if result.corpus is None else result.corpus.spec,
        leaks=result.leaks,
        texts=result.texts,
        stale=stale,
        validated=_validated(result),
        drawn=result.shots != 0,
        seeds=result.seeds,
        draws=result.draws,
        repetitions=result.repetitions,
        equals=equals,
        certainty=result.certainty,
        run=result.run,
    )

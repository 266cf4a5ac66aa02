"""The table of `heads compare` as data: who is better than zero-shot, and how sure that is.

Runs are compared within a group: same data set, backbone, features, split and shots; for episodes
the same list of them. Differences are to zero-shot, or to a run that is named. Of runs that
repeat each other (same method, settings and selection) the newest counts. Methods that answer all
queries together (transductive) stand below those that answer one by one, and runs whose
hyper-parameters were chosen on the queries (`oracle`) stand last; both are marked, not ranked.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from featcache.errors import FeatcacheError, UnknownNameError, UsageError
from heads.results import store
from heads.results.record import QUERY_SET, Result
from heads.results.statistics import (
    Difference,
    difference_to_zero_shot,
    paired_difference,
)

ZERO_SHOT = "zero-shot"
MARK = "oracle: chosen on the queries"
STATUS = ("paper", "released code", "reconstruction")
"""What a method's `source` begins with, or names."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method in one group; accuracies are fractions in [0, 1], times are seconds."""

    method: str
    variant: str
    top1: float
    ci95: float | None
    """Half-width of the 95 % interval."""
    interval: str
    """What it is over: repetitions or queries."""
    macro_f1: float | None
    gain: Difference | None
    """Top-1 over the reference on the same queries; None where that is not known."""
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
    texts: str
    """As in the record."""
    stale: bool
    """Whether the texts it was set to read have changed since."""
    repetitions: int
    run: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that may be compared with each other."""

    dataset: str
    backbone: str
    key: str
    split: str
    shots: int | None
    """A class, as they were really used; None is all."""
    shots_text: str
    """The same in words, with fewest and most images a class where these differ."""
    queries: int
    unreadable: int
    """Images of the split that could not be read and are no queries."""
    rows: tuple[Row, ...]
    """Zero-shot, then the others by top-1, then transductive ones, then oracle runs."""
    against: str = ZERO_SHOT
    """Name of the reference."""
    texts: str = ""
    """Digest of the data set's texts, where runs before or after had others."""
    ways: int | None = None
    """Classes of an episode; None for other protocols."""
    episodes: str = ""
    """Of episodes: how many, and the first digits of their list's digest."""

    @property
    def title(self) -> str:
        """Name the group in one line."""
        shots = self.shots_text
        if self.ways is not None:
            shots, asked = (
                f"{self.ways}-way {shots}",
                f"{self.episodes}, {self.queries} queries each",
            )
        else:
            asked = f"{self.queries} queries"
        asked += f", {self.unreadable} unreadable not counted" if self.unreadable else ""
        texts = f", texts {self.texts}" if self.texts else ""
        return f"{self.dataset}, {self.backbone}, {shots}, {self.split} ({asked}{texts})"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `compare` found."""

    groups: tuple[Group, ...]
    problems: tuple[str, ...]
    """Runs that could not be read, a sentence each."""


def compare(
    root: Path,
    *,
    dataset: str | Sequence[str] | None = None,
    backbone: str | Sequence[str] | None = None,
    split: str | Sequence[str] | None = None,
    shots: Sequence[int | None] | None = None,
    against: str = ZERO_SHOT,
) -> Comparison:
    """Read the runs under a root and group them.

    Args:
        root: Folder of all runs.
        dataset: Only this one, or these; None takes all.
        backbone: Likewise.
        split: Likewise.
        shots: Only groups of these shots (None in it is "all"); zero-shot always joins in.
        against: What the differences are to: a method, with its variant behind a space.

    Raises:
        UnknownNameError: If no run is of that data set, backbone, split or any of the shots, or
            none that is left is that reference.
    """
    shelf = store.load_all(root)
    found = list(shelf.results)
    for what, name in (("dataset", dataset), ("backbone", backbone), ("split", split)):
        found = _named(found, what, name)
    if shots is not None:
        shots = _used(found, shots)
        found = [r for r in found if r.shots_used in (*shots, 0)]
    kept, problems = _with_answers(shelf, found)
    if kept and against not in (labels := {ZERO_SHOT, *map(label, kept)}):
        raise UnknownNameError("run to compare with", against, labels)
    groups = group(kept, against=against)
    if shots is not None:  # zero-shot alone is no answer to a question about shots
        groups = [g for g in groups if g.shots in shots]
    return Comparison(groups=tuple(groups), problems=(*shelf.problems, *problems))


def _with_answers(shelf: store.Shelf, results: list[Result]) -> tuple[list[Result], list[str]]:
    """Read the answers of the runs that count; a damaged one leaves its place to an older one."""
    whole: dict[str, Result] = {}
    problems: dict[str, str] = {}
    while True:
        counting = newest(r for r in results if r.run not in problems)
        if not (unread := [r.run for r in counting if r.run not in whole]):
            return [whole[r.run] for r in counting], list(problems.values())
        for run in unread:
            try:
                whole[run] = store.load(shelf.folders[run])
            except FeatcacheError as error:
                problems[run] = str(error)


def _named(results: list[Result], what: str, names: str | Sequence[str] | None) -> list[Result]:
    """Keep the results whose field is one of those named; each has to be there."""
    if names is None or not results:
        return results
    wanted = [names] if isinstance(names, str) else names
    known = {getattr(r, what) for r in results}
    for name in wanted:
        if name not in known:
            kind = f"{'data set' if what == 'dataset' else what} of the runs"
            raise UnknownNameError(kind, name, known)
    return [r for r in results if getattr(r, what) in wanted]


def _used(results: list[Result], shots: Sequence[int | None]) -> set[int | None]:
    """Return the shots that were really used by runs that were asked for these, or used them."""
    used = {r.shots_used for r in results if {r.shots, r.shots_used} & set(shots)}
    if results and not used:
        asked = ["all" if k is None else str(k) for k in shots]
        trained = {"all" if r.shots is None else str(r.shots) for r in results} - {"0"}
        hint = f"Train it with: heads train METHOD --shots {asked[0]}"
        raise UnknownNameError("number of shots of the runs", ", ".join(asked), trained, hint)
    return used


def newest(results: Iterable[Result]) -> list[Result]:
    """Keep the newest of runs that repeat each other."""
    last: dict[tuple[object, ...], Result] = {}
    for result in sorted(results, key=lambda r: (r.created, r.run)):
        same = result.shots_used, result.method, result.variant, result.selection
        last[(*_place(result), *same)] = result
    return list(last.values())


def label(result: Result) -> str:
    """Name a run by its method and settings."""
    return f"{result.method} {result.variant}".rstrip()


def group(results: Iterable[Result], *, against: str = ZERO_SHOT) -> list[Group]:
    """Group results; zero-shot runs join every group of their data set, backbone and split."""
    places: dict[tuple[str, ...], list[Result]] = {}
    for result in newest(results):
        places.setdefault(_place(result), []).append(result)
    groups = []
    with_texts = Counter(place[:5] for place in places)
    for (dataset, backbone, key, split, ids, texts), members in sorted(places.items()):
        several = with_texts[dataset, backbone, key, split, ids] > 1
        latest = dict(_own_texts(r) for r in sorted(members, key=lambda r: r.created))
        free = [r for r in members if r.shots == 0]
        shots_here = {r.shots_used for r in members} - {0} or {0}
        for shots in sorted(shots_here, key=lambda s: float("inf") if s is None else s):
            here = [r for r in members if r.shots_used == shots and r.shots != 0] + free
            named = [r for r in here if label(r) == against]
            reference = min(named, key=_fairness, default=None)
            rows = [_row(r, against, reference, latest) for r in here]
            rows.sort(key=_rank)
            groups.append(
                Group(
                    dataset=dataset,
                    backbone=backbone,
                    key=key,
                    split=split,
                    shots=shots,
                    shots_text=_newest_with_support(here).shots_text,
                    queries=members[0].queries,
                    unreadable=max(r.unreadable for r in here),
                    rows=tuple(rows),
                    against=against,
                    ways=here[0].ways,
                    texts=texts if several else "",
                    episodes=f"{here[0].repetitions} episodes {here[0].ids[:6]}",
                )
            )
    return groups


def _newest_with_support(results: list[Result]) -> Result:
    """Choose who says how many images there were: older records only know what was asked for."""
    return max(results, key=lambda r: (r.shots != 0, r.support is not None, r.created))


def _fairness(result: Result) -> tuple[bool, bool]:
    """Order the runs that one name fits: those that looked at the queries stand last."""
    return result.oracle, result.selection != "few-shot-val"


def _rank(row: Row) -> tuple[object, ...]:
    first = row.method != ZERO_SHOT
    return row.oracle, row.transductive, first, -row.top1, row.method, row.variant


def as_dicts(groups: Iterable[Group]) -> list[dict[str, Any]]:
    """Flatten groups into one JSON-ready object a row."""
    flat = []
    for g in groups:
        where = {
            "dataset": g.dataset,
            "backbone": g.backbone,
            "key": g.key,
            "split": g.split,
            "shots": "all" if g.shots is None else g.shots,
            "ways": g.ways,
            "against": g.against,
        }
        for row in g.rows:
            values = asdict(row)
            gain = values.pop("gain")
            if row.gain is not None:
                gain = {**gain, "word": row.gain.word}
            values["reads"] = list(row.reads)
            flat.append({**where, **values, "gain": gain})
    return flat


def to_csv(groups: Iterable[Group]) -> str:
    """Write one line a row, fractions with every digit."""
    rows = as_dicts(groups)
    for row in rows:
        gain = row.pop("gain") or {}
        row["reads"] = ", ".join(row["reads"])
        row |= {f"gain_{k}": gain.get(k) for k in ("mean", "low", "high", "over", "word")}
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else ["dataset"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


COLUMNS = (
    "method",
    "top-1 %",
    "macro F1 %",
    "over zero-shot",
    "seconds",
    "protocol",
    "selection",
    "source",
    "also reads",
)
"""Of the table that people read."""
SPARE = ("source", "protocol", "macro F1 %", "also reads", "seconds", "selection")
"""Columns that a narrow window does without, the first to go first."""


def columns(group: Group) -> tuple[str, ...]:
    """Return COLUMNS with the reference's name in them."""
    return tuple(f"over {group.against}" if c == f"over {ZERO_SHOT}" else c for c in COLUMNS)


def cells(row: Row) -> tuple[str, ...]:
    """Write a row for people, as COLUMNS: percent, the interval beside each figure."""
    name = f"{row.method} [{row.variant}]" if row.variant else row.method
    name += " (transductive)" if row.transductive else ""
    name += " (older texts)" if row.stale else ""
    top1 = f"{100 * row.top1:.1f}" + ("" if row.ci95 is None else f" ± {100 * row.ci95:.1f}")
    f1 = "-" if row.macro_f1 is None else f"{100 * row.macro_f1:.1f}"
    selection = f"{row.selection} ({MARK})" if row.oracle else row.selection
    status = ", ".join(s for s in STATUS if s in row.source.partition(":")[0]) or "-"
    kinds = dict.fromkeys(_kind(what) for what in row.reads)
    also = ", ".join(kinds) or "-"
    took = f"{row.seconds:.1f}"
    return name, top1, f1, _gain(row), took, row.protocol, selection, status, also


def _kind(what: str) -> str:
    """Shorten `support views.rrc50` to `views`; `pool` and `query set` stay."""
    return what if what == QUERY_SET else what.rpartition(" ")[2].partition(".")[0]


def to_markdown(groups: Iterable[Group]) -> str:
    """Write one table a group."""
    parts = []
    for g in groups:
        lines = [_line(columns(g)), _line(["---"] * len(COLUMNS))]
        lines += [_line(cells(row)) for row in g.rows]
        parts.append(f"### {g.title}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _gain(row: Row) -> str:
    if row.gain is None:
        return "-"
    d = row.gain
    return f"{100 * d.mean:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}] {d.word}"


def _line(values: Iterable[str]) -> str:
    return "| " + " | ".join(v.replace("|", "\\|").replace("\n", " ") for v in values) + " |"


def _place(result: Result) -> tuple[str, ...]:
    texts = result.texts.partition(":")[0]
    return result.dataset, result.backbone, result.key, result.split, result.ids, texts


def _own_texts(result: Result) -> tuple[object, str]:
    """Return the kind of text that a run was set to read, and its digest."""
    return result.config.get("text"), result.texts.partition(":")[2]


def _gain_over(result: Result, against: str, reference: Result | None) -> Difference | None:
    if against == ZERO_SHOT:
        return None if label(result) == against else difference_to_zero_shot(result)
    if reference is None or result.run == reference.run:
        return None
    try:
        return paired_difference(result, reference)
    except UsageError:  # other seeds, or no answers kept
        return None


def _row(
    result: Result, against: str, reference: Result | None, latest: Mapping[object, str]
) -> Row:
    kind, own = _own_texts(result)
    top1, f1 = result.metrics["top1"], result.metrics.get("macro_f1")
    return Row(
        method=result.method,
        variant=result.variant,
        top1=top1.mean,
        ci95=top1.ci95,
        interval=top1.interval,
        macro_f1=None if f1 is None else f1.mean,
        gain=_gain_over(result, against, reference),
        seconds=sum(result.seconds.values()),
        protocol=result.protocol,
        selection=result.selection,
        oracle=result.oracle,
        source=result.source,
        reads=result.reads,
        transductive=result.transductive,
        texts=result.texts,
        stale=own != latest[kind],
        repetitions=result.repetitions,
        run=result.run,
    )

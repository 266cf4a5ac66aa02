"""Grouping runs into tables, and the gain of each over the reference.

Runs are compared within a group: same data set, backbone, features, split, queries with their
labels, shots used and profile of an imbalanced support; for episodes, batches and streams the same
list of them. Runs that differ in seeds, images drawn, features read or marks are rows of their own
with different names. Of runs that are equal in all of this the newest is shown and the others are
counted. Runs that learned from a corpus stand below those that did not, transductive methods, which
answer queries together, and online ones below these; runs whose hyper-parameters were chosen on the
queries (`oracle`), or whose corpus holds queries, stand last.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import FeatcacheError, UnknownNameError
from featcache.wording import Call, Placeholder
from heads.results import store
from heads.results.compare.missing import training
from heads.results.compare.pairing import queries_of
from heads.results.compare.rows import ZERO_SHOT, Row, label, own_texts, rows_of
from heads.results.metrics import NAMES
from heads.results.record import BATCHES, LISTS, STREAM, Result


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
    """Zero-shot, then the others by top-1, then those that learned from a corpus, then transductive
    ones, then oracle runs and leaking ones."""
    against: str = ZERO_SHOT
    """Name of the reference."""
    metric: str = "top1"
    """What the rows are ranked by, and their differences are of."""
    support: str = ""
    """How many images each class was to give, where not equally many."""
    texts: str = ""
    """Digest of the data set's texts, where runs before or after had others."""
    asked: str = ""
    """First digits of the digest of the queries, where other runs of the name had others."""
    ways: int | None = None
    """Classes of an episode; None for other protocols."""
    protocol: str = ""
    """Where the queries are a list of episodes, batches or streams; empty for other protocols."""
    repetitions: int = 0
    """Number of these."""
    lacks: Call | None = None
    """The call that makes the reference, where the table has none."""
    ambiguous: bool = False
    """Whether other groups have the same data set and backbone, and features of another key."""

    @property
    def title(self) -> str:
        """Name the group in one line."""
        shots, asked = self.shots_text, f"{self.queries} queries"
        if self.ways is not None:
            shots = f"{self.ways}-way {shots}"
            asked = f"{self.repetitions} episodes of list {self.asked}, {self.queries} queries each"
        elif self.protocol == BATCHES:
            most = f"up to {self.queries} queries each"
            asked = f"{self.repetitions} batches of list {self.asked}, {most}"
        elif self.protocol == STREAM:
            asked = f"{self.repetitions} streams of list {self.asked}, {self.queries} queries each"
        elif self.asked:
            asked += f" of list {self.asked}"
        asked += f", {self.unreadable} unreadable not counted" if self.unreadable else ""
        texts = f", texts {self.texts}" if self.texts else ""
        backbone = f"{self.backbone} (key {self.key})" if self.ambiguous else self.backbone
        return f"{self.dataset}, {backbone}, {shots}, {self.split} ({asked}{texts})"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The groups of comparable runs, and the runs that could not be read."""

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
    metric: str = "top1",
) -> Comparison:
    """Read the runs under a root and group them.

    Args:
        root: Folder of all runs.
        dataset: Only this one, or these; None takes all.
        backbone: Likewise.
        split: Likewise.
        shots: Only groups of these shots (None in it is "all"); zero-shot always joins in.
        against: The reference of the differences: a method, followed by its variant after a space.
        metric: What the rows are ranked by and compared in: top1, balanced_accuracy or macro_f1.

    Raises:
        UnknownNameError: If there is no such metric, no run is of that data set, backbone, split
            or any of the shots, or none that is left is that reference.
    """
    if metric not in NAMES:
        raise UnknownNameError("metric", metric, NAMES)
    shelf = store.load_all(root)
    results = list(shelf.results)
    for what, name in (("dataset", dataset), ("backbone", backbone), ("split", split)):
        results = _named(results, what, name)
    if shots is not None:
        shots = _used(results, shots)
        results = [r for r in results if r.shots_used in (*shots, 0)]
    shown, problems = _with_answers(shelf, results)
    if shown and against not in (labels := {ZERO_SHOT, *map(label, shown)}):
        call = training(against, max(shown, key=lambda r: (r.shots != 0, r.created)))
        hint = ("If that is a method, this makes a run of it: ", call) if call is not None else ""
        raise UnknownNameError("run to compare with", against, labels, hint)
    groups = group(shown, against=against, metric=metric)
    if shots is not None:  # leave out groups of zero-shot alone
        groups = [g for g in groups if g.shots in shots]
    return Comparison(groups=tuple(groups), problems=(*shelf.problems, *problems))


def _with_answers(shelf: store.Shelf, results: list[Result]) -> tuple[list[Result], list[str]]:
    """Read the answers of the runs that are shown; an older equal run replaces a damaged one.

    Older records have no digest of their labels, which is then computed from their answers.
    """
    whole: dict[str, Result] = {}
    problems: dict[str, str] = {}
    unread = [r.run for r in results if "-" not in r.ids]
    while True:
        for run in unread:
            try:
                whole[run] = store.load(shelf.folders[run], names=False)
            except FeatcacheError as error:
                problems[run] = str(error)
        left = [whole.get(r.run, r) for r in results if r.run not in problems]
        if not (unread := [run for run in newest(left) if run not in whole]):
            return left, list(problems.values())


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


def _used(results: Sequence[Result], shots: Sequence[int | None]) -> tuple[int | None, ...]:
    """Return the shots used by the runs that requested, or used, one of these."""
    used = {r.shots_used for r in results if {r.shots, r.shots_used} & set(shots)}
    if results and not used:
        asked = ["all" if k is None else str(k) for k in shots]
        trained = {"all" if r.shots is None else str(r.shots) for r in results} - {"0"}
        wanted = {
            "method": Placeholder("METHOD"),
            "cache": Placeholder("cache"),
            "shots": None if asked[0] == "all" else int(asked[0]),
        }
        hint = ("Train it with: ", Call("heads.evaluate", wanted))
        raise UnknownNameError("number of shots of the runs", ", ".join(asked), trained, hint)
    return tuple(used)


def newest(results: Iterable[Result]) -> dict[str, tuple[Result, int]]:
    """Return the newest of equal runs, by run, with the number of the others."""
    equal: dict[tuple[object, ...], list[Result]] = {}
    for result in sorted(results, key=lambda r: (r.created, r.run)):
        drawn = result.draws or result.shots  # of older records, only what was asked for is known
        learned = (drawn, result.reads, result.corpus)
        effort = (result.seeds, result.repetitions, *learned, result.marks)
        kind = (result.method, result.variant, result.protocol, result.selection)
        used = (result.shots_used, result.profile)
        equal.setdefault((*_place(result), *used, *kind, *effort), []).append(result)
    return {same[-1].run: (same[-1], len(same) - 1) for same in equal.values()}


def group(
    results: Iterable[Result], *, against: str = ZERO_SHOT, metric: str = "top1"
) -> list[Group]:
    """Group results; zero-shot runs join every group of their data set, backbone and split."""
    kept = newest(results)
    places: dict[tuple[str, ...], list[Result]] = {}
    for result, _ in kept.values():
        places.setdefault(_place(result), []).append(result)
    groups = []
    with_texts = Counter(place[:5] for place in places)
    with_keys = Counter(place[:2] for place in {place[:3] for place in places})
    with_queries = Counter((*place[:4], place[5]) for place in places)
    for place, members in sorted(places.items()):
        dataset, backbone, key, split, ids, texts = place
        latest = dict(own_texts(r) for r in sorted(members, key=lambda r: r.created))
        free = [r for r in members if r.shots == 0]
        shots_here = {(r.shots_used, r.profile) for r in members if r.shots != 0} or {(0, "")}
        for shots, profile in sorted(shots_here, key=_by_size):
            drawn = [
                r for r in members if (r.shots_used, r.profile) == (shots, profile) and r.shots != 0
            ]
            here = drawn + free
            protocol = here[0].protocol if here[0].protocol in LISTS else ""
            equals = {run: n for run, (_, n) in kept.items()}
            rows = rows_of(here, against, latest, equals, metric)
            several = with_queries[*place[:4], texts] > 1 or bool(protocol)
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
                    rows=rows,
                    against=against,
                    metric=metric,
                    support=profile,
                    texts=texts if with_texts[place[:5]] > 1 else "",
                    asked=_short(ids) if several else "",
                    ways=here[0].ways,
                    protocol=protocol,
                    repetitions=here[0].repetitions if protocol else 0,
                    lacks=_lacking(here, against),
                    ambiguous=with_keys[dataset, backbone] > 1,
                )
            )
    return groups


def _lacking(here: Sequence[Result], against: str) -> Call | None:
    """Return the call that makes the reference, if it is not among the results of a table."""
    if against == ZERO_SHOT or any(label(r) == against for r in here):
        return None
    return training(against, here[0])


def _by_size(used: tuple[int | None, str]) -> tuple[float, str]:
    shots, profile = used
    return float("inf") if shots is None else float(shots), profile


def _newest_with_support(results: Sequence[Result]) -> Result:
    """Choose the record for the number of images; older ones state only the requested shots."""
    return max(results, key=lambda r: (r.shots != 0, r.support is not None, r.created))


def _short(ids: str) -> str:
    """Shorten a digest so that it differs where the images or their labels differ."""
    images, _, labels = ids.partition("-")
    return f"{images[:6]}-{labels[:4]}" if labels else images[:6]


def _place(result: Result) -> tuple[str, ...]:
    texts = result.texts.partition(":")[0]
    queries = queries_of(result)
    return result.dataset, result.backbone, result.key, result.split, queries, texts

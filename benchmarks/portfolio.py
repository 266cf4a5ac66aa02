"""Choosing members for `auto` on validation rows, and what a pool loses to single methods.

All candidates that need no texts are members. Those that read texts are added one at a time, each
the one that lowers the cross-entropy of the pool most, as a share of that of the best single
method: the mean over data sets, each of which is the mean over its numbers of shots and draws. To
judge a pool, temperatures and weights are learned on one half of the validation rows and judged on
the other, both ways. The members for a data set are chosen on the others. Queries are looked at in
the tables of regret alone.

Regret is the accuracy on the queries of a single method minus that of the pool: of the method that
is best on validation, which is what a user could have taken, or best on the queries, which is known
only afterwards. Intervals are crossed, over draws and queries; that of a mean takes the tasks as
they are.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from heads.methods.auto import METHOD
from heads.ops.pooling import greedy_weights, mean_pool, temperature
from heads.results.statistics import of_queries

ROUNDS: int = METHOD.config().rounds
WITHOUT_TEXTS = ("gda", "ridge", "linear-probe", "knn", "nearest-mean")
"""Candidates that need no class texts."""
SIZES = (0, 1, 2, 3, 4, 5, 6, 8)
"""Members that read texts. How many is chosen on validation, too: members chosen without a data
set, judged on its validation rows."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the head of one method answers in one draw of one task."""

    val: Float[Tensor, "v c"]
    """Logits of validation rows."""
    test: Float[Tensor, "n c"]
    """Logits of the queries."""
    seconds: float
    """Training with its search, of one draw."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Draw:
    """One draw of a data set at one number of shots, with what all methods answered."""

    dataset: str
    shots: int
    seed: int
    texts: bool
    """Whether the data set has class texts."""
    val_labels: Int64[Tensor, " v"]
    test_labels: Int64[Tensor, " n"]
    answers: dict[str, Answers] = field(default_factory=dict)

    @cache  # noqa: B019 - lives as long as the program
    def halves(self, method: str) -> tuple[tuple[Tensor, Tensor], ...]:
        """Return of both halves the log-probability of the label: where learned, where judged."""
        z, rows = self.answers[method].val, torch.arange(len(self.val_labels))
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed))
        parts = order[::2], order[1::2]
        found = []
        for learned, judged in (parts, parts[::-1]):
            heat = temperature(z[learned], self.val_labels[learned])
            log_p = torch.log_softmax(z.double() / heat, dim=-1)[rows, self.val_labels]
            found.append((log_p[learned], log_p[judged]))
        return tuple(found)

    def share(self, members: Sequence[str]) -> float:
        """Return the cross-entropy of a pool as a share of that of the best single method."""
        return self.judged(tuple(members)) / min(self.judged((name,)) for name in self.answers)

    @cache  # noqa: B019
    def judged(self, members: tuple[str, ...]) -> float:
        """Return the cross-entropy of a pool on halves of validation that chose no weight."""
        there = [name for name in members if name in self.answers]
        if not there:
            return float(np.log(self.answers[next(iter(self.answers))].val.shape[1]))
        found = []
        for half in range(2):
            learned = torch.stack([self.halves(name)[half][0] for name in there])
            judged = torch.stack([self.halves(name)[half][1] for name in there])
            weights = _weights(learned[..., None], torch.zeros(learned.shape[1]).long())
            found.append(-float(mean_pool(judged[..., None], weights.to(judged)).mean()))
        return float(np.mean(found))

    @cache  # noqa: B019
    def correct_of(self, members: tuple[str, ...]) -> Bool[np.ndarray, " n"]:
        """Return which queries a pool answers rightly, as `auto` learns it on all validation."""
        there = [self.answers[name] for name in members if name in self.answers]
        heats = [temperature(one.val, self.val_labels) for one in there]
        val = [torch.log_softmax(a.val / t, -1) for a, t in zip(there, heats, strict=True)]
        test = [torch.log_softmax(a.test / t, -1) for a, t in zip(there, heats, strict=True)]
        weights = _weights(torch.stack(val), self.val_labels)
        pooled = mean_pool(torch.stack(test), weights.float())
        return np.asarray((pooled.argmax(-1) == self.test_labels).numpy())

    def single(self, method: str) -> Bool[np.ndarray, " n"]:
        """Return which queries one method answers rightly."""
        return np.asarray((self.answers[method].test.argmax(-1) == self.test_labels).numpy())

    def on_validation(self, method: str) -> float:
        """Return the accuracy of one method on validation rows."""
        right = self.answers[method].val.argmax(-1) == self.val_labels
        return float(right.double().mean())

    def seconds(self, members: Iterable[str]) -> float:
        """Return what the members take together."""
        return sum(self.answers[name].seconds for name in members if name in self.answers)


def _weights(log_p: Tensor, labels: Tensor) -> Tensor:
    return greedy_weights(log_p, labels, ROUNDS)


def chosen(draws: Sequence[Draw], size: int) -> list[str]:
    """Return all methods that need no texts, which are few and cheap, and `size` others."""
    return [*WITHOUT_TEXTS, *(name for name, _ in grown(draws)[:size])]


def grown(draws: Sequence[Draw]) -> tuple[tuple[str, float], ...]:
    """Return members that read texts in the order in which they join those that need none.

    Each has the mean share of the pool that is reached with it, on data sets with texts.
    """
    return _grown(tuple(d for d in draws if d.texts))


@cache
def _grown(draws: tuple[Draw, ...]) -> tuple[tuple[str, float], ...]:
    candidates = sorted({name for draw in draws for name in draw.answers} - set(WITHOUT_TEXTS))
    members: dict[str, float] = {}
    while len(members) < min(max(SIZES), len(candidates)):
        scores = {
            name: _mean_of(draws, lambda d, name=name: d.share([*WITHOUT_TEXTS, *members, name]))  # type: ignore[misc]
            for name in candidates
            if name not in members
        }
        best = min(scores, key=lambda name: scores[name])
        members[best] = scores[best]
    return tuple(members.items())


def without(draws: Sequence[Draw], size: int) -> dict[str, tuple[str, ...]]:
    """Return, for every data set, the members chosen on the others."""
    names = sorted({draw.dataset for draw in draws})
    return {n: tuple(chosen([d for d in draws if d.dataset != n], size)) for n in names}


def best_size(draws: Sequence[Draw]) -> int:
    """Return the size whose members, chosen without a data set, suit its validation rows best."""
    print("\n### how many members read texts: judged on data sets that they were chosen without\n")
    print("| size | share, mean | share, worst | seconds, most | chosen on all |")
    print("|---|---|---|---|---|")
    means = {}
    for size in SIZES:
        others, everywhere = without(draws, size), chosen(draws, size)
        shares = [
            _mean_of([d for d in draws if d.dataset == name], lambda d, m=members: d.share(m))  # type: ignore[misc]
            for name, members in others.items()
        ]
        means[size] = float(np.mean(shares))
        print(
            f"| {size} | {means[size]:.3f} | {max(shares):.3f} "
            f"| {max(d.seconds(everywhere) for d in draws):.0f} | {', '.join(everywhere)} |"
        )
    return min(means, key=lambda size: means[size])


def _mean_of(draws: Sequence[Draw], value: Callable[[Draw], float]) -> float:
    """Return the mean over data sets of the mean over their draws."""
    found = defaultdict(list)
    for draw in draws:
        found[draw.dataset].append(value(draw))
    return float(np.mean([np.mean(values) for values in found.values()]))


def show(draws: Sequence[Draw], shipped: Sequence[str]) -> None:
    """Print all tables in Markdown; `shipped` are the members that `auto` has."""
    draws = sorted(draws, key=lambda d: (d.dataset, d.shots, d.seed))
    _show_growth(draws)
    size = best_size(draws)
    print(f"\nChosen on all data sets: {', '.join(chosen(draws, size))}.")
    others = without(draws, size)
    print("\n### members chosen without a data set\n\n| without | members |\n|---|---|")
    for name, members in others.items():
        print(f"| {name} | {', '.join(members)} |")
    everywhere = tuple(shipped)
    _show_regret("members chosen without the data set", draws, lambda d: others[d.dataset])
    _show_regret(f"members of auto: {', '.join(everywhere)}", draws, lambda d: everywhere)
    _show_singles(draws)


def _show_growth(draws: Sequence[Draw]) -> None:
    """Print what each further member that reads texts brings and costs."""
    free, some = WITHOUT_TEXTS, [draw for draw in draws if draw.texts]
    print(f"\n### beside {', '.join(free)}: one member after the other, on data sets with texts\n")
    print("| member | share of the best single | seconds, mean | most | regret, points | most |")
    print("|---|---|---|---|---|---|")
    start = _mean_of(some, lambda d: d.share(free))
    order = (("none", start), *grown(draws))
    for count, (name, share) in enumerate(order, start=1):
        members = (*free, *(member for member, _ in order[1:count]))
        seconds = [draw.seconds(members) for draw in some]
        rows = _rows(some, lambda d, m=members: m)  # type: ignore[misc]
        regrets = [row.afterwards.mean for row in rows]
        print(
            f"| {name} | {share:.3f} | {np.mean(seconds):.1f} | {max(seconds):.1f} "
            f"| {100 * np.mean(regrets):+.2f} | {100 * max(regrets):+.1f} |"
        )


@dataclass(frozen=True)
class Regret:
    """A single method, and what a pool loses to it, as fractions."""

    method: str
    mean: float
    half: float


@dataclass(frozen=True)
class Row:
    """A task: all draws of a data set at one number of shots."""

    dataset: str
    shots: int
    accuracy: float
    on_validation: Regret
    afterwards: Regret


def _rows(draws: Sequence[Draw], members: Callable[[Draw], tuple[str, ...]]) -> Iterator[Row]:
    for (dataset, shots), group in groupby(draws, key=lambda d: (d.dataset, d.shots)):
        each = list(group)
        pooled = np.stack([d.correct_of(tuple(m for m in members(d))) for d in each])
        names = list(each[0].answers)
        # each draw has its own choice on validation; ties go to the lower cross-entropy
        picked = [
            max(names, key=lambda n, d=d: (d.on_validation(n), -d.judged((n,))))  # type: ignore[misc]
            for d in each
        ]
        taken = np.stack([d.single(name) for d, name in zip(each, picked, strict=True)])
        best = max(names, key=lambda n: np.mean([d.single(n).mean() for d in each]))
        yield Row(
            dataset,
            shots,
            float(pooled.mean()),
            _regret("/".join(dict.fromkeys(picked)), taken, pooled),
            _regret(best, np.stack([d.single(best) for d in each]), pooled),
        )


def _regret(name: str, single: np.ndarray, pooled: np.ndarray) -> Regret:
    found = of_queries(single.astype(float) - pooled.astype(float), outcomes=(-1.0, 0.0, 1.0))
    return Regret(name, float(found.mean), float(found.half))


def _show_regret(
    title: str, draws: Sequence[Draw], members: Callable[[Draw], tuple[str, ...]]
) -> None:
    print(f"\n### regret in points; {title}\n")
    print(
        "| data set | shots | pool % | chosen on validation | regret | best afterwards | regret |"
    )
    print("|---|---|---|---|---|---|---|")
    rows = list(_rows(draws, members))
    for row in rows:
        print(
            f"| {row.dataset} | {row.shots} | {100 * row.accuracy:.1f} "
            f"| {row.on_validation.method} | {_points(row.on_validation)} "
            f"| {row.afterwards.method} | {_points(row.afterwards)} |"
        )
    for word, regrets in (
        ("chosen on validation", [row.on_validation for row in rows]),
        ("best afterwards", [row.afterwards for row in rows]),
    ):
        mean = Regret(
            "",
            float(np.mean([one.mean for one in regrets])),
            float(np.sqrt(np.sum([one.half**2 for one in regrets])) / len(regrets)),
        )
        worst = max(regrets, key=lambda one: one.mean)
        print(f"\nAgainst {word}: mean {_points(mean)}, worst {_points(worst)}.")


def _points(regret: Regret) -> str:
    low, high = regret.mean - regret.half, regret.mean + regret.half
    return f"{100 * regret.mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _show_singles(draws: Sequence[Draw]) -> None:
    """Print the regret of rules that take one method: chosen on validation, or always the same."""
    tasks = [list(group) for _, group in groupby(draws, key=lambda d: (d.dataset, d.shots))]
    best = [max(np.mean([d.single(n).mean() for d in t]) for n in t[0].answers) for t in tasks]

    def told(rule: str, found: Mapping[int, float]) -> str:
        regrets = [best[at] - value for at, value in found.items()]
        return (
            f"| {rule} | {len(found)} of {len(tasks)} | {100 * np.mean(regrets):+.2f} "
            f"| {100 * max(regrets):+.1f} |"
        )

    print("\n### regret of one method, to the best afterwards\n")
    print("| rule | tasks | mean | most |\n|---|---|---|---|")
    picked = {}
    for at, task in enumerate(tasks):
        right = []
        for d in task:
            name = max(d.answers, key=lambda n, d=d: (d.on_validation(n), -d.judged((n,))))  # type: ignore[misc]
            right.append(d.single(name).mean())
        picked[at] = float(np.mean(right))
    print(told("chosen on validation", picked))
    for name in sorted({n for d in draws for n in d.answers}):
        always = {
            at: float(np.mean([d.single(name).mean() for d in task]))
            for at, task in enumerate(tasks)
            if name in task[0].answers
        }
        print(told(f"always {name}", always))

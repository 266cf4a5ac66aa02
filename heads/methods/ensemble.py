"""Ensemble: other methods, trained one by one, and their probabilities pooled.

    mean, greedy    logits = log sum_m w_m p_m                  (1)
    log             logits = log softmax(sum_m w_m log p_m)     (2)
    p_m = softmax(z_m / T_m)                                    (3)

    z_m [n c] logits of member m      w_m >= 0, sum 1           T_m temperature of member m

The softmax of the ensemble's logits is the pooled distribution. `mean` and `log` weigh all members
alike. `greedy` adds members one at a time, with replacement, each the one that lowers the
cross-entropy of (1) on validation most. T_m minimises the cross-entropy of member m on validation.
The hyper-parameters of each member are chosen as if it were alone.

Reference: Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004 (greedy); Guo et
al., On Calibration of Modern Neural Networks, ICML 2017 (temperatures); Genest and Zidek,
Combining Probability Distributions, Statistical Science 1986 (both pools).
Source: our reconstruction of these papers; which methods are pooled by default is ours.
Differs from the paper: one metric, cross-entropy, where Caruana et al. take any; no bagging of the
members and no start from the best ones; targets of the temperatures are smoothed, as Platt's are.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.errors import TrainingError, UsageError
from featcache.wording import Argument, Setting
from heads import registry
from heads.contract.members import Composition, Joined, Member, TrainedMember, rows_with
from heads.contract.method import AnyMethod, Method, Need
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import Nothing, hyper_values, number, with_values
from heads.ops.pooling import greedy_weights, log_pool, mean_pool, temperature
from heads.selection.members import kinds_of, view_of
from heads.selection.settings import Settings, configure
from heads.training.trainer import train

EXAMPLE = "gda,knn:k=3"
MOST = 64
"""Largest number of members."""


@dataclass(frozen=True, kw_only=True)
class Config:
    members: str = "gda,proker,tip-adapter"
    """Names of methods, each with settings of its own after colons: `gda,knn:k=3`."""
    rule: Literal["mean", "log", "greedy"] = "mean"
    """Equation (1) or (2) with equal weights, or (1) with weights chosen on validation."""
    calibrate: bool = True
    """Choose the temperatures on validation; else, and without validation, they are 1."""
    rounds: int = number(50, low=1, high=10_000)
    """Members that `greedy` adds, one after the other."""


@lru_cache(maxsize=256)
def _parsed(text: str) -> tuple[Member, ...]:
    """Read `gda,knn:k=3`; errors as `members`."""
    found, seen = [], Counter[str]()
    for written in text.split(","):
        name, *given = (part.strip() for part in written.split(":"))
        pairs = [pair.partition("=") for pair in given]
        if not name or any(not (key and value) for key, _, value in pairs):
            raise _wrong(f"names of methods, settings after colons, got '{written[:80]}'")
        seen[name] += 1
        label = name if seen[name] == 1 else f"{name}.{seen[name]}"
        settings = tuple(sorted((key, value) for key, _, value in pairs))
        if len(dict(settings)) < len(settings):
            raise _wrong(f"one value for a setting, got '{written[:80]}'")
        found.append(Member(label=label, name=name, settings=settings))
    if len({one.text for one in found}) < len(found):
        raise _wrong(f"members that differ, got '{text[:80]}'")
    if not 1 <= len(found) <= MOST:
        raise _wrong(f"1 to {MOST} members, got {len(found)}")
    for one in found:
        if one.name == METHOD.name:
            raise _wrong("methods that are no ensembles themselves")
        if registry.get(one.name).transductive:
            raise _wrong(f"methods that answer each query alone; '{one.name}' answers all together")
        configure(registry.get(one.name), dict(one.settings))
    return tuple(found)


def _wrong(expected: str) -> UsageError:
    return UsageError(
        f"ensemble's setting members must be {expected}; write e.g. ",
        Setting("members", EXAMPLE),
        ".",
    )


def members(config: Config) -> tuple[Member, ...]:
    """Return the members.

    Raises:
        UnknownNameError: If there is no such method, or it has no such setting.
        UsageError: If the text cannot be read, or a method cannot be a member.
    """
    return _parsed(config.members)


def needs(config: Config) -> frozenset[Need]:
    """Return what any member reads."""
    return frozenset(n for _, m, own in _inside(config) for n in m.needs(own.config))


@lru_cache(maxsize=256)
def _inside(config: Config) -> tuple[tuple[Member, AnyMethod, Settings], ...]:
    found = [(member, registry.get(member.name)) for member in members(config)]
    return tuple((one, m, configure(m, dict(one.settings))) for one, m in found)


def join(
    config: Config, trained: Sequence[TrainedMember], labels: Int64[Tensor, " n"] | None
) -> Joined:
    """Choose temperatures and weights, and put all tensors of the members together.

    Members of weight 0 are left out.

    Raises:
        UsageError: If `greedy` has no validation rows.
        TrainingError: If the answers of a member to validation rows are not finite.
    """
    heats = [_temperature(one, labels) if config.calibrate else 1.0 for one in trained]
    count = len(trained)
    weights = [1 / count] * count
    if config.rule == "greedy":
        if labels is None or any(one.validated is None for one in trained):
            raise UsageError(
                "ensemble's rule greedy chooses weights on validation, and there is none. Set ",
                Setting("rule", "mean"),
                ", or let ",
                Argument("selection", "few-shot-val"),
                " (which needs val images) or ",
                Argument("selection", "cv"),
                " (two shots or more) choose.",
            )
        both = zip(trained, heats, strict=True)
        log_p = [torch.log_softmax(_finite(one) / heat, dim=-1) for one, heat in both]
        weights = greedy_weights(torch.stack(log_p), labels, config.rounds).double().tolist()
    learned: dict[str, float] = {}
    for one, heat, weight in zip(trained, heats, weights, strict=True):
        label = one.member.label
        learned |= {f"weight of {label}": weight, f"temperature of {label}": heat}
        learned |= {f"{label}.{name}": value for name, value in one.hyper.items()}
    used = [at for at, weight in enumerate(weights) if weight > 0]
    left = replace(config, members=",".join(trained[at].member.text for at in used))
    fixed: Tensors = {}
    for member, at in zip(members(left), used, strict=True):
        one = trained[at]
        like = _like(one)
        fixed |= {f"{member.label}/params/{name}": t for name, t in one.params.items()}
        fixed |= {f"{member.label}/fixed/{name}": t for name, t in one.fixed.items()}
        fixed |= {f"{member.label}/hyper/{n}": like.new_tensor(v) for n, v in one.hyper.items()}
        fixed[f"{member.label}/temperature"] = like.new_tensor(heats[at])
    fixed["weights"] = _like(trained[0]).new_tensor([weights[at] for at in used])
    return Joined(config=left, fixed=fixed, learned=learned)


def _like(one: TrainedMember) -> Tensor:
    """Return a tensor of the type and device of a member."""
    floats = (t for t in (*one.params.values(), *one.fixed.values()) if t.is_floating_point())
    return next(floats)


def _temperature(one: TrainedMember, labels: Int64[Tensor, " n"] | None) -> float:
    return 1.0 if labels is None or one.validated is None else temperature(_finite(one), labels)


def _finite(one: TrainedMember) -> Float[Tensor, "n c"]:
    assert one.validated is not None
    if not bool(torch.isfinite(one.validated).all()):
        raise TrainingError(
            f"Member '{one.member.label}' gave answers that are not finite. Leave it out, or set "
            f"its hyper-parameters nearer to their defaults."
        )
    return one.validated


def prepare(task: TaskView, config: Config, hyper: Nothing) -> tuple[Tensors, Tensors]:
    """Train every member at its defaults and pool all alike: there is no validation here.

    Raises:
        TrainingError: If a member could not be trained.
    """
    trained = []
    shots = len(task.support.norms) // task.c or None
    for member, method, _ in _inside(config):
        own = configure(method, dict(member.settings), shots=shots)
        (run,) = train(method, own.config, [view_of(method, own.config, task)], [own.hyper])
        if run.failed is not None:
            raise TrainingError(f"Member '{member.label}' gave no usable head: {run.failed}.")
        kept = {n: t for n, t in run.head.fixed.items() if n not in method.training_only}
        numbers = hyper_values(run.head.hyper)
        one = TrainedMember(member=member, hyper=numbers, params=run.head.params, fixed=kept)
        trained.append(one)
    # selection joins with validation rows; `greedy` without any is refused there
    alike = config if config.rule == "log" else replace(config, rule="mean")
    return {}, join(alike, trained, None).fixed


def _part(tensors: Tensors, label: str, part: str) -> Tensors:
    start = f"{label}/{part}/"
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def _hyper(fixed: Tensors, label: str, own: Settings) -> Any:
    values = _part(fixed, label, "hyper")
    return with_values(own.hyper, {name: values[name] for name in hyper_values(own.hyper)})


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Config, hyper: Nothing) -> Tensors:
    """Compute the terms of every member."""
    found: Tensors = {}
    for member, method, own in _inside(config):
        label = member.label
        inner = method.terms(
            _part(fixed, label, "params"),
            _part(fixed, label, "fixed"),
            rows_with(rows, kinds_of(method, own.config, "query")),
            own.config,
            _hyper(fixed, label, own),
        )
        found |= {f"{label}/terms/{name}": term for name, term in inner.items()}
    return found


def combine(terms: Tensors, fixed: Tensors, config: Config, hyper: Nothing) -> Float[Tensor, "n c"]:
    """Compute equations (3), and (1) or (2)."""
    log_p = []
    for member, method, own in _inside(config):
        label, inner = member.label, _part(fixed, member.label, "fixed")
        answer = method.combine(
            _part(terms, label, "terms"), inner, own.config, _hyper(fixed, label, own)
        )
        log_p.append(torch.log_softmax(answer / fixed[f"{label}/temperature"], dim=-1))
    pool = log_pool if config.rule == "log" else mean_pool
    return pool(torch.stack(log_p), fixed["weights"])


METHOD = Method(
    name="ensemble",
    summary="Any methods, trained one by one, with their probabilities pooled.",
    source="reconstruction: Caruana et al. 2004; Guo et al. 2017",
    needs=needs,
    prepare=prepare,
    terms=terms,
    combine=combine,
    composition=Composition(
        members=members,
        join=join,
        validates=lambda config: config.calibrate or config.rule == "greedy",
    ),
)

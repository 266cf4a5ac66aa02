"""Members of a method made of others, pooled by their probabilities: what ensemble and auto share.

    logits = log sum_m w_m p_m      p_m = softmax(z_m / T_m)

Tensors of a member stand among the fixed ones of the whole, under its label. A member without
tensors there takes no part in an answer.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.errors import TrainingError, UsageError
from featcache.wording import Setting
from heads import registry
from heads.contract.members import Joined, Member, TrainedMember, rows_with
from heads.contract.method import AnyMethod, Need
from heads.contract.rows import Rows, TaskView, Tensors
from heads.contract.settings import hyper_values, with_values
from heads.ops.pooling import greedy_weights, temperature
from heads.selection.leftover import Leftover
from heads.selection.members import kinds_of, trainable, trained_member, view_of
from heads.selection.settings import Settings, configure
from heads.training.trainer import train

EXAMPLE = "gda,knn:k=3"
MOST = 64
"""Largest number of members."""


@runtime_checkable
class Pooled(Protocol):
    """The Config of a method whose members are named in text; a dataclass."""

    @property
    def members(self) -> str:
        """Names of methods, each with settings of its own after colons: `gda,knn:k=3`."""
        ...


def members(config: Pooled) -> tuple[Member, ...]:
    """Return the members.

    Raises:
        UnknownNameError: If there is no such method, or it has no such setting.
        UsageError: If the text cannot be read, or a method cannot be a member.

    Example:
        >>> from heads.methods.ensemble import Config
        >>> [one.label for one in members(Config(members="gda,knn:k=3,knn:k=9"))]
        ['gda', 'knn', 'knn.2']
    """
    return _parsed(config.members)


@lru_cache(maxsize=256)
def _parsed(text: str) -> tuple[Member, ...]:
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
        method = registry.get(one.name)
        if method.composition is not None:
            raise _wrong(f"methods that are no ensembles themselves; '{one.name}' is one")
        if method.transductive:
            raise _wrong(f"methods that answer each query alone; '{one.name}' answers all together")
        configure(method, dict(one.settings))
    return tuple(found)


def _wrong(expected: str) -> UsageError:
    return UsageError(
        f"The setting members must be {expected}; write e.g. ", Setting("members", EXAMPLE), "."
    )


def needs(config: Pooled) -> frozenset[Need]:
    """Return what any member reads."""
    return frozenset(n for _, m, own in _inside(config.members) for n in m.needs(own.config))


@lru_cache(maxsize=256)
def _inside(text: str) -> tuple[tuple[Member, AnyMethod, Settings], ...]:
    found = [(member, registry.get(member.name)) for member in _parsed(text)]
    return tuple((one, m, configure(m, dict(one.settings))) for one, m in found)


def temperatures(trained: Sequence[TrainedMember], labels: Int64[Tensor, " n"]) -> list[float]:
    """Return the temperature of every member on validation rows.

    Raises:
        TrainingError: If the answers of a member are not finite.
    """
    return [temperature(_validated(one), labels) for one in trained]


def greedy(
    trained: Sequence[TrainedMember],
    heats: Sequence[float],
    labels: Int64[Tensor, " n"],
    rounds: int,
) -> list[float]:
    """Return the weights that `greedy_weights` gives members on validation rows.

    Args:
        trained: The members.
        heats: Their temperatures.
        labels: Classes of the validation rows.
        rounds: Members that are added, one after the other.

    Raises:
        TrainingError: As `temperatures`.
    """
    both = zip(trained, heats, strict=True)
    log_p = torch.stack([torch.log_softmax(_validated(one) / heat, dim=-1) for one, heat in both])
    return list(greedy_weights(log_p, labels, rounds).double().tolist())


def _validated(one: TrainedMember) -> Float[Tensor, "n c"]:
    assert one.validated is not None, "validation has answers of every member"
    if not bool(torch.isfinite(one.validated).all()):
        raise TrainingError(
            f"Member '{one.member.label}' gave answers that are not finite. Leave it out, or set "
            f"its hyper-parameters nearer to their defaults."
        )
    return one.validated


def joined(
    config: Any, trained: Sequence[TrainedMember], heats: Sequence[float], weights: Sequence[float]
) -> Joined:
    """Put all tensors of the members together; members of weight 0 are left out.

    Args:
        config: A `Pooled` dataclass; the head's names only the members that it keeps.
        trained: The members.
        heats: Their temperatures, above 0.
        weights: Their weights, at least 0, sum 1.
    """
    learned: dict[str, float] = {}
    for one, heat, weight in zip(trained, heats, weights, strict=True):
        label = one.member.label
        learned |= {f"weight of {label}": weight, f"temperature of {label}": heat}
        learned |= {f"{label}.{name}": value for name, value in one.hyper.items()}
    used = [at for at, weight in enumerate(weights) if weight > 0]
    left = replace(config, members=",".join(trained[at].member.text for at in used))
    labelled = {
        member.label: trained[at] for member, at in zip(members(left), used, strict=True)
    }  # labels count what is kept
    fixed = tensors(labelled, [heats[at] for at in used], [weights[at] for at in used])
    by_label = {one.member.label: w for one, w in zip(trained, weights, strict=True)}
    return Joined(config=left, fixed=fixed, weights=by_label, learned=learned)


def tensors(
    trained: Mapping[str, TrainedMember], heats: Sequence[float], weights: Sequence[float]
) -> Tensors:
    """Return the tensors of members by label, with temperatures and weights in their order."""
    fixed: Tensors = {}
    for (label, one), heat in zip(trained.items(), heats, strict=True):
        like = _like(one)
        fixed |= {f"{label}/params/{name}": t for name, t in one.params.items()}
        fixed |= {f"{label}/fixed/{name}": t for name, t in one.fixed.items()}
        fixed |= {f"{label}/hyper/{name}": like.new_tensor(v) for name, v in one.hyper.items()}
        fixed[f"{label}/temperature"] = like.new_tensor(heat)
    fixed["weights"] = _like(next(iter(trained.values()))).new_tensor(list(weights))
    return fixed


def _like(one: TrainedMember) -> Tensor:
    """Return a tensor of the type and device of a member."""
    floats = (t for t in (*one.params.values(), *one.fixed.values()) if t.is_floating_point())
    return next(floats)


def alike(owner: AnyMethod, config: Pooled, task: TaskView) -> Tensors:
    """Train every member at its defaults and pool all alike: the `prepare` of such a method.

    Raises:
        TrainingError: If a member could not be trained.
    """
    assert owner.composition is not None
    trained: dict[str, TrainedMember] = {}
    leftover = Leftover(owner)
    shots = len(task.support.norms) // task.c or None
    for member, method, own in trainable(owner.composition, config, shots, [task], leftover):
        with leftover.sparing(member):
            (run,) = train(method, own.config, [view_of(method, own.config, task)], [own.hyper])
            if run.failed is not None:
                raise TrainingError(f"Member '{member.label}' gave no usable head: {run.failed}.")
            trained[member.label] = trained_member(member, run.head)
    leftover.check(len(trained))
    return tensors(trained, [1.0] * len(trained), [1 / len(trained)] * len(trained))


def _taking_part(config: Pooled, fixed: Tensors) -> Iterator[tuple[str, AnyMethod, Settings]]:
    for member, method, own in _inside(config.members):
        if f"{member.label}/temperature" in fixed:
            yield member.label, method, own


def _part(found: Tensors, label: str, part: str) -> Tensors:
    start = f"{label}/{part}/"
    return {name.removeprefix(start): t for name, t in found.items() if name.startswith(start)}


def _hyper(fixed: Tensors, label: str, own: Settings) -> Any:
    values = _part(fixed, label, "hyper")
    return with_values(own.hyper, {name: values[name] for name in hyper_values(own.hyper)})


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: Pooled, hyper: Any) -> Tensors:
    """Compute the terms of every member."""
    found: Tensors = {}
    for label, method, own in _taking_part(config, fixed):
        inner = method.terms(
            _part(fixed, label, "params"),
            _part(fixed, label, "fixed"),
            rows_with(rows, kinds_of(method, own.config, "query")),
            own.config,
            _hyper(fixed, label, own),
        )
        found |= {f"{label}/terms/{name}": term for name, term in inner.items()}
    return found


def log_p(terms: Tensors, fixed: Tensors, config: Pooled) -> Float[Tensor, "m n c"]:
    """Return the log-probabilities of every member, from its terms."""
    found = []
    for label, method, own in _taking_part(config, fixed):
        inner, hyper = _part(fixed, label, "fixed"), _hyper(fixed, label, own)
        answer = method.combine(_part(terms, label, "terms"), inner, own.config, hyper)
        found.append(torch.log_softmax(answer / fixed[f"{label}/temperature"], dim=-1))
    return torch.stack(found)

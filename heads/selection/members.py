"""Selection for a method made of others: each member is chosen by itself, then they are joined.

What joins them (weights, temperatures) is learned on rows that no member was trained on: the
validation rows, or under `cv` the held-out rows of folds, each answered by members that were
trained on the other folds at the values chosen before.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.errors import UsageError
from heads import registry
from heads.contract.members import Composition, Member, TrainedMember, rows_with, view_with
from heads.contract.method import AnyMethod, Role
from heads.contract.rows import Kind, TaskView
from heads.contract.settings import hyper_values
from heads.episode import Episode
from heads.fitted import Fitted
from heads.selection.chosen import Chosen
from heads.selection.leftover import Leftover
from heads.selection.refitting import refitted
from heads.selection.settings import Settings, configure

Alone: TypeAlias = Callable[[AnyMethod, Settings, Sequence[Episode]], list[Chosen]]
"""Choose and train a member on every task, as if it were alone."""


Resolved: TypeAlias = tuple[Member, AnyMethod, Settings]
"""A member with its method and settings."""


def resolved(composition: Composition, config: Any, shots: int | None) -> list[Resolved]:
    """Return every member with its method and settings.

    Args:
        composition: How a method is made of others.
        config: The method's Config.
        shots: Images a class, on which defaults of members depend; None is all.
    """
    members = composition.members(config)
    methods = [registry.get(member.name) for member in members]
    return [
        (member, method, configure(method, dict(member.settings), shots=shots))
        for member, method in zip(members, methods, strict=True)
    ]


def trainable(
    composition: Composition,
    config: Any,
    shots: int | None,
    views: Sequence[TaskView],
    leftover: Leftover,
) -> list[Resolved]:
    """Return the members that are trained on supports as large as these.

    Args:
        composition: How a method is made of others.
        config: The method's Config.
        shots: Images a class, on which defaults of members depend; None is all.
        views: The tasks.
        leftover: Told of the members for which a support is too large.

    Raises:
        UsageError: If a member has to know facts of the features.
    """
    rows, kept = max(len(view.support) for view in views), []
    for member, method, own in resolved(composition, config, shots):
        if views and method.facts(views[0], own.config):
            raise UsageError(
                f"'{member.text}' computes with the last block of the backbone, which only a head "
                f"of its own can hold. Leave it out of the members, or take {member.name} at its "
                f"defaults."
            )
        most = composition.most_rows(config, member)
        if most is not None and rows > most:
            leftover.add(
                member, f"slow on more than {most:,} training images, and there are {rows:,}"
            )
        else:
            kept.append((member, method, own))
    return kept


def reads_weights(method: AnyMethod, settings: Settings) -> bool:
    """Tell whether class weights change anything for a method or any of its members."""
    if method.composition is None:
        return method.reads_weights(settings.config)
    inside = resolved(method.composition, settings.config, settings.shots)
    return any(inner.reads_weights(own.config) for _, inner, own in inside)


def kinds_of(method: AnyMethod, config: Any, role: Role) -> list[Kind]:
    """Return the kinds of features, beside global ones, that a method reads of a role."""
    return [n.key for n in method.needs(config) if n.role == role and n.kind != "global"]


def view_of(method: AnyMethod, config: Any, view: TaskView) -> TaskView:
    """Return a task as a member sees it: with what it would read alone, and nothing else."""
    reads_pool = any(need.role == "pool" for need in method.needs(config))
    pool = kinds_of(method, config, "pool") if reads_pool else None
    return view_with(view, kinds_of(method, config, "support"), pool)


def select_members(
    method: AnyMethod, settings: Settings, tasks: Sequence[Episode], mode: str, alone: Alone
) -> list[Chosen]:
    """Choose and train every member on each task, and join them.

    Args:
        method: A method made of others.
        settings: Its settings.
        tasks: Episodes whose `val` holds the rows of the mode.
        mode: One of `SELECTIONS`.
        alone: Chooses and trains one member.

    Raises:
        TrainingError: If a member could not be trained, and none is spared.
        UsageError: If no member is left.
    """
    composition = method.composition
    assert composition is not None
    chosen: list[list[Chosen]] = []
    trained: list[list[TrainedMember]] = [[] for _ in tasks]
    labels: list[Int64[Tensor, " n"] | None] = [None for _ in tasks]
    seconds: dict[str, float] = {}
    notes: list[str] = []
    leftover, views = Leftover(method), [task.view for task in tasks]
    for member, inner, own in trainable(
        composition, settings.config, settings.shots, views, leftover
    ):
        started = time.perf_counter()
        seen = [_task_of(inner, own.config, task) for task in tasks]
        with leftover.sparing(member):
            found = alone(inner, own, seen)
            answered = [
                _validated(one.head, task, mode) for one, task in zip(found, seen, strict=True)
            ]
            chosen.append(found)
            said = inner.notes([one.watch for one in found])
            notes += [f"{member.label}: {note}" for note in said]
            for at, (one, (logits, y)) in enumerate(zip(found, answered, strict=True)):
                labels[at] = y
                trained[at].append(trained_member(_as_chosen(member, one), one.head, logits))
            seconds[member.label] = time.perf_counter() - started
    leftover.check(len(chosen))
    notes += leftover.notes
    if mode == "none" and composition.validates(settings.config):
        notes.append(
            "Without validation the probabilities of the members are not calibrated, and all weigh "
            "alike."
        )
    joined = []
    weights: list[Mapping[str, float]] = []
    for at, task in enumerate(tasks):
        result = composition.join(settings.config, trained[at], labels[at])
        weights.append(result.weights)
        head = Fitted(
            method=method,
            config=result.config,
            hyper=settings.hyper,
            params={},
            fixed=dict(result.fixed),
        )
        failed = [
            f"{part.member.label}: {why}"
            for part, found in zip(trained[at], chosen, strict=True)
            for why in found[at].failed
        ]
        whole = {
            f"{part.member.label}.{name}": float(getattr(found[at].head.config, name))
            for part, found in zip(trained[at], chosen, strict=True)
            for name in found[at].static
        }
        joined.append(
            Chosen(
                head=head,
                accuracy=_accuracy(head, task, mode),
                failed=tuple(failed),
                learned={**result.learned, **whole},
                seconds=seconds if at == 0 else {},
            )
        )
    notes += _weights_note(weights)
    return [replace(joined[0], notes=tuple(notes)), *joined[1:]]


def _weights_note(weights: Sequence[Mapping[str, float]]) -> list[str]:
    """Say how members weigh, on average over tasks; nothing where all weigh alike."""
    names = weights[0]
    if all(len(set(one.values())) == 1 for one in weights):
        return []
    means = {name: sum(one[name] for one in weights) / len(weights) for name in names}
    told = [f"{n} {w:.2f}" for n, w in sorted(means.items(), key=lambda p: -p[1]) if w >= 0.005]
    others = [name for name, w in means.items() if w < 0.005]
    rest = f"; nothing or hardly anything: {', '.join(others)}" if others else ""
    return [f"Weights of the members: {', '.join(told)}{rest}."]


def _task_of(method: AnyMethod, config: Any, task: Episode) -> Episode:
    kinds = kinds_of(method, config, "query")
    val = None if task.val is None else rows_with(task.val, kinds)
    return replace(task, view=view_of(method, config, task.view), val=val)


def trained_member(
    member: Member, head: Fitted, logits: Float[Tensor, "n c"] | None = None
) -> TrainedMember:
    """Return a member with everything that answers need of its head.

    Args:
        member: The member.
        head: What it learned.
        logits: Its answers to validation rows; None where there are none.
    """
    kept = head.kept()
    return TrainedMember(
        member=member,
        hyper=hyper_values(kept.hyper),
        params=kept.params,
        fixed=kept.fixed,
        validated=logits,
    )


def _as_chosen(member: Member, chosen: Chosen) -> Member:
    """Return a member whose settings name the whole numbers that were chosen, too."""
    static = tuple((name, str(getattr(chosen.head.config, name))) for name in chosen.static)
    given = tuple(pair for pair in member.settings if pair[0] not in dict(static))
    return replace(member, settings=tuple(sorted((*given, *static))))


def _validated(
    head: Fitted, task: Episode, mode: str
) -> tuple[Float[Tensor, "n c"] | None, Int64[Tensor, " n"] | None]:
    """Return the logits of rows that a member was not trained on, and their labels."""
    if mode == "none":
        return None, None
    if mode != "cv":
        assert task.val is not None, "a selection by validation rows has some"
        return head.logits(task.val), task.val.y
    kinds = kinds_of(head.method, head.config, "query")
    parts = refitted(head, task.view)
    return (
        torch.cat([one.logits(rows_with(rows, kinds)) for one, rows in parts]),
        torch.cat([rows.y for _, rows in parts]),
    )


def _accuracy(head: Fitted, task: Episode, mode: str) -> float | None:
    """Return the accuracy on validation rows; None under `cv`, whose folds have other heads."""
    if mode in ("none", "cv") or task.val is None:
        return None
    return head.accuracy(task.val)

"""Selection for a method made of others: each member is chosen by itself, then they are joined.

What joins them (weights, temperatures) is learned on rows that no member was trained on: the
validation rows, or under `cv` the held-out rows of folds, each answered by members that were
trained on the other folds at the values chosen before.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from heads import registry
from heads.contract.members import Composition, Member, TrainedMember, rows_with, view_with
from heads.contract.method import AnyMethod, Role
from heads.contract.rows import Kind, TaskView
from heads.contract.settings import hyper_values
from heads.episode import Episode
from heads.fitted import Fitted, answers
from heads.selection.chosen import Chosen
from heads.selection.refitting import refitted
from heads.selection.settings import Settings, configure

Alone: TypeAlias = Callable[[AnyMethod, Settings, Sequence[Episode]], list[Chosen]]
"""Choose and train a member on every task, as if it were alone."""


def resolved(
    composition: Composition, settings: Settings
) -> list[tuple[Member, AnyMethod, Settings]]:
    """Return every member with its method and settings."""
    members = composition.members(settings.config)
    methods = [registry.get(member.name) for member in members]
    return [
        (member, method, configure(method, dict(member.settings), shots=settings.shots))
        for member, method in zip(members, methods, strict=True)
    ]


def reads_weights(method: AnyMethod, settings: Settings) -> bool:
    """Tell whether class weights change anything for a method or any of its members."""
    if method.composition is None:
        return method.reads_weights(settings.config)
    inside = resolved(method.composition, settings)
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
        TrainingError: If a member could not be trained.
    """
    composition = method.composition
    assert composition is not None
    chosen: list[list[Chosen]] = []
    trained: list[list[TrainedMember]] = [[] for _ in tasks]
    labels: list[Int64[Tensor, " n"] | None] = [None for _ in tasks]
    notes: list[str] = []
    for member, inner, own in resolved(composition, settings):
        seen = [_task_of(inner, own.config, task) for task in tasks]
        found = alone(inner, own, seen)
        chosen.append(found)
        said = inner.notes([one.watch for one in found])
        notes += [f"{member.label}: {note}" for note in said]
        for at, (one, task) in enumerate(zip(found, seen, strict=True)):
            logits, labels[at] = _validated(one.head, task, mode)
            trained[at].append(_trained(member, one, logits))
    if mode == "none" and composition.validates(settings.config):
        notes.append("Without validation the probabilities of the members are not calibrated.")
    joined = []
    for at, task in enumerate(tasks):
        result = composition.join(settings.config, trained[at], labels[at])
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
                notes=tuple(notes) if at == 0 else (),
            )
        )
    return joined


def _task_of(method: AnyMethod, config: Any, task: Episode) -> Episode:
    kinds = kinds_of(method, config, "query")
    val = None if task.val is None else rows_with(task.val, kinds)
    return replace(task, view=view_of(method, config, task.view), val=val)


def _trained(member: Member, chosen: Chosen, logits: Tensor | None) -> TrainedMember:
    """Return a member with everything that answers need, whole numbers that were chosen too."""
    head = chosen.head
    static = tuple((name, str(getattr(head.config, name))) for name in chosen.static)
    given = tuple(pair for pair in member.settings if pair[0] not in dict(static))
    return TrainedMember(
        member=replace(member, settings=tuple(sorted((*given, *static)))),
        hyper=hyper_values(head.hyper),
        params=head.params,
        fixed={n: t for n, t in head.fixed.items() if n not in head.method.training_only},
        validated=logits,
    )


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
    correct = answers(head.logits(task.val)) == task.val.y
    return float(correct.double().mean())

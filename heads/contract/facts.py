"""Facts: what of the features changes a branch of a method and is neither a tensor nor a setting.

A method that computes with the last block of a backbone has to know its attention heads and its
activation. No tensor can hold them, because equations branch on them, and no user sets them. Such a
method names them (`Method.facts`), and has a subclass of its Config with a field for each
(`Method.bound`). Training puts the facts of its task in; a kept head holds them beside settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from heads.contract.rows import TaskView

if TYPE_CHECKING:
    from heads.contract.method import AnyMethod


def bind(method: "AnyMethod", config: Any, tasks: Sequence[TaskView]) -> Any:
    """Return the Config of a method with the facts of tasks, which share their features.

    Args:
        method: The method.
        config: Its Config, with facts or without.
        tasks: What is trained on.
    """
    facts = method.facts(tasks[0], config) if tasks else {}
    return with_facts(method, config, facts) if facts else config


def with_facts(method: "AnyMethod", config: Any, facts: Mapping[str, Any]) -> Any:
    """Return a Config with facts, which may come from a file.

    Raises:
        TypeError: If the method has no such facts, or others are missing.
        ValueError: If one is out of range.
    """
    if method.bound is None:
        raise TypeError(f"{method.name} has no facts")
    return method.bound(**settings_of(method, config), **facts)


def settings_of(method: "AnyMethod", config: Any) -> dict[str, Any]:
    """Return what users set of a Config, by name."""
    return {f.name: getattr(config, f.name) for f in fields(method.config)}


def facts_of(method: "AnyMethod", config: Any) -> dict[str, Any]:
    """Return the facts of a Config, by name; none before they were put in."""
    own = settings_of(method, config)
    return {f.name: getattr(config, f.name) for f in fields(config) if f.name not in own}

"""The call that trains a reference which a table lacks."""

from typing import Any

from featcache.wording import Call, Setting
from heads.results.record import FEW_SHOT, Result

OF_THE_RUN = ("augment", "class_weights")
"""Parts of a name that are arguments of the call; the others are settings of the method."""


def training(name: str, like: Result) -> Call | None:
    """Compose the call that makes a run of this name beside another one.

    Args:
        name: A method, followed by its settings after spaces, as rows of tables are named.
        like: A run of the table that the new run should join.

    Returns:
        The call; None where the queries are a list of episodes, batches or streams, which the
        call would have to name.
    """
    if like.protocol != FEW_SHOT and like.shots != 0:
        return None
    method, *settings = name.split()
    arguments: dict[str, Any] = {
        "method": method,
        "cache": Call("featcache.open", {"dataset": like.dataset, "backbone": like.backbone}),
    }
    if like.shots != 0:
        arguments["shots"] = like.shots
    arguments["split"] = like.split
    if like.profile:
        arguments["support"] = like.profile
    for setting in settings:
        key, _, value = setting.partition("=")
        arguments[key] = value if key in OF_THE_RUN else Setting(key, value)
    return Call("heads.evaluate", arguments)

"""Train a method on a cache and evaluate it: the protocol follows from what the method reads.

labelled images     few_shot       K shots a class, one repetition a seed
a corpus alone      corpus_only    its rows and pseudo-labels; also at 0 shots of other methods
unlabelled images   unsupervised   all images of train
neither             zero_shot      class texts alone
"""

from collections.abc import Sequence
from typing import Any

from featcache.errors import UsageError
from featcache.progress import Report
from featcache.wording import Argument
from heads.protocols import calibrating, corpus_only, few_shot, unsupervised, zero_shot
from heads.protocols.evaluation import Trained, measure
from heads.protocols.plan import Plan, Request
from heads.results.record import Result
from heads.selection.settings import configure


def plan(request: Request) -> Plan:
    """Plan a run by the protocol that fits what the method reads, and what calibrates its heads.

    Raises:
        UnknownNameError: If the method, a setting or the selection is unknown.
        UsageError: If the method needs a corpus and none is named, or cannot learn from one.
        TaskError: If the data set allows no such task.
    """
    return calibrating.with_held(_plan(request), request.calibrate_on)


def _plan(request: Request) -> Plan:
    method = request.resolve()
    config = configure(method, request.settings, shots=request.shots).config
    roles = {need.role for need in method.needs(config)}
    if "support" in roles and request.shots != 0:
        return few_shot.plan(request)
    if roles & {"support", "corpus"}:
        return corpus_only.plan(request)
    if request.augment is not None:
        raise UsageError(
            f"Method '{method.name}' reads no labelled training images, so a corpus would change "
            f"nothing. Leave out ",
            Argument("augment"),
            ".",
        )
    return unsupervised.plan(request) if "pool" in roles else zero_shot.plan(request)


def train(
    method: str,
    *,
    split: str | Sequence[str] = "test",
    device: str = "auto",
    progress: Report | None = None,
    **wanted: Any,
) -> Trained:
    """Train a method and evaluate it.

    Args:
        method: A method's name.
        split: Where the queries come from; the heads are trained once and judged on each.
        device: auto, cpu, cuda, cuda:1, ...
        progress: Told of every finished run.
        wanted: The other fields of `Request`: features, shots, seeds, selection, settings, ...

    Returns:
        One record a query set, and the heads behind them.

    Raises:
        UnknownNameError: If the method, split, setting or selection is unknown.
        TaskError: If the data set allows no such task.
        MissingComponentError: If the cache lacks what the method needs.
        TrainingError: If no grid point could be trained.
    """
    splits = (split,) if isinstance(split, str) else tuple(split)
    request = Request(method=method, splits=splits, **wanted)
    return measure(plan(request), device=device, progress=progress)


def run(method: str, **wanted: Any) -> Result:
    """Train a method, evaluate it on one split and return the record; arguments as `train`."""
    return train(method, **wanted).result

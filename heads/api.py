"""The front door: `heads.fit`, `evaluate`, `load`, `predict`, `compare` and `sweep`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

from featcache.types import FeatureSet
from heads import kept
from heads.answering import encoded_by
from heads.head import Head
from heads.predicting import predict
from heads.protocols import evaluation, obtain, training
from heads.protocols.plan import Request
from heads.protocols.sweep import sweep
from heads.results import named
from heads.results.compare.compare import Comparison
from heads.results.compare.compare import compare as compare_runs
from heads.results.record import Result
from heads.results.store import runs_root
from heads.whole import seeds_of, shots_of, whole

__all__ = ["compare", "evaluate", "fit", "load", "predict", "sweep"]


def fit(
    method: str,
    cache: FeatureSet,
    *,
    shots: int | Literal["usual"] | None = "usual",
    seed: int = 1,
    selection: str = "few-shot-val",
    augment: str | None = None,
    support: str | None = None,
    calibrate_on: str = "auto",
    device: str = "auto",
    **settings: Any,
) -> Head:
    """Train a head on a cache; no query is read.

    Args:
        method: A method's name.
        cache: From `featcache.open`.
        shots: Images a class; None takes all of `train`, 0 none: a corpus alone; `usual` what the
            method says: 16, or all of it.
        seed: Seed of the draw of the shots.
        selection: How hyper-parameters are chosen.
        augment: `corpus:NAME` or `corpus:NAME:weight=W`: the rows of a corpus of the cache join the
            support, or are read by methods that need a corpus.
        support: How many images each class gives, where not `shots` each: `long-tail:0.01`,
            `counts:FILE` (docs/results.md).
        calibrate_on: Labelled images that say how sure it is (docs/certainty.md): auto (validation
            images that are left over), half-val (half of those of full-val, too), folds (of the
            shots; trains up to four further heads), none.
        device: auto, cpu, cuda, cuda:1, ...
        settings: Fields of the method's Config and Hyper; several values make a grid.

    Raises:
        UsageError: If shots or seed is no whole number, or the method cannot learn from a corpus.
        UnknownNameError: If the method, a setting, selection, calibration or corpus is unknown.
        TaskError: If the data set allows no such task.
        MissingComponentError: If the cache lacks what the method needs.

    Example:
        >>> import featcache, heads
        >>> cache = featcache.open("fieldguide", "tiny")
        >>> head = heads.fit("ridge", cache, shots=4)
        >>> len(head.classes)
        24
    """
    plan = training.plan(
        Request(
            method=method,
            features=cache,
            shots=shots_of(shots),
            seeds=(whole("seed", seed),),
            selection=selection,
            support=support,
            settings=settings,
            augment=augment,
            calibrate_on=calibrate_on,
        )
    )
    return evaluation.fit(plan, device=device)[0]


@overload
def evaluate(method: str, cache: FeatureSet, *, split: str = ..., **wanted: Any) -> Result: ...
@overload
def evaluate(
    method: str, cache: FeatureSet, *, split: Sequence[str], **wanted: Any
) -> list[Result]: ...
def evaluate(
    method: str,
    cache: FeatureSet,
    *,
    split: str | Sequence[str] = "test",
    shots: int | Literal["usual"] | None = "usual",
    seeds: int | Sequence[int] = 3,
    selection: str = "few-shot-val",
    class_weights: str | Sequence[float] | None = None,
    augment: str | None = None,
    support: str | None = None,
    calibrate_on: str = "auto",
    device: str = "auto",
    root: Path | str | None = None,
    again: bool = False,
    keep_heads: bool = True,
    **settings: Any,
) -> Result | list[Result]:
    """Train a method, evaluate it, store the run and return its record, as `heads train` does.

    Args:
        method: A method's name.
        cache: From `featcache.open`.
        split: Split of the queries, or several; the heads are trained once and evaluated on each.
        shots: Images a class; None takes all of `train`, 0 none: a corpus alone; `usual` what the
            method says: 16, or all of it.
        seeds: Draws of the shots: their number, or the seeds themselves.
        selection: How hyper-parameters are chosen.
        augment: `corpus:NAME` or `corpus:NAME:weight=W`: the rows of a corpus of the cache join the
            support, or are read by methods that need a corpus.
        class_weights: None, `balanced`, or one number a class.
        support: As `fit`.
        calibrate_on: As `fit`.
        device: auto, cpu, cuda, cuda:1, ...
        root: Folder of all runs; the usual one if not given.
        again: Repeat a run that is stored already; otherwise that one is returned.
        keep_heads: Keep the heads beside the record.
        settings: Fields of the method's Config and Hyper; several values make a grid.

    Returns:
        One record for a split, a list for a sequence of splits.

    Raises:
        UsageError: If shots or a seed is no whole number, or the method cannot learn from a corpus.
        UnknownNameError: If the method, split, a setting, selection, calibration or corpus is
            unknown.
        TaskError: If the data set allows no such task.
        MissingComponentError: If the cache lacks what the method needs.

    Example:
        >>> import featcache, heads
        >>> cache = featcache.open("fieldguide", "tiny")
        >>> result = heads.evaluate("ridge", cache, shots=4, seeds=2)
        >>> 0.0 < result.metrics["top1"].mean < 1.0
        True
    """
    runs = runs_root(None if root is None else Path(root))
    request = Request(
        method=method,
        features=cache,
        shots=shots_of(shots),
        seeds=seeds_of(seeds),
        splits=(split,) if isinstance(split, str) else tuple(split),
        selection=selection,
        settings=settings,
        class_weights=class_weights,
        augment=augment,
        support=support,
        calibrate_on=calibrate_on,
    )
    obtained = obtain.obtain(
        training.plan(request), runs, again=again, keep_heads=keep_heads, device=device
    )
    for one in obtained:
        obtain.save(one, runs)
    results = [one.result for one in obtained]
    return results[0] if isinstance(split, str) else results


def load(
    name: Path | str | named.Named,
    *,
    root: Path | str | None = None,
    backbone: str | None = None,
    weights: str | None = None,
) -> Head:
    """Read a head from a file, or from a run: `RUN@SEED`, or `last`.

    Args:
        name: A file that `Head.save` wrote; the name of a run and the seed of its head; `last`, the
            first head of the run stored last; or what `heads.results.named.find` found.
        root: Folder of all runs; the usual one if not given.
        backbone: The backbone that encodes images for it, as `featcache.open` names it; needed
            where only a file names a place outside of what is published (`hf-hub:`, `local-dir:`).
        weights: Its weights, where those are a file.

    Raises:
        HeadError: If the file is no head, or the run keeps none.
        UnknownNameError: If there is no such run.

    Example:
        >>> import featcache, heads
        >>> head = heads.fit("ridge", featcache.open("fieldguide", "tiny"), shots=4)
        >>> heads.load(head.save("moths.head")).classes == head.classes
        True
    """
    if isinstance(name, named.Named):
        head = kept.read(name.folder, name.seed)
    elif (path := named.as_file(name)) is not None:
        head = Head.load(path)
    else:
        head = kept.load(runs_root(None if root is None else Path(root)), str(name))
    return encoded_by(head, backbone, weights)


def compare(*, root: Path | str | None = None, **only: Any) -> Comparison:
    """Compare the runs that are stored, as `heads compare` does.

    Args:
        root: Folder of all runs; the usual one if not given.
        only: Filters dataset, backbone, split and shots, each a list of values to keep; and
            against, the method that the others are compared with; metric, what they are ranked by
            and compared in: top1, balanced_accuracy or macro_f1.

    Example:
        >>> import heads
        >>> comparison = heads.compare(dataset=["fieldguide"])
        >>> comparison.problems
        ()
    """
    return compare_runs(runs_root(None if root is None else Path(root)), **only)

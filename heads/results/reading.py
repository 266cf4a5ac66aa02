"""Reading a record back from JSON that may come from somebody else; every field is checked."""

import json
import math
from collections.abc import Mapping
from typing import Any, get_args

from featcache.errors import ImportedFileError, NewerFormatError
from heads.results.fields import WHOLE, Fields
from heads.results.record import (
    ANSWERED,
    CLASSES,
    FEW_SHOT,
    FORMAT,
    REPETITIONS,
    Certainty,
    CorpusUse,
    IntervalOf,
    Metric,
    Result,
    Support,
)


def from_json(text: str, *, where: str = "The record") -> Result:
    """Read a record from one line of JSON.

    Args:
        text: One JSON object.
        where: Name of the file in messages.

    Raises:
        ImportedFileError: If the text is not a record.
        NewerFormatError: If a later version of this program wrote it.
    """
    try:
        raw = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ImportedFileError(
            f"{where} is not JSON ({error}); delete that run and train it again."
        ) from error
    if not isinstance(raw, dict):
        raise ImportedFileError(f"{where} should be a JSON object, got {type(raw).__name__}.")
    return from_dict(raw, where=where)


def from_dict(raw: Mapping[str, Any], *, where: str = "The record") -> Result:
    """Read a record from JSON values, checking every field; arguments and errors as `from_json`."""
    f = Fields(raw, where)
    version = f.integer("format", least=1)
    if version > FORMAT:
        raise NewerFormatError(
            f"{f.where} has format {version}, this program reads up to {FORMAT}. "
            f"Upgrade featcache to read it."
        )
    shots = f.raw.get("shots")
    result = Result(
        method=f.name("method"),
        variant=f.text("variant"),
        dataset=f.text("dataset"),
        backbone=f.text("backbone"),
        split=f.text("split"),
        shots=None if shots == "all" else f.integer("shots", 0, 10**9),
        seeds=tuple(
            f.count(seed, "seeds", -WHOLE, WHOLE) for seed in f.sequence("seeds", REPETITIONS)
        ),
        protocol=f.text("protocol"),
        selection=f.text("selection"),
        config={k: f.scalar(v, "config") for k, v in f.mapping("config").items()},
        chosen=tuple(f.numbers(point, "chosen") for point in f.sequence("chosen", REPETITIONS)),
        metrics={
            k: _read_metric(f.inside("metrics", k, v)) for k, v in f.mapping("metrics").items()
        },
        zero_shot_top1=f.optional_number("zero_shot_top1", 0.0, 1.0),
        seconds=f.numbers(f.mapping("seconds"), "seconds", 0.0, 1e9),
        run=f.name("run"),
        key=f.text("key"),
        versions={
            k: f.whole(f.check(v, str, "versions"), "versions")
            for k, v in f.mapping("versions").items()
        },
        classes=f.integer("classes", 1, CLASSES),
        queries=f.integer("queries", 1, ANSWERED),
        ids=f.text("ids"),
        created=f.text("created"),
        source=f.text("source") if "source" in f.raw else "",
        texts=f.text("texts") if "texts" in f.raw else "",
        reads=f.texts("reads") if "reads" in f.raw else (),
        notes=f.texts("notes"),
        support=_read_support(f),
        corpus=_read_corpus(f),
        certainty=_read_certainty(f),
        draws=f.text("draws") if "draws" in f.raw else "",
        unreadable=f.integer("unreadable", 0, WHOLE) if "unreadable" in f.raw else 0,
        spec=f.text("spec") if "spec" in f.raw else "",
        fit=f.text("fit") if "fit" in f.raw else "",
        version=f.integer("version", 1, WHOLE) if "version" in f.raw else 1,
    )
    if "top1" not in result.metrics:
        raise f.wrong("metrics", "an entry 'top1'", sorted(result.metrics))
    if len({len(m.values) for m in result.metrics.values()}) != 1:
        raise f.wrong("metrics", "as many values for every metric", "different numbers")
    if result.certainty is not None and len(result.certainty.ece) != result.repetitions:
        raise f.wrong("certainty", "one value a repetition", f"{len(result.certainty.ece)}")
    if result.repetitions * result.queries > ANSWERED:
        raise f.wrong("queries", f"at most {ANSWERED} in all repetitions", result.queries)
    if result.protocol == FEW_SHOT and len(result.seeds) != result.repetitions:
        raise f.wrong("seeds", "one a repetition", f"{len(result.seeds)}")
    return result


def _read_support(f: Fields) -> Support | None:
    raw = f.raw.get("support")
    if raw is None:
        return None
    inner = f.inside("", "support", raw)
    support = Support(
        smallest=inner.integer("smallest", 0, ANSWERED),
        largest=inner.integer("largest", 1, ANSWERED),
        whole=inner.check(raw.get("whole"), bool, "whole"),
        stored=inner.check(raw.get("stored"), bool, "stored"),
    )
    if support.smallest > support.largest:
        raise inner.wrong("smallest", f"at most {support.largest}", support.smallest)
    return support


def _read_corpus(f: Fields) -> CorpusUse | None:
    raw = f.raw.get("corpus")
    if raw is None:
        return None
    inner = f.inside("", "corpus", raw)
    return CorpusUse(
        name=inner.name("name"),
        digest=inner.text("digest"),
        rows=inner.integer("rows", 1, WHOLE),
        weight=inner.number(raw.get("weight"), "weight", 0.0, 1000.0),
        leaks=inner.check(raw.get("leaks"), bool, "leaks"),
    )


def _read_certainty(f: Fields) -> Certainty | None:
    raw = f.raw.get("certainty")
    if raw is None:
        return None
    inner = f.inside("", "certainty", raw)

    def numbers(name: str, most: float) -> tuple[float, ...]:
        values = inner.sequence(name, REPETITIONS)
        return tuple(inner.number(value, name, 0.0, most) for value in values)

    certainty = Certainty(
        kind=inner.text("kind"),
        rows=inner.integer("rows", 0, WHOLE),
        temperature=numbers("temperature", math.inf),
        ece_before=numbers("ece_before", 1.0),
        ece=numbers("ece", 1.0),
        rule=inner.text("rule"),
        asked=inner.number(raw.get("asked"), "asked", 0.0, 1.0),
        covered=numbers("covered", 1.0),
        size=numbers("size", float(CLASSES)),
    )
    if certainty.kind not in ("", "split", "cross"):
        raise inner.wrong("kind", "split, cross or empty", certainty.kind)
    lengths = {len(certainty.temperature), len(certainty.ece_before), len(certainty.ece)}
    if len(lengths) > 1 or {len(certainty.covered), len(certainty.size)} - {0, *lengths}:
        raise inner.wrong("ece", "as many values as the others", len(certainty.ece))
    return certainty


def _read_metric(f: Fields) -> Metric:
    values = tuple(f.number(v, "values", 0.0, 1.0) for v in f.sequence("values", REPETITIONS))
    if not values:
        raise f.wrong("values", "one number a repetition", "none")
    interval = f.text("interval")
    if interval not in get_args(IntervalOf):
        raise f.wrong("interval", f"one of {', '.join(get_args(IntervalOf))}", interval)
    return Metric(
        mean=f.number(f.raw.get("mean"), "mean", 0.0, 1.0),
        ci95=f.optional_number("ci95", 0.0, 1000.0),
        values=values,
        interval=interval,  # type: ignore[arg-type]  # one of them, checked above
    )


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")

"""One sentence on a run, for people."""

from typing import TYPE_CHECKING

from cli.ui import units
from featcache.counts import counted

if TYPE_CHECKING:
    from heads.results.record import Result

ORDERED = ("batches", "stream")
"""Protocols whose queries come in batches or in an order."""
UNITS = {"batches": ("batch", "batches"), "stream": ("stream", "streams")}


def sentence(result: "Result") -> str:
    """Say what a run measured."""
    from heads.results.render import cells, certainty

    top1, f1 = result.metrics["top1"], result.metrics["macro_f1"]
    balanced = result.metrics["balanced_accuracy"]
    shots = result.shots_text
    over = cells.scope(top1.interval, of_one_draw=result.shots != 0)
    ci = "" if top1.ci95 is None else f" ± {100 * top1.ci95:.1f} (95 %, {over})"
    if result.ways is not None:
        shots = f"{result.repetitions} episodes of {result.ways} classes, {shots}"
    if (corpus := result.corpus) is not None:
        weight = "" if corpus.weight == 1 else f", weight {corpus.weight:g}"
        shots = f"{shots} and corpus {corpus.name}{weight}"
    if result.protocol in ORDERED:
        shots = f"{counted(result.repetitions, *UNITS[result.protocol])}, {shots}"
    text = (
        f"{result.method} on {result.dataset} ({result.backbone}, {shots}, {result.split}): "
        f"top-1 {100 * top1.mean:.1f} %{ci}, balanced accuracy {100 * balanced.mean:.1f} %, "
        f"macro F1 {100 * f1.mean:.1f} %"
    )
    if (tail := result.metrics.get("tail_top1")) is not None:
        text += f", worst tenth of the streams {100 * tail.mean:.1f} %"
    if result.zero_shot_top1 is not None and (result.shots != 0 or result.protocol in ORDERED):
        text += f", zero-shot {100 * result.zero_shot_top1:.1f} %"
    if result.certainty is not None:
        text += f", {certainty.sureness(result.certainty)}"
    if result.unreadable:
        text += f", {counted(result.unreadable, 'unreadable image')} not counted"
    took = result.seconds["fit"] + result.seconds["evaluate"]
    seen = " (chosen on the queries: not a fair figure)" if result.oracle else ""
    seen += " (the corpus holds queries: not a fair figure)" if result.leaks else ""
    return f"{text}; {units.human_seconds(took)}, selection {result.selection}{seen}"

"""`heads info`: describe one run, or one trained head."""

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.ui import output, tables, units
from cli.ui.options import Json, RunsDir

if TYPE_CHECKING:
    from heads.head import Head
    from heads.results.overview import RunSummary


def info(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FILE",
            help="A run, one of its heads (RUN@SEED), the file of a head, or `last`.",
        ),
    ],
    runs: RunsDir = None,
    json_: Json = False,
) -> None:
    """Describe a run and the heads that it keeps, or one head: what it reads, knows and holds.

    \b
    Example: heads info last
    Example: heads info moths.head
    """
    from heads.results import named, store
    from heads.results.overview import summarise
    from heads.results.store import runs_root

    root = runs_root(runs)
    path = named.as_file(name)
    if path is None and "@" not in name:
        folder = store.find(root, named.last_run(root) if name == named.LAST else name)
        summary = summarise(store.load(folder, predictions=False), folder)
        _emit(summary.to_json(), _run_rows(summary), summary.result.run, json_=json_)
        return
    if path is None:
        path = named.find(root, name).path
    from heads.api import load

    head = load(name, root=runs)
    facts = _facts(head, path)
    _emit(facts, _head_rows(head, facts), head.method.name, json_=json_)


def _emit(facts: dict[str, Any], rows: list[tuple[str, str]], title: str, *, json_: bool) -> None:
    if json_:
        output.emit_json(facts)
    else:
        tables.emit_table(("", title), rows)


def _run_rows(summary: "RunSummary") -> list[tuple[str, str]]:
    from heads.results.render.cells import protocol_text

    result = summary.result
    protocol, top1 = protocol_text(result.protocol), result.metrics["top1"]
    ci = "" if top1.ci95 is None else f" ± {100 * top1.ci95:.1f}"
    rows = [
        ("path", str(summary.folder)),
        ("created", _when(result.created)),
        ("data", f"{result.dataset}, {result.backbone}, key {result.key}"),
        ("method", summary.method_text),
        ("protocol", f"{protocol}, {result.shots_text}, selection {result.selection}"),
        ("top-1 %", f"{100 * top1.mean:.1f}{ci} on {result.split} ({result.queries} queries)"),
        ("reads", ", ".join(result.reads)),
        ("marks", ", ".join(result.marks)),
        ("size", units.human_bytes(summary.bytes)),
    ]
    if summary.heads:
        names = units.some([f"{result.run}@{seed}" for seed in summary.heads])
        rows.append(("heads", f"{names}; {units.human_bytes(summary.head_bytes)}"))
        rows.append(("hold", _held(summary.holds)))
    else:
        rows.append(("heads", "none of its own"))
    rows += [("note", note) for note in result.notes]
    return [(name, value) for name, value in rows if value]


def _when(created: str) -> str:
    """Write the time of a record as caches show theirs; as it stands where it is no time."""
    with suppress(ValueError, OverflowError, OSError):
        return units.human_time(datetime.fromisoformat(created))
    return created


def _facts(head: "Head", path: Path) -> dict[str, Any]:
    """Describe a head as one plain object."""
    from dataclasses import asdict

    from heads.contract.settings import hyper_values

    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "method": head.method.name,
        "version": head.method.version,
        "config": asdict(head.fitted.config),
        "hyper": hyper_values(head.fitted.hyper),
        "members": [member.label for member in head.members],
        "classes": list(head.classes),
        "dataset": head.dataset,
        "backbone": head.backbone,
        "key": None if head.key is None else head.key.digest(),
        "reads": ["global", *head.reads],
        "width": head.width,
        "temperature": head.temperature,
        "calibration": None
        if head.calibration is None
        else {"kind": head.calibration.kind, "rows": head.calibration.rows},
        "texts": head.texts,
        "holds_training_features": list(head.holds),
        "about": dict(head.about),
    }


def _head_rows(head: "Head", facts: dict[str, Any]) -> list[tuple[str, str]]:
    from heads.results.render.cells import protocol_text

    settings = {**facts["config"], **facts["hyper"]}
    rows = [
        ("path", facts["path"]),
        ("size", units.human_bytes(facts["bytes"])),
        ("trained on", ", ".join(filter(None, (head.dataset, head.backbone)))),
        ("key", facts["key"] or "none: plain arrays"),
        ("classes", units.some(head.classes)),
        ("reads", ", ".join(facts["reads"])),
        ("width", str(head.width or "")),
        ("settings", ", ".join(f"{name}={value}" for name, value in settings.items())),
        ("members", ", ".join(facts["members"])),
        ("temperature", f"{head.temperature:g}"),
        ("calibrated", _calibrated(head)),
        ("holds", _held(head.holds)),
    ]
    shown = ("run", "protocol", "shots", "seed", "selection")
    about = {name: str(head.about[name]) for name in shown if name in head.about}
    if "protocol" in about:
        about["protocol"] = protocol_text(about["protocol"])
    rows += about.items()
    return [(name, value) for name, value in rows if value]


def _calibrated(head: "Head") -> str:
    """Say how many images the sets of a head stand on."""
    from featcache.counts import counted

    if head.calibration is None:
        return "no prediction sets"
    rows = counted(head.calibration.rows, "image")
    folds = len(head.calibration.parts)
    return f"on {rows}" if head.calibration.kind == "split" else f"on {rows} in {folds} folds"


def _held(holds: tuple[str, ...]) -> str:
    return f"features of training images ({', '.join(holds)})" if holds else "no training features"

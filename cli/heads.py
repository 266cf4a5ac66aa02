"""`heads`: train, evaluate and compare small heads on cached features."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import _ui as ui
from cli._ui import CacheDir, Json, OfKey, Quiet

if TYPE_CHECKING:
    from heads.results.record import Result

app = ui.make_app(
    "Train and evaluate small heads on cached features, in seconds, without the encoder.\n\n"
    "Example: heads train cmm --shots 16"
)

RunsDir = Annotated[
    Path | None,
    typer.Option("--runs", help="Results; else $FEATCACHE_HOME/runs, else your data folder."),
]


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="A method's name; `heads list` shows them.")],
    shots: Annotated[str, typer.Option(help="Images per class, or 'all'.")] = "16",
    dataset: Annotated[
        str | None, typer.Option(help="Data set; the cache finished last where not given.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Backbone of the cache.")] = None,
    key: OfKey = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="N draws: seeds 1..N.")] = 3,
    split: Annotated[str, typer.Option(help="The test split to evaluate.")] = "test",
    selection: Annotated[
        str, typer.Option(help="few-shot-val, full-val, k-shot-val, cv, none or oracle.")
    ] = "few-shot-val",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method; repeatable."),
    ] = None,
    class_weights: Annotated[
        str | None, typer.Option(help="balanced: weigh rows by the inverse of their class's count.")
    ] = None,
    strict_shots: Annotated[
        bool, typer.Option("--strict-shots", help="Stop where a class has fewer images.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    cache: CacheDir = None,
    runs: RunsDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Train METHOD on cached features and evaluate it.

    Example: heads train cmm --shots 16
    """
    from featcache.errors import UnknownNameError, UsageError
    from heads.core.registry import names

    if method not in names():  # before torch is loaded
        raise UnknownNameError("method", method, names(), "`heads list` shows all.")
    if class_weights not in (None, "balanced"):
        raise UsageError(f"--class-weights takes 'balanced', got '{class_weights}'.")
    wanted, settings = _shots(shots), ui.pairs(set_ or ())

    from featcache.store.library import cache_root, find_cache
    from heads.protocols import few_shot
    from heads.results.store import check_writable, runs_root, save

    opened = find_cache(cache_root(cache), dataset, backbone, key)
    check_writable(runs_root(runs))
    with ui.live(quiet) as line:
        if dataset is None or backbone is None:
            last = ", finished last" if dataset is None else ""
            line.say(f"Using the cache of {opened.dataset} with {opened.backbone}{last}.")
        result = few_shot.run(
            method,
            feature_set=opened.feature_set(),
            shots=wanted,
            seeds=range(1, seeds + 1),
            split=split,
            selection=selection,
            settings=settings,
            strict_shots=strict_shots,
            class_weights=class_weights,
            device=device,
            progress=line.counter(),
        )
        for note in result.notes:
            line.say(note)
    folder = save(result, runs_root(runs))
    if json_:
        ui.emit(result.to_json())
    else:
        ui.emit(_sentence(result))
        ui.emit(str(folder))


@app.command("list")
def list_methods(json_: Json = False) -> None:
    """List the methods and where their equations come from.

    Example: heads list
    """
    from heads.core.registry import describe

    if json_:
        for item in describe():
            ui.emit_json({"name": item.name, "summary": item.summary, "source": item.source})
        return
    ui.emit_table(("method", "idea", "source"), [(d.name, d.summary, d.source) for d in describe()])


@app.command()
def compare(
    dataset: Annotated[str | None, typer.Option(help="Only this data set.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Only this backbone.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this test split.")] = None,
    shots: Annotated[
        list[str] | None, typer.Option(help="Only these shots; repeatable, or 'all'.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Tables in Markdown.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="One line a run, every digit.")] = False,
    where: Annotated[bool, typer.Option("--where", help="Say where the files are.")] = False,
    cache: CacheDir = None,
    runs: RunsDir = None,
    json_: Json = False,
) -> None:
    """Compare what was trained: top-1 with intervals, and paired against zero-shot.

    Example: heads compare --dataset fieldguide
    """
    from featcache.errors import CacheNotFoundError, UsageError
    from featcache.store.library import cache_root
    from heads.results import tables
    from heads.results.store import runs_root

    if markdown + csv + json_ > 1:
        raise UsageError("--markdown, --csv and --json exclude each other; choose one.")
    root = runs_root(runs)
    found = tables.compare(
        root,
        dataset=dataset,
        backbone=backbone,
        split=split,
        shots=None if not shots else [_shots(s) for s in shots],
    )
    for problem in found.problems:
        ui.say(problem)
    if not found.groups:
        raise CacheNotFoundError(
            f"No runs in {root} fit. Train one with: heads train cmm --shots 16"
        )
    if json_:
        for row in tables.as_dicts(found.groups):
            ui.emit_json(row)
    elif csv:
        ui.emit(tables.to_csv(found.groups).rstrip("\n"))
    elif markdown:
        ui.emit(tables.to_markdown(found.groups).rstrip("\n"))
    else:
        for group in found.groups:
            ui.emit(group.title)
            ui.emit_table(
                tables.COLUMNS, [tables.cells(row) for row in group.rows], right=("seconds",)
            )
    if where:
        ui.say(f"Features: {cache_root(cache)}\nResults:  {root}")


def _shots(text: str) -> int | None:
    from featcache.errors import UsageError

    if text == "all":
        return None
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--shots takes a whole number from 1, or 'all'; got '{text}'.")
    return int(text)


def _sentence(result: "Result") -> str:
    top1, f1 = result.metrics["top1"], result.metrics["macro_f1"]
    shots = {None: "all shots", 0: "no shots", 1: "1 shot"}.get(
        result.shots, f"{result.shots} shots"
    )
    ci = "" if top1.ci95 is None else f" ± {100 * top1.ci95:.1f} (95 %, over {top1.interval})"
    text = (
        f"{result.method} on {result.dataset} ({result.backbone}, {shots}, {result.split}): "
        f"top-1 {100 * top1.mean:.1f} %{ci}, macro F1 {100 * f1.mean:.1f} %"
    )
    if result.zero_shot_top1 is not None and result.shots != 0:
        text += f", zero-shot {100 * result.zero_shot_top1:.1f} %"
    took = result.seconds["fit"] + result.seconds["evaluate"]
    chosen = " (chosen on the queries: not a fair figure)" if result.oracle else ""
    return f"{text}; {ui.human_seconds(took)}, selection {result.selection}{chosen}"


def main() -> None:
    """Run the command line."""
    app()

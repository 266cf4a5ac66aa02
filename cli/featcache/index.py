"""`featcache index`: build, extend, list, check and remove indexes over the vectors of caches."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.ui import commands, live, output, tables, units
from cli.ui.flags import in_flags
from cli.ui.options import CacheDir, Json, Key, OfBackbone, Quiet, pairs
from featcache.errors import CacheError, CacheNotFoundError, FeatcacheError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from featcache.retrieval.indexes.building import Built
    from featcache.retrieval.indexes.description import Description
    from featcache.types import FeatureSet

LOW = 0.9
"""Recall below which it is said how to raise it."""

app = commands.App(
    help="Build and look after indexes, which find nearest rows among many.\n\n"
    "Example: featcache index build --of patches --caches fieldguide",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Name = Annotated[str, typer.Argument(help="Name of the index, as `index ls` shows it.")]


@app.command()
def build(
    of: Annotated[
        str | None, typer.Option(help="global, patches, views or crops; global by default.")
    ] = None,
    caches: Annotated[
        str | None,
        typer.Option("--caches", metavar="A,B", help="Data sets; else the newest cache."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="flat, ivf, hnsw or ivfpq; flat up to 200,000 vectors."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name; one that exists is built again.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe of views and crops, or variant of patches.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=N", help="lists, probes, bytes, refine, links, ..."),
    ] = None,
    backbone: OfBackbone = None,
    key: Key = None,
    cache: CacheDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Build an index over the features of one or several caches of the same backbone.

    flat searches exactly and copies nothing. The others need faiss; their recall is measured.

    \b
    Example: featcache index build --caches fieldguide
    Example: featcache index build --of patches --caches pets,flowers --kind ivfpq --set probes=64
    """
    from featcache.retrieval.indexes.building import build_index, rebuild_index
    from featcache.retrieval.indexes.folder import index_names
    from featcache.store.library import cache_root

    root, parameters = cache_root(cache), pairs(set_ or [])
    with live.live(quiet) as line:
        if name is not None and name in index_names(root):
            if [o for o in (of, caches, kind, recipe, backbone, key) if o is not None] or set_:
                raise UsageError(
                    f"The index {name} exists already and is built again as it was: leave the "
                    f"other options away. For another one, remove it with `featcache index rm "
                    f"{name}`, or choose another --name."
                )
            built = rebuild_index(name, root, line.counter())
        else:
            built = build_index(
                _opened(root, caches, backbone, key),
                of or "global",
                kind=kind,
                name=name,
                recipe=recipe,
                parameters=parameters,
                root=root,
                report=line.counter(),
            )
    _emit(built, root, json_)


@app.command()
def add(name: Name, cache: CacheDir = None, quiet: Quiet = False, json_: Json = False) -> None:
    """Append the rows that its caches have gained to an index.

    Example: featcache index add fieldguide-tiny-global
    """
    from featcache.retrieval.indexes.building import add_to_index
    from featcache.store.library import cache_root

    root = cache_root(cache)
    with live.live(quiet) as line:
        built = add_to_index(name, root, line.counter())
    _emit(built, root, json_)


@app.command("ls")
def list_indexes(cache: CacheDir = None, json_: Json = False) -> None:
    """List the indexes, and whether they still fit their caches.

    Example: featcache index ls
    """
    from featcache.retrieval.indexes.folder import INDEXES, descriptions
    from featcache.retrieval.indexes.state import freshness
    from featcache.store.library import cache_root

    root = cache_root(cache)
    rows = []
    for name, found in descriptions(root):
        if isinstance(found, FeatcacheError):
            output.say(in_flags(found.parts))
            if json_:
                output.emit_json({"name": name, "problem": in_flags(found.parts)})
            rows.append((name, *[""] * 6, "damaged"))
            continue
        now = freshness(root, found)
        if json_:
            output.emit_json({**found.to_json(), "state": now.state, "why": in_flags([now.why])})
            continue
        if now.why:
            output.say(in_flags([now.why]))
        rows.append((*_cells(found), now.state))
    if json_:
        return
    if not rows:
        output.say(f"No indexes in {root / INDEXES} yet; `featcache index build` makes one.")
        return
    tables.emit_table(
        ("name", "kind", "of", "caches", "vectors", "recall", "size", "state"),
        rows,
        right=("vectors", "size"),
        spare=("size", "caches", "recall"),
    )


@app.command()
def rm(name: Name, cache: CacheDir = None, json_: Json = False) -> None:
    """Remove an index; the caches stay.

    Example: featcache index rm fieldguide-tiny-global
    """
    from featcache.retrieval.indexes.folder import remove_index
    from featcache.store.library import cache_root

    freed = remove_index(cache_root(cache), name)
    if json_:
        output.emit_json({"removed": name, "bytes": freed})
    else:
        output.emit(f"Removed the index {name}, {units.human_bytes(freed)}")


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="One index; else all.")] = None,
    cache: CacheDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Check every byte of indexes against what was written.

    Example: featcache index verify
    """
    from featcache.retrieval.indexes.folder import index_names, none_built, verify_index
    from featcache.store.library import cache_root

    root, problems = cache_root(cache), {}
    names = [name] if name is not None else index_names(root)
    if not names:
        raise none_built(root)
    with live.live(quiet) as line:
        for each in names:
            try:
                verify_index(root, each, line.counter())
            except CacheNotFoundError:
                raise  # what is not there is not damaged
            except CacheError as error:
                problems[each] = in_flags(error.parts)
    for each in names:
        problem = problems.get(each, "")
        if json_:
            output.emit_json({"name": each, "sound": not problem, "problem": problem})
        else:
            output.emit(f"DAMAGED: {each}" if problem else f"sound: {each}")
            if problem:
                output.emit(f"  {problem}")
    if problems:
        raise typer.Exit(1)


def _opened(
    root: "Path", names: str | None, backbone: str | None, key: str | None
) -> "list[FeatureSet]":
    """Open the named caches; those after the first with its key, where there are such."""
    from featcache.store.library import caches, find_cache

    wanted: list[str | None] = [n.strip() for n in names.split(",")] if names else [None]
    if "" in wanted:
        raise UsageError(f"--caches takes names of data sets between commas, got '{names}'.")
    found = [find_cache(root, wanted[0], backbone, key).feature_set()]
    digest = found[0].key.digest()
    for name in wanted[1:]:
        fits = any((c.dataset, c.digest) == (name, digest) for c in caches(root))
        found.append(find_cache(root, name, backbone, digest if fits else key).feature_set())
    return found


def _cells(index: "Description") -> tuple[str, ...]:
    recall = (
        f"{index.recall.value:.3f}" if index.recall else "exact" if index.kind == "flat" else ""
    )
    names = " ".join(c.dataset for c in index.covered)
    size = units.human_bytes(index.size)
    return (index.name, index.kind, index.of, names, str(index.vectors), recall, size)


def _finding_more(index: "Description") -> str:
    """Say which parameters raise the recall, and how another value is set."""
    from featcache.retrieval.kinds.registry import structure_of

    kind = structure_of(index.kind)
    names = () if kind is None else kind.finds_more
    now = " and ".join(f"{name} (now {index.parameters[name]})" for name in names)
    return (
        f"Larger values of {now} find more and take longer: `featcache index rm {index.name}`, "
        f"then build it with --set {names[0]}={4 * index.parameters[names[0]]}."
    )


def _emit(built: "Built", root: "Path", json_: bool) -> None:
    from featcache.retrieval.kinds.registry import told_without_faiss

    index: Description = built.index
    if json_:
        fields: dict[str, Any] = {**index.to_json(), "added": built.added}
        output.emit_json(fields)
        return
    what = f"{index.kind}, {index.vectors} vectors of {index.dim}, {units.human_bytes(index.size)}"
    done = f"added {built.added}" if built.added else "up to date"
    output.emit(f"{index.name}: {done}; {what}")
    if index.recall:
        output.emit(
            f"  recall at {index.recall.k}: {index.recall.value:.3f}, of {index.recall.queries} of "
            f"its {index.recall.vectors} vectors against exact search"
        )
        if index.recall.value < LOW:
            output.say(f"  That is low. {_finding_more(index)}")
    elif index.kind == "flat":
        output.say("flat searches exactly and reads the shards; it holds no copy of the vectors.")
        if told := told_without_faiss(index.vectors):
            output.say(told)

"""`featcache text`: the texts of a data set: what there is, to a file and back, and new ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.ui import live, output, tables, units
from cli.ui.flags import in_flags
from cli.ui.options import CacheDir, Json, Key, OfBackbone, Quiet

if TYPE_CHECKING:
    from featcache.store.cache import Cache
    from featcache.text.encode import HasTexts
    from featcache.text.overview import KindOverview
    from featcache.text.writer.write import Cost, Order, Written
    from featcache.wording import Call

SHOWN = 10
"""Refused sentences that are shown."""


def text(
    dataset: Annotated[str, typer.Argument(help="Name of a cached data set, or of a named one.")],
    backbone: OfBackbone = None,
    key: Key = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Kind that --export and --generate write.", show_default="description"),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write texts to a file; `extract` reads it again."),
    ] = None,
    use: Annotated[
        str | None,
        typer.Option(metavar="DIGEST", help="Make a stored text set the current one."),
    ] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Let a language model write texts to --export.")
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="Its OpenAI-compatible API, e.g. https://api.openai.com/v1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Its name there.")] = None,
    per_class: Annotated[int, typer.Option(min=1, help="Sentences a class.")] = 5,
    instructions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text file: what the model is told.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask about the cost.")] = False,
    cache: CacheDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Show the texts of a data set by kind: counts, duplicates, lengths, classes without any.

    Edit them by file: --export FILE writes one kind; `featcache extract --descriptions FILE` (or
    --cupl, --dclip, --templates, --prompts) reads it and encodes the sentences that are new. Every
    text set stays in the cache; --use makes an earlier one current without encoding.

    --generate takes the key from $FEATCACHE_API_KEY or $OPENAI_API_KEY, says the cost and asks.

    \b
    Example: featcache text eurosat
    Example: featcache text eurosat --export eurosat.json
    Example: featcache text pets --generate --url http://localhost:8000/v1 --model M --export a.json
    """
    from featcache.errors import UsageError

    if kind is not None and export is None and not generate:
        raise UsageError("--kind is for --export and --generate. Add --export FILE.")
    kind = kind or "description"
    if generate and use is not None:
        raise UsageError("--generate and --use exclude each other; leave one.")
    if not generate and (url, model, instructions) != (None, None, None):
        raise UsageError("--url, --model and --instructions are for --generate. Add it.")
    if generate:
        order = _order(dataset, url, model, kind, per_class, instructions, (backbone, key, cache))
        _generate(order, export, yes=yes, quiet=quiet, json_=json_)
        return
    opened, words, name = _open(dataset, backbone, key, cache)
    if use is not None:
        _use(opened, use, name, json_=json_)
    elif export is not None:
        from featcache.text.export import EXPORTED, export_texts

        number = export_texts(words, name, kind, export)
        if json_:
            output.emit_json({"path": str(export), "kind": kind, "texts": number})
        else:
            output.emit(f"Wrote {number} texts of kind {kind} to {export}")
            call = _reading(opened, name, {EXPORTED[kind]: str(export)})
            output.say(f"After editing: {in_flags([call])}")
    else:
        _show(opened, words, name, backbone, json_=json_)


def _open(
    dataset: str, backbone: str | None, key: str | None, root: Path | None
) -> "tuple[Cache | None, HasTexts, str]":
    """Return the cache of a data set, its texts and its name; without a cache, the named texts."""
    from featcache.errors import CacheNotFoundError, UnknownNameError
    from featcache.sources.named import resolve
    from featcache.store.library import cache_root, caches, find_cache
    from featcache.text.named import named_texts

    place = cache_root(root)
    try:
        found = find_cache(place, dataset, backbone, key)
    except (CacheNotFoundError, UnknownNameError) as error:
        is_cached = any(c.dataset == resolve(dataset) for c in caches(place))
        if key is not None or (is_cached and isinstance(error, CacheNotFoundError)):
            raise  # an unfinished cache, or another one is meant
        try:
            words = named_texts(dataset)
        except UnknownNameError as unknown:
            if is_cached:
                raise error from None  # with another backbone
            names = [c.dataset for c in caches(place)]
            raise UnknownNameError("data set", dataset, {*unknown.known, *names}) from unknown
        return None, words, words.dataset
    listing = found.listing()
    assert listing is not None  # find_cache returns finished caches only
    return found, listing, found.dataset


def _reading(opened: "Cache | None", name: str, texts: dict[str, str]) -> "Call":
    """Return the extraction that reads a file of texts."""
    from featcache.store.again import extract_with
    from featcache.wording import Call

    if opened is None:
        return Call("featcache.extract", {"dataset": name, **texts})
    return extract_with(opened, **texts)


def _show(
    opened: "Cache | None", words: "HasTexts", name: str, backbone: str | None, *, json_: bool
) -> None:
    from featcache.backbones.registry import text_cuts
    from featcache.pipeline.text_sets import stored_sets
    from featcache.text.overview import overview

    tower = backbone if opened is None else opened.backbone
    kinds = overview(words, None if tower is None else text_cuts(tower))
    sets = [] if opened is None else stored_sets(opened)
    if json_:
        output.emit_json(
            {
                "dataset": name,
                "backbone": tower,
                "cache": None if opened is None else str(opened.path),
                "classes": len(words.classes),
                "default": words.default_text,
                "kinds": [kind.to_json() for kind in kinds],
                "sets": [each.to_json() for each in sets],
            }
        )
        return
    rows = [
        (
            kind.kind,
            str(kind.texts),
            f"{kind.classes}/{len(words.classes)}" if kind.classes else "of none",
            _lengths(kind),
            str(kind.repeated),
            str(len(kind.shared)),
            "unknown" if kind.cut is None else str(kind.cut),
        )
        for kind in kinds
    ]
    columns = ("kind", "texts", "classes", "words", "repeated", "in several classes", "cut")
    tables.emit_table(columns, rows, right=("texts", "repeated"))
    for kind in kinds:
        if kind.without:
            output.say(f"No texts of kind {kind.kind}: {units.some(kind.without)}.")
        if kind.shared:
            output.say(f"In several classes ({kind.kind}): {units.some(kind.shared, 3)}.")
    if sets:
        stored = [
            (
                s.digest,
                "yes" if s.current else "",
                _counts(s.texts) or s.problem,
                s.default,
                s.digests.get(s.usual, ""),
            )
            for s in sets
        ]
        head = ("text set", "current", "texts", "default", "digest in runs")
        tables.emit_table(head, stored)


def _lengths(kind: "KindOverview") -> str:
    if kind.fewest_words == kind.most_words:
        return str(kind.most_words)
    return f"{kind.fewest_words}-{kind.most_words}, median {kind.median_words:g}"


def _use(opened: "Cache | None", digest: str, name: str, *, json_: bool) -> None:
    from featcache.errors import CacheNotFoundError
    from featcache.pipeline.text_sets import use_texts

    if opened is None:
        raise CacheNotFoundError(f"There is no cache of {name}, and so no stored text set.")
    chosen = use_texts(opened, digest)
    if json_:
        output.emit_json(chosen.to_json())
    else:
        output.emit(f"Heads on {name} now read text set {chosen.digest}: {_counts(chosen.texts)}.")


def _order(
    dataset: str,
    url: str | None,
    model: str | None,
    kind: str,
    per_class: int,
    instructions: Path | None,
    where: tuple[str | None, str | None, Path | None],
) -> "Order":
    from featcache.errors import UsageError
    from featcache.text.writer.endpoint import open_endpoint
    from featcache.text.writer.write import Order, read_instructions

    if url is None or model is None:
        missing = "--url" if url is None else "--model"
        raise UsageError(
            f"--generate needs {missing}. Give both, e.g. --url http://localhost:8000/v1 --model M."
        )
    _, words, name = _open(dataset, *where)
    return Order(
        dataset=name,
        classes=words.classes,
        endpoint=open_endpoint(url, model),
        kind=kind,
        per_class=per_class,
        instructions="" if instructions is None else read_instructions(instructions),
    )


def _generate(order: "Order", export: Path | None, *, yes: bool, quiet: bool, json_: bool) -> None:
    from featcache.errors import UsageError
    from featcache.text.writer.write import cost_of, write_texts

    if export is None:
        raise UsageError("--generate writes to a file. Add --export FILE.json.")
    cost = cost_of(order, export)
    if cost.requests:
        _agree(cost, order, yes=yes)
    with live.live(quiet) as line:
        written = write_texts(order, export, report=line.counter(), say=line.say)
    _emit_written(written, order, json_=json_)


def _agree(cost: "Cost", order: "Order", *, yes: bool) -> None:
    """Say the cost and ask whether to go on, unless that was said; end the command if not."""
    from featcache.errors import UsageError
    from featcache.text.writer.endpoint import key_variable

    variable = key_variable()
    told = cost.sentence(order) + (f" The key is that of {variable}." if variable else "")
    if not yes and not output.can_ask():
        raise UsageError(f"Nobody is there to agree to {told} Add --yes.")
    output.say(told)
    if not yes and not output.confirm("Go on?"):
        raise typer.Exit(1)


def _emit_written(written: "Written", order: "Order", *, json_: bool) -> None:
    if json_:
        refused = [
            {"class": r.class_, "sentence": r.sentence, "why": r.why} for r in written.refused
        ]
        facts: dict[str, Any] = {
            "path": str(written.path),
            "kind": order.kind,
            "classes": written.classes,
            "without": list(written.without),
            "sentences": written.sentences,
            "requests": written.requests,
            "refused": refused,
        }
        output.emit_json(facts)
        return
    output.emit(
        f"{written.path} has {written.sentences} sentences for {written.classes} classes "
        f"({written.requests} requests)"
    )
    if written.refused:
        output.say(f"{len(written.refused)} sentences were refused, the first of them:")
    for r in written.refused[:SHOWN]:
        output.say(f"  {r.class_}: '{r.sentence[:200]}' {r.why}")
    if written.without:
        again = "The same command asks again."
        output.say(f"Nothing usable came for {units.some(written.without)}. {again}")


def _counts(texts: dict[str, int]) -> str:
    return ", ".join(f"{kind} {number}" for kind, number in texts.items())

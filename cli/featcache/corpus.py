"""`featcache corpus`: rows of other caches that augment the training images of a data set."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.ui import commands, live, output, tables, units
from cli.ui.flags import in_flags
from cli.ui.options import CacheDir, Json, Key, OfBackbone, Quiet, Yes
from featcache.counts import counted

if TYPE_CHECKING:
    from featcache.retrieval.corpora.report import CorpusReport

app = commands.App(
    help="Augmentation corpora: for every class of a data set the unlabelled rows of other caches "
    "that are nearest to it.\n\n"
    "Example: featcache corpus build wild --for fieldguide --from fieldguide-2",
    no_args_is_help=True,
    rich_markup_mode=None,
)

NAMED = 20
"""Most classes without a vector that are named."""

Name = Annotated[str, typer.Argument(help="Name of the corpus.")]
For = Annotated[str | None, typer.Option("--for", help="Data set that it is for.")]


@app.command()
def build(
    name: Name,
    target: Annotated[str, typer.Option("--for", help="Data set whose classes it is for.")],
    sources: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="NAME[:SPLIT],...",
            help="Data sets with caches of the same backbone, whole or a split of each.",
        ),
    ],
    by: Annotated[
        str,
        typer.Option(
            help="class: nearest to a class's text anchor; anchor: to one of its texts; image: to "
            "one of its shots."
        ),
    ] = "class",
    of: Annotated[str, typer.Option(help="global, patches, views or crops.")] = "global",
    recipe: Annotated[
        str | None, typer.Option(help="Recipe of views and crops, or variant of patches.")
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="Most vectors of a class.")] = 64,
    min_cosine: Annotated[
        float | None, typer.Option(help="Leave out vectors with a smaller cosine.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            help="A vector whose cosines with two classes differ by less goes to none.",
            show_default="0.1 / logit scale",
        ),
    ] = None,
    dedupe: Annotated[
        bool,
        typer.Option(
            "--dedupe/--no-dedupe", help="Leave out near-duplicates of query and validation images."
        ),
    ] = True,
    text: Annotated[
        str | None,
        typer.Option(help="Kind of text; else the data set's (class) or descriptions (anchor)."),
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help="Shots of each class, which the corpus leaves out.",
            show_default="all with --by image",
        ),
    ] = None,
    seeds: Annotated[
        str, typer.Option(metavar="N|A-B|A,B,...", help="Draws of the shots: N is seeds 1-N.")
    ] = "1",
    allow_leak: Annotated[
        bool,
        typer.Option("--allow-leak", help="Let query images enter; the corpus is then marked."),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Replace a corpus of the same name.")
    ] = False,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Write a contact sheet of its images to FILE.html or FILE.png."),
    ] = None,
    backbone: OfBackbone = None,
    key: Key = None,
    cache: CacheDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Find the unlabelled rows nearest to every class of a data set, and keep them as a corpus.

    \b
    Example: featcache corpus build wild --for fieldguide --from fieldguide-2
    Example: featcache corpus build rest --for pets --from pets:train --by image --shots 2 --seeds 3
    """
    from cli.ui.options import seeds as parse_seeds
    from cli.ui.options import shots as parse_shots
    from featcache.errors import UsageError
    from featcache.store.corpora import check_name
    from featcache.store.library import cache_root, find_cache

    check_name(name)
    _check_sheet(sheet)
    if shots == "all" and by != "image":
        raise UsageError("--shots all would leave out every training image; give a number.")
    drawn, numbers = (None if shots is None else parse_shots(shots)), parse_seeds(seeds)
    root = cache_root(cache)
    opened = find_cache(root, target, backbone, key)
    from featcache.retrieval.corpora.build import build_corpus
    from featcache.retrieval.corpora.origins import open_origins

    features = opened.feature_set()
    with live.live(quiet) as line:
        report = build_corpus(
            name,
            features,
            open_origins(root, sources.split(","), features),
            by=by,
            of=of,
            recipe=recipe,
            k=k,
            min_cosine=min_cosine,
            margin=margin,
            dedupe=dedupe,
            text=text,
            shots=drawn,
            seeds=numbers,
            allow_leak=allow_leak,
            again=again,
            progress=line.counter(),
        )
    if not (report.is_new or quiet):
        output.say(f"{target} has a corpus '{name}' with this content already; nothing changed.")
    _emit(report, json_, quiet=quiet)
    _write_sheet(sheet, root, opened.path, name, quiet=quiet)


@app.command("ls")
def list_corpora(
    target: For = None,
    backbone: OfBackbone = None,
    key: Key = None,
    cache: CacheDir = None,
    json_: Json = False,
) -> None:
    """List the corpora of all caches, or of one data set.

    Example: featcache corpus ls --for fieldguide
    """
    from featcache.store.corpora import describe_corpora
    from featcache.store.library import cache_root, find_summaries

    root = cache_root(cache)
    found = find_summaries(root, target, backbone, key)
    corpora = [(one.path, corpus) for one in found for corpus in describe_corpora(one.path)]
    rows = []
    for path, corpus in corpora:
        record = corpus.record
        if json_:
            output.emit_json({**corpus.to_json(in_flags), "path": str(path)})
        elif record is None:
            output.say(in_flags([corpus.problem]))
        else:
            sources = ", ".join(source.text for source in record.sources)
            what = (corpus.name, record.dataset, str(record.rows), record.by, record.of, sources)
            rows.append((*what, record.digest, "leaks" if record.leaks else ""))
    if json_:
        return
    if not corpora:
        output.say("No corpora yet; `featcache corpus build` makes one.")
    if rows:
        head = ("corpus", "for", "rows", "by", "of", "from", "digest", "mark")
        tables.emit_table(head, rows, right=("rows",), spare=("digest", "of", "by"))


@app.command()
def info(
    name: Name,
    target: For = None,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Write a contact sheet of its images to FILE.html or FILE.png."),
    ] = None,
    backbone: OfBackbone = None,
    key: Key = None,
    cache: CacheDir = None,
    json_: Json = False,
) -> None:
    """Describe a corpus: what each class took, what was left out, and what has changed since.

    Example: featcache corpus info wild --for fieldguide
    """
    from featcache.retrieval.corpora.find import describe_corpus, one_corpus
    from featcache.store.library import cache_root

    _check_sheet(sheet)
    root = cache_root(cache)
    path = one_corpus(root, name, target, backbone, key)
    _emit(describe_corpus(root, path, name), json_, quiet=False)
    _write_sheet(sheet, root, path, name, quiet=False)


@app.command()
def rm(
    name: Name,
    target: For = None,
    backbone: OfBackbone = None,
    key: Key = None,
    yes: Yes = False,
    cache: CacheDir = None,
    json_: Json = False,
) -> None:
    """Remove a corpus; the caches that it was built from stay.

    Example: featcache corpus rm wild --for fieldguide --yes
    """
    from featcache.retrieval.corpora.find import one_corpus, remove
    from featcache.store.library import cache_root

    root = cache_root(cache)
    path = one_corpus(root, name, target, backbone, key)
    output.agree(f"the corpus '{name}' of {path}", yes)
    path, freed = remove(root, name, target, backbone, key)
    if json_:
        output.emit_json({"removed": name, "path": str(path), "bytes": freed})
    else:
        output.emit(f"Removed the corpus '{name}' of {path}, {units.human_bytes(freed)}")


def _check_sheet(sheet: Path | None) -> None:
    """Refuse a file that cannot be written before anything is built."""
    if sheet is not None:
        from featcache.pages.files import check_sheet_path

        check_sheet_path(sheet)


def _write_sheet(sheet: Path | None, root: Path, path: Path, name: str, *, quiet: bool) -> None:
    if sheet is None:
        return
    from featcache.pages.files import save_sheet
    from featcache.retrieval.corpora.sheet import corpus_sheet

    save_sheet(lambda: corpus_sheet(root, path, name), sheet)
    if not quiet:
        output.say(f"The sheet is in {sheet}.")


def _emit(report: "CorpusReport", json_: bool, *, quiet: bool) -> None:
    if json_:
        output.emit_json(report.to_json())
        return
    figures = ("min", "median", "max", "own median") if report.own else ("min", "median", "max")
    tables.emit_table(
        ("class", "rows", *figures),
        [
            (c.name, str(c.rows), *map(_cosine, (c.low, c.median, c.high, c.own)[: len(figures)]))
            for c in report.classes
        ],
        right=("rows", *figures),
    )
    if quiet:
        return
    for sentence in _sentences(report):
        output.say(sentence)


def _sentences(report: "CorpusReport") -> list[str]:
    """Say what a corpus is and what was left out of it."""
    record, facts = report.record, report.facts
    sources = ", ".join(source.text for source in record.sources)
    said = [
        f"{counted(record.rows, 'vector')} of {facts.get('vectors')} {record.of} vectors of "
        f"{sources}, by {record.by}; digest {report.digest}.",
        f"Left out: {facts.get('equal_images')} images that are query or validation images, "
        f"{facts.get('near_duplicates')} near-duplicates of them, {facts.get('repeated')} repeated "
        f"images, {facts.get('own_shots')} shots, {facts.get('ambiguous')} vectors equally near to "
        f"two classes. {facts.get('contested')} were contested and went to the closer class.",
    ]
    threshold = facts.get("threshold")
    if isinstance(threshold, dict):
        said.append(_threshold(report.path, threshold))
    if report.own:
        said.append(
            "Own median: of the cosines of labelled training images of the class with its text. "
            f"The median of the corpus is lower in {len(report.below)} of {len(report.own)} "
            "classes. Much lower means that its images hardly fit; higher does not show that they "
            "fit, so look at them with --sheet. --min-cosine leaves out vectors below a cosine."
        )
    if report.empty:
        said.append(
            f"{counted(len(report.empty), 'class has', 'classes have')} no vector: "
            f"{units.some(report.empty, NAMED)}."
        )
    if few := [name for name in report.short if name not in report.empty]:
        said.append(
            f"{counted(len(few), 'class has', 'classes have')} some, but fewer than "
            f"{facts.get('k')} vectors: {units.some(few)}."
        )
    if record.leaks:
        said.append(
            f"LEAKS: it contains query or validation images of {record.dataset}, so that figures "
            "of heads trained with it do not count."
        )
    return [*said, *(f"Since it was built: {change}." for change in report.changes)]


def _threshold(path: Path, facts: dict[str, object]) -> str:
    from featcache.errors import FeatcacheError
    from featcache.store.again import extract_with
    from featcache.store.cache import Cache

    said = f"Near-duplicates have a cosine above {facts.get('cosine')} ({facts.get('backbone')})"
    if not facts.get("views"):
        said += (
            ", which 1 of 100 different images of the data set has. How many edited copies that "
        )
        said += "finds is not known without views"
        with suppress(FeatcacheError):  # a damaged cache, which `report.changes` tells
            call = extract_with(Cache.open(path), views=["2"])
            said += f"; `{in_flags([call])}` adds them"
        return f"{said}."
    found = facts.get("found")
    share = f"{found:.0%}" if isinstance(found, float) else "?"
    return f"{said}, which {share} of the augmented copies {facts.get('views')} have."


def _cosine(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"

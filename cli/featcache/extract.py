"""`featcache extract`: encode what a cache lacks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.ui import errors, live, output
from cli.ui.flags import in_flags
from cli.ui.options import CacheDir, Device, Json, Quiet
from featcache.sources.kinds import KINDS

if TYPE_CHECKING:
    from featcache.pipeline.plan import Plan


def extract(
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Model: tiny, ViT-B/16, any open_clip name (`featcache backbones`).",
            show_default="that of the data set's cache, else tiny",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help=f"Data set: a name (`featcache datasets`) or one of {', '.join(KINDS)} with "
            "a path, as folder:PATH.",
            show_default="required",
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="open_clip tag, weights file, or `random` for benchmarks.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Tokenizer of a SigLIP or multilingual model: a file, or its folder."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=1, help="Pixels of the encoder's input, for plain ViTs: interpolated."),
    ] = None,
    patches: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VARIANT[:int8][@ROWS]",
            help="Patch features: clearclip (default), vanilla, maskclip, ... or none.",
        ),
    ] = None,
    views: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N[:RECIPE][@ROWS]",
            help="Augmented views: rrc50 or cdfsl of few-shot rows, weak or strong of the pool.",
        ),
    ] = None,
    crops: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N[:RECIPE][@ROWS]",
            help="Crops and their boxes: lazsl of val and test, or fair of the pool.",
        ),
    ] = None,
    view_patches: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N[:RECIPE][:VARIANT][:int8][@ROWS]",
            help="Patch features of augmented views: cdfsl of few-shot rows.",
        ),
    ] = None,
    tokens: Annotated[
        list[str] | None,
        typer.Option(
            metavar="last-block[:int8][@ROWS]",
            help="Tokens before the last block of a plain ViT, and its weights: for training it.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of views and crops.")] = 0,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the data set, with any prefix.", show_default="that of the path"
        ),
    ] = None,
    dataset_root: Annotated[
        Path | None,
        typer.Option(help="Folder, zip or tar that holds a named data set's files."),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            help="Where named data sets keep images; else $FEATCACHE_DATA, else with the caches."
        ),
    ] = None,
    splits: Annotated[
        str | None,
        typer.Option(help="Splits of a named data set; `featcache datasets NAME` lists them."),
    ] = None,
    words: Annotated[
        str | None,
        typer.Option(help="Class names and templates of a named data set: coop or openai."),
    ] = None,
    templates: Annotated[
        Path | None, typer.Option(help="Text file with one template a line, each with one {}.")
    ] = None,
    descriptions: Annotated[
        Path | None, typer.Option(help="JSON file {class: [description, ...]}.")
    ] = None,
    cupl: Annotated[
        Path | None, typer.Option(help="The same with CuPL's sentences, for --set text=cupl.")
    ] = None,
    dclip: Annotated[
        Path | None, typer.Option(help="The same with DCLIP's phrases, for --set text=dclip.")
    ] = None,
    waffle: Annotated[
        int | None,
        typer.Option(min=0, metavar="SEED", help="Random words too, for --set text=waffle."),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Text file with one sentence a line, of no class, for sim --set text=prompt."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Encode only that many images.")] = None,
    device: Device = "auto",
    compute: Annotated[
        str, typer.Option(help="auto, fp32 or bf16: the type the encoder computes in.")
    ] = "auto",
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile", help="Put the encoder through torch.compile: pays in long passes only."
        ),
    ] = False,
    micro_batch: Annotated[
        int | None, typer.Option(min=1, help="Images in one forward pass; fixed for this cache.")
    ] = None,
    cache: CacheDir = None,
    moved: Annotated[
        bool, typer.Option("--moved", help="The images are the cached ones, at another place.")
    ] = False,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Read every image again, changed or not.")
    ] = False,
    ignore_inode: Annotated[
        bool,
        typer.Option("--ignore-inode", help="Where inodes change by themselves (network, FUSE)."),
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an unreadable image.")] = False,
    allow_bad: Annotated[
        bool, typer.Option("--allow-bad", help="Go on however many images are unreadable.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before 20 GB.")] = False,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Largest image to decode, in pixels.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be encoded and written.")
    ] = False,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Write a stage timeline (Chrome trace), say what binds."),
    ] = False,
    profile_to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same, there; else beside the cache.")
    ] = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Encode a data set: decode, encode, store. Asking again encodes only what is missing.

    --patches, --views, --crops, --view-patches and --tokens may be given several times. ROWS is
    few-shot(16,seeds=1-3), train, query (all but train), pool (train, labels unread), all, or the
    name of a split; each recipe has a sensible default.

    Example: featcache extract --backbone tiny --dataset folder:photos

    Example: featcache extract --dataset eurosat --views 10 --crops 60:lazsl@test
    """
    from featcache.errors import UsageError
    from featcache.pipeline.opening import NOTHING_STORED, open_request
    from featcache.pipeline.request import Request

    if dataset is None:
        raise UsageError(
            "Name the images with --dataset: folder:PATH for your own, a name that `featcache "
            "datasets` or `featcache ls` shows, or fieldguide, which is drawn here."
        )
    request = Request(
        dataset=dataset,
        backbone=backbone,
        weights=weights,
        tokenizer=tokenizer,
        image_size=image_size,
        patches=patches,
        views=views or (),
        crops=crops or (),
        view_patches=view_patches or (),
        tokens=tokens or (),
        seed=seed,
        name=name,
        dataset_root=dataset_root,
        data_root=data_root,
        splits=splits,
        words=words,
        templates=templates,
        descriptions=descriptions,
        cupl=cupl,
        dclip=dclip,
        waffle=waffle,
        prompts=prompts,
        limit=limit,
        device=device,
        compute=compute,
        compiled=compiled,
        micro_batch=micro_batch,
        root=cache,
        moved=moved,
        rehash=rehash,
        ignore_inode=ignore_inode,
        strict=strict,
        allow_bad=allow_bad,
        yes=yes,
        dry_run=dry_run,
        max_pixels=max_pixels,
        profile=profile_to or profile,
    )
    with live.live(quiet) as line:
        with errors.noting("" if dry_run else NOTHING_STORED):
            opened = open_request(request, report=line.counter(), say=line.say)
            from featcache.pipeline.run import extract as run_extract  # loads torch

        summary = run_extract(
            opened,
            progress=live.shown_on(line),
            say=line.say,
            confirm=(lambda plan: _confirm(plan, line)) if output.can_ask() else None,
        )
    if json_:
        output.emit_json(summary.to_json(in_flags))
    else:
        for text in summary.sentences(in_flags):
            output.emit(text)


def _confirm(plan: "Plan", line: live.Live) -> bool:
    line.close()
    return output.confirm(f"{plan.sentence()} Go on?")

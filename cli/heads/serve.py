"""`heads serve`: a trained head behind a page and a JSON endpoint."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.heads.asking import (
    HeadBackbone,
    HeadWeights,
    OneHead,
    Rule,
    Top,
    check_asked,
    find_head,
)
from cli.ui import live, output
from cli.ui.options import Device, Json, Quiet, RunsDir
from featcache.counts import counted

if TYPE_CHECKING:
    from heads.head import Head


def serve(
    head: OneHead,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A further name of this machine; may be repeated."),
    ] = None,
    backbone: HeadBackbone = None,
    weights: HeadWeights = None,
    top: Top = 5,
    coverage: Annotated[
        float | None,
        typer.Option(
            help="How often the set of classes holds the right one.",
            show_default="0.9 of calibrated heads",
        ),
    ] = None,
    rule: Rule = None,
    reject: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of images of the classes that may be taken for none of them.",
            show_default="0.05 of calibrated heads",
        ),
    ] = None,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Views encoded at once; that of the cache gives the last bits of `heads predict`.",
            show_default="as many as wait",
        ),
    ] = None,
    device: Device = "auto",
    runs: RunsDir = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Put a trained head behind a page to drop images on, and a JSON endpoint.

    Only this machine can reach it, unless --host says otherwise; there is no password. Ctrl-C ends
    it after the requests in flight. What is needed besides: pip install 'featcache[serve]'.

    \b
    Example: heads serve last
    Example: heads serve moths.head --port 0 --coverage 0.95
    Example: heads serve last --host 0.0.0.0 --allow-host lab.example.org
    """
    from featcache.errors import UsageError
    from heads.serve import extra
    from heads.serve.hosts import Hosts

    # What is wrong is told before torch is loaded.
    extra.check()
    check_asked(top=top, coverage=coverage, rule=rule, reject=reject)
    if not 0 <= port < 1 << 16:
        raise UsageError(f"--port takes a number from 0 to {(1 << 16) - 1}, got {port}.")
    hosts = Hosts.of(host, allow_host or ())
    named = find_head(head, runs)

    with live.live(quiet) as line:
        line.update("loading")
        from heads.api import load
        from heads.predicting import Predictor
        from heads.serve.app import make_app
        from heads.serve.limits import Limits
        from heads.serve.running import listen, run, url_of
        from heads.serve.service import Service, asked_of

        trained = load(named or head, root=runs, backbone=backbone, weights=weights)
        asked, reasons = asked_of(trained, coverage=coverage, rule=rule, reject=reject)
        predictor = Predictor(trained, top=top, device=device, asked=asked)
        if caution := asked.caution(trained.calibration):
            line.say(caution)
        for note in (*_notes(trained, is_open=not hosts.is_loopback), *(r.parts for r in reasons)):
            line.say(note)
        limits = Limits()
        with listen(host, port) as opened:
            service = Service(predictor, limits, micro_batch=micro_batch)
            service.warm()
            line.close()
            url = url_of(opened, host)

            def ready() -> None:
                if json_:
                    output.emit_json({"url": url, **service.facts()})
                else:
                    output.say(f"{url}  ({_title(trained)}); Ctrl-C ends it")

            run(make_app(service, hosts), limits, opened, ready)
    if not quiet:
        output.say("The server has ended.")


def _title(head: "Head") -> str:
    classes = counted(len(head.classes), "class", "classes")
    return f"{head.method.name} with {head.backbone}, {classes}"


def _notes(head: "Head", *, is_open: bool) -> list[str]:
    notes = []
    if head.holds:
        notes.append(
            f"This head holds features of training images ({', '.join(head.holds)}). They are not "
            f"sent to anybody, but answers may tell which images it has seen."
        )
    if is_open:
        notes.append("Other machines can reach this server, and there is no password.")
    return notes

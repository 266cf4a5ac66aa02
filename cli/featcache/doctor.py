"""`featcache doctor`: check this machine and its caches."""

import typer

from cli.ui import output
from cli.ui.options import CacheDir, Json


def doctor(cache: CacheDir = None, json_: Json = False) -> None:
    """Check what the commands need here: torch, its device, weights, disk, caches.

    Caches are opened, their records read and the sizes of their files compared; `featcache verify`
    reads every byte. Nothing is downloaded or written. The exit code is 1 if something is broken.

    Example: featcache doctor
    """
    from cli.featcache.checks import findings
    from featcache.store.library import cache_root

    found = []
    for finding in findings(cache_root(cache)):
        found.append(finding)
        if json_:
            output.emit_json(finding.to_json())
        else:
            cure = f" {finding.cure}" if finding.cure else ""
            output.emit(f"{finding.state:<6}  {finding.check:<9}  {finding.what}{cure}")
    if any(finding.state == "broken" for finding in found):
        raise typer.Exit(1)

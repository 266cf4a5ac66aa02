"""What `info`, `verify` and `repair` print of a cache."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.ui import output, units
from cli.ui.flags import in_flags
from featcache.counts import counted

if TYPE_CHECKING:
    from featcache.pipeline.repair import Mended
    from featcache.store.library import CacheSummary
    from featcache.store.repair.verify import VerifyReport


def distinguishing(one: "CacheSummary", fitting: Sequence["CacheSummary"]) -> str:
    """Return the options that distinguish a cache from the others that fit."""
    words = []
    for flag, field in (("--dataset", "dataset"), ("--backbone", "backbone"), ("--key", "digest")):
        same = [other for other in fitting if getattr(other, field) == getattr(one, field)]
        if len(same) < len(fitting):
            words += [flag, getattr(one, field)]
        fitting = same
    return shlex.join(words)


def emit_mended(report: "VerifyReport", mended: "Mended | None", found: "CacheSummary") -> None:
    """Print what `repair` did to a cache."""
    done = mended is not None and bool(
        mended.encoded or mended.text or mended.missing or mended.last_block
    )
    if not report.dropped and not done:
        emit_report(report, json_=False)
        return
    left = mended is None or mended.missing or not report.is_sound
    head = "mended" if not left else "mended in part" if mended and mended.encoded else "DAMAGED"
    output.emit(f"{head}: {report.path}")
    for problem in report.problems:
        output.emit(f"  {in_flags([problem.what])}")
    for note in report.notes:
        output.say(in_flags([note]))
    for shard in report.dropped:
        output.emit(f"  taken out: {shard.component}/{shard.file}")
    if mended is None:
        return
    counts = [f"{name} {rows} rows" for name, rows in mended.encoded.items()]
    counts += ["texts"] if mended.text else []
    counts += ["weights of the last block"] if mended.last_block else []
    output.emit(f"  encoded again: {', '.join(counts) or 'nothing'}")
    if mended.missing:
        from featcache.store.again import extract_with
        from featcache.store.cache import Cache

        go_on = in_flags([extract_with(Cache.open(found.path))])
        what = counted(
            mended.missing,
            "row has lost its image, or it has changed",
            "rows have lost their image, or it has changed",
        )
        output.emit(
            f"  {what}; this settles it, with whatever else the cache was made with: {go_on}"
        )


def emit_report(report: "VerifyReport", json_: bool) -> None:
    """Print what `verify` found in a cache."""
    if json_:
        output.emit_json(report.to_json(in_flags))
        return
    if report.is_sound or report.shards:
        what = (
            f"{counted(report.shards, 'shard')}, {units.human_bytes(report.bytes)}: {report.path}"
        )
    else:
        from featcache.store.removal import count_bytes

        size = units.human_bytes(count_bytes(report.path))
        what = f"none of its {size} could be checked: {report.path}"
    sound = "sound" if report.finished else "sound, unfinished"
    output.emit(f"{sound if report.is_sound else 'DAMAGED'}: {what}")
    for problem in report.problems:
        output.emit(f"  {in_flags([problem.what])}")
    for note in report.notes:
        output.say(in_flags([note]))

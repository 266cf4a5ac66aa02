"""The timeline of a pass: the file that trace viewers open, and the sentence about the machine."""

import errno
import json
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from cli.ui.flags import in_flags
from featcache.errors import UsageError
from featcache.pipeline import timeline
from featcache.pipeline.timeline import UNTIMED, Timeline, check_place, verdict
from featcache.wording import in_python


def say(**changes: Any) -> str:
    facts: dict[str, Any] = {
        "busy": {"decode": 2.0, "encode": 17.0, "write": 0.1},
        "waited": {"decode": 0.5, "encode": 9.0, "write": 0.1},
        "seconds": 10.0,
        "cpu": 19.0,
        "images": 1000,
        "cores": 2,
        "device": "cpu",
        "compute": "bfloat16",
        "has_bf16": True,
        "batches": 60,
        "compile_s": 0.0,
    }
    return in_flags([verdict(**{**facts, **changes})])


def test_a_trace_holds_every_piece_of_work_by_thread(tmp_path: Path) -> None:
    line = Timeline()
    start = line._begin
    line.watch("encode", start + 1.0, start + 1.5)
    other = threading.Thread(
        target=line.watch, args=("decode", start + 0.25, start + 0.5), name="decode_0"
    )
    other.start()
    other.join()
    line.write(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    work = {e["name"]: e for e in events if e["ph"] == "X"}
    assert (work["encode"]["ts"], work["encode"]["dur"]) == (1e6, 5e5)
    assert (work["decode"]["ts"], work["decode"]["dur"]) == (2.5e5, 2.5e5)
    names = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    assert names[work["decode"]["tid"]] == "decode_0"
    assert line.busy == {"decode": 0.25, "encode": 0.5, "write": 0.0}


def test_a_long_pass_keeps_sums_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(timeline, "EVENTS", 3)
    line = Timeline()
    for _ in range(10):
        line.watch("decode", 0.0, 1.0)
    line.write(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(e["ph"] == "X" for e in events) == 3
    assert line.busy["decode"] == 10.0
    assert line.count["decode"] == 10


def test_the_verdict_names_what_binds_and_a_cure() -> None:
    assert say().startswith(
        "Encoding binds (of 2 cores' time: decode 10 %, encode 85 %, unused 5 %)"
    )
    assert "free decoding would give 111 images/s" in say()
    assert "--compute bf16" in say(compute="float32")
    assert "--compute bf16" not in say(compute="float32", has_bf16=False)
    assert say(busy={"decode": 15.0, "encode": 4.0, "write": 0.0}).startswith("Decoding binds")
    idle = {"decode": 2.0, "encode": 4.0, "write": 0.0}
    late = {"decode": 8.0, "encode": 1.0, "write": 0.0}
    assert say(busy=idle, cpu=6.0, waited=late).startswith("Reading the images binds")
    assert say(busy=idle, cpu=6.0).startswith("Something beside this pass binds")
    slow = {"decode": 0.5, "encode": 1.0, "write": 7.0}
    assert say(waited=slow).startswith("The disk binds (7.0 of 10.0 s")
    assert say(images=0) == "Nothing was encoded, so no stage binds."


def test_the_verdict_on_an_accelerator() -> None:
    assert say(device="cuda").startswith("The device binds (100 images/s)")
    starved = {"decode": 8.0, "encode": 1.0, "write": 0.0}
    assert say(device="cuda", waited=starved).startswith("Decoding binds (95 % of 2 cores' time")


def test_a_profiled_extraction_leaves_a_trace_beside_the_cache(
    ask: Any, backbone: Any, tmp_path: Path
) -> None:
    summary = ask(profile=True, views=["2"])
    assert summary.profile == summary.path.with_name(summary.path.name + ".trace.json")
    events = json.loads(summary.profile.read_text())["traceEvents"]
    count = {s: sum(e["name"] == s for e in events) for s in ("decode", "encode", "write")}
    shards = len(list(summary.path.glob("*/*.h5"))) - len(list(summary.path.glob("text*/*.h5")))
    assert count == {"decode": 22, "encode": len(backbone.batches), "write": shards}
    assert in_python([summary.verdict]) in summary.sentences()[-2]
    assert in_flags([summary.verdict]) in summary.sentences(in_flags)[-2]
    assert summary.to_json()["verdict"] == in_python([summary.verdict])
    assert summary.to_json()["profile"] == str(summary.profile)
    told = ask(profile=tmp_path / "own.json", root=tmp_path / "second")
    assert told.profile == tmp_path / "own.json"
    assert told.profile.exists()
    assert ask(root=tmp_path / "third").profile is None


def test_a_pass_without_an_image_leaves_the_earlier_timeline(ask: Any, tmp_path: Path) -> None:
    trace = ask(profile=True).profile
    before = trace.read_bytes()
    again = ask(profile=True)
    assert trace.read_bytes() == before
    assert again.profile is None
    assert again.verdict == UNTIMED
    assert UNTIMED in again.sentences()
    assert again.to_json()["profile"] is None
    texts = ask(profile=tmp_path / "t.json", waffle=0)
    assert texts.text
    assert UNTIMED in texts.sentences()
    assert not (tmp_path / "t.json").exists()


def test_a_place_for_the_timeline_is_checked_before_the_pass(
    ask: Any, tmp_path: Path, backbone: Any
) -> None:
    for dry_run in (False, True):
        with pytest.raises(UsageError, match=r"no/x\.json cannot be written \(No such file"):
            ask(profile=tmp_path / "no" / "x.json", dry_run=dry_run)
    assert backbone.batches == []
    assert not (tmp_path / "cache").exists()


def test_what_can_be_no_timeline_is_refused_and_a_check_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, why in (
        ("file/x.json", "Not a directory"),
        (".", "Is a directory"),
        ("x" * 300, "File name too long"),
    ):
        with pytest.raises(UsageError, match=rf"\({why}\)\. Give profile a file"):
            check_place(tmp_path / name)
    check_place(tmp_path / "new.json")
    check_place(tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_refuses_files_is_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(UsageError, match=r"x\.json cannot be written \(Permission denied\)"):
        check_place(tmp_path / "x.json")


def test_a_short_pass_is_told_from_a_waiting_one() -> None:
    assert say(cpu=8.0).startswith("Something beside this pass binds")
    assert say(cpu=8.0, batches=3).startswith("The pass is too short to keep the cores busy (3 b")
    assert "short" not in say(batches=3)  # the cores are busy


def test_compiling_that_took_most_of_a_pass_is_named() -> None:
    text = say(cpu=11.0, compile_s=6.5)
    assert text == (
        "Compiling binds (6.5 of 10.0 s): leave --compile out of passes as short as this."
    )
    assert "ompil" not in say(compile_s=1.0)

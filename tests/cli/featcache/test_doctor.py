"""`featcache doctor`: one line a check, exit code 1 where something is broken."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.featcache import checks
from featcache.backbones.names import embedded_weights
from featcache.store.repair.glance import glance

Run = Callable[..., Any]
CHECKS = {"torch", "open_clip", "faiss", "isal", "disk", "weights", "caches"}


@pytest.fixture
def own(home: Path, tmp_path: Path) -> Path:
    """A copy of the cache that a test may damage."""
    root = tmp_path / "own"
    shutil.copytree(home / "blobs", root / "blobs")
    return root


def found(answer: Any) -> list[dict[str, str]]:
    return [json.loads(line) for line in answer.out.splitlines()]


def broken(answer: Any) -> list[dict[str, str]]:
    return [finding for finding in found(answer) if finding["state"] == "broken"]


def test_a_machine_in_order(featcache: Run, own: Path) -> None:
    answer = featcache("doctor", "--json", "--cache", str(own))
    assert answer.code == 0, answer.out
    assert {finding["check"] for finding in found(answer)} == CHECKS
    assert broken(answer) == []
    told = featcache("doctor", "--cache", str(own))
    assert len(told.out.splitlines()) == len(found(answer))
    assert "1 in" in told.out
    assert "`featcache verify` reads every byte" in told.out
    assert "tiny with random: on this machine" in told.out


def test_no_cache_is_no_disease(featcache: Run, empty_home: Path) -> None:
    assert featcache("doctor").code == 0
    assert not empty_home.exists()


@pytest.mark.parametrize("damage", ["shorter", "gone", "manifest", "listing"])
def test_a_broken_cache_is_found_with_its_cure(featcache: Run, own: Path, damage: str) -> None:
    (folder,) = (key.parent for key in own.glob("*/*/key.json"))
    (shard,) = (folder / "global").glob("*.h5")
    assert glance(folder) == []
    if damage == "shorter":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "gone":
        shard.unlink()
    elif damage == "manifest":
        (folder / "manifest.jsonl").write_bytes(b"{}\n")
    else:
        shutil.rmtree(folder / "listing")
    answer = featcache("doctor", "--json", "--cache", str(own))
    assert answer.code == 1
    assert {finding["check"] for finding in broken(answer)} == {"caches"}
    assert any("featcache" in finding["what"] for finding in broken(answer))
    assert not any("have their sizes" in finding["what"] for finding in found(answer))


def test_a_changed_byte_is_left_to_verify(featcache: Run, own: Path) -> None:
    (shard,) = own.glob("blobs/*/global/*.h5")
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert featcache("doctor", "--cache", str(own)).code == 0
    assert featcache("verify", "--quiet", "--cache", str(own)).code == 1


def test_little_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for free, state in ((10**12, "ok"), (10**9, "note"), (10**6, "broken")):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        (finding,) = checks.check_disk(tmp_path / "not" / "yet")
        assert finding.state == state
        assert ("--cache DIR" in finding.cure) == (state != "ok")


def test_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"3.2.0": "ok", "3.10.1": "ok", "3.1.9": "broken", "4.0.0": "broken", "": "broken"}
    for version, state in states.items():
        monkeypatch.setattr(checks, "version_of", lambda _, version=version: version)
        (finding,) = checks.check_open_clip()
        assert finding.state == state, version
    monkeypatch.setattr(checks, "version_of", lambda _: "1.0")
    (finding,) = checks.check_faiss()
    assert (finding.state, "uninstall" in finding.cure) == ("broken", True)
    monkeypatch.setattr(checks, "version_of", lambda _: "")
    monkeypatch.setattr(checks, "find_spec", lambda _: None)
    (finding,) = checks.check_faiss()
    assert finding.state == "note"


def test_weights_that_are_not_here_stop_nothing(monkeypatch: pytest.MonkeyPatch, own: Path) -> None:
    monkeypatch.setattr(checks, "_is_here", lambda entry: False)
    embedded = [("tiny", ""), ("tiny-local", "")]
    made = [*embedded, ("tiny", "gone.safetensors"), ("ViT-B/32", "")]
    monkeypatch.setattr("featcache.store.library.made_with", lambda *_: made)
    hub, file = checks.check_weights(own)
    assert (hub.state, file.state) == ("note", "note")
    assert "--weights FILE" in hub.cure
    assert "--weights" in file.what


def test_embedded_weights_cut_short_are_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cut = tmp_path / "weights.safetensors"
    cut.write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    whole = embedded_weights("tiny")
    places = {"tiny": whole, "tiny-local": cut}
    monkeypatch.setattr("featcache.backbones.names.embedded_weights", places.__getitem__)
    first, second = checks.check_embedded()
    assert (first.state, second.state) == ("ok", "broken")
    assert "pip install" in second.cure


def test_a_check_that_fails_itself_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, featcache: Run, own: Path
) -> None:
    def fail() -> None:
        raise RuntimeError("libcuda is of another version")

    monkeypatch.setattr(checks, "check_torch", fail)
    answer = featcache("doctor", "--json", "--cache", str(own))
    assert answer.code == 1
    (finding,) = broken(answer)
    assert "libcuda" in finding["what"]
    assert {finding["check"] for finding in found(answer)} == CHECKS

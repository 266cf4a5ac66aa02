"""`featcache text`: the table, files, stored sets, and texts from a chat endpoint."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.ui import output
from featcache.store.cache import Cache
from heads.protocols.recording import texts_read
from tests.cli.conftest import Run
from tests.featcache.text.writer.chatting import ChatServer, chatting, fresh


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("FEATCACHE_API_KEY", "sk-secret")
    with chatting() as server:
        server.answers = [fresh()]
        yield server


def test_a_named_data_set_needs_no_cache(featcache: Run, empty_home: Path) -> None:
    done = featcache("text", "eurosat")
    assert done.code == 0, done.err
    head, name, _, described = done.out.splitlines()
    assert head.split("\t")[:3] == ["kind", "texts", "classes"]
    assert name.startswith("name\t10\t10/10\t1-3, median 2.5\t0\t0\tunknown")
    assert described.startswith("description\t41\t10/10\t")
    facts = json.loads(featcache("text", "imagenet", "--json").out)
    assert facts["cache"] is None
    assert [kind["kind"] for kind in facts["kinds"]] == ["name", "template"]
    assert facts["kinds"][0]["shared"] == ["missile", "sunglasses"]


def test_a_drawn_world_needs_no_cache(featcache: Run, empty_home: Path, tmp_path: Path) -> None:
    facts = json.loads(featcache("text", "fieldguide-2", "--json").out)
    assert (facts["cache"], facts["classes"], facts["default"]) == (None, 24, "description")
    counts = {kind["kind"]: (kind["texts"], kind["classes"]) for kind in facts["kinds"]}
    assert counts == {"name": (24, 24), "template": (96, 24), "description": (192, 24)}
    file = tmp_path / "d.json"
    done = featcache("text", "fieldguide-2", "--export", str(file))
    assert (done.code, done.out) == (0, f"Wrote 192 texts of kind description to {file}\n")
    assert done.err == (
        f"After editing: featcache extract --dataset fieldguide-2 --descriptions {file}\n"
    )


def test_a_cache_shows_lengths_and_its_text_sets(
    featcache: Run, home: Path, tmp_path: Path
) -> None:
    facts = json.loads(featcache("text", "blobs", "--json").out)
    assert facts["backbone"] == "tiny"
    assert [kind["cut"] for kind in facts["kinds"]] == [0, 0]
    assert "name\t3\t3/3\t1\t" in featcache("text", "blobs").out  # all of one word
    (stored,) = facts["sets"]
    assert stored["current"]
    assert stored["texts"] == {"name": 3, "template": 3}
    bank = Cache.open(Path(facts["cache"])).text()
    run_digest = texts_read(bank, None)  # as the record of a run has it
    table = featcache("text", "blobs").out
    assert f"{stored['digest']}\tyes\tname 3, template 3\ttemplate\t{run_digest}" in table
    used = featcache("text", "blobs", "--use", stored["digest"][:5])
    assert used.out == (
        f"Heads on blobs now read text set {stored['digest']}: name 3, template 3.\n"
    )
    file = tmp_path / "t.txt"
    done = featcache("text", "blobs", "--export", str(file), "--kind", "template")
    assert done.out == f"Wrote 1 texts of kind template to {file}\n"
    call = f"--dataset blobs --backbone tiny --weights random --templates {file}"
    assert done.err == f"After editing: featcache extract {call}\n"
    again = featcache("extract", *call.split(), "--dry-run")
    assert again.code == 0, again.err
    assert file.read_text() == "a photo of a {}.\n"


def test_prompts_of_no_class_are_counted_exported_and_read_by_sim(
    featcache: Run, heads: Run, home: Path, tmp_path: Path
) -> None:
    lines = tmp_path / "p.txt"
    lines.write_text("a street.\na red hat.\na street.\n")
    missing = heads("train", "sim", "--shots", "2", "--set", "text=prompt")
    assert missing.code == 1
    assert "holds no prompts" in missing.err
    assert "--prompts FILE, a text file with one sentence a line." in missing.err
    call = ("extract", "--dataset", "blobs", "--prompts", str(lines), "--json")
    added = featcache(*call)
    assert added.code == 0, added.err
    assert json.loads(added.out)["texts"] == {"prompt": 2}
    assert "prompt\t2\tof none\t2-3, median 2.5\t0\t0\t0\n" in featcache("text", "blobs").out
    assert "No texts of kind prompt" not in featcache("text", "blobs").err
    assert "prompt 2" in featcache("info").out
    out = tmp_path / "again.txt"
    wrote = featcache("text", "blobs", "--kind", "prompt", "--export", str(out))
    assert wrote.out == f"Wrote 2 texts of kind prompt to {out}\n"
    assert f"--prompts {out}" in wrote.err
    assert out.read_text() == "a street.\na red hat.\n"
    trained = heads("train", "sim", "--shots", "2", "--set", "text=prompt", "--quiet", "--json")
    assert trained.code == 0, trained.err
    stored = json.loads(featcache("text", "blobs", "--json").out)["sets"][0]
    digest = stored["digests"]["prompt"]
    assert json.loads(trained.out.splitlines()[0])["texts"].endswith(f":{digest}")
    refused = heads("train", "zero-shot", "--set", "text=prompt")
    assert refused.code == 2
    assert "'prompt'" in refused.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["eurosta"], 2, "did you mean 'eurosat'?"),
        (["blobz"], 2, "'blobs'"),
        (["blobs", "--key", "zz"], 2, "key of a cache"),
        (["blobs", "--backbone", "RN50"], 2, "cached backbone 'RN50'"),
        (["blobs", "--use", "zz"], 2, "Unknown text set 'zz'"),
        (["eurosat", "--use", "ab"], 1, "no cache of eurosat"),
        (["eurosat", "--export", "/no/such/x.json"], 2, "there is no folder /no/such"),
        (["eurosat", "--export", "x.json", "--kind", "cupI"], 2, "did you mean 'cupl'?"),
        (["blobs", "--export", "x.json"], 2, "has no texts of kind 'description'"),
        (["blobs", "--export", "x.json", "--kind", "cupl"], 2, "exported are: --kind template"),
        (["eurosat", "--url", "https://x.org"], 2, "are for --generate"),
        (["eurosat", "--generate", "--use", "a"], 2, "exclude each other"),
        (["eurosat", "--generate", "--model", "m"], 2, "needs --url"),
        (["eurosat", "--generate", "--url", "https://x.org"], 2, "needs --model"),
        (["eurosat", "--generate", "--url", "x.org", "--model", "m"], 2, "--url https://x.org"),
        (["pets", "--generate", "--url", "https://x.org", "--model", "m"], 2, "no key for x.org"),
        (["nosuch", "--generate", "--url", "https://x.org", "--model", "m"], 2, "'nosuch'"),
        (["eurosat", "--generate", "--url", "http://localhost", "--model", "m"], 2, "--export"),
        (["eurosat", "--generate", "--url", "http://localhost", "--model", "m", "--instructions",
          "/no/such.txt"], 2, "--instructions /no/such.txt"),
        (["eurosat", "--generate", "--url", "http://localhost", "--model", "m", "--kind", "dclip"],
         2, "to write 'dclip'"),
    ],
)  # fmt: skip
def test_wrong_input(
    featcache: Run,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("FEATCACHE_API_KEY", raising=False)
    done = featcache("text", *arguments)
    assert done.code == code, done.err
    assert says in done.err
    assert done.out == ""


def test_texts_are_written_after_the_cost_was_agreed_to(
    featcache: Run,
    empty_home: Path,
    server: ChatServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "e.json"
    call = ["text", "eurosat", "--generate", "--url", server.url, "--model", "parrot",
            "--per-class", "2", "--export", str(file)]  # fmt: skip
    refused = featcache(*call)
    assert refused.code == 2
    assert "Nobody is there to agree to 10 requests to 127.0.0.1:" in refused.err
    assert "Add --yes" in refused.err
    assert not server.asked
    monkeypatch.setattr(output, "can_ask", lambda: True)
    monkeypatch.setattr(output, "confirm", lambda _: False)
    assert featcache(*call).code == 1
    assert not server.asked
    monkeypatch.setattr(output, "confirm", lambda _: True)
    done = featcache(*call)
    assert done.code == 0, done.err
    assert "The key is that of FEATCACHE_API_KEY." in done.err
    assert done.out == f"{file} has 20 sentences for 10 classes (10 requests)\n"
    assert "sk-secret" not in done.out + done.err + file.read_text()
    again = featcache(*call, "--json")
    assert json.loads(again.out)["requests"] == 0
    assert len(server.asked) == 10


def test_a_thousand_classes_are_asked_about_first(
    featcache: Run, empty_home: Path, server: ChatServer, tmp_path: Path
) -> None:
    done = featcache("text", "imagenet", "--generate", "--url", server.url, "--model", "parrot",
                     "--export", str(tmp_path / "i.json"))  # fmt: skip
    assert done.code == 2
    assert "998 requests" in done.err
    assert not server.asked


def test_refused_sentences_are_reported_and_escaped(
    featcache: Run, empty_home: Path, server: ChatServer, tmp_path: Path
) -> None:
    server.answers = [fresh(starts="a \x1b[31mphoto of \u202ething", count=2), fresh()]
    done = featcache("text", "eurosat", "--generate", "--url", server.url, "--model", "parrot",
                     "--per-class", "2", "--export", str(tmp_path / "e.json"), "--yes")  # fmt: skip
    assert done.code == 0, done.err
    assert "2 sentences were refused" in done.err
    assert "has control characters" in done.err
    assert "\x1b[31m" not in done.err
    assert "\u202e" not in done.err

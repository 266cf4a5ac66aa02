"""The command line of `featcache`: what it prints where, and how it leaves."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.sources import files
from featcache.store.cache import Cache

Run = Callable[..., Any]
TINY = ("--backbone", "tiny", "--weights", "random")


def test_asking_again_encodes_nothing(featcache: Run, home: Path, photos: Path) -> None:
    answer = featcache("extract", *TINY, "--dataset", f"folder:{photos}", "--views", "2", "--json")
    assert answer.code == 0
    summary = json.loads(answer.out)
    assert summary["encoded"] == {}
    assert summary["complete"]
    assert summary["images"] == 30


def test_ls_and_info_tell_the_same(featcache: Run, home: Path) -> None:
    listed = json.loads(featcache("ls", "--json").out)
    shown = json.loads(featcache("info", "--json").out)
    assert (listed["dataset"], listed["backbone"]) == ("blobs", "tiny")
    assert shown["key"] == listed["key"]
    assert sum(shown["splits"].values()) == listed["images"] == 30
    assert shown["classes"] == ["lime", "plum", "rust"]
    assert "blobs" in featcache("ls").out
    assert "preprocessing" in featcache("info", "--dataset", "blobs").out


def test_verify_finds_one_changed_byte_and_repair_mends_it(
    featcache: Run, empty_home: Path, photos: Path
) -> None:
    command = ("extract", *TINY, "--dataset", f"folder:{photos}", "--quiet", "--json")
    path = Path(json.loads(featcache(*command).out)["path"])
    shard = next((path / "global").glob("*.h5"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    found = featcache("verify", "--quiet")
    assert found.code == 1
    assert "DAMAGED" in found.out
    assert str(shard) in found.out
    mended = featcache("repair", "--quiet")
    assert mended.code == 0
    assert "encoded again: global 30 rows" in mended.out
    assert json.loads(featcache(*command).out)["encoded"] == {}
    assert featcache("verify", "--quiet", "--full").out.startswith("sound")
    assert next((path / "global").glob("*.h5")).read_bytes() == whole


@pytest.mark.parametrize("earlier", [False, True])
def test_repair_finds_images_whose_names_are_escaped(
    featcache: Run, empty_home: Path, photos: Path, tmp_path: Path, earlier: bool
) -> None:
    """Earlier versions gave literal backslashes ids that read like escapes."""
    names = ("zwei\nZeilen", "t\tb", "z" if earlier else r"zwei\nZeilen", r"back\slash")
    for i, name in enumerate(names):
        shutil.copytree(next(photos.glob("plum")), tmp_path / "nl" / name)
        for image in (tmp_path / "nl" / name).iterdir():
            image.write_bytes(image.read_bytes() + bytes([i]))  # no copies of each other
    literal = tmp_path / "nl" / r"new\named"
    if earlier:
        shutil.copytree(photos / "rust", literal)
    command = ("extract", *TINY, "--dataset", f"folder:{tmp_path / 'nl'}", "--quiet", "--json")
    with pytest.MonkeyPatch.context() as patch:
        if earlier:
            plain = lambda path, root: files._escaped(str(path.relative_to(root)))  # noqa: E731
            patch.setattr(files, "as_id", plain)
        path = Path(json.loads(featcache(*command).out)["path"])
    ids = Cache.open(path).listing().ids  # type: ignore[union-attr]
    assert any(i.startswith(r"new\named/") for i in ids) == earlier
    whole = {shard: shard.read_bytes() for shard in (path / "global").glob("*.h5")}
    for shard in whole:
        shard.unlink()
    mended = featcache("repair", "--quiet")
    assert (mended.code, f"global {len(ids)} rows" in mended.out) == (0, True), mended.out
    assert {shard: shard.read_bytes() for shard in whole} == whole
    assert json.loads(featcache(*command).out)["encoded"] == {}


def test_what_is_said_of_a_cache_without_key_and_listing(
    featcache: Run, full_home: Path, tmp_path: Path
) -> None:
    home = shutil.copytree(full_home, tmp_path / "home")
    (path,) = (key.parent for key in home.glob("*/*/key.json"))
    shutil.copytree(path / "listing", tmp_path / "listing")
    (path / "key.json").unlink()
    shutil.rmtree(path / "listing")
    at = ("--cache", str(home), "--quiet")
    found = featcache("verify", *at)
    assert found.out.startswith("DAMAGED: none of its 5")
    repaired = featcache("repair", *at)
    assert repaired.code == 1
    assert "No copy is left. Restore it from a backup" in repaired.out
    assert "listing is gone" not in repaired.err  # once is enough
    assert "Run `featcache repair`" not in repaired.out + repaired.err
    shutil.copytree(tmp_path / "listing", path / "listing")
    assert featcache("repair", *at).out.startswith("sound")


def test_a_repair_that_lacks_images_names_the_command(
    featcache: Run, empty_home: Path, photos: Path, tmp_path: Path
) -> None:
    pictures = shutil.copytree(photos, tmp_path / "my blobs")
    featcache("extract", *TINY, "--dataset", f"folder:{pictures}", "--quiet", "--patches", "none")
    (shard,) = empty_home.glob("*/*/global/*.h5")
    shard.unlink()
    (pictures / "plum" / "0.png").unlink()
    repaired = featcache("repair", "--quiet")
    assert repaired.code == 1
    assert repaired.out.startswith("mended in part: ")
    assert "1 row has lost its image" in repaired.out
    command = repaired.out.strip().rpartition(": ")[2]
    assert command == "featcache extract --dataset 'my blobs' --backbone tiny --weights random-0"
    assert featcache(*shlex.split(command)[1:], "--quiet").code == 0
    assert featcache("verify", "--quiet").code == 0


def test_verify_says_that_a_first_pass_has_not_ended(
    featcache: Run, full_home: Path, tmp_path: Path
) -> None:
    home = shutil.copytree(full_home, tmp_path / "home")
    (manifest,) = home.glob("*/*/manifest.jsonl")
    lines = manifest.read_bytes().splitlines(keepends=True)
    ends = [i for i, line in enumerate(lines) if b'"kind":"pass"' in line]
    manifest.write_bytes(b"".join(lines[: ends[0]]))
    found = featcache("verify", "--cache", str(home), "--quiet")
    assert found.code == 0
    assert found.out.startswith("sound, unfinished: ")
    command = f"featcache extract --dataset blobs --backbone tiny --weights random --cache {home}"
    assert command in found.err


def test_info_names_the_option_that_tells_the_others(
    featcache: Run, full_home: Path, tmp_path: Path
) -> None:
    home = shutil.copytree(full_home, tmp_path / "home")
    at = ("--cache", str(home))
    assert "fit" not in featcache("info", *at).err
    rows = np.ones((4, 16), dtype=np.float32)
    np.savez(
        tmp_path / "f.npz", train_features=rows, train_labels=[0, 0, 1, 1],
        test_features=rows, test_labels=[0, 0, 1, 1], classnames=np.array(["a", "b"]),
    )  # fmt: skip
    for backbone in ("tiny", "other"):
        file = str(tmp_path / "f.npz")
        featcache("import", "npz", file, "--name", "zoo", "--backbone", backbone, *at)
    said = featcache("info", *at, "--dataset", "zoo").err
    assert "1 more cache fits: --backbone " in said
    said = featcache("info", *at).err
    assert "2 more caches fit: " in said
    assert "--dataset blobs (random-0)" in said
    assert "--dataset zoo --backbone " in said


def test_a_second_import_of_a_name_says_so(
    featcache: Run, heads: Run, empty_home: Path, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    for i, file in enumerate(("one.npz", "two.npz")):
        np.savez(
            tmp_path / file, train_features=rows + i, train_labels=np.arange(8) % 2,
            test_features=rows + i, test_labels=np.arange(8) % 2, classnames=np.array(["a", "b"]),
        )  # fmt: skip
    into = ("--name", "caltech50", "--backbone", "X", "--quiet")
    first = featcache("import", "npz", str(tmp_path / "one.npz"), *into).out
    assert "was there already" not in first
    key = json.loads(featcache("info", "--json").out)["key"]
    again = ("import", "npz", str(tmp_path / "two.npz"), *into)
    second = featcache(*again).out
    assert f"'caltech50' with X was there already: key {key} (file one.npz)" in second
    assert "was there already" not in featcache(*again).out
    refused = featcache("extract", "--dataset", "caltech50", "--quiet")
    assert refused.code == 2
    assert "'caltech50' was imported (file two.npz)" in refused.err
    assert "featcache extract" not in refused.err
    untexted = heads("train", "zero-shot", "--dataset", "caltech50", "--key", key, "--quiet")
    assert untexted.code == 1
    assert "text_features" in untexted.err
    assert "--templates" not in untexted.err


def test_descriptions_of_some_classes_say_what_will_not_run(
    featcache: Run, heads: Run, photos: Path, empty_home: Path, tmp_path: Path
) -> None:
    words = tmp_path / "words.json"
    words.write_text('{"plum": ["a stone fruit"]}')
    command = ("extract", *TINY, "--dataset", f"folder:{photos}", "--patches", "none")
    said = featcache(*command, "--descriptions", str(words)).err
    assert "No descriptions for 'lime', 'rust'." in said
    assert "2 of 3 classes have no descriptions: lazsl, fair and" in said
    told = heads("train", "lazsl", "--quiet")  # crops are missing too: both in one error
    assert "crops of recipe lazsl" in told.err
    assert "texts of kind 'description' for every class" in told.err
    assert "--crops 60 --descriptions FILE.json" in told.err
    told = heads("train", "lazsl", "--set", "text=template", "--quiet")
    assert "--crops 60" in told.err
    assert "--descriptions" not in told.err
    words.write_text(json.dumps({"plum\nfruit": ["x"]}))
    refused = featcache(*command, "--descriptions", str(words))
    assert (refused.code, "write that class as 'plum fruit'" in refused.err) == (2, True)


def test_rm_asks_and_then_removes(featcache: Run, empty_home: Path, photos: Path) -> None:
    featcache("extract", *TINY, "--dataset", f"folder:{photos}", "--quiet", "--limit", "6")
    refused = featcache("rm", "blobs")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert featcache("rm", "blobs", "--yes").code == 0
    assert "extract" in featcache("ls").err


def test_rm_takes_one_cache_and_wants_to_know_which(
    featcache: Run, empty_home: Path, photos: Path
) -> None:
    for weights in ("random-1", "random-2"):
        featcache("extract", "--weights", weights, "--dataset", f"folder:{photos}", "--limit", "3")
    keys = [json.loads(line)["key"] for line in featcache("ls", "--json").out.splitlines()]
    refused = featcache("rm", "blobs", "--yes")
    assert refused.code == 2
    assert all(key in refused.err for key in keys)
    assert featcache("rm", "blobs", "--yes", "--key", keys[0][:6]).code == 0
    left = [json.loads(line)["key"] for line in featcache("ls", "--json").out.splitlines()]
    assert left == keys[1:]


def test_dry_run_writes_nothing(featcache: Run, empty_home: Path, photos: Path) -> None:
    answer = featcache("extract", *TINY, "--dataset", f"folder:{photos}", "--dry-run")
    assert answer.code == 0
    assert "\n  global: 30 rows, 8 kB\n" in answer.out
    assert not empty_home.exists()


def test_results_go_to_stdout_and_talk_to_stderr(
    featcache: Run, empty_home: Path, photos: Path
) -> None:
    loud = featcache("extract", *TINY, "--dataset", f"folder:{photos}", "--limit", "6")
    assert "To encode: 6 images" in loud.err
    assert loud.out.startswith("Encoded 6 images of blobs")
    quiet = featcache("extract", *TINY, "--dataset", f"folder:{photos}", "--quiet")
    assert quiet.err == ""


def test_lists_have_names(featcache: Run) -> None:
    named = [json.loads(line)["name"] for line in featcache("datasets", "--json").out.splitlines()]
    assert {"fieldguide", "fieldguide-2", "eurosat"} <= set(named)
    models = featcache("backbones", "ViT-B", "--json").out.splitlines()
    assert {"ViT-B/16", "ViT-B-32-quickgelu"} <= {json.loads(line)["name"] for line in models}
    assert "tiny" in featcache("backbones").out


def test_import_npz(featcache: Run, empty_home: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12, 8)).astype(np.float32)
    labels = np.arange(12) % 3
    np.savez(
        tmp_path / "f.npz", train_features=rows, train_labels=labels,
        test_features=rows, test_labels=labels, classnames=np.array(["a", "b", "c"]),
    )  # fmt: skip
    answer = featcache(
        "import", "npz", str(tmp_path / "f.npz"), "--name", "mine", "--backbone", "ViT-B/32"
    )
    assert answer.code == 0
    assert "train 12, test 12" in answer.out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["extract", "--backbone", "vit-b16"], 2, "ViT-B"),
        (["extract", "--dataset", "fieldgide"], 2, "did you mean 'fieldguide'"),
        (["extract", "--dataset", "folder:/no/such/place"], 1, "/no/such/place"),
        (["extract", "--patches", "clear", "--limit", "1"], 2, "clearclip"),
        (["extract", "--limit", "0"], 2, "--limit"),
        (["extract", "--waffle", "-1"], 2, "--waffle"),
        (["extract", "--profile-to", "/no/such/x.json"], 2, "--profile-to"),
        (["extract", "--waffle", "words"], 2, "--waffle"),
        (["extract", "--weights", "nothing.safetensors"], 1, "nothing.safetensors"),
        (["info"], 1, "featcache extract"),
        (["verify", "--dataset", "x"], 1, "featcache extract"),
        (["rm", "x"], 1, "featcache extract"),
        (["import", "npz", "no.npz", "--name", "a", "--backbone", "b"], 1, "no.npz"),
        (["import", "npz", "x", "--name", "../../esc", "--backbone", "b"], 2, "--name esc"),
        (["extract", "--dataset", "folder:.", "--name", "../esc"], 2, "--name esc"),
        (["backbones", "qqqqq"], 2, "qqqqq"),
        (["exctract"], 2, "exctract"),
    ],
)
def test_wrong_input_is_one_sentence(
    featcache: Run, empty_home: Path, arguments: list[str], code: int, says: str
) -> None:
    answer = featcache(*arguments)
    assert answer.code == code, answer
    assert says in answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err


def test_further_texts_are_added_without_an_image(
    featcache: Run, heads: Run, empty_home: Path, photos: Path, tmp_path: Path
) -> None:
    command = ("extract", *TINY, "--dataset", f"folder:{photos}", "--quiet")
    featcache(*command)
    words = tmp_path / "words.json"
    for text, code in (("{", 2), ('{"pear": ["x"]}', 2)):
        words.write_text(text)
        refused = featcache(*command, "--cupl", str(words))
        assert refused.code == code
        assert refused.err.count("\n") == 1
    words.write_text('{"plum": ["A plum is round."], "lime": ["Limes"], "rust": ["It is old."]}')
    added = featcache(*command, "--cupl", str(words), "--waffle", "1", "--json")
    assert json.loads(added.out)["encoded"] == {}
    counts = {"template": 3, "cupl": 3, "waffle": 90}
    assert json.loads(featcache("info", "--json").out)["texts"] == counts
    assert "template 3, cupl 3, waffle 90" in featcache("info").out
    for kind in ("cupl", "waffle"):
        answer = heads("train", "zero-shot", "--set", f"text={kind}", "--quiet", "--json")
        assert json.loads(answer.out)["variant"] == f"text={kind}"


def test_a_path_that_the_system_refuses_is_one_sentence(featcache: Run, empty_home: Path) -> None:
    long = "x" * 300
    for arguments in (["--dataset", f"folder:{long}"], ["--dataset", long], ["--weights", long]):
        answer = featcache("extract", *arguments)
        assert answer.code == 1, answer
        assert "File name too long" in answer.err
        assert "Traceback" not in answer.err


def test_repair_leaves_sound_imported_features_alone(
    featcache: Run, empty_home: Path, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32)
    labels = np.arange(12) % 2
    np.savez(
        tmp_path / "bare.npz", train_features=rows[:8], train_labels=labels[:8],
        test_features=rows[8:], test_labels=labels[8:], classnames=np.array(["a", "b"]),
    )  # fmt: skip
    featcache("import", "npz", str(tmp_path / "bare.npz"), "--name", "bare", "--backbone", "X")
    answer = featcache("repair", "--quiet")
    assert answer.code == 0
    assert answer.out.startswith("sound: 1 shard,")
    assert answer.err == ""


def test_a_damaged_import_is_mended_by_the_same_file(
    featcache: Run, heads: Run, empty_home: Path, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32)
    labels = np.arange(12) % 2
    np.savez(
        tmp_path / "f.npz", train4_features=rows[:8], train4_labels=labels[:8],
        test_features=rows[8:], test_labels=labels[8:], classnames=np.array(["a", "b"]),
    )  # fmt: skip
    again = ("import", "npz", str(tmp_path / "f.npz"), "--name", "my bugs", "--backbone", "X")
    first = featcache(*again)
    assert "(linear-probe, ridge, knn, nearest-mean)" in first.err
    assert "nothing was left to do" in featcache(*again, "--quiet").out
    cure = f"featcache import npz FILE --name 'my bugs' --backbone X --cache {empty_home}"
    (shard,) = empty_home.glob("*/*/global/*.h5")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    found, taken = featcache("verify", "my bugs", "-q"), featcache("repair", "my bugs", "-q")
    trained = heads("train", "ridge", "--shots", "2", "--quiet")
    for answer in (found, taken, trained, featcache("verify", "--quiet")):
        assert answer.code == 1
        assert cure in answer.out + answer.err
        assert "featcache extract" not in answer.out + answer.err
    mended = featcache(*again, "--quiet", "--json")
    (said,) = json.loads(mended.out)["said"]
    assert "restored 12 rows" in said
    assert featcache("verify", "my bugs", "--quiet").code == 0
    assert shard.read_bytes() == whole


def test_the_data_set_may_be_named_without_a_flag(featcache: Run, home: Path) -> None:
    for command in ("info", "verify", "repair"):
        assert featcache(command, "blobs").out == featcache(command, "--dataset", "blobs").out != ""
        assert featcache(command, "blob").code == 2
        assert "leave one" in featcache(command, "blobs", "--dataset", "other").err


def test_a_profile_names_what_binds_and_goes_with_the_cache(
    featcache: Run, empty_home: Path, photos: Path, tmp_path: Path
) -> None:
    command = ("extract", *TINY, "--dataset", f"folder:{photos}", "--quiet")
    told = featcache(*command, "--profile").out
    (trace,) = empty_home.rglob("*.trace.json")
    assert f"Timeline: {trace}" in told
    assert " binds (" in told or "too short to keep the cores busy" in told
    assert "traceEvents" in json.loads(trace.read_text())
    views = json.loads(
        featcache(*command, "--views", "2", "--profile-to", str(tmp_path / "t.json"), "--json").out
    )
    assert views["profile"] == str(tmp_path / "t.json")
    assert (tmp_path / "t.json").exists()
    assert featcache("ls").code == 0
    assert featcache("verify", "--quiet").code == 0
    assert featcache("rm", "blobs", "--yes").code == 0
    assert not trace.exists()
    assert not trace.parent.exists()


def test_compile_without_a_compiler_stops_before_anything_is_written(
    featcache: Run, empty_home: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # as if switched off
    answer = featcache("extract", *TINY, "--dataset", f"folder:{photos}", "--compile")
    assert answer.code == 1
    assert "leave --compile out" in " ".join(answer.err.split())
    assert not list(empty_home.rglob("*.h5"))
    assert not list(empty_home.rglob("key.json"))

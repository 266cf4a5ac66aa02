"""The command line of `featcache`: what it prints where, and how it leaves."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.sources.trees import folder
from featcache.sources.trees.names import escaped
from featcache.store.cache import Cache

Run = Callable[..., Any]
TINY = ("--backbone", "tiny", "--weights", "random")


@pytest.mark.long
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
            patch.setattr(folder, "id_of", escaped)
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


@pytest.mark.long
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
    first = featcache("import", "npz", str(tmp_path / "one.npz"), *into).err
    assert "was there already" not in first
    key = json.loads(featcache("info", "--json").out)["key"]
    again = ("import", "npz", str(tmp_path / "two.npz"), *into)
    second = featcache(*again).err
    assert f"'caltech50' with X was there already: key {key} (file one.npz)" in second
    assert "was there already" not in featcache(*again).err
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

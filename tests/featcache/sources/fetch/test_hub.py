"""Data sets of the hub: a local server speaks its interface, or does not."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from featcache.errors import DownloadNeededError, FeatcacheError, SourceError, UsageError
from featcache.limits import IMAGE_FILE
from featcache.sources.base import Dataset
from featcache.sources.fetch import disk
from featcache.sources.hub import api
from featcache.sources.hub.names import HubName
from featcache.sources.registry import name_of, open_dataset
from tests.featcache.sources.fetch.hub_server import COMMIT, NAME, Hub, for_token, said, shard
from tests.featcache.sources.fetch.serving import (
    Answering,
    FileServer,
    Handler,
    cut_after,
    in_turn,
    redirect,
    serving,
    status,
    whole,
)

pytest.importorskip("pyarrow")

TRAIN, TEST = "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"


@pytest.fixture
def hub(server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    monkeypatch.setenv("HF_ENDPOINT", server.url("/"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    made = Hub(server)
    made.hold({TRAIN: shard(0, 1, 0, 1), TEST: shard(1, 0), "README.md": b"---\n"})
    return made


@pytest.fixture
def get(tmp_path: Path) -> Callable[..., Dataset]:
    def get(spec: str = f"hf:{NAME}", **more: object) -> Dataset:
        return open_dataset(spec, root=tmp_path / "home", **more)  # type: ignore[arg-type]

    return get


Get = Callable[..., Dataset]


def refusal(get: Get, spec: str = f"hf:{NAME}", kind: type[FeatcacheError] = SourceError) -> str:
    with pytest.raises(kind) as caught:
        get(spec)
    return str(caught.value)


def test_a_data_set_at_a_commit(hub: Hub, get: Get, tmp_path: Path) -> None:
    data = get()
    assert data.classes == ("ant", "bee")
    assert [s.split for s in data.samples].count("test") == 2
    assert data.samples[0].place.read(IMAGE_FILE) == b"0 of (0, 1, 0, 1)"
    folder = tmp_path / "home/images/hub" / NAME / COMMIT
    assert data.root == folder
    assert data.spec == f"hf:{folder}"
    assert not (folder / "README.md").exists()
    assert data.name == name_of(f"hf:{NAME}") == "beasts"
    assert f"hf:{NAME} is at commit {COMMIT}." in data.notes
    assert [s.id for s in get(data.spec).samples] == [s.id for s in data.samples]
    assert [p.name for p in folder.parent.iterdir()] == [COMMIT]


def test_what_is_there_is_not_fetched_again(hub: Hub, get: Get) -> None:
    get()
    get()
    assert hub.asked(hub.file(TRAIN)) == hub.asked(hub.tree()) == 1
    count = len(hub.server.asked)
    get(f"hf:{NAME}@{COMMIT}")
    assert len(hub.server.asked) == count  # a commit never changes


def test_caches_share_a_data_root(hub: Hub, get: Get, tmp_path: Path) -> None:
    get(data_root=tmp_path / "shared")
    other = open_dataset(f"hf:{NAME}", root=tmp_path / "other", data_root=tmp_path / "shared")
    assert other.root == tmp_path / "shared/hub" / NAME / COMMIT
    assert hub.asked(hub.file(TRAIN)) == 1


def test_a_new_commit_is_another_folder(hub: Hub, get: Get) -> None:
    before = get()
    later = hashlib.sha1(b"another").hexdigest()
    hub.hold({TRAIN: shard(1, 1, 0)}, commit=later)
    assert get().root.name == later
    assert len(get(f"hf:{NAME}@{COMMIT}").samples) == len(before.samples)


def test_revisions_with_slashes(hub: Hub, get: Get) -> None:
    converted = hashlib.sha1(b"converted").hexdigest()
    files = {"default/train/0000.parquet": shard(0, 1)}
    hub.hold(files, revision="refs/convert/parquet", commit=converted)
    assert get(f"hf:{NAME}@refs/convert/parquet").root.name == converted


def test_configurations(hub: Hub, get: Get) -> None:
    files = {"large/train/0.parquet": shard(0, 1, 1), "small/train/0.parquet": shard(0, 1)}
    hub.hold(files)
    assert f"several configurations: large, small. Name one of them: dataset='hf:{NAME}:large'" in (
        refusal(get)
    )
    assert not any("resolve" in path for path, _ in hub.server.asked)  # known before downloading
    data = get(f"hf:{NAME}:small")
    assert (len(data.samples), data.name) == (2, "beasts-small")
    assert hub.asked(hub.file("large/train/0.parquet")) == 0
    assert "small" in refusal(get, f"hf:{NAME}:smal", FeatcacheError)
    assert len(get(f"hf:{NAME}:large").samples) == 3


CARD = b"""---
configs:
- config_name: small
  data_files:
  - split: train
    path: data/one.parquet
  - split: test
    path: data/two.parquet
- config_name: large
  default: true
  data_files: more/*
---
"""


def test_configurations_of_the_card(hub: Hub, get: Get) -> None:
    files = {"data/one.parquet": shard(0, 1), "data/two.parquet": shard(0), "README.md": CARD}
    hub.hold({**files, "more/x.parquet": shard(0, 1, 1, 0), "other/x.parquet": shard(1)})
    small = get(f"hf:{NAME}:small")
    assert [s.split for s in small.samples] == ["train", "train", "test"]
    assert small.spec.endswith("-small?config=small")
    assert [s.id for s in get(small.spec).samples] == [s.id for s in small.samples]
    assert hub.asked(hub.file("more/x.parquet")) == hub.asked(hub.file("other/x.parquet")) == 0
    large = get()
    assert {s.id.rpartition("/")[0] for s in large.samples} == {"more/x.parquet"}
    assert len(get(f"hf:{NAME}:other").samples) == 1  # a folder that the card does not name
    assert f"dataset='hf:{NAME}:small'" in refusal(get, f"hf:{NAME}?config=small", UsageError)
    assert "small" in refusal(get, f"hf:{NAME}:smal", FeatcacheError)


def test_a_card_without_a_default(hub: Hub, get: Get) -> None:
    files = {"data/one.parquet": shard(0, 1), "more/x.parquet": shard(1)}
    hub.hold({**files, "README.md": CARD.replace(b"  default: true\n", b"")})
    message = refusal(get)
    assert "several configurations: small, large" in message
    assert f"hf:{NAME}:small" in message
    assert hub.asked(hub.file("data/one.parquet")) == 0


def test_options_follow_the_name(hub: Hub, get: Get) -> None:
    assert get(f"hf:{NAME}?label=label").spec.endswith(f"{COMMIT}?label=label")


def test_class_folders_in_a_repository(hub: Hub, get: Get) -> None:
    files = {f"train/{c}/{i}.jpg": f"{c}{i}".encode() for c in ("ant", "bee") for i in range(3)}
    hub.hold({**files, "train/ant/empty.jpg": b""}, large=lambda path: "ant" in path)
    data = get()
    assert data.classes == ("ant", "bee")
    assert len(data.samples) == 7


def test_images_with_a_table_in_a_repository(hub: Hub, get: Get) -> None:
    table = b"file_name,label\na.jpg,ant\nsub/a.jpg,bee\n"
    hub.hold({"train/a.jpg": b"1", "train/sub/a.jpg": b"2", "train/metadata.csv": table})
    assert {s.id for s in get().samples} == {"train/a.jpg", "train/sub/a.jpg"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"beasts.py": b"1/0"}, "loading script beasts.py, which is not run"),
        ({"beasts.py": b"1/0", TRAIN: b"x"}, f"hf:{NAME}@refs/convert/parquet"),
        ({"tools/make.py": b"1/0"}, "loading script tools/make.py"),
        ({"data/all.zip": b"PK"}, "holds archives, as data/all.zip"),
        ({"README.md": b"hello"}, "neither parquet files nor images"),
        ({"../../evil.parquet": b"x"}, "whose path is not plain"),
        ({"/etc/evil.parquet": b"x"}, "whose path is not plain"),
        ({"a/./b.parquet": b"x"}, "whose path is not plain"),
        ({"a\nb.jpg": b"x"}, "whose path is not plain"),
    ],
)
def test_repositories_that_are_refused(
    hub: Hub, get: Get, tmp_path: Path, files: dict[str, bytes], expected: str
) -> None:
    hub.hold(files)
    assert expected in refusal(get)
    assert not any("resolve" in path for path, _ in hub.server.asked)
    assert not list(tmp_path.rglob("*evil*"))
    assert not (tmp_path / "home/images/hub" / NAME).exists()


def test_a_cut_connection_is_continued(hub: Hub, get: Get) -> None:
    data = shard(*([0, 1] * 150))
    hub.hold({TRAIN: data})
    hub.answer(hub.file(TRAIN), in_turn(cut_after(1000), cut_after(900), whole))
    assert len(get().samples) == 300
    assert [r for r in hub.server.ranges() if r] == [1000, 1900]


def test_a_stopped_download_goes_on_later(hub: Hub, get: Get) -> None:
    data = shard(*([0, 1] * 150))
    hub.hold({"data/test.parquet": shard(0, 1), "data/train.parquet": data})
    hub.answer(hub.file("data/train.parquet"), cut_after(1000))
    said_ = refusal(get, kind=DownloadNeededError)
    assert "train.parquet of hf:zoo/beasts" in said_
    assert "Run the same command again later" in said_
    assert "dataset_root" not in said_
    hub.answer(hub.file("data/train.parquet"), whole)
    first = len(hub.server.asked)
    assert len(get().samples) == 302
    later = [path for path, _ in hub.server.asked[first:]]
    assert hub.file("data/test.parquet") not in later
    assert hub.server.ranges()[-1] > 0


def test_wrong_bytes_are_never_put_in_place(hub: Hub, get: Get, tmp_path: Path) -> None:
    data = bytearray(hub.server.files[hub.file(TRAIN)])
    data[len(data) // 2] ^= 1
    hub.server.files[hub.file(TRAIN)] = bytes(data)
    assert "is not the published one" in refusal(get, kind=DownloadNeededError)
    assert not (tmp_path / "home/images/hub" / NAME / COMMIT).exists()
    hub.server.files[hub.file(TRAIN)] = bytes(data)[:-1]
    assert "were published" in refusal(get, kind=DownloadNeededError)


def test_a_redirect_to_another_server_does_not_get_the_token(
    hub: Hub, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shard(0, 1)
    with serving() as store:
        hub.hold({TRAIN: data}, wrap=lambda answering: for_token("hf_secret", answering))
        there = store.put("/bucket/1", data)
        hub.answer(hub.file(TRAIN), for_token("hf_secret", redirect(there)))
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        assert len(get().samples) == 2
        assert store.asked
        assert not any("authorization" in headers for _, headers in store.asked)


def test_private_data_sets(hub: Hub, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.hold({TRAIN: shard(0, 1)}, wrap=lambda answering: for_token("hf_right", answering))
    assert "put a token that may read it into the environment variable HF_TOKEN" in refusal(get)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    message = refusal(get)
    assert "for the token in HF_TOKEN (401)" in message
    assert "hf_wrong" not in message
    monkeypatch.setenv("HF_TOKEN", "hf_bro\nken")
    message = refusal(get)
    assert "HF_TOKEN holds something else than a token" in message
    assert "bro" not in message
    monkeypatch.setenv("HF_TOKEN", " hf_right\n")
    assert len(get().samples) == 2


def test_terms_that_were_not_accepted(hub: Hub, get: Get) -> None:
    hub.answer(hub.file(TRAIN), status(403))
    message = refusal(get, kind=DownloadNeededError)
    assert "403 Forbidden" in message
    assert "needs a token in HF_TOKEN" in message


def test_no_such_data_set(hub: Hub, get: Get) -> None:
    assert "has no data set zoo/beasts at revision 'v9'; check the name at" in refusal(
        get, f"hf:{NAME}@v9"
    )
    assert "no folder" in refusal(get, "hf:/nowhere/at/all")


def test_without_a_network(hub: Hub, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    message = refusal(get, kind=DownloadNeededError)
    assert "http://127.0.0.1:1 could not be reached" in message
    monkeypatch.setenv("HF_ENDPOINT", hub.server.url(""))
    get()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    data = get()
    assert "could not be reached" in data.notes[0]
    assert f"at commit {COMMIT}" in data.notes[1]
    refusal(get, f"hf:{NAME}@other", DownloadNeededError)


def test_without_downloading(hub: Hub, get: Get) -> None:
    with pytest.raises(DownloadNeededError, match="downloading is off"):
        get(download=False)
    assert not hub.server.asked
    get()
    assert len(get(download=False).samples) == 6


def test_a_missing_shard_is_noticed(hub: Hub, get: Get) -> None:
    root = get().root
    (root / TRAIN).unlink()
    assert "holds something else than what was fetched" in refusal(get)


def test_a_full_disk(hub: Hub, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "RESERVE", 1 << 60)
    assert "Free some space" in refusal(get)
    assert hub.asked(hub.file(TRAIN)) == hub.asked(hub.file(TEST)) == 0


def test_progress_counts_all_files(hub: Hub, get: Get) -> None:
    told: list[tuple[str, int, int]] = []
    get(report=lambda *what: told.append(what))
    total = sum(len(hub.server.files[hub.file(path)]) for path in (TRAIN, TEST))
    assert told[-1] == (f"downloading hf:{NAME}", total, total)


def test_a_list_in_parts(hub: Hub, get: Get) -> None:
    entries = [
        {"type": "file", "path": path, "size": len(hub.server.files[hub.file(path)])}
        for path in (TRAIN, TEST)
    ]
    following = f"{hub.tree()}&cursor=abc"
    link = f'<{hub.server.url(following)}>; rel="next"'
    hub.answer(hub.tree(), said(entries[:1], Link=link))
    hub.answer(following, said(entries[1:]))
    assert len(get().samples) == 6


def _endless(h: Handler, _: bytes) -> None:
    h.start(200)
    while True:
        h.say(b" " * (1 << 16))


def tree_answers(server: FileServer) -> Iterator[tuple[Answering, str]]:
    file = {"type": "file", "path": TRAIN, "size": 1}
    yield said({"error": "x"}), "no list of files"
    yield said([{"type": "file", "path": TRAIN}]), "without path or size"
    yield said([{**file, "size": -1}]), "without path or size"
    yield said([{**file, "size": True}]), "without path or size"
    yield said([{**file, "lfs": {"oid": "12"}}]), "without its sha256"
    yield said([{"type": "symlink"}]), "neither a file nor a folder"
    yield said([file, file]), "names a file twice"
    link = f'<{server.url(Hub.tree())}>; rel="next"'
    yield said([file], Link=link), "a list without end"
    yield said([file], Link='<http://example.org/x>; rel="next"'), "at another server"
    yield _endless, "more than 1000 bytes"


def test_a_hub_that_lies(hub: Hub, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MOST_ANSWER", 1000)
    for answering, expected in tree_answers(hub.server):
        hub.answer(hub.tree(), answering)
        assert expected in refusal(get)
    answers: list[object] = [{"sha": "main"}, {"sha": None}, [], "x"]
    for content in answers:
        hub.answer(hub.revision(), said(content))
        assert "answered with no commit" in refusal(get)
    other = "0" * 40
    hub.answer(hub.revision(other), said({"sha": COMMIT}))
    assert "another commit" in refusal(get, f"hf:{NAME}@{other}")
    hub.server.put(hub.revision(), b"<html>", whole)
    assert "no JSON" in refusal(get)


def test_too_many_files(hub: Hub, get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATCACHE_MAX_MEMBERS", "2")
    assert "more than 2 files; FEATCACHE_MAX_MEMBERS" in refusal(get)


@pytest.mark.parametrize(
    "text", ["photos", "a/b/c", "../b", "a/..", "a b/c", "a/b@", "a/b:", "a/b@../x", "a/b:../x", ""]
)
def test_no_names_of_the_hub(text: str) -> None:
    assert HubName.read(text) is None

"""Texts from a chat endpoint: kept class by class, checked sentence by sentence, resumed."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from featcache.errors import SourceError, UnknownNameError, UsageError
from featcache.sources.descriptions import read_json
from featcache.text.descriptions import read_descriptions
from featcache.text.writer.endpoint import Endpoint, open_endpoint
from featcache.text.writer.write import Order, cost_of, read_instructions, write_texts
from tests.featcache.text.writer.chatting import (
    Answering,
    ChatServer,
    chatting,
    cut,
    fresh,
    huge,
    names_of,
    says,
    sentences,
    stalls,
    status,
)

CLASSES = ("red fox", "owl", "newt", "owl")
KEY = "sk-secret-key"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chatting() as server:
        server.answers = [fresh()]
        yield server


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def order(server: ChatServer, waits: list[float]) -> Order:
    endpoint = open_endpoint(server.url, "parrot", {"FEATCACHE_API_KEY": KEY})
    return Order(
        dataset="zoo",
        classes=CLASSES,
        endpoint=replace(endpoint, pause=waits.append, patience=0.5),
        per_class=2,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "zoo.json"


def test_every_class_is_asked_for_once_and_the_file_says_who_wrote_it(
    order: Order, path: Path, server: ChatServer
) -> None:
    told: list[tuple[str, int, int]] = []
    written = write_texts(order, path, report=lambda *call: told.append(call))
    assert names_of(server.questions()) == ["red fox", "owl", "newt"]
    assert (written.classes, written.sentences, written.requests) == (3, 6, 3)
    assert told[-1] == ("writing texts", 3, 3)
    found = read_json("zoo", path.read_bytes())
    assert found.descriptions["owl"] == (
        "a photo of thing number2 with mark0.",
        "a photo of thing number2 with mark1.",
    )
    assert found.author == f"parrot ({order.endpoint.host})"
    assert "2 a class, by the model parrot at 127.0.0.1:" in found.method
    assert KEY not in path.read_text()
    assert read_descriptions(path) == found.descriptions
    asked, headers, body = server.asked[0]
    assert asked == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body["model"] == "parrot"
    assert 0 < body["max_tokens"] < 1000


def test_an_interrupted_run_goes_on_and_asks_for_nothing_twice(
    order: Order, path: Path, server: ChatServer
) -> None:
    server.answers = [fresh(), status(401, b"no " + KEY.encode())]
    with pytest.raises(SourceError, match=r"1 of 3 classes are in .*zoo\.json") as caught:
        write_texts(order, path)
    assert KEY not in str(caught.value)
    assert "401" in str(caught.value)
    first = read_json("zoo", path.read_bytes()).descriptions
    assert cost_of(order, path).requests == 2
    assert "(1 of 3 classes are written already)" in cost_of(order, path).sentence(order)
    server.answers, server.asked[1:] = [fresh()], []
    write_texts(order, path)
    assert names_of(server.questions()[1:]) == ["owl", "newt"]
    found = read_json("zoo", path.read_bytes()).descriptions
    assert list(found) == ["red fox", "owl", "newt"]
    assert found["red fox"] == first["red fox"]
    assert cost_of(order, path).requests == 0


def test_sentences_that_break_the_rules_are_refused_and_asked_for_again(
    order: Order, path: Path, server: ChatServer
) -> None:
    good = "a photo of a small animal with pointed ears."
    server.answers = [
        sentences(
            "a photo of a red fox in snow.", "too short.", "a photo \x1b[2J of a thing with ears.",
            "a photo of {} with pointed ears.", "a photo of an animal without a stop", good,
        ),
        sentences(good.upper().replace("EARS.", "ears."), "a photo of long orange fur in grass."),
        fresh(),
    ]  # fmt: skip
    written = write_texts(order, path)
    taken = read_json("zoo", path.read_bytes()).descriptions["red fox"]
    assert taken == (good, "a photo of long orange fur in grass.")
    why = [(r.class_, r.why) for r in written.refused]
    assert why == [
        ("red fox", "names its class ('red fox')"),
        ("red fox", "has 2 words, expected 5 to 19"),
        ("red fox", "has control characters"),
        ("red fox", "has braces or no full stop at its end"),
        ("red fox", "has braces or no full stop at its end"),
        ("red fox", "was written before"),
    ]
    question = server.questions()[1]
    assert "Write 1 sentence." in question
    assert good in question


def test_cupl_sentences_name_their_class(order: Order, path: Path, server: ChatServer) -> None:
    server.answers = [
        sentences("A red fox has orange fur and a tail.", "An animal with orange fur and a tail."),
        sentences("In a photo, the Red Fox stands in grass."),
        fresh(starts="An owl or a newt of the"),
    ]
    written = write_texts(replace(order, kind="cupl"), path)
    assert [r.why for r in written.refused] == ["does not name its class"]
    found = read_json("zoo", path.read_bytes()).descriptions
    assert found["red fox"][1] == "In a photo, the Red Fox stands in grass."


@pytest.mark.parametrize(
    ("answering", "why"),
    [
        (says("I am a language model."), "not a JSON array"),
        (says(None), "message without text"),
        (says('{"a": ["b"], "c": ["d"]}'), "not a JSON array"),
        (says("[1, 2]"), "not a JSON array"),
        (says("[]"), "0 sentences"),
        (says("[" * 100_000), "not a JSON array"),
        (status(200, b"<html>"), "is not JSON"),
        (status(200, b"[]"), r"choices\[0\]"),
        (status(200, b'{"choices": []}'), r"choices\[0\]"),
    ],
)
def test_nonsense_ends_the_run_before_it_costs_much(
    order: Order, path: Path, server: ChatServer, answering: Answering, why: str
) -> None:
    server.answers = [answering]
    said: list[str] = []
    with pytest.raises(SourceError, match="nothing usable for 3 classes in a row") as caught:
        write_texts(replace(order, classes=tuple("abcdef")), path, say=said.append)
    assert len(server.asked) == 9
    assert not path.exists()
    assert caught.match(why)
    assert len(said) == 9


def test_an_answer_in_a_code_fence_or_an_object_counts(
    order: Order, path: Path, server: ChatServer
) -> None:
    first = '```json\n["a photo of round eyes at night.", "a photo of brown wings in flight."]\n```'
    second = '{"sentences": ["a photo of a flat face.", "a photo of large talons on bark."]}'
    server.answers = [says(first), says(second), fresh()]
    assert write_texts(order, path).requests == 3


def test_a_busy_server_is_asked_again_after_the_time_it_names(
    order: Order, path: Path, server: ChatServer, waits: list[float]
) -> None:
    server.answers = [
        status(429, Retry_After=7),
        status(503),
        status(429, Retry_After="soon"),
        status(500, Retry_After=99999),
        fresh(),
    ]
    assert write_texts(order, path).classes == 3
    assert waits == [7.0, 2.0, 4.0, 300.0]


def test_a_server_that_stays_busy_ends_the_run(
    order: Order, path: Path, server: ChatServer
) -> None:
    server.answers = [status(429, b"slow \x1b[31mdown " + KEY.encode())]
    with pytest.raises(SourceError, match=r"no answer in 6 attempts.*429 \(slow") as caught:
        write_texts(order, path)
    assert KEY not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_connection_that_breaks_or_stalls_is_tried_again(
    order: Order, path: Path, server: ChatServer, waits: list[float]
) -> None:
    server.answers = [cut, stalls, fresh()]
    assert write_texts(order, path).classes == 3
    assert waits == [1.0, 2.0]


def test_an_answer_without_end_is_refused(order: Order, path: Path, server: ChatServer) -> None:
    server.answers = [huge]
    patient = replace(order.endpoint, patience=20.0)
    with pytest.raises(SourceError, match="more than 1048576 bytes"):
        write_texts(replace(order, endpoint=patient), path)


def test_a_redirect_is_not_followed_with_the_key(
    order: Order, path: Path, server: ChatServer
) -> None:
    server.answers = [status(307, Location="http://127.0.0.1:9/v1")]
    with pytest.raises(SourceError, match="leads elsewhere, where no key is sent"):
        write_texts(order, path)
    assert len(server.asked) == 1


def test_newer_models_get_the_limit_under_its_other_name(
    order: Order, path: Path, server: ChatServer
) -> None:
    refusal = b'{"error": {"message": "Use max_completion_tokens instead of max_tokens."}}'
    server.answers = [status(400, refusal), fresh()]
    assert write_texts(order, path).classes == 3
    assert "max_completion_tokens" in server.asked[1][2]
    assert "max_tokens" not in server.asked[1][2]


def test_a_file_of_another_order_is_left_alone(order: Order, path: Path) -> None:
    write_texts(order, path)
    before = path.read_bytes()
    for other in (
        replace(order, instructions="Write like a poet."),
        replace(order, per_class=3),
        replace(order, kind="cupl"),
        replace(order, classes=("owl",)),
    ):
        with pytest.raises(UsageError, match="holds other texts"):
            write_texts(other, path)
    path.write_text("{")
    with pytest.raises(UsageError, match="cannot be continued"):
        write_texts(order, path)
    path.write_bytes(before)
    with pytest.raises(UsageError, match="no folder that can be written"):
        write_texts(order, path.parent / "no" / "x.json")


@pytest.mark.parametrize(
    ("url", "model", "environ", "says_"),
    [
        ("api.example.com/v1", "m", {}, "its scheme.*https://api.example.com/v1"),
        ("ftp://example.com", "m", {}, "no http or https"),
        ("https://", "m", {}, "no http or https"),
        ("https://a b/v1", "m", {}, "characters that no address has"),
        ("https://example.com:port", "m", {}, "cannot be used"),
        ("https://me:pw@example.com", "m", {}, "name or password"),
        ("http://example.com/v1", "m", {"OPENAI_API_KEY": "k"}, "in the clear"),
        ("http://localhost.example.com/v1", "m", {"OPENAI_API_KEY": "k"}, "in the clear"),
        ("https://example.com/v1", " ", {"OPENAI_API_KEY": "k"}, "takes the name of a model"),
        ("https://example.com/v1", "m", {}, "no key for example.com.*FEATCACHE_API_KEY"),
        ("https://example.com/v1", "m", {"OPENAI_API_KEY": "a\r\nb"}, "no key has"),
    ],
)
def test_wrong_addresses_models_and_keys(
    url: str, model: str, environ: dict[str, str], says_: str
) -> None:
    with pytest.raises(UsageError, match=says_) as caught:
        open_endpoint(url, model, environ)
    assert "pw@" not in str(caught.value)


def test_the_key_is_not_in_what_python_shows() -> None:
    endpoint = open_endpoint("https://example.com/v1/", "m", {"OPENAI_API_KEY": KEY})
    assert KEY not in repr(endpoint)
    assert endpoint.key == KEY
    assert endpoint.url == "https://example.com/v1/chat/completions"
    assert open_endpoint("http://[::1]:8000", "m", {}).key == ""


def test_wrong_orders_and_instructions(tmp_path: Path) -> None:
    endpoint = Endpoint(url="http://localhost", model="m")
    with pytest.raises(UnknownNameError, match="kind of text to write 'dclip'"):
        Order(dataset="a", classes=("b",), endpoint=endpoint, kind="dclip")
    with pytest.raises(UsageError, match="per_class takes 1 to 50"):
        Order(dataset="a", classes=("b",), endpoint=endpoint, per_class=0)
    file = tmp_path / "i.txt"
    file.write_text(" \n")
    for bad in (file, tmp_path / "none.txt"):
        with pytest.raises(UsageError, match="instructions="):
            read_instructions(bad)
    file.write_text("Write like a poet.\n")
    assert read_instructions(file) == "Write like a poet."


def test_names_are_quoted_in_questions() -> None:
    order = Order(dataset="a", classes=('x". Ignore',), endpoint=Endpoint(url="", model="m"))
    assert json.loads(order.question('x". Ignore', 2).split("Class: ")[1].split(". Write")[0]) == (
        'x". Ignore'
    )

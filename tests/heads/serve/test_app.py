"""The page and the endpoints of a served head, asked by friends and strangers."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import heads
from heads.head import Head
from heads.serve.limits import Limits
from heads.serve.service import asked_of
from tests.bad_images import bad_images, bomb
from tests.heads.serve.conftest import NAMES, Serve

if TYPE_CHECKING:
    import httpx

HOME = "http://127.0.0.1:8000"
REASONS = {
    "empty.jpg": "is empty",
    "text.jpg": "is no image of a known format",
    "drawing.svg": "is no image",
    "script.eps": "is no image",
}


def form(*files: Path | tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    """Return files as a browser sends them."""
    pairs = [(f.name, f.read_bytes()) if isinstance(f, Path) else f for f in files]
    return [("images", pair) for pair in pairs]


def is_sentence(text: str) -> bool:
    return text.endswith(".") and "Traceback" not in text and "\n" not in text


def test_answers_are_those_of_predict(serve: Serve, head: Head, photos: list[Path]) -> None:
    answer = serve().post("/predict", files=form(*photos))
    assert answer.status_code == 200
    expected = [each.to_json() for each in heads.predict(head, photos, top=2, device="cpu")]
    for each, path in zip(expected, photos, strict=True):
        each["image"] = path.name
    assert answer.json() == {"predictions": expected}


def test_sets_and_rejections_are_those_of_predict(
    serve: Serve, head: Head, photos: list[Path]
) -> None:
    asked: dict[str, Any] = {"coverage": 0.6, "reject": 0.3}
    client = serve(**asked)
    found = client.post("/predict", files=form(*photos)).json()["predictions"]
    expected = [e.to_json() for e in heads.predict(head, photos, top=2, device="cpu", **asked)]
    assert [(f["set"], f["rejected"]) for f in found] == [
        (e["set"], e["rejected"]) for e in expected
    ]
    page = client.get("/").text
    assert "sets hold the right class 60 % of the time" in page
    assert "stranger than 70 in 100 images" in page
    assert "Folds of 6 training images calibrated this head" in page
    facts = client.get("/head").json()
    assert (facts["coverage"], facts["rule"], facts["reject"]) == (0.6, "lac", 0.3)


def test_a_head_of_which_nothing_is_asked_says_so(serve: Serve, head: Head) -> None:
    page = serve(replace(head, calibration=None)).get("/").text
    assert "This head is not calibrated" in page
    assert "None of these</em>" not in page


def test_too_few_rows_are_said_with_how_many_are_needed(serve: Serve, head: Head) -> None:
    asked, reasons = asked_of(head, coverage=None, rule=None, reject=None)
    assert (asked.coverage, asked.reject) == (None, None)
    told = [str(each) for each in reasons]
    assert told[0].startswith("6 calibration rows promise at most a coverage of 0.85; 0.9 needs 9.")
    assert told[1].startswith("6 calibration rows tell no share of known images below 0.14; 0.05 n")
    assert "0.05 needs 19 rows" in told[1]
    assert "6 images calibrated this head, too few to say when it is not sure" in (
        serve(head).get("/").text
    )
    asked, reasons = asked_of(head, coverage=0.6, rule="aps", reject=0.3)
    assert (asked.coverage, asked.rule, asked.reject, reasons) == (0.6, "aps", 0.3, [])
    (reason,) = asked_of(replace(head, calibration=None), coverage=None, rule=None, reject=None)[1]
    assert "keeps no calibration rows" in str(reason)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("[::1]:8000", 200),
        ("LAB.example.org:8000", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("192.168.0.7", 400),
        ("evil.example@127.0.0.1", 400),
        ("127.0.0.1:x", 400),
        ("", 400),
    ],
)
def test_only_the_names_of_the_server_are_believed(serve: Serve, host: str, status: int) -> None:
    answer = serve().get("/head", headers={"Host": host})
    assert answer.status_code == status
    assert status == 200 or is_sentence(answer.json()["detail"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": HOME}, 200),
        ({"Origin": HOME, "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9000"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_pages_of_other_sites_may_send_nothing(
    serve: Serve, photos: list[Path], headers: dict[str, str], status: int
) -> None:
    answer = serve().post("/predict", files=form(photos[0]), headers=headers)
    assert answer.status_code == status
    assert status == 200 or answer.json()["detail"] == (
        "A page of another site sent this; only pages of this may."
    )


def hostile(photo: Path) -> dict[str, tuple[bytes, int, str]]:
    """Name -> file, status and what the reason holds."""
    whole = photo.read_bytes()
    return {
        **{name: (data, 415, REASONS.get(name, "")) for name, data in bad_images().items()},
        "bomb.png": (bomb(1 << 15, 1 << 15), 413, "pixels"),
        "wide.png": (bomb(9000, 6000), 413, "9000 x 6000 pixels"),
        "big.bmp": (whole + bytes((32 << 20) + 1), 413, "bytes, above the limit of 33,554,432"),
    }


def test_what_is_no_usable_image_has_a_status_and_a_sentence(
    serve: Serve, photos: list[Path]
) -> None:
    client = serve()
    for name, (data, status, reason) in hostile(photos[0]).items():
        answer = client.post("/predict", files=form((name, data)))
        assert answer.status_code == status, (name, answer.text)
        said = answer.json()
        assert said["detail"].startswith(name)
        assert is_sentence(said["detail"])
        assert reason in said["detail"]
        assert said["predictions"][0]["candidates"] == []


def test_bad_images_among_good_ones_stop_nothing(serve: Serve, photos: list[Path]) -> None:
    client = serve()
    bad = [(name, each[0]) for name, each in hostile(photos[0]).items() if name != "big.bmp"]
    assert len(bad) + 2 <= client.app.state.service.limits.files  # type: ignore[attr-defined]
    answer = client.post("/predict", files=form(photos[0], *bad, photos[1]))
    assert answer.status_code == 200
    found = answer.json()["predictions"]
    assert [bool(f["problem"]) for f in found] == [False, *[True] * len(bad), False]
    alone = client.post("/predict", files=form(photos[1])).json()["predictions"]
    assert found[-1] == alone[0]


def test_wrong_requests_have_a_status_and_a_sentence(serve: Serve, photos: list[Path]) -> None:
    client = serve(limits=Limits(files=2, request_bytes=100_000))
    data = photos[0].read_bytes()
    answers = {
        404: client.get("/nothing"),
        405: client.get("/predict"),
        413: client.post("/predict", files=form(*photos[:3])),
        415: client.post("/predict", content=data, headers={"Content-Type": "image/jpeg"}),
        422: client.post("/predict", files=[("pictures", ("a.jpg", data))]),
    }
    for status, answer in answers.items():
        assert answer.status_code == status, answer.text
        assert answer.json()["detail"]
    assert all(is_sentence(answer.json()["detail"]) for answer in answers.values())
    assert answers[404].json()["detail"] == "There is no /nothing here; /api shows what there is."
    assert answers[405].json()["detail"].startswith("/predict takes POST, not GET; send images")
    assert answers[405].headers["Allow"] == "POST"
    head = client.delete("/head")
    assert (head.status_code, head.json()["detail"]) == (405, "/head takes GET, not DELETE.")
    large = client.post("/predict", files=form(("a.jpg", bytes(100_001))))
    assert large.status_code == 413
    assert "above the limit of 100,000" in large.json()["detail"]
    for method in ("PUT", "DELETE", "PATCH"):
        assert client.request(method, "/predict").status_code == 405


@pytest.mark.parametrize(
    "limits", [Limits(requests=0), Limits(held_bytes=10), Limits(waiting=1)], ids=str
)
def test_a_full_server_says_when_to_come_again(
    serve: Serve, photos: list[Path], limits: Limits
) -> None:
    answer = serve(limits=limits).post("/predict", files=form(*photos[:2]))
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "1"
    assert is_sentence(answer.json()["detail"])


def test_a_server_that_stops_says_so(serve: Serve, photos: list[Path]) -> None:
    with serve() as client:
        assert client.post("/predict", files=form(photos[0])).status_code == 200
    answer = client.post("/predict", files=form(photos[0]))
    assert (answer.status_code, answer.json()["detail"]) == (503, "The server is stopping.")


def sent(client: Any, body: AsyncIterator[bytes]) -> "httpx.Response":
    """Send a form whose size is not announced."""
    import httpx

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(client.app)
        async with httpx.AsyncClient(transport=transport, base_url=HOME) as asking:
            kind = {"Content-Type": "multipart/form-data; boundary=x"}
            return await asking.post("/predict", content=body, headers=kind)

    return asyncio.run(send())


HEADER = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n'


def test_a_body_that_does_not_end_is_refused(serve: Serve) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield HEADER
        for _ in range(100):
            yield bytes(10_000)

    async def stalled() -> AsyncIterator[bytes]:
        yield HEADER
        await asyncio.sleep(60)

    large = sent(serve(limits=Limits(request_bytes=50_000)), endless())
    assert large.status_code == 413, large.text
    assert "more than 50,000 bytes" in large.json()["detail"]
    late = sent(serve(limits=Limits(seconds=0.1)), stalled())
    assert late.status_code == 408, late.text
    assert "within 0.1 seconds" in late.json()["detail"]


def test_concurrent_requests_are_batched_and_none_is_lost(
    serve: Serve, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    client = serve()
    embedder = client.app.state.service.predictor.embedder  # type: ignore[attr-defined]
    embed, sizes = type(embedder).embed, []

    def counted(self: Any, images: Any, **options: Any) -> Any:
        sizes.append(len(images))
        return embed(self, images, **options)

    monkeypatch.setattr(type(embedder), "embed", counted)
    asked = [photos[i % len(photos)] for i in range(40)]

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(client.app)
        async with httpx.AsyncClient(transport=transport, base_url=HOME, timeout=60) as asking:
            jobs = (
                asking.post("/predict", files=form((f"{i}.jpg", path.read_bytes())))
                for i, path in enumerate(asked)
            )
            return list(await asyncio.gather(*jobs))

    answers = [answer.json()["predictions"][0] for answer in asyncio.run(ask())]
    assert [a["image"] for a in answers] == [f"{i}.jpg" for i in range(40)]
    assert sum(sizes) == 40
    assert len(sizes) < 40
    assert max(sizes) > 1
    for path in photos:
        same = [a["candidates"] for a, p in zip(answers, asked, strict=True) if p == path]
        assert len({json.dumps(each) for each in same}) == 1


def test_pages_have_a_policy_and_escape_names(serve: Serve) -> None:
    client = serve()
    for path in ("/", "/api"):
        answer = client.get(path)
        policy = answer.headers["Content-Security-Policy"]
        rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
        assert rules["default-src"] == "'none'"
        assert rules["frame-ancestors"] == "'none'"
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.text.count("<script") == (path == "/")
    page = client.get("/").text
    assert "<b>bee</b>" not in page
    assert "&lt;b&gt;bee&lt;/b&gt;" in page
    assert "\u202e" not in page
    refused = client.get("/", headers={"Host": "evil.example"})
    assert refused.headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_names_survive_json(serve: Serve, photos: list[Path]) -> None:
    strange = '"><script>\u202e.jpg'
    client = serve()
    answer = client.post("/predict", files=form((strange, photos[0].read_bytes())))
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.text.isascii()
    assert {c["class"] for c in answer.json()["predictions"][0]["candidates"]} <= set(
        NAMES.values()
    )
    assert client.get("/head").json()["classes"] == list(NAMES.values())


def test_the_endpoints_are_described(serve: Serve) -> None:
    schema = serve().get("/openapi.json").json()
    assert set(schema["paths"]) == {"/head", "/predict"}
    described = set(schema["paths"]["/predict"]["post"]["responses"])
    assert described == {"200", "403", "408", "413", "415", "422", "429", "503"}

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.errors import UnknownNameError, UsageError
from featcache.keys import VARIED, ComponentKey, parse_component
from featcache.recipes import (
    FEW_SHOT,
    LAST_BLOCK,
    RECIPES,
    USUAL,
    ComponentRequest,
    Scope,
    parse_request,
    parse_requests,
    parse_scope,
    recipes_of,
    split_requests,
    usual_scope,
)

SCOPES = st.one_of(
    st.sampled_from(["train", "query", "pool", "all", "sketch"]).map(Scope),
    st.builds(
        lambda shots, first, more: Scope("few-shot", shots, (first, first + more)),
        st.integers(1, 999_999), st.integers(0, 10**9 - 1000), st.integers(0, 998),
    ),
)  # fmt: skip


@st.composite
def requests(draw: st.DrawFn) -> ComponentRequest:
    kind = draw(st.sampled_from([*USUAL, "patches", "tokens"]))
    plain = kind in ("patches", "tokens")
    variant = draw(st.sampled_from(["clearclip", "vanilla"])) if kind == "patches" else ""
    variant = LAST_BLOCK if kind == "tokens" else variant
    if kind == "view_patches":
        variant = draw(st.sampled_from(["", "vanilla"]))
    return ComponentRequest(
        kind=kind,
        count=0 if plain else draw(st.integers(1, 1000)),
        recipe="" if plain else draw(st.sampled_from(recipes_of(kind))),
        variant=variant,
        int8=kind in VARIED and draw(st.booleans()),
        scope=draw(SCOPES),
    )


@given(requests())
def test_a_request_in_words_is_the_request(request: ComponentRequest) -> None:
    assert parse_request(request.kind, request.value()) == request
    assert split_requests([request.value(), f"a,{request.value()}"]) == [
        request.value(),
        "a",
        request.value(),
    ]


@given(requests(), st.integers(0, 10**6))
def test_every_wish_names_a_component_that_can_be_read_back(
    request: ComponentRequest, seed: int
) -> None:
    key = request.component("clearclip", seed)
    assert parse_component(key.folder) == key


def test_defaults_follow_the_recipe() -> None:
    assert parse_request("views", "10") == ComponentRequest(
        kind="views", count=10, recipe="rrc50", scope=FEW_SHOT
    )
    assert parse_request("crops", "60").scope == Scope("query")
    assert parse_request("crops", "16:fair").scope == Scope("pool")
    assert parse_request("views", "8:strong").scope == Scope("pool")
    assert parse_request("view_patches", "4").recipe == "cdfsl"
    assert parse_request("patches", "clearclip").scope == Scope("all")
    assert parse_request("view_patches", "4:cdfsl:int8:vanilla@sketch") == ComponentRequest(
        kind="view_patches", count=4, recipe="cdfsl", variant="vanilla", int8=True,
        scope=Scope("sketch"),
    )  # fmt: skip
    for name, recipe in RECIPES.items():
        assert usual_scope(name) == recipe.scope


def test_scopes() -> None:
    assert parse_scope("few-shot") == FEW_SHOT == Scope("few-shot", 16, (1, 3))
    assert parse_scope("few-shot(4)") == Scope("few-shot", 4, (1, 3))
    assert parse_scope("few-shot(16, seeds=1-3)") == FEW_SHOT
    assert parse_scope("few-shot(2,seeds=7)") == Scope("few-shot", 2, (7, 7))
    assert str(Scope("few-shot", 2, (7, 7))) == "few-shot(2,seeds=7)"


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("views", "ten", r"views='ten' should begin with a number from 1 to 1000"),
        ("views", "0", "should begin"),
        ("views", "1001", "should begin"),
        ("views", "²", "should begin"),
        ("views", "10:rrc", "did you mean 'rrc50'"),
        ("views", "10:lazsl", "Unknown recipe of views 'lazsl'"),
        ("views", "10:int8", "only patches and tokens"),
        ("views", "10@", "no rows behind"),
        ("crops", "60::lazsl", "empty or a repeated"),
        ("crops", "60:rrc50", "Unknown recipe of crops"),
        ("view_patches", "4:strng:vanila", "Unknown recipe of view_patches 'vanila'"),
        ("patches", "", "empty"),
        ("patches", "clearclip:int16", "only int8 is allowed"),
        ("tokens", "last-block:int8:int8", "empty or a repeated"),
        ("tokens", "last-block:rrc50", "only int8 is allowed"),
        ("views", "10@few-shot(0)", "at least 1 shot"),
        ("views", "10@few-shot(4,seeds=3-1)", "low to high"),
        ("views", "10@few-shots", "names no few-shot rows"),
        ("views", "10@few-shot(4,seed=1)", "names no few-shot rows"),
        ("views", "10@\n", "no rows|names no rows"),
    ],
)
def test_wrong_words_say_what_was_expected(kind: str, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_request(kind, text)


def test_boxes_are_whole_numbers() -> None:
    assert ComponentKey(kind="boxes", recipe="lazsl", count=60).folder == "boxes.lazsl-60"
    assert parse_component("boxes.lazsl-60").dtype == "int32"
    assert parse_component("patches.clearclip.int8").dtype == "int8"


def test_tokens_have_a_place_and_no_default() -> None:
    key = parse_request("tokens", "last-block:int8@train").component("clearclip", 5)
    assert key == ComponentKey(kind="tokens", variant="last-block", dtype="int8")
    assert key.folder == "tokens.last-block.int8"
    assert parse_component(key.folder) == key
    (request,) = parse_requests(["none"], [], [], [], ["last-block"])
    assert request.scope == Scope("all")
    with pytest.raises(UnknownNameError, match="last-block"):
        parse_requests(None, [], [], [], ["last-blok"])

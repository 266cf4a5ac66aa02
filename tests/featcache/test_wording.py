"""Arguments, settings and calls are told in Python, and an error carries them as data."""

import pickle

import pytest

from featcache.errors import LONGEST, FeatcacheError, UnknownNameError, UsageError
from featcache.wording import Argument, Call, Part, Placeholder, Setting, in_python, named

CALL = Call("featcache.extract", {"dataset": "a b", "views": ["10", "4:cdfsl"]})


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("as it is", "as it is"),
        (Argument("shots"), "shots"),
        (Argument("selection", "cv"), "selection='cv'"),
        (Argument("shots", 4), "shots=4"),
        (Argument("templates", Placeholder("FILE")), "templates=FILE"),
        (Argument("root", of="heads"), "root"),
        (Setting("lr"), "lr"),
        (Setting("lr", "1e-4"), "lr=1e-4"),
        (Setting("text", "cupl"), "text='cupl'"),
        (Setting("alpha", "0.5,1"), "alpha='0.5,1'"),
        (CALL, "featcache.extract(dataset='a b', views=['10', '4:cdfsl'])"),
        (Call("heads.evaluate", {"lr": Setting("lr", "1e-4")}), "heads.evaluate(lr=1e-4)"),
        (["Use ", [Argument("a"), "."]], "Use a."),
        ((), ""),
    ],
)
def test_what_is_said_to_who_calls_functions(part: Part, said: str) -> None:
    assert in_python([part]) == said
    assert str(FeatcacheError(part)) == said


def test_an_error_carries_what_it_names() -> None:
    error = UsageError("Lower ", Argument("shots"), (", or: ", CALL))
    assert named(error.parts) == [Argument("shots"), CALL]
    assert error.suggestion == CALL
    assert UsageError("Nothing.").suggestion is None
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.suggestion) == (str(error), CALL)
    unknown = UnknownNameError("kind", "x", ["y"], ("Try ", CALL))
    assert str(unknown).endswith(f"known: y. Try {in_python([CALL])}")
    assert unknown.suggestion == CALL


def test_what_strangers_wrote_is_escaped_in_values_too() -> None:
    said = str(FeatcacheError("Use ", Argument("name", Placeholder("a\x1b[2J"))))
    assert said == "Use name=a\\x1b[2J"
    assert len(str(FeatcacheError("x" * LONGEST, Argument("y" * LONGEST)))) <= LONGEST

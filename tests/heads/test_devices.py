"""Everything of a method stays on the device of its rows: shown on fake tensors, without a GPU."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from heads import registry
from heads.contract.method import AnyMethod
from heads.contract.rows import Tensors
from heads.contract.settings import hyper_values, with_values
from heads.fitted import Fitted
from heads.methods import transclip
from heads.ops import torch_private
from heads.selection import scoring
from heads.selection.settings import configure
from heads.training import loop
from heads.training.trainer import train
from tests.heads.fakes import Put, run_faked
from tests.heads.toy_tasks import few, make_task, rich_world, variants

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::featcache.errors.ConvergenceWarning"),
]
ONCE = {"steps": 1, "epochs": 1, "steps_text": 1, "max_iter": 2, "every": 1}
"""Settings for one step of every stage, for the methods that have them."""
NUMPY = ({"solver": "pot"}, {"index": "faiss"})
Run = Callable[[Put], tuple[list[Fitted], list[Tensor]]]


FEATURES = rich_world()


GRADIENTS = loop._gradients


def trained(method: AnyMethod) -> bool:
    return bool(method.stages(method.config()))


@pytest.fixture(autouse=True)
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what fake tensors on CUDA cannot do, and rounds that only repeat others."""
    monkeypatch.delitem(torch_private._kernels, "sgd", raising=False)  # has no fake kernel
    monkeypatch.setattr(transclip, "ROUNDS", 1)
    monkeypatch.setattr(transclip, "SWEEPS", 1)
    if not torch.cuda.is_available():  # autograd asks the driver for a stream
        monkeypatch.setattr(loop, "_gradients", no_gradients)
        memory = SimpleNamespace(total_memory=2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)


def no_gradients(value: Tensor, leaves: Tensors) -> Tensors:
    return {name: torch.zeros_like(p) for name, p in leaves.items()}


def brief(method: AnyMethod, config: Any = None, width: int = 1) -> Run:
    """Return code that trains a method for a step, at `width` points, and answers the queries."""
    short = {name: value for name, value in ONCE.items() if hasattr(method.config(), name)}
    made = configure(method, short)
    config = replace(config or made.config, **short)
    task = make_task(FEATURES, method, config, class_weights="balanced")
    pool, everything = task.view.pool, slice(None)
    view = replace(
        task.view,
        support=task.view.support.take(everything),
        pool=None if pool is None else pool.take(everything),
    )
    query = task.query.take(everything)
    other = {name: 1.25 * value for name, value in hyper_values(made.hyper).items()}
    points = [made.hyper, with_values(made.hyper, other)][:width]

    def run(put: Put) -> tuple[list[Fitted], list[Tensor]]:
        here = replace(put(replace(view, text=None)), text=put(view.text, cpu=True))
        if view.last_block is not None:
            block = view.last_block()
            here = replace(here, last_block=lambda: put(block, cpu=True))
        rows = put(query)
        heads = [r.head for r in train(method, config, [here], points, width=width)]
        answers = [head.logits(rows) for head in heads]
        answers += [scoring.correct_on_grid(head, rows, few(made.post_grid)) for head in heads]
        return heads, answers

    return run


def check(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    heads, answers = run_faked(run, "cuda", monkeypatch)
    for head in heads:
        for name, tensor in (head.params | head.fixed).items():
            assert tensor.device.type == "cuda", name
    assert {t.device.type for t in answers} == {"cuda"}


@pytest.mark.parametrize("width", [1, 2], ids=["alone", "stacked"])
@pytest.mark.parametrize("name", [n for n in registry.names() if trained(registry.get(n))])
def test_a_whole_step_stays_on_the_device(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of every stage with its backward pass and update, on the device `meta`.

    Without a driver autograd refuses CUDA. To fake tensors `meta` is a device like any other: one
    left on the CPU meets others there as it would on CUDA.
    """
    monkeypatch.setattr(loop, "_gradients", GRADIENTS)
    build = torch.tensor

    def tensor(data: Any, *, device: Any = None, **kind: Any) -> Tensor:
        return build(data, **kind).to(device or "cpu")  # torch makes none that is fake on `meta`

    def new_tensor(like: Tensor, data: Any) -> Tensor:
        return tensor(data, dtype=like.dtype, device=like.device)

    monkeypatch.setattr(torch, "tensor", tensor)
    monkeypatch.setattr(Tensor, "new_tensor", new_tensor)
    heads, answers = run_faked(brief(registry.get(name), width=width), "meta", monkeypatch)
    tensors = [t for head in heads for t in (head.params | head.fixed).values()]
    assert {t.device.type for t in [*tensors, *answers]} == {"meta"}


def other_choices(method: AnyMethod) -> Iterator[tuple[Any, str]]:
    """Walk over what each setting can be beside its default, and what that is called.

    Not over kinds of text, which are all read alike, nor solvers that work in numpy.
    """
    default = method.config()
    for config in variants(method, FEATURES, together=False):
        changed = {
            field.name: value
            for field in fields(config)
            if (value := getattr(config, field.name)) != getattr(default, field.name)
        }
        if changed and "text" not in changed and changed not in NUMPY:
            if changed == {"augment": False}:  # cc-cdfsl's default looks at other views
                config = replace(config, retrieval="intra-image")
            yield config, ", ".join(f"{n}={v}" for n, v in changed.items())


@pytest.mark.parametrize("width", [1, 2], ids=["alone", "stacked"])
@pytest.mark.parametrize("name", registry.names())
def test_nothing_is_left_on_the_cpu(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check(brief(registry.get(name), width=width), monkeypatch)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        pytest.param(name, config, id=f"{name} {said}")
        for name in registry.names()
        for config, said in other_choices(registry.get(name))
    ],
)
def test_nor_is_it_by_any_other_choice(
    name: str, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(brief(registry.get(name), config), monkeypatch)


def test_a_tensor_left_on_the_cpu_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = registry.get("tip-adapter-f")

    def forgetful(*given: Any) -> Any:
        params, fixed = plain.prepare(*given)
        return params, fixed | {"labels": fixed["labels"].cpu()}

    def late(*given: Any) -> Tensor:
        logits = plain.combine(*given)
        bias: Tensor = logits + torch.ones(logits.shape[-1])
        return bias

    for wrong in (replace(plain, prepare=forgetful), replace(plain, combine=late)):
        with pytest.raises(Exception, match=r"device|labels"):
            check(brief(wrong), monkeypatch)

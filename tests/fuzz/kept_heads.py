"""Files of kept heads for the fuzzer: what is read is a head that answers, or is refused."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from featcache.errors import FeatcacheError
from featcache.store.format.tensor_header import peek
from tests.fuzz.cases import Case
from tests.fuzz.guard import Target


def toy_head(*, calibrated: bool = False) -> bytes:
    """Return the file of a small head, with or without a calibration by folds."""
    from heads.certainty.calibration import Calibration, part_of
    from heads.contract.rows import Rows, TaskView
    from heads.fitted import Fitted
    from heads.head import fitted_head
    from heads.head_file import pack
    from heads.methods.nearest_mean import METHOD

    shots = Rows.of(torch.eye(3), labels=torch.tensor([0, 1, 1]))
    task = TaskView(support=shots, pool=None, text=None, classes=("ant", "bee"), seed=1)
    config, hyper = METHOD.config(), METHOD.hyper()
    params, fixed = METHOD.prepare(task, config, hyper)
    fitted = Fitted(method=METHOD, config=config, hyper=hyper, params=params, fixed=fixed)
    head = fitted_head(fitted, ("ant", "bee"), width=3, about={"seed": 1})
    if not calibrated:
        return pack(head)
    logits, labels = fitted.logits(shots), torch.tensor([0, 1, 1])
    parts = (part_of(logits[:2], labels[:2], 1.0, head.fitted),) * 2
    return pack(replace(head, temperature=2.0, calibration=Calibration(parts=parts)))


def _head(folder: Path) -> None:
    from heads.head import Head

    try:
        head = Head.load(folder / "toy.head")
    except FeatcacheError:
        return
    assert head.logits(torch.eye(3)).shape == (3, len(head.classes))
    if head.calibration is not None:
        sets = head.sets(torch.eye(3), coverage=0.5)
        assert sets.shape == (3, len(head.classes))
        assert sets.any(1).all()


def _seeds(_: Path) -> list[Case]:
    return [{"toy.head": toy_head()}, {"toy.head": toy_head(calibrated=True)}]


def _lying_head(folder: Path) -> None:
    """Seal whatever stands there as a head, as somebody would who writes one by hand."""
    from featcache.store.format.tensors import compose, load
    from heads.results.overview import METADATA

    try:
        description = json.loads((folder / "description.json").read_bytes())
        tensors = load((folder / "toy.safetensors").read_bytes())
        data = compose(tensors, METADATA, description)
    except (ValueError, TypeError, RecursionError, OverflowError, SafetensorError):
        return  # nobody can write that
    (folder / "toy.head").write_bytes(data)
    with suppress(OSError, ValueError):
        peek(folder / "toy.head", METADATA)
    _head(folder)


def _lying_seeds(_: Path) -> list[Case]:
    from featcache.store.format.tensors import describe
    from heads.results.overview import METADATA

    data = toy_head()
    description, _whole = describe(data, METADATA)
    tensors = safetensors.torch.save(safetensors.torch.load(data))
    return [{"description.json": json.dumps(description).encode(), "toy.safetensors": tensors}]


HEAD_TARGETS = (
    Target(name="head", run=_head, seeds=_seeds),
    Target(name="head-sealed", run=_lying_head, seeds=_lying_seeds),
)

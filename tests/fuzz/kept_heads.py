"""Files of kept heads for the fuzzer: what is read is a head that answers, or is refused."""

from dataclasses import replace
from pathlib import Path

import torch

from featcache.errors import FeatcacheError
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


HEAD_TARGETS = (Target(name="head", run=_head, seeds=_seeds),)

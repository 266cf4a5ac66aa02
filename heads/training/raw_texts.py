"""Texts as the text tower gave them, for methods whose steps are measured against their length.

Imported texts are often unit vectors: their length is lost, another takes its place, and the record
of the run says so.
"""

from collections.abc import Sequence
from typing import Any

from heads.contract import TaskView, Tensors, Watched
from heads.ops.algebra import text_tensors


def raw_text_tensors(task: TaskView, text: str | None, length: float, *, method: str) -> Tensors:
    """Collect a task's texts as the text tower gave them: base [c d], scale, bias and text_factor.

    Args:
        task: The task.
        text: Kind of text; None is the data set's default.
        length: Of texts whose own is lost; CLIP's are about 10 long.
        method: Names the asker in the message.

    Raises:
        MissingComponentError: If the data set has no such texts.
    """
    known = text_tensors(task, text, method=method)
    assert task.text is not None
    factor = length if task.text.norms == "unit" else 1.0
    return {
        "base": task.text.raw_anchors(text).to(known["anchors"]) * factor,
        "scale": known["scale"],
        "bias": known["bias"],
        "text_factor": known["scale"].new_tensor(factor),
    }


def start_text_factor(params: Tensors, fixed: Tensors, config: Any, hyper: Any) -> Tensors:
    """Put into the record by what lost lengths of texts were replaced: the `start` of a stage."""
    return {"text_factor": fixed["text_factor"]}


def note_text_factor(watched: Sequence[Watched]) -> list[str]:
    """Say so where the lengths of the texts were lost."""
    factors = {w["text_factor"][0] for w in watched if w.get("text_factor")} - {1.0}
    return [
        f"The class texts came as unit vectors; they were taken {factor:g} times as long."
        for factor in sorted(factors)
    ]
